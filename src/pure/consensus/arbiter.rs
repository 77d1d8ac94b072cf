//! The lease from above: the Raft leader confirms renewals, sees the lease run out, and decides who
//! is next. A decision is one entry: the grant, its epoch, and a verdict per member.
use std::collections::{BTreeMap, BTreeSet};

use super::core::{Core, Output};
use super::message::PeerMessage;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::eligibility::{Candidate, Election, LastLeader};
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::lease::{Arbiter, Nonce};
use crate::pure::cluster::rank::rank;
use crate::pure::cluster::state::{Decision, Initialize, Lease, Purpose};
use crate::pure::cluster::timelines::Timelines;
use crate::pure::cluster::{Millis, RaftId};
use crate::pure::postgres::history::Switch;
use crate::pure::postgres::lsn::Lsn;
use crate::pure::view::Heard;

/// How long fresh positions are waited for: doubled while somebody does not answer, up to the most. A
/// PostgreSQL under load answers, but not at once.
const ASK_MS: Millis = 400;
const ASK_MS_MAX: Millis = 6400;
/// A decision without a winner is taken again after this long, or when a fact changed.
const AGAIN_MS: Millis = 1000;
/// A proposal that was not applied is repeated after this long.
const REPEAT_MS: Millis = 1000;
/// Beats in flight at most; a holder sends a few per ttl.
const RENEWALS_MAX: usize = 256;

/// What exists only while this node is the arbiter.
pub struct Arbitration {
    term: u64,
    pub lease: Arbiter,
    renewals: BTreeMap<Vec<u8>, Renew>,
    /// Rounds that a majority confirmed, until the entries before them are applied here too.
    confirmed: Vec<(u64, Vec<u8>)>,
    next_context: u64,
    round: u64,
    asking: Option<Asking>,
    ask_ms: Millis,
    proposed_at: Option<Millis>,
    last_outcome: Option<(String, Millis)>,
    pub transfer_at: Millis,
    pub membership_at: Millis,
    /// Who asked to give up its vote, and when it could not yet be spared.
    pub leaving: BTreeMap<RaftId, Millis>,
}

/// How far a leader was heard to be, and the newest timeline that anybody was heard on.
#[derive(Default)]
pub struct LeaderSeen {
    /// Of the lease that it held.
    epoch: u64,
    optime: Lsn,
    /// The timeline of that position.
    on: u32,
    timeline: u32,
    /// What that timeline left, and where.
    left: Option<Switch>,
}

struct Renew {
    from: RaftId,
    epoch: u64,
    serial: u64,
    nonce: Nonce,
}

struct Asking {
    round: u64,
    until: Millis,
    waits_for: BTreeSet<RaftId>,
    /// Who has answered: whatever they said since is newer still.
    answered: BTreeSet<RaftId>,
}

impl Arbitration {
    fn new(term: u64, now: Millis) -> Arbitration {
        Arbitration {
            term,
            lease: Arbiter::new(now),
            renewals: BTreeMap::new(),
            confirmed: Vec::new(),
            next_context: 0,
            round: now,
            asking: None,
            ask_ms: ASK_MS,
            proposed_at: None,
            last_outcome: None,
            transfer_at: now,
            membership_at: now,
            leaving: BTreeMap::new(),
        }
    }

    /// Of a round that nobody else has.
    pub fn fresh_context(&mut self) -> Vec<u8> {
        self.next_context += 1;
        context_of(self.term, self.next_context)
    }
}

impl Core {
    /// Notices that we became the arbiter, or stopped being one.
    pub(super) fn watch_arbiter(&mut self) {
        let Some(group) = &self.group else { return };
        let (leads, term, leader) = (group.is_leader(), group.term(), group.leader());
        if leader != self.arbiter_seen {
            self.arbiter_seen = leader;
            if let Some(holder) = &mut self.holder {
                holder.last_sent = None; // the new arbiter must hear of us at once
            }
            self.out.push(Output::Changed);
        }
        if !leads {
            self.arbitration = None;
        } else if self.arbitration.as_ref().is_none_or(|a| a.term != term) {
            self.arbitration = Some(Arbitration::new(term, self.now));
            self.tell(format!("is the arbiter of term {term}"));
            // What was heard before our log knew whose the lease is.
            let known: Vec<Facts> = self.heard.values().map(|h| h.facts.clone()).collect();
            known.iter().for_each(|facts| self.note_position(facts));
        }
    }

