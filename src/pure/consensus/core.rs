//! A node's whole agreement with the others, as one value: [`Input`] in, [`Output`]s out.
//!
//! Runs on a thread of its own in production and in a queue in the simulator. Outputs are carried
//! out in order; an [`Output::Keep`] must be durable before the outputs behind it, an
//! [`Output::Write`] is answered by [`Input::Persisted`] when it is durable, and the messages that
//! depend on it are held back here until then.
//!
//! The rest of the `impl` lives beside this file: `outside` (before there is a group), `inside`
//! (Raft and what was applied), `holder` (the lease from below), `arbiter` (the lease from above)
//! and `membership`.
use std::collections::BTreeMap;

use raft::eraftpb::Message;
use serde::{Deserialize, Serialize};

use super::arbiter::{Arbitration, LeaderSeen};
use super::founding::{Founding, FoundingRecord};
use super::group::{ELECTION_TICKS, Group, LogWrite};
use super::log::MemoryLog;
use super::message::{FoundingStatus, Greeting, PeerMessage};
use super::trust::Book;
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::lease::Holder;
use crate::pure::cluster::state::{ClusterState, CopyId, Member};
use crate::pure::cluster::{Millis, RaftId};
use crate::pure::config::Dynamic;
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::sync_names::waited_for;
use crate::pure::view::Heard;

/// Raft's ticks between two wakings of the node: what a tick decides is rarely due, and waking is
/// what an idle node spends its time on.
const TICKS_AT_ONCE: u64 = 2;

/// What a node sits down with.
pub struct Options {
    pub id: RaftId,
    pub member: Member,
    /// Configured addresses of the others.
    pub partners: Vec<String>,
    pub voters_max: usize,
    /// The ttl that counts before there is a configuration (from `bootstrap.dcs`).
    pub ttl_ms: Millis,
    /// Rng, as a value.
    pub seed: u64,
    pub founding_record: FoundingRecord,
    /// The log as it was on disk, if this node was ever in a group.
    pub log: Option<MemoryLog>,
    pub now: Millis,
}

/// Everything that can happen to a node's consensus.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// About [`Core::tick_every`] has passed.
    Tick,
    /// A peer's greeting arrived or changed; we are connected to it.
    Greeted(Greeting),
    /// The connection to an address was lost.
    Gone {
        addr: String,
        id: RaftId,
    },
    Raft {
        from: RaftId,
        message: Box<Message>,
    },
    Peer {
        from: RaftId,
        message: PeerMessage,
    },
    /// The write of this number, and all before it, are durable.
    Persisted {
        number: u64,
    },
    /// The latest word about this node itself.
    Local(Box<Facts>),
    /// Put a command into the log; answered by a receipt with this ticket.
    Propose {
        ticket: u64,
        command: Command,
    },
    /// Ask a member for facts that are fresh; they come with the next view.
    AskMember {
        id: RaftId,
    },
    /// Make this node a learner before it stops; answered by a receipt with this ticket.
    GiveUpVote {
        ticket: u64,
    },
}

/// What the host must do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    SendRaft {
        addr: String,
        message: Box<Message>,
    },
    SendPeer {
        addr: String,
        message: PeerMessage,
    },
    /// Durable before anything behind it.
    Keep(FoundingRecord),
    Write(LogWrite),
    /// Until when PostgreSQL may write under this epoch, earlier or later than before; `None`: not at all.
    /// Where the guard is bound to it, [`Core::guard_is_bound`] says so.
    Deadline {
        epoch: u64,
        deadline: Option<Millis>,
    },
    Receipt {
        ticket: u64,
        outcome: Result<Outcome, String>,
    },
    /// Ask PostgreSQL now and come back with facts that carry this round.
    AskFresh {
        round: u64,
    },
    /// Our greeting changed.
    Greeting(FoundingStatus),
    /// Addresses to keep connections to.
    Targets(Vec<String>),
    /// The view changed in a way that somebody may wait for.
    Changed,
    /// One sentence for the log, for people.
    Told(String),
    /// An entry or a snapshot that this version does not know: nothing is applied any more, and the
    /// process must end with this sentence. Its guard ends PostgreSQL with the lease.
    Halt(String),
}

/// A proposal as it stands in a log entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    pub origin: RaftId,
    pub ticket: u64,
    pub command: Command,
}

