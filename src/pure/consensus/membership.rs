//! Who votes: the arbiter lets in, promotes, demotes and removes, one simple change at a time.
use raft::eraftpb::ConfChangeType;

use super::core::Core;
use super::message::PeerMessage;
use crate::pure::cluster::state::{Member, Purpose};
use crate::pure::cluster::{Millis, RaftId};
use crate::pure::postgres::slot::{share_a_name, unfit_name};

/// Entries a learner may be behind and still become a voter.
const CAUGHT_UP: u64 = 20;
/// Time between two steps of housekeeping.
const STEP_MS: Millis = 300;
/// A lease this young is left alone by changes of the arbiter.
const TRANSFER_REST_MS: Millis = 3000;

impl Core {
    /// A node outside asks to be let in: pass it on, or decide.
    pub(super) fn asked_to_join(&mut self, id: RaftId, member: Member) {
        let Some(group) = &self.group else { return };
        let arbiter = group.leader();
        // Who is asked may be the only one that the node outside is connected to.
        if let Some(reason) = self.name_is_taken(id, &member) {
            self.say_once(&reason);
            self.say(id, PeerMessage::JoinRefused { reason });
            return;
        }
        if arbiter != self.id {
            if arbiter != 0 {
                self.say(arbiter, PeerMessage::Join { id, member });
            }
            return;
        }
        if group.has_pending_conf() || self.cluster.members.contains_key(&id) {
            return;
        }
        let context = serde_json::to_vec(&member).expect("a member is plain data");
        self.change(ConfChangeType::AddLearnerNode, id, context);
    }

    /// A member of this name, or of one that PostgreSQL cannot tell from it, counts. Who comes back to
    /// the address of one that is not connected has lost its state directory, and takes its place.
    fn name_is_taken(&self, id: RaftId, member: &Member) -> Option<String> {
        if let Some(why) = unfit_name(&member.name) {
            return Some(format!("the name {} {why}", member.name));
        }
        let returns = |other: RaftId, known: &Member| {
            let alive = other == self.id || self.greetings.contains_key(&other);
            known.name == member.name && known.raft_addr == member.raft_addr && !alive
        };
        let (other, known) = self.cluster.members.iter().find(|(other, known)| {
            **other != id && share_a_name(&known.name, &member.name) && !returns(**other, known)
        })?;
        let (name, addr) = (&known.name, &known.raft_addr);
        let says = match (*name == member.name, self.answers(*other) || self.is_reachable(*other)) {
            (true, true) => format!("a node named {name} is already running at {addr}"),
            (true, false) => format!(
                "the member {name} at {addr} still counts (if it is lost for good, `surus ctl members \
                 remove {name}`)"
            ),
            (false, _) => format!("PostgreSQL cannot tell {} from the member {name}", member.name),
        };
        Some(format!(
            "{says}: the node at {} is not let in; give it another name",
            member.raft_addr
        ))
    }

    pub(super) fn asked_to_leave(&mut self, id: RaftId) {
        if let Some(heard) = self.heard.get_mut(&id) {
            heard.facts.leaving = true; // until its next life speaks: it shall not vote again
        }
        let Some(group) = &self.group else { return };
        if !group.is_leader() {
            return;
        }
        let voters = group.voters();
        let busy = group.has_pending_conf() || group.is_transferring();
        if busy || voters.len() < 2 || !voters.contains(&id) {
            return;
        }
        if !self.can_spare(id, &voters) {
            self.ask_who_remains(id);
            return;
        }
        if id == self.id {
            self.hand_arbitration_over();
        } else {
            self.change(ConfChangeType::AddLearnerNode, id, Vec::new());
        }
    }

    /// Whoever remains must answer after the request; the request is looked at again with every answer.
    fn ask_who_remains(&mut self, id: RaftId) {
        let now = self.now;
        let Some(arbitration) = &mut self.arbitration else { return };
        if arbitration.leaving.contains_key(&id) {
            return;
        }
        arbitration.leaving.insert(id, now);
        let context = arbitration.fresh_context();
        if let Some(group) = &mut self.group {
            group.read_index(context);
        }
    }

    fn check_leave_requests(&mut self) {
        let Some(arbitration) = &mut self.arbitration else { return };
        let (voters, heard) = (self.group.as_ref().map(|g| g.voters()), &self.heard);
        let leaves = |id: &RaftId| heard.get(id).is_some_and(|heard| heard.facts.leaving);
        let votes = |id: &RaftId| voters.as_ref().is_some_and(|voters| voters.contains(id));
        arbitration.leaving.retain(|id, _| votes(id) && leaves(id));
        let waiting: Vec<RaftId> = arbitration.leaving.keys().copied().collect();
        waiting.into_iter().for_each(|id| self.asked_to_leave(id));
    }

    /// The other voters that answer are a majority of those that would be left. Else the vote is
    /// kept: with a voter that never comes back (its state directory is lost), whoever stops would
    /// leave a group behind that can decide nothing any more, not even to take it back.
    fn can_spare(&self, id: RaftId, voters: &[RaftId]) -> bool {
        let others = || voters.iter().filter(|other| **other != id);
        let since = self.arbitration.as_ref().and_then(|a| a.leaving.get(&id)).copied();
        let answers = |other: &RaftId| {
            let after = since.is_some_and(|since| self.answered.get(other) > Some(&since));
            *other == self.id || after && self.answers(*other)
        };
        others().filter(|other| answers(other)).count() * 2 > others().count()
    }

    pub(super) fn change(&mut self, kind: ConfChangeType, id: RaftId, context: Vec<u8>) {
        if let Some(group) = &mut self.group {
            group.propose_membership(kind, id, context);
        }
    }