    /// Remembers how far the holder was seen, for judging lag when it is gone. Whoever was the arbiter may be gone
    /// with it, and by the time that another is, the holder may answer as a standby already.
    pub(super) fn note_position(&mut self, facts: &Facts) {
        let Some(sql) = &facts.sql else { return };
        if self.cluster.only_follows(&self.dynamic) {
            // What was written here before it followed another cluster binds nobody any more.
            self.leader_seen = LeaderSeen::default();
            return;
        }
        let seen = &mut self.leader_seen;
        seen.timeline = seen.timeline.max(sql.timeline);
        let lease = self.cluster.lease.as_ref().filter(|lease| lease.holder == facts.raft_id);
        if let Some(lease) = lease.filter(|_| !sql.in_recovery) {
            // What an earlier leader wrote beyond this one's beginning is given up.
            let before = if seen.epoch == lease.epoch { seen.optime } else { Lsn(0) };
            (seen.epoch, seen.optime) = (lease.epoch, before.max(sql.flush_lsn));
            (seen.on, seen.left) = (sql.timeline, sql.left);
        }
    }

    pub(super) fn renewal(&mut self, from: RaftId, (epoch, serial, nonce): (u64, u64, Nonce)) {
        let settled = self.group.as_ref().is_some_and(|g| g.is_settled_leader());
        if !settled || !self.lease_is(from, epoch) {
            return;
        }
        let Some(arbitration) = &mut self.arbitration else { return };
        if arbitration.renewals.len() >= RENEWALS_MAX {
            arbitration.renewals.pop_first();
        }
        let context = arbitration.fresh_context();
        arbitration.renewals.insert(context.clone(), Renew { from, epoch, serial, nonce });
        if let Some(group) = &mut self.group {
            group.read_index(context);
        }
    }

    fn lease_is(&self, holder: RaftId, epoch: u64) -> bool {
        self.cluster.lease.as_ref().is_some_and(|l| l.holder == holder && l.epoch == epoch)
    }

    /// A majority confirmed us in a round that began after this renewal arrived. While our own disk
    /// is slow, entries may be committed by the others before they are applied here: the answer
    /// waits for them, because one of them may be about this very lease.
    pub(super) fn renewal_confirmed(&mut self, index: u64, context: Vec<u8>) {
        if let Some(arbitration) = &mut self.arbitration {
            arbitration.confirmed.push((index, context));
        }
        self.answer_confirmed();
    }

    /// Answers the renewals whose round is confirmed and whose entries are applied.
    pub(super) fn answer_confirmed(&mut self) {
        let applied = self.cluster.applied;
        let Some(arbitration) = &mut self.arbitration else { return };
        let waiting = std::mem::take(&mut arbitration.confirmed);
        let (ready, waiting) = waiting.into_iter().partition(|(index, _)| *index <= applied);
        arbitration.confirmed = waiting;
        let ready: Vec<(u64, Vec<u8>)> = ready;
        for (_, context) in ready {
            self.answer_renewal(&context);
        }
    }

    fn answer_renewal(&mut self, context: &[u8]) {
        let Some(arbitration) = &mut self.arbitration else { return };
        let Some(renewal) = arbitration.renewals.remove(context) else { return };
        let Some(lease) = self.cluster.lease.clone() else { return };
        if lease.holder != renewal.from || lease.epoch != renewal.epoch {
            return;
        }
        if !arbitration.lease.confirm(self.now, renewal.epoch) {
            return;
        }
        self.quorum_at = self.now;
        let (epoch, serial, nonce) = (renewal.epoch, renewal.serial, renewal.nonce);
        let applied = self.cluster.applied;
        let ttl_ms = Some(lease.counted_ms());
        if renewal.from == self.id {
            self.renewal_answered((epoch, serial, nonce), applied, ttl_ms);
        } else {
            let answer = PeerMessage::RenewAck { epoch, serial, applied, nonce, ttl_ms };
            self.say(renewal.from, answer);
        }
    }

    /// One look at the lease; called after everything that happens.
    pub(super) fn arbitrate(&mut self) {
        if self.arbitration.is_none() {
            return;
        }
        if self.group.as_ref().is_some_and(|g| g.hears_majority()) {
            self.quorum_at = self.now;
        }
        if !self.group.as_ref().is_some_and(|g| g.is_settled_leader()) {
            return;
        }
        match (self.cluster.lease.clone(), &self.cluster.initialize) {
            (Some(lease), _) => self.watch_lease(&lease),
            (None, Initialize::Absent) => self.choose_creator(),
            (None, Initialize::Done { .. }) => self.choose_leader(),
        }
    }

    fn watch_lease(&mut self, lease: &Lease) {
        let now = self.now;
        let Some(arbitration) = &mut self.arbitration else { return };
        arbitration.asking = None;
        arbitration.ask_ms = ASK_MS;
        arbitration.last_outcome = None;
        let over_at = arbitration.lease.not_before(lease.epoch, lease.ttl_ms);
        if now < over_at {
            arbitration.proposed_at = None;
            return;
        }
        if arbitration.proposed_at.is_some_and(|at| now < at + REPEAT_MS) {
            return;
        }
        arbitration.proposed_at = Some(now);
        arbitration.lease.ending = Some(lease.epoch);
        let name = self.cluster.name_of(lease.holder).unwrap_or("the holder");
        let reason = format!("{name} was not heard for {} ms", lease.ttl_ms);
        self.put(Command::LeaseOver { epoch: lease.epoch, reason });
    }