pub struct Core {
    pub(super) id: RaftId,
    pub(super) member: Member,
    pub(super) partners: Vec<String>,
    pub(super) voters_max: usize,
    pub(super) seed: u64,
    pub(super) founding: Option<Founding>,
    pub(super) founding_record: FoundingRecord,
    pub(super) group: Option<Group>,
    pub(super) cluster: ClusterState,
    pub(super) dynamic: Dynamic,
    pub(super) dynamic_version: Option<u64>,
    pub(super) first_ttl_ms: Millis,
    pub(super) greetings: BTreeMap<RaftId, Greeting>,
    /// When each sent its last Raft message: a connection outlives the one at its other end.
    pub(super) answered: BTreeMap<RaftId, Millis>,
    pub(super) heard: BTreeMap<RaftId, Heard>,
    pub(super) own: Facts,
    pub(super) asked_by: Option<(RaftId, u64)>,
    pub(super) holder: Option<Holder>,
    /// The newest of our leases whose end we have asked for.
    pub(super) relinquished_epoch: Option<u64>,
    /// Epoch, number and ttl of our last word that another ttl counts, and when it was said.
    pub(super) proposed_ttl: Option<((u64, u64, Millis), Millis)>,
    pub(super) arbitration: Option<Arbitration>,
    pub(super) leader_seen: LeaderSeen,
    pub(super) arbiter_seen: RaftId,
    pub(super) quorum_at: Millis,
    /// The wall clock as it was last told; for people only.
    pub(super) wall: String,
    /// When this node saw the last failure to create the cluster.
    pub(super) failure_seen_at: Option<Millis>,
    pub(super) leaving: Option<u64>,
    pub(super) leave_asked_at: Millis,
    pub(super) member_told_at: Option<Millis>,
    pub(super) targets: Vec<String>,
    /// The books of members, as they told them.
    pub(super) books: BTreeMap<RaftId, Book>,
    /// The index at which `targets` was worked out.
    pub(super) targets_of: Option<u64>,
    /// Outside: whom we asked to be let in, and why we were not.
    pub(super) asked: Option<String>,
    pub(super) refused: Option<String>,
    /// The last Raft message that was not let in, and why.
    pub(super) rejected_message: Option<String>,
    /// Entries up to here were committed in an earlier life: applying them again is no news.
    pub(super) replayed_to: u64,
    /// Why this node has stopped to apply what is agreed on.
    pub(super) halted: Option<String>,
    pub(super) out: Vec<Output>,
    pub(super) now: Millis,
}

impl Core {
    pub fn new(seat: Options) -> Core {
        let founding = Founding::new(
            seat.id,
            seat.member.clone(),
            &seat.partners,
            seat.founding_record.clone(),
            seat.now,
            seat.seed,
        );
        let mut core = Core {
            id: seat.id,
            member: seat.member,
            partners: seat.partners,
            voters_max: seat.voters_max,
            seed: seat.seed,
            founding: Some(founding),
            founding_record: seat.founding_record,
            group: None,
            cluster: ClusterState::default(),
            dynamic: Dynamic::from_value(None),
            dynamic_version: None,
            first_ttl_ms: seat.ttl_ms,
            greetings: BTreeMap::new(),
            answered: BTreeMap::new(),
            heard: BTreeMap::new(),
            own: Facts { raft_id: seat.id, ..Facts::default() },
            asked_by: None,
            holder: None,
            relinquished_epoch: None,
            proposed_ttl: None,
            arbitration: None,
            leader_seen: LeaderSeen::default(),
            arbiter_seen: 0,
            quorum_at: 0,
            wall: String::new(),
            failure_seen_at: None,
            leaving: None,
            leave_asked_at: 0,
            member_told_at: None,
            targets: Vec::new(),
            books: BTreeMap::new(),
            targets_of: None,
            asked: None,
            refused: None,
            rejected_message: None,
            replayed_to: 0,
            halted: None,
            out: Vec::new(),
            now: seat.now,
        };
        if let Some(log) = seat.log {
            core.restore(log);
        }
        core.update_targets();
        core
    }

    /// The wall clock, for the texts that people read; decides nothing.
    pub fn set_wall(&mut self, wall: String) {
        self.wall = wall;
    }

    /// Tells the core one thing. What it wants done comes back in order.
    pub fn handle(&mut self, now: Millis, input: Input) -> Vec<Output> {
        self.now = self.now.max(now);
        if self.halted.is_some() {
            return std::mem::take(&mut self.out);
        }
        match input {
            Input::Tick => self.tick(),
            Input::Greeted(greeting) => self.greeted(greeting),
            Input::Gone { addr, id } => self.gone(&addr, id),
            Input::Raft { from, message } => self.raft_message(from, *message),
            Input::Peer { from, message } => self.peer_message(from, message),
            Input::Persisted { number } => self.persisted(number),
            Input::Local(facts) => self.local(*facts),
            Input::Propose { ticket, command } => self.propose(ticket, command),
            Input::AskMember { id } => self.say(id, PeerMessage::Ask { round: self.now }),
            Input::GiveUpVote { ticket } => self.give_up_vote(ticket),
        }
        self.settle();
        std::mem::take(&mut self.out)
    }

