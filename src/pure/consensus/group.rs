//! One raft-rs node as a value: what to write, what to send, what was committed.
//!
//! The order that matters (raft-rs, `RawNode::ready`): entries and hard state are written, and
//! only after [`Group::persisted`] may messages leave that promise they are. Three refinements:
//! - a leader's appends leave before its own write ends (Raft thesis 10.2.1), unless the write
//!   also carries a new term or vote: then everything waits;
//! - a follower's heartbeat answers do not wait for pending *entries*, only for a pending term or
//!   vote: a slow disk must not look like a dead node (`safety.md`, Raft);
//! - while a write is stuck, a node neither campaigns nor, after a bound, stays leader.
use std::collections::{BTreeMap, VecDeque};

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType, Snapshot,
};
use raft::{Config, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

use super::log::{MemoryLog, SNAPSHOT_EVERY};
use super::message_filter;
use crate::pure::cluster::state::Member;
use crate::pure::cluster::{Millis, RaftId};
use crate::pure::random;

/// Ticks between a leader's heartbeats.
const HEARTBEAT_TICKS: usize = 4;
/// Ticks without a leader before an election; the draw adds up to as many again.
pub const ELECTION_TICKS: usize = 10;

/// Ticks after which a snapshot that was sent and not acknowledged is sent again.
const SNAPSHOT_TICKS: u64 = 60;

/// What must be made durable before [`Group::persisted`] is called with its number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogWrite {
    pub number: u64,
    pub snapshot: Option<Vec<u8>>,
    /// (index, term, bytes); everything at or after the first index is replaced.
    pub entries: Vec<(u64, u64, Vec<u8>)>,
    pub hard_state: Option<Vec<u8>>,
    /// Entries before this index are no longer needed.
    pub compact_to: Option<u64>,
}

/// What came out of one round.
#[derive(Default)]
pub struct Round {
    pub messages: Vec<Message>,
    pub writes: Vec<LogWrite>,
    pub committed: Vec<Entry>,
    /// A snapshot from the leader replaced everything; comes before `committed`.
    pub installed: Option<Vec<u8>>,
    /// Contexts of renewals that a majority confirmed, with the index to be applied first.
    pub confirmed: Vec<(u64, Vec<u8>)>,
}

/// What waits for a write.
struct Pending {
    number: u64,
    since: Millis,
    wrote: bool,
    /// A term or vote is in it.
    vote: bool,
    /// The index of a snapshot that the leader sent.
    snapshot: Option<u64>,
    messages: Vec<Message>,
}

pub struct Group {
    raw: RawNode<MemoryLog>,
    pending: VecDeque<Pending>,
    seed: u64,
    ticks: u64,
    /// Since which tick each peer is waited for to install a snapshot.
    installing: BTreeMap<RaftId, u64>,
}

impl Group {
    /// A node as it was on disk; `seed` replaces raft-rs's own rng.
    pub fn new(id: RaftId, log: MemoryLog, applied: u64, seed: u64) -> Group {
        let config = Config {
            id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: ELECTION_TICKS,
            max_election_tick: 2 * ELECTION_TICKS,
            applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config, log, &logger).expect("the configuration above is valid");
        let mut group =
            Group { raw, pending: VecDeque::new(), seed, ticks: 0, installing: BTreeMap::new() };
        group.draw_election_timeout();
        group
    }