    /// May something be proposed now? Then it is remembered that it was.
    fn may_propose(&mut self) -> bool {
        let now = self.now;
        let Some(arbitration) = &mut self.arbitration else { return false };
        let may = arbitration.proposed_at.is_none_or(|at| now >= at + REPEAT_MS);
        if may {
            arbitration.proposed_at = Some(now);
        }
        may
    }

    pub(super) fn grant(
        &mut self,
        holder: RaftId,
        ttl_ms: Millis,
        purpose: Purpose,
        decision: Decision,
    ) {
        if !self.may_propose() {
            return;
        }
        let epoch = self.cluster.epoch + 1;
        let now = self.now;
        if let Some(arbitration) = &mut self.arbitration {
            arbitration.lease.confirm(now, epoch);
            arbitration.asking = None;
        }
        // What only follows begins no timeline; the one for its promotion is set aside then.
        let follows = self.cluster.standby.is_some();
        let timeline = if follows { 0 } else { self.unused_timeline() };
        let copy = self.heard.get(&holder).map(|heard| heard.facts.copy);
        self.put(Command::Grant { epoch, holder, ttl_ms, purpose, decision, timeline, copy });
    }

    /// Newer than any that was heard of, and than any that an earlier leader may have begun.
    fn unused_timeline(&self) -> u32 {
        let heard = self.leader_seen.timeline;
        let own = |h: &Heard| h.facts.sql.as_ref().map_or(0, |sql| sql.timeline);
        let newest = self.heard.values().map(own).max().unwrap_or(0);
        heard.max(newest).max(self.cluster.timeline) + 1
    }

    // ---- the cluster exists and nobody leads

    fn choose_leader(&mut self) {
        if self.arbitration.as_ref().is_some_and(|a| {
            a.proposed_at.is_some_and(|at| self.now < at + REPEAT_MS)
                && a.lease.ending.is_none_or(|e| e != self.cluster.epoch)
        }) {
            return; // a grant is under way
        }
        if !self.collected() {
            return;
        }
        let (winner, decision) = self.decide();
        if let Some(arbitration) = &mut self.arbitration {
            arbitration.asking = None;
            arbitration.proposed_at = None;
        }
        match winner {
            None => self.nobody(decision),
            Some(holder) => self.grant(holder, self.dynamic.ttl_ms, Purpose::Lead, decision),
        }
    }

    /// Fresh positions of all connected members are there, or were waited for long enough.
    fn collected(&mut self) -> bool {
        let now = self.now;
        let reachable: BTreeSet<RaftId> = self
            .cluster
            .members
            .iter()
            .filter(|(id, m)| !m.witness && (self.greetings.contains_key(id) || **id == self.id))
            .map(|(id, _)| *id)
            .collect();
        let Some(arbitration) = &mut self.arbitration else { return false };
        let Some(asking) = &mut arbitration.asking else {
            let rests =
                arbitration.last_outcome.as_ref().is_some_and(|(_, at)| now < at + AGAIN_MS);
            if !rests {
                self.ask(reachable);
            }
            return false;
        };
        let round = asking.round;
        let answers = self.heard.iter().filter(|(_, heard)| heard.facts.round == round);
        asking.answered.extend(answers.map(|(id, _)| *id));
        asking.waits_for.retain(|id| reachable.contains(id) && !asking.answered.contains(id));
        let (all, late) = (asking.waits_for.is_empty(), now >= asking.until);
        arbitration.ask_ms = match (all, late) {
            (true, _) => ASK_MS,
            (false, true) => (2 * arbitration.ask_ms).min(ASK_MS_MAX),
            (false, false) => arbitration.ask_ms,
        };
        all || late
    }

    fn ask(&mut self, reachable: BTreeSet<RaftId>) {
        let Some(arbitration) = &mut self.arbitration else { return };
        arbitration.round += 1;
        let round = arbitration.round;
        let asks = reachable.clone();
        arbitration.asking = Some(Asking {
            round,
            until: self.now + arbitration.ask_ms,
            waits_for: reachable,
            answered: BTreeSet::new(),
        });
        for id in asks {
            if id == self.id {
                self.asked_by = None;
                self.out.push(Output::AskFresh { round });
            } else {
                self.say(id, PeerMessage::Ask { round });
            }
        }
    }