    /// Time between two [`Input::Tick`], in ms: elections and heartbeats scale with the ttl in force.
    /// An election (ten to twenty of Raft's ticks) must fit into what the holder has left of its
    /// lease when the arbiter dies.
    pub fn tick_every(&self) -> Millis {
        TICKS_AT_ONCE * (self.ttl_ms() / 50).clamp(40, 250)
    }

    /// Whoever answers does so within this, in ms: a leader's heartbeats are less than half as far apart.
    pub(super) fn answer_ms_max(&self) -> Millis {
        ELECTION_TICKS as u64 * self.tick_every() / TICKS_AT_ONCE
    }

    /// The ttl in force: the lease's, else the configuration's, else the file's.
    pub fn ttl_ms(&self) -> Millis {
        match (&self.cluster.lease, &self.cluster.config) {
            (Some(lease), _) => lease.ttl_ms,
            (None, Some(_)) => self.dynamic.ttl_ms,
            (None, None) => self.first_ttl_ms,
        }
    }

    pub fn id(&self) -> RaftId {
        self.id
    }

    pub fn cluster(&self) -> &ClusterState {
        &self.cluster
    }

    pub fn dynamic(&self) -> &Dynamic {
        &self.dynamic
    }

    pub fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// Addresses to keep connections to.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// The latest facts of every member that was heard; our own included.
    pub fn heard(&self) -> &BTreeMap<RaftId, Heard> {
        &self.heard
    }

    pub fn founding_record(&self) -> &FoundingRecord {
        &self.founding_record
    }

    /// Settled arbiter only: the lease in force and until when (own clock) it must be respected. Before, a
    /// longer ttl may be in its log that it has not applied yet, and it declares no lease over.
    pub fn lease_not_before(&self) -> Option<(u64, Millis)> {
        self.group.as_ref().filter(|group| group.is_settled_leader())?;
        let (arbitration, lease) = (self.arbitration.as_ref()?, self.cluster.lease.as_ref()?);
        Some((lease.epoch, arbitration.lease.not_before(lease.epoch, lease.ttl_ms)))
    }

    /// The deadline of our own lease, if we hold one that is alive, and know what was agreed on under it.
    pub fn live_lease(&self, now: Millis) -> Option<(u64, Millis)> {
        let caught_up_at = self.holder.as_ref()?.caught_up_at?;
        self.write_deadline(now).filter(|_| self.cluster.applied >= caught_up_at)
    }

    /// The same, whatever is known: until then writes may be acknowledged.
    pub fn write_deadline(&self, now: Millis) -> Option<(u64, Millis)> {
        let holder = self.holder.as_ref().filter(|h| h.is_live(now))?;
        Some((holder.epoch, holder.deadline?))
    }

    fn tick(&mut self) {
        let stuck = self.disk_is_stuck();
        if let Some(group) = &mut self.group {
            (0..TICKS_AT_ONCE).for_each(|_| group.tick(stuck));
        }
    }

    /// A write that takes longer than this is no longer just slow.
    fn disk_is_stuck(&self) -> bool {
        let bound = (2 * self.ttl_ms()).max(5000);
        let since = self.group.as_ref().and_then(Group::stuck_since);
        since.is_some_and(|since| self.now > since + bound)
    }

    fn greeted(&mut self, greeting: Greeting) {
        if greeting.id == self.id {
            return;
        }
        if let Some(founding) = &mut self.founding {
            founding.greeted(greeting.clone());
        }
        self.turn_away(&greeting);
        self.resend_genesis(&greeting);
        if self.own.serial > 0 {
            // Whoever just came knows nothing of us yet.
            let message = PeerMessage::Facts(Box::new(self.own.clone()));
            self.out.push(Output::SendPeer { addr: greeting.addr.clone(), message });
        }
        if self.group.is_some() {
            let message = PeerMessage::Book(self.book());
            self.out.push(Output::SendPeer { addr: greeting.addr.clone(), message });
        }
        self.greetings.retain(|id, old| old.addr != greeting.addr || *id == greeting.id);
        self.greetings.insert(greeting.id, greeting);
        self.out.push(Output::Changed);
    }

    fn gone(&mut self, addr: &str, id: RaftId) {
        if let Some(founding) = &mut self.founding {
            founding.gone(addr);
        }
        self.greetings.remove(&id);
        self.answered.remove(&id);
        if let Some(group) = &mut self.group {
            group.unreachable(id);
        }
        self.out.push(Output::Changed);
    }