    /// Housekeeping of the arbiter, and our own repeated requests.
    pub(super) fn keep_membership(&mut self) {
        self.repeat_requests();
        self.check_leave_requests();
        let now = self.now;
        let settled = self.group.as_ref().is_some_and(|g| g.is_settled_leader());
        let Some(arbitration) = &mut self.arbitration else { return };
        if !settled || now < arbitration.membership_at + STEP_MS {
            return;
        }
        arbitration.membership_at = now;
        let busy = self.group.as_ref().is_some_and(|g| g.has_pending_conf() || g.is_transferring());
        if busy || self.carry_out_removal() || self.remove_forgotten() || self.promote_learner() {
            return;
        }
        self.transfer_away_from_holder();
        self.step_down_when_disk_stuck();
    }

    /// A member whose state directory is gone came back under a new id: its old self goes.
    fn remove_forgotten(&mut self) -> bool {
        let Some(group) = &self.group else { return false };
        let (voters, learners) = (group.voters(), group.learners());
        let known: Vec<RaftId> = voters.iter().chain(&learners).copied().collect();
        let forgotten = known.iter().find(|id| **id != self.id && self.is_forgotten(**id)).copied();
        let Some(id) = forgotten else { return false };
        let holds = self.cluster.lease.as_ref().is_some_and(|l| l.holder == id);
        let rest = voters.iter().filter(|v| **v != id && self.answers(**v)).count();
        let rest_is_majority = rest * 2 > voters.iter().filter(|v| **v != id).count();
        if holds || !rest_is_majority {
            return false;
        }
        self.tell(format!("removes {id:016x}, whose state directory is gone"));
        self.change(ConfChangeType::RemoveNode, id, Vec::new());
        true
    }

    /// Not only connected: a connection ends long after the host at its other end.
    pub(super) fn answers(&self, id: RaftId) -> bool {
        let lately = |at: &Millis| self.now <= at + self.answer_ms_max();
        id == self.id || self.is_reachable(id) && self.answered.get(&id).is_some_and(lately)
    }

    fn is_reachable(&self, id: RaftId) -> bool {
        id == self.id || self.greetings.contains_key(&id)
    }

    /// Another id answers under this one's name and address.
    fn is_forgotten(&self, id: RaftId) -> bool {
        let Some(member) = self.cluster.members.get(&id) else { return true };
        !self.greetings.contains_key(&id)
            && self.cluster.members.iter().any(|(other, m)| {
                *other != id && m.name == member.name && self.is_reachable(*other)
            })
    }

    fn promote_learner(&mut self) -> bool {
        let Some(group) = &self.group else { return false };
        if group.voters().len() >= self.voters_max {
            return false;
        }
        let last = group.log().last().0;
        let ready = group.learners().into_iter().find(|id| {
            let caught_up = group
                .progress(*id)
                .is_some_and(|(at, recent)| recent && at > 0 && at + CAUGHT_UP >= last);
            let stays = self.cluster.members.get(id).is_some_and(|m| !m.left);
            let leaves = self.heard.get(id).is_some_and(|h| h.facts.leaving);
            caught_up && stays && !leaves && self.is_reachable(*id)
        });
        let Some(id) = ready else { return false };
        self.change(ConfChangeType::AddNode, id, Vec::new());
        true
    }

    /// The holder's death should not also cost an election: another voter arbitrates, if it can.
    fn transfer_away_from_holder(&mut self) {
        let holds = self
            .cluster
            .lease
            .as_ref()
            .is_some_and(|l| l.holder == self.id && l.purpose == Purpose::Lead);
        let lease_is_live = self.holder.as_ref().is_some_and(|h| h.is_live(self.now));
        let rested =
            self.arbitration.as_ref().is_some_and(|a| self.now >= a.transfer_at + TRANSFER_REST_MS);
        let enough = self.group.as_ref().is_some_and(|g| g.voters().len() > 2);
        if holds && lease_is_live && rested && enough {
            self.hand_arbitration_over();
        }
    }

    /// Our own log cannot be written: somebody else must decide.
    fn step_down_when_disk_stuck(&mut self) {
        let Some(since) = self.group.as_ref().and_then(|g| g.stuck_since()) else { return };
        let bound = (2 * self.ttl_ms()).max(5000);
        if self.now > since + 2 * bound
            && let Some(group) = &mut self.group
        {
            group.step_down();
            self.tell("stops being the arbiter: its log has not been written for too long");
        } else if self.now > since + bound {
            self.hand_arbitration_over();
        }
    }

    /// Transfers Raft's leadership to the best other voter: a witness first, then by reach.
    pub(super) fn hand_arbitration_over(&mut self) {
        let now = self.now;
        let Some(group) = &self.group else { return };
        let last = group.log().last().0;
        let holder = self.cluster.lease.as_ref().map(|l| l.holder);
        let best = group
            .voters()
            .into_iter()
            .filter(|id| *id != self.id && self.greetings.contains_key(id))
            .filter(|id| group.progress(*id).is_some_and(|(at, recent)| recent && at == last))
            .filter(|id| !self.heard.get(id).is_some_and(|h| h.facts.leaving))
            .max_by_key(|id| {
                let witness = self.cluster.members.get(id).is_some_and(|m| m.witness);
                (Some(*id) != holder, witness, *id)
            });
        if let Some(arbitration) = &mut self.arbitration {
            arbitration.transfer_at = now;
        }
        if let (Some(id), Some(group)) = (best, &mut self.group) {
            group.transfer_to(id);
        }
    }
}