    pub fn id(&self) -> RaftId {
        self.raw.raft.id
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Leader that has applied everything committed before its own term began.
    pub fn is_settled_leader(&self) -> bool {
        self.is_leader() && self.raw.raft.apply_to_current_term()
    }

    pub fn leader(&self) -> RaftId {
        self.raw.raft.leader_id
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub fn role(&self) -> &'static str {
        match self.raw.raft.state {
            StateRole::Leader => "leader",
            StateRole::Follower => "follower",
            StateRole::Candidate => "candidate",
            StateRole::PreCandidate => "pre_candidate",
        }
    }

    pub fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub fn log(&self) -> &MemoryLog {
        self.raw.store()
    }

    pub fn conf_state(&self) -> ConfState {
        self.raw.raft.prs().conf().to_conf_state()
    }

    pub fn voters(&self) -> Vec<RaftId> {
        let mut voters = self.conf_state().voters;
        voters.sort_unstable();
        voters
    }

    pub fn learners(&self) -> Vec<RaftId> {
        let conf = self.conf_state();
        let mut learners = conf.learners;
        learners.extend(conf.learners_next);
        learners.sort_unstable();
        learners
    }

    pub fn has_pending_conf(&self) -> bool {
        self.raw.raft.has_pending_conf() || !self.conf_state().voters_outgoing.is_empty()
    }

    /// How far a peer has replicated, and whether it was heard lately; leader only.
    pub fn progress(&self, id: RaftId) -> Option<(u64, bool)> {
        let progress = self.raw.raft.prs().get(id).filter(|_| self.is_leader())?;
        Some((progress.matched, progress.recent_active))
    }

    pub fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// A majority of voters was heard in the current check-quorum window; leader only.
    pub fn hears_majority(&self) -> bool {
        let voters = self.voters();
        let heard = voters
            .iter()
            .filter(|v| **v == self.id() || self.progress(**v).is_some_and(|(_, recent)| recent));
        self.is_leader() && heard.count() * 2 > voters.len()
    }

    /// Since when the oldest unfinished write waits for the disk.
    pub fn stuck_since(&self) -> Option<Millis> {
        self.pending.iter().find(|p| p.wrote).map(|p| p.since)
    }

    pub fn tick(&mut self, disk_is_stuck: bool) {
        self.ticks += 1;
        // Between a snapshot's arrival and its write there is no log to campaign with; and a voter
        // that is alone would lead at once.
        let installs = self.pending.iter().any(|p| p.snapshot.is_some());
        let too_early = self.voters().len() == 1 && message_filter::is_unwritten(&self.raw.raft);
        if self.is_leader() || !(disk_is_stuck || installs || too_early) {
            self.raw.tick();
        }
        self.repeat_snapshots();
        self.draw_election_timeout();
    }

    /// raft-rs waits for ever for the answer to a snapshot unless it is told that it was lost.
    fn repeat_snapshots(&mut self) {
        let waiting = |p: &raft::Progress| p.state == raft::ProgressState::Snapshot;
        let now: Vec<RaftId> = match self.is_leader() {
            true => {
                self.raw.raft.prs().iter().filter(|(_, p)| waiting(p)).map(|(id, _)| *id).collect()
            }
            false => Vec::new(),
        };
        self.installing.retain(|id, _| now.contains(id));
        for id in now {
            let since = *self.installing.entry(id).or_insert(self.ticks);
            if self.ticks >= since + SNAPSHOT_TICKS {
                self.installing.remove(&id);
                self.raw.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }

    /// # Errors
    /// Why the message was not believed; then nothing happened.
    pub fn step(&mut self, message: Message) -> Result<(), String> {
        if let Some(rejection) = message_filter::rejection(&self.raw.raft, &message) {
            return Err(rejection);
        }
        // Errors here are about messages that do not concern us (unknown peers, no leader).
        let _ = self.raw.step(message);
        self.draw_election_timeout();
        Ok(())
    }

    pub fn propose(&mut self, data: Vec<u8>) -> bool {
        self.raw.propose(Vec::new(), data).is_ok()
    }

    pub fn propose_membership(
        &mut self,
        kind: ConfChangeType,
        id: RaftId,
        context: Vec<u8>,
    ) -> bool {
        let mut single = ConfChangeSingle::default();
        single.set_change_type(kind);
        single.node_id = id;
        let mut change = ConfChangeV2::default();
        change.set_changes(vec![single].into());
        change.set_context(context.into());
        self.raw.propose_conf_change(Vec::new(), change).is_ok()
    }

    /// Applies a committed membership change; its context, if it was one that changed something.
    pub fn apply_membership(&mut self, entry: &Entry) -> Option<(ConfChangeV2, Vec<u8>)> {
        let change = change_of(entry).ok()?;
        let conf = self.raw.apply_conf_change(&change).ok()?;
        self.raw.mut_store().conf_state = conf;
        self.draw_election_timeout();
        let context = change.get_context().to_vec();
        Some((change, context))
    }

    pub fn read_index(&mut self, context: Vec<u8>) {
        self.raw.read_index(context);
    }

    pub fn transfer_to(&mut self, id: RaftId) {
        self.raw.transfer_leader(id);
    }

    /// Stands for election now instead of after a timeout.
    pub fn campaign(&mut self) {
        let _ = self.raw.campaign();
        self.draw_election_timeout();
    }

    pub fn step_down(&mut self) {
        let term = self.term();
        self.raw.raft.become_follower(term, raft::INVALID_ID);
        self.draw_election_timeout();
    }

    pub fn unreachable(&mut self, id: RaftId) {
        self.raw.report_unreachable(id);
        self.raw.report_snapshot(id, SnapshotStatus::Failure); // one may have been on its way
    }

    /// Everything that is ready, in the order in which it must be handled.
    pub fn round(&mut self, now: Millis) -> Round {
        let mut round = Round::default();
        while self.raw.has_ready() {
            self.one_ready(now, &mut round);
        }
        round
    }

    fn one_ready(&mut self, now: Millis, round: &mut Round) {
        let mut ready = self.raw.ready();
        let number = ready.number();
        let write = write_of(&ready, &self.raw.store().hard_state);
        let snapshot = ready.snapshot().get_metadata().index;
        let snapshot = (!ready.snapshot().is_empty()).then_some(snapshot);
        let vote = ready.hs().is_some() && ready.must_sync() && {
            let old = &self.raw.store().hard_state;
            ready.hs().is_some_and(|hs| hs.term != old.term || hs.vote != old.vote)
        };
        self.keep(&ready, round);
        let now_messages = ready.take_messages();
        let later_messages = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        round
            .confirmed
            .extend(ready.take_read_states().into_iter().map(|r| (r.index, r.request_ctx)));
        self.raw.advance_append_async(ready);
        self.hold(now, number, write, (vote, snapshot), now_messages, later_messages, round);
        if let Some(last) = committed.last().map(|entry| entry.index) {
            round.committed.extend(committed);
            self.raw.advance_apply_to(last);
        }
    }

    /// Puts a Ready's content where raft-rs reads it back from.
    fn keep(&mut self, ready: &raft::Ready, round: &mut Round) {
        let store = self.raw.mut_store();
        if !ready.snapshot().is_empty() {
            round.committed.clear();
            round.installed = Some(ready.snapshot().data.to_vec());
            store.install(ready.snapshot().clone());
        }
        store.append(ready.entries());
        if let Some(hs) = ready.hs() {
            store.hard_state = hs.clone();
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn hold(
        &mut self,
        now: Millis,
        number: u64,
        write: Option<LogWrite>,
        (vote, snapshot): (bool, Option<u64>),
        at_once: Vec<Message>,
        later: Vec<Message>,
        round: &mut Round,
    ) {
        let vote_pending = vote || self.pending.iter().any(|p| p.vote);
        let mut held = Vec::new();
        for message in at_once {
            if vote_pending { held.push(message) } else { round.messages.push(message) }
        }
        for message in later {
            let alive = message.get_msg_type() == MessageType::MsgHeartbeatResponse;
            if alive && !vote_pending { round.messages.push(message) } else { held.push(message) }
        }
        let wrote = write.is_some();
        round.writes.extend(write);
        if !wrote && self.pending.is_empty() {
            round.messages.extend(held);
            self.raw.on_persist_ready(number);
        } else {
            let since = now;
            let messages = held;
            self.pending.push_back(Pending { number, since, wrote, vote, snapshot, messages });
        }
    }

    /// The write of this number, and all before it, are durable: what waited for them may leave.
    pub fn persisted(&mut self, number: u64) -> Vec<Message> {
        let mut messages = Vec::new();
        let (mut last, mut installed) = (None, None);
        while let Some(front) = self.pending.front() {
            if front.number > number && front.wrote {
                break;
            }
            let front = self.pending.pop_front().expect("it was just looked at");
            last = Some(front.number);
            installed = front.snapshot.or(installed);
            messages.extend(front.messages);
        }
        if let Some(number) = last {
            self.raw.on_persist_ready(number);
        }
        // raft-rs does not take a snapshot for applied by itself, and looks for its entries else.
        if let Some(index) = installed.filter(|index| *index > self.raw.raft.raft_log.applied) {
            self.raw.advance_apply_to(index);
        }
        messages
    }

    /// A snapshot of the applied state, when the log has grown enough; to be written down.
    pub fn compact(&mut self, applied: u64, state: impl FnOnce() -> Vec<u8>) -> Option<LogWrite> {
        let log = self.raw.store();
        let since = applied.saturating_sub(log.snapshot.get_metadata().index);
        let due = since >= SNAPSHOT_EVERY || (since > 0 && log.snapshot_is_wanted());
        if !due || !self.pending.is_empty() {
            return None;
        }
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = applied;
        meta.term = raft::Storage::term(log, applied).ok()?;
        meta.set_conf_state(log.conf_state.clone());
        snapshot.data = state().into();
        let bytes = snapshot.write_to_bytes().ok()?;
        let compact_to = self.raw.mut_store().compact(snapshot);
        Some(LogWrite {
            snapshot: Some(bytes),
            compact_to: Some(compact_to),
            ..LogWrite::default()
        })
    }

    /// raft-rs draws from the thread's rng on every reset; ours replaces its draw each time.
    /// A function of seed, term, role and the time spent, so that a run can be repeated and two
    /// nodes that collided do not collide for ever.
    fn draw_election_timeout(&mut self) {
        let role = self.raw.raft.state as u64;
        let mut rng = self.seed ^ (self.term() << 20) ^ (role << 16) ^ (self.ticks / 32);
        let extra = (random::next(&mut rng) % ELECTION_TICKS as u64) as usize;
        self.raw.raft.set_randomized_election_timeout(ELECTION_TICKS + extra);
    }
}

/// What of a Ready has to be on disk. That only the commit index moved is learned again from the
/// leader, and goes along with the next write; but who votes must be known without anybody: of
/// the last voter that restarts alone, nobody else is there to say that it is one.
fn write_of(ready: &raft::Ready, known: &HardState) -> Option<LogWrite> {
    let moves_votes = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
    if !ready.must_sync() && !ready.committed_entries().iter().any(moves_votes) {
        return None;
    }
    let bytes = |m: &dyn protobuf::Message| m.write_to_bytes().expect("it fits into memory");
    Some(LogWrite {
        number: ready.number(),
        snapshot: (!ready.snapshot().is_empty()).then(|| bytes(ready.snapshot())),
        entries: ready.entries().iter().map(|e| (e.index, e.term, bytes(e))).collect(),
        hard_state: Some(bytes(ready.hs().unwrap_or(known))),
        compact_to: None,
    })
}

/// The hard state that goes with [`Genesis::snapshot`](super::message::Genesis::snapshot).
pub fn genesis_hard_state() -> HardState {
    HardState { term: 1, commit: 1, ..HardState::default() }
}

/// A normal entry's data, if it has any (a leader's first entry has none).
pub fn payload(entry: &Entry) -> Option<&[u8]> {
    let normal = entry.get_entry_type() == EntryType::EntryNormal;
    (normal && !entry.data.is_empty()).then_some(&entry.data[..])
}

/// The membership change in an entry of that type.
///
/// # Errors
/// It cannot be read, or says more about a new member than is known here.
pub fn change_of(entry: &Entry) -> Result<ConfChangeV2, String> {
    let mut change = ConfChangeV2::default();
    change.merge_from_bytes(&entry.data).map_err(|error| error.to_string())?;
    if !change.get_context().is_empty() {
        let member: Result<Member, _> = serde_json::from_slice(change.get_context());
        member.map_err(|error| error.to_string())?;
    }
    Ok(change)
}