    fn local(&mut self, facts: Facts) {
        let waits = self.waits(&facts);
        if !facts.leaving {
            // A daemon that died while it stopped resumes giving its vote up, and then hears that it stays.
            self.leaving = None;
        }
        self.own = Facts { raft_id: self.id, leaving: self.leaving.is_some(), ..facts };
        if let (Some(sql), Some(waits)) = (&mut self.own.sql, waits) {
            (sql.waits_since, sql.waits_for) = waits;
        }
        let own = self.own.clone();
        self.hear(own.clone());
        match self.asked_by.filter(|(_, round)| own.round == *round) {
            Some((arbiter, _)) => {
                self.asked_by = None;
                self.say(arbiter, PeerMessage::Facts(Box::new(own)));
            }
            None => self.say_to_all(PeerMessage::Facts(Box::new(own))),
        }
    }

    /// Since when (in WAL) this primary waits for the synchronous standbys that it names, and for which
    /// copies: of one that was made anew it is not known what it was when it was waited for before.
    fn waits(&self, now: &Facts) -> Option<(Lsn, BTreeMap<String, CopyId>)> {
        let sql = now.sql.as_ref().filter(|sql| !sql.in_recovery)?;
        let named = waited_for(&sql.synchronous_standby_names);
        let facts = self.heard.values().map(|heard| &heard.facts);
        let named = facts.filter(|facts| named.contains(&facts.name));
        let copies: BTreeMap<String, CopyId> =
            named.map(|facts| (facts.name.clone(), facts.copy)).collect();
        let same = self.own.sql.as_ref().filter(|old| {
            !old.in_recovery
                && old.synchronous_standby_names == sql.synchronous_standby_names
                && old.postmaster_start_time == sql.postmaster_start_time
                && old.waits_for == copies
        });
        Some((same.map_or(sql.flush_lsn, |old| old.waits_since), copies))
    }

    pub(super) fn hear(&mut self, facts: Facts) {
        let known = self.heard.get(&facts.raft_id);
        let older = known.is_some_and(|k| k.facts.serial > facts.serial && facts.serial != 0);
        let lived = known.is_some_and(|k| self.now < k.heard_at + 60_000);
        if older && lived && facts.raft_id == self.id {
            return;
        }
        self.note_position(&facts);
        // Whoever has lost its state directory comes back under another id: what its old self said is over.
        let (id, greetings) = (facts.raft_id, &self.greetings);
        let is_over = |other: &RaftId| *other != id && !greetings.contains_key(other);
        self.heard.retain(|other, old| old.facts.name != facts.name || !is_over(other));
        self.heard.insert(facts.raft_id, Heard { facts, heard_at: self.now });
        self.out.push(Output::Changed);
    }

    pub(super) fn addr_of(&self, id: RaftId) -> Option<String> {
        let greeted = self.greetings.get(&id).map(|g| g.addr.clone());
        greeted.or_else(|| self.cluster.members.get(&id).map(|m| m.raft_addr.clone()))
    }

    pub(super) fn say(&mut self, to: RaftId, message: PeerMessage) {
        if let Some(addr) = self.addr_of(to) {
            self.out.push(Output::SendPeer { addr, message });
        }
    }

    pub(super) fn say_to_all(&mut self, message: PeerMessage) {
        let addrs: Vec<String> = self.greetings.values().map(|g| g.addr.clone()).collect();
        for addr in addrs {
            self.out.push(Output::SendPeer { addr, message: message.clone() });
        }
    }

    pub(super) fn tell(&mut self, sentence: impl Into<String>) {
        self.out.push(Output::Told(sentence.into()));
    }

    /// What every change may have made due.
    fn settle(&mut self) {
        self.outside();
        self.drain();
        if self.halted.is_some() {
            return;
        }
        self.hold_lease();
        self.arbitrate();
        self.keep_membership();
        self.drain();
        self.update_targets();
    }

    /// Members change with what is applied, and with nothing else.
    fn update_targets(&mut self) {
        if self.targets_of == Some(self.cluster.applied) {
            return;
        }
        self.targets_of = Some(self.cluster.applied);
        let mut targets = self.partners.clone();
        targets.extend(self.cluster.members.values().map(|m| m.raft_addr.clone()));
        targets.extend(self.vouched().map(|(_, addr)| addr.clone()));
        targets.retain(|addr| *addr != self.member.raft_addr);
        targets.sort();
        targets.dedup();
        if targets != self.targets {
            self.targets = targets.clone();
            self.out.push(Output::Targets(targets));
            if self.group.is_some() {
                self.say_to_all(PeerMessage::Book(self.book()));
            }
        }
    }
}