    fn decide(&self) -> (Option<RaftId>, Decision) {
        let arbitration = self.arbitration.as_ref().expect("only the arbiter decides");
        let answered = arbitration.asking.as_ref().map(|asking| &asking.answered);
        let fresh = |id: &RaftId| {
            self.heard
                .get(id)
                .map(|h| &h.facts)
                .filter(|_| answered.is_some_and(|a| a.contains(id)))
        };
        let candidates: Vec<Candidate> = self
            .cluster
            .members
            .iter()
            .map(|(id, member)| Candidate { id: *id, member, fresh: fresh(id) })
            .collect();
        let wanted = self.cluster.order_in_force().and_then(|f| f.candidate.as_deref());
        let wanted = wanted
            .filter(|name| candidates.iter().any(|c| c.member.name == *name && c.fresh.is_some()));
        let timelines = self.last_leader().timelines(&self.cluster);
        let (winner, verdicts) = rank(&self.election(&timelines, wanted), &candidates);
        let name = winner.and_then(|id| self.cluster.name_of(id)).map(str::to_string);
        let mut reason = String::from(match (&name, wanted) {
            (None, _) => "no member may lead",
            (Some(name), Some(wanted)) if name == wanted => "named by the operator",
            (Some(_), _) => "the lease was free",
        });
        let idle = self.cluster.failover.as_ref().and_then(|f| f.candidate.as_deref());
        let why = idle.and_then(|named| Some((named, self.cluster.idle_order_to(named)?)));
        if let Some((named, why)) = why {
            reason.push_str(&format!("; the order to {named} did not count: {why}"));
        }
        let decision = Decision {
            epoch: self.cluster.epoch + 1,
            winner: name,
            reason,
            verdicts,
            at: self.wall.clone(),
        };
        (winner, decision)
    }

    /// Could another member take over from us, who hold the lease and do not write? By what was last heard: the
    /// arbiter asks anew.
    pub fn another_can_lead(&self) -> bool {
        let holds = self.cluster.lease.as_ref().is_some_and(|lease| lease.holder == self.id);
        let own = self.heard.get(&self.id).and_then(|heard| heard.facts.sql.as_ref());
        if !holds || own.is_some_and(|sql| !sql.in_recovery) {
            return false;
        }
        let others = self.cluster.members.iter().filter(|(id, _)| **id != self.id);
        let candidates: Vec<Candidate> = others
            .map(|(id, member)| Candidate { id: *id, member, fresh: self.recent(*id) })
            .collect();
        let timelines = self.last_leader().timelines(&self.cluster);
        rank(&self.election(&timelines, None), &candidates).0.is_some()
    }

    fn election<'a>(&'a self, timelines: &'a Timelines, wanted: Option<&'a str>) -> Election<'a> {
        let request = self.cluster.failover.as_ref();
        Election {
            cluster: &self.cluster,
            dynamic: &self.dynamic,
            timelines,
            optime: self.last_leader().optime(&self.cluster, timelines),
            timeline: self.leader_seen.timeline.max(self.cluster.status.timeline),
            wanted,
            forced: wanted.is_some() && request.is_some_and(|request| request.leader.is_none()),
            leader_runs: false,
        }
    }

    fn last_leader(&self) -> LastLeader {
        let seen = &self.leader_seen;
        LastLeader { on: seen.on, at: seen.optime, left: seen.left }
    }

    /// Nobody is eligible: an entry, but only when it says something new.
    pub(super) fn nobody(&mut self, decision: Decision) {
        let said: String =
            decision.verdicts.iter().map(|v| format!("{} {}; ", v.member, v.rule)).collect();
        let now = self.now;
        let Some(arbitration) = &mut self.arbitration else { return };
        let repeats = arbitration.last_outcome.as_ref().is_some_and(|(old, _)| *old == said);
        let rests = arbitration.last_outcome.as_ref().is_some_and(|(_, at)| now < at + AGAIN_MS);
        if repeats && rests {
            return;
        }
        arbitration.last_outcome = Some((said.clone(), now));
        let known = self.cluster.decisions.last().is_some_and(|d| {
            d.winner.is_none()
                && said
                    == d.verdicts
                        .iter()
                        .map(|v| format!("{} {}; ", v.member, v.rule))
                        .collect::<String>()
        });
        if !repeats && !known {
            self.put(Command::NobodyEligible { decision });
        }
    }

    /// A member's latest facts, if they are not too old to mean anything.
    pub(super) fn recent(&self, id: RaftId) -> Option<&Facts> {
        let bound = (3 * self.dynamic.loop_wait_ms).max(10_000);
        let heard = self.heard.get(&id).filter(|h| self.now <= h.heard_at + bound)?;
        let connected = id == self.id || self.greetings.contains_key(&id);
        connected.then_some(&heard.facts)
    }
}

fn context_of(term: u64, number: u64) -> Vec<u8> {
    [term.to_be_bytes(), number.to_be_bytes()].concat()
}
