//! How each command changes the replicated state: total, deterministic, guarded.
use serde_json::{Map, Value};

use super::RaftId;
use super::command::{Command, Outcome};
use super::state::{
    ClusterState, CopyId, DECISIONS_MAX, Decision, FailoverRequest, HistoryRow, Initialize,
    InitializeFailure, Lease, Purpose, Status,
};
use crate::pure::postgres::history::Switch;
use crate::pure::postgres::slot::share_a_name;

/// Rows kept in `history` at most, whatever the configuration says.
const HISTORY_MAX: usize = 10_000;

impl ClusterState {
    /// Applies one command that was committed at `index`.
    pub fn apply(&mut self, index: u64, command: Command) -> Outcome {
        self.applied = index;
        match command {
            Command::SetMember { id, member } => self.set_member(id, member),
            Command::RemoveMember { id } => self.remove_member(id),
            Command::KeepMember { id, reason } => self.keep_member(id, reason),
            Command::Grant { epoch, holder, ttl_ms, purpose, decision, timeline, copy } => {
                self.timeline = self.timeline.max(timeline);
                self.grant(index, Lease::new(holder, epoch, ttl_ms, purpose), decision, copy)
            }
            Command::LeaseOver { epoch, reason: _ } => self.end_lease(epoch),
            Command::Release { epoch, shutdown, hand_over_to, carried_out, .. } => {
                self.release(epoch, shutdown, (hand_over_to, carried_out))
            }
            Command::Retime { epoch, ttl_ms, expected } => self.retime(epoch, ttl_ms, expected),
            Command::Initialised { epoch, system_identifier, config } => {
                self.initialised(index, epoch, system_identifier, config)
            }
            Command::InitialiseFailed { epoch, node, reason, at } => {
                self.initialise_failed(epoch, node, reason, at)
            }
            Command::NobodyEligible { decision } => {
                self.remember(decision);
                Outcome::Done
            }
            Command::SetConfig { value, expected } => self.set_config(index, value, expected),
            Command::PatchConfig { patch } => self.patch_config(index, patch),
            Command::SetFailover { request } => {
                self.set_failover(request);
                Outcome::Done
            }
            Command::ClearFailover { expected } => self.clear_failover(expected),
            Command::SetSync { epoch, sync, expected } => {
                self.set_sync(index, epoch, sync, expected)
            }
            Command::AddHistory { row, timeline, way } => self.add_history(row, timeline, &way),
            Command::PromoteCluster { order } => self.promote_cluster(index, order),
            Command::LeaveStandby { epoch, timeline, config_version } => {
                self.leave_standby((index, epoch), timeline, config_version)
            }
            Command::Demoted { epoch, shutdown } => self.demoted(epoch, shutdown),
            Command::SetStatus { epoch, status } => self.with_lease(epoch, |s| s.status = status),
        }
    }

    /// The same, of a command that this member proposed. What the holder alone knows, only the holder says;
    /// of itself, only a member says what it is (SEC-9).
    pub fn apply_of(&mut self, origin: RaftId, index: u64, command: Command) -> Outcome {
        if self.is_its_own(origin, &command) {
            return self.apply(index, command);
        }
        self.applied = index;
        Outcome::refused(format!("{origin:016x} may not say this"))
    }

    fn is_its_own(&self, origin: RaftId, command: &Command) -> bool {
        match command {
            Command::SetMember { id, .. } => *id == origin,
            Command::Release { epoch, .. }
            | Command::Retime { epoch, .. }
            | Command::Initialised { epoch, .. }
            | Command::InitialiseFailed { epoch, .. }
            | Command::SetSync { epoch, .. }
            | Command::LeaveStandby { epoch, .. }
            | Command::Demoted { epoch, .. }
            | Command::SetStatus { epoch, .. } => {
                let other = |lease: &Lease| lease.epoch == *epoch && lease.holder != origin;
                !self.lease.as_ref().is_some_and(other)
            }
            _ => true,
        }
    }

    pub(super) fn with_lease(&mut self, epoch: u64, change: impl FnOnce(&mut Self)) -> Outcome {
        match &self.lease {
            Some(lease) if lease.epoch == epoch => {
                change(self);
                Outcome::Done
            }
            Some(lease) => {
                Outcome::refused(format!("the lease is now of epoch {}, not {epoch}", lease.epoch))
            }
            None => Outcome::refused(format!("the lease of epoch {epoch} is over")),
        }
    }

    fn set_member(&mut self, id: RaftId, member: super::state::Member) -> Outcome {
        if !self.members.contains_key(&id) {
            return Outcome::refused(format!("{id:016x} is no member"));
        }
        let namesake = self.members.iter().find(|(other, known)| {
            **other != id
                && known.raft_addr != member.raft_addr
                && share_a_name(&known.name, &member.name)
        });
        if let Some((_, known)) = namesake {
            return Outcome::refused(format!(
                "PostgreSQL cannot tell {} from the member {}",
                member.name, known.name
            ));
        }
        self.members.insert(id, member);
        Outcome::Done
    }

    fn grant(
        &mut self,
        index: u64,
        lease: Lease,
        decision: Decision,
        copy: Option<CopyId>,
    ) -> Outcome {
        if let Some(held) = &self.lease {
            return Outcome::refused(format!("the lease of epoch {} is not over", held.epoch));
        }
        if lease.epoch != self.epoch + 1 {
            return Outcome::refused(format!(
                "epoch {} does not follow {}",
                lease.epoch, self.epoch
            ));
        }
        if !self.members.contains_key(&lease.holder) {
            return Outcome::refused(format!("{} is no longer a member", lease.holder));
        }
        if self.removing.contains_key(&lease.holder) {
            return Outcome::refused(format!("{} is being removed", lease.holder));
        }
        let creates = lease.purpose == Purpose::Initialise;
        if creates != (self.initialize == Initialize::Absent) {
            return Outcome::refused("the cluster's existence changed meanwhile");
        }
        self.epoch = lease.epoch;
        self.lease = Some(lease);
        self.note_ttl();
        if !creates {
            self.end_failover();
            self.name_synchronous_leader(copy);
            self.sync_version = index;
        }
        self.remember(decision);
        Outcome::Done
    }

    /// In synchronous modes the new leader alone is known to hold everything, from the very entry
    /// that makes it the leader: what it acknowledges before it has named its own standbys would
    /// else be lost to a member of the old set.
    fn name_synchronous_leader(&mut self, copy: Option<CopyId>) {
        let holder = self.lease.as_ref().and_then(|lease| self.name_of(lease.holder));
        let Some(leader) = holder.map(str::to_string) else { return };
        // One without a number gets it when it is promoted.
        let copy = copy.filter(|copy| *copy != 0);
        if let Some(sync) = self.sync.take_if(|sync| sync.leader != leader) {
            self.sync = Some(sync.granted(leader, copy, self.timeline));
        }
    }

    fn set_sync(
        &mut self,
        index: u64,
        epoch: u64,
        sync: Option<super::state::Sync>,
        expected: Option<u64>,
    ) -> Outcome {
        if expected.is_some_and(|version| version != self.sync_version) {
            return Outcome::refused("the synchronous set was changed meanwhile");
        }
        let leaves = |name: &String| self.removing.values().any(|other| other == name);
        if let Some(name) = sync.iter().flat_map(|s| &s.sync_standby).find(|n| leaves(n)) {
            return Outcome::refused(format!("{name} is being removed"));
        }
        self.with_lease(epoch, |s| (s.sync, s.sync_version) = (sync, index))
    }

    fn end_lease(&mut self, epoch: u64) -> Outcome {
        self.with_lease(epoch, |s| s.lease = None)
    }

    fn release(
        &mut self,
        epoch: u64,
        shutdown: Option<Status>,
        (hand_over_to, carried_out): (Option<String>, bool),
    ) -> Outcome {
        self.with_lease(epoch, |s| {
            s.lease = None;
            if let Some(status) = shutdown {
                s.status = status;
            }
            s.failover_in_force = s.failover.is_some() && hand_over_to.is_some();
            match (&mut s.failover, hand_over_to) {
                (Some(request), Some(to)) => request.candidate = Some(to),
                (Some(request), None)
                    if carried_out
                        || request.candidate.is_none() && request.scheduled_at.is_none() =>
                {
                    s.failover = None;
                }
                _ => {}
            }
        })
    }

    /// Where nobody leads, nobody has to hand over first.
    fn set_failover(&mut self, request: FailoverRequest) {
        let at_once = request.leader.is_none() && request.scheduled_at.is_none();
        self.failover_in_force = at_once && self.lease.is_none();
        self.failover = Some(request);
    }

    /// Somebody leads now: only what waits for its time, and means this very leader, goes on waiting.
    fn end_failover(&mut self) {
        let leader = self.leader().map(str::to_string);
        let executed = std::mem::take(&mut self.failover_in_force);
        let waits = |request: &FailoverRequest| {
            !executed && request.scheduled_at.is_some() && request.leader == leader
        };
        self.failover = self.failover.take().filter(waits);
    }

    fn retime(&mut self, epoch: u64, ttl_ms: u64, expected: u64) -> Outcome {
        let known = self.lease.as_ref().filter(|lease| lease.epoch == epoch);
        if known.is_some_and(|lease| lease.retimes != expected) {
            return Outcome::refused("the ttl was changed meanwhile");
        }
        self.with_lease(epoch, |s| {
            if let Some(lease) = &mut s.lease {
                (lease.ttl_ms, lease.lowest_ms) = (ttl_ms, None);
                lease.retimes += 1;
            }
            s.note_ttl();
        })
    }

    /// Remembers the lowest ttl that the configuration asks for under this lease.
    fn note_ttl(&mut self) {
        let wanted = self.config.as_ref().map(|_| self.dynamic().ttl_ms);
        let (Some(lease), Some(wanted)) = (&mut self.lease, wanted) else { return };
        if wanted < lease.counted_ms() {
            lease.lowest_ms = Some(wanted);
        }
    }

    fn initialised(&mut self, index: u64, epoch: u64, sysid: String, config: Value) -> Outcome {
        if self.initialize == (Initialize::Done { system_identifier: sysid.clone() }) {
            // Said again by a node that died before it heard the answer.
            return self.with_lease(epoch, |_| {});
        }
        if self.initialize != Initialize::Absent {
            return Outcome::refused("the cluster exists already");
        }
        self.with_lease(epoch, |s| {
            s.initialize = Initialize::Done { system_identifier: sysid };
            s.config = Some(config);
            s.config_version = index;
            s.note_standby();
            s.initialize_failure = None;
            if let Some(lease) = &mut s.lease {
                lease.purpose = Purpose::Lead;
            }
            s.note_ttl();
        })
    }

    fn initialise_failed(
        &mut self,
        epoch: u64,
        node: String,
        reason: String,
        at: String,
    ) -> Outcome {
        self.with_lease(epoch, |s| {
            let attempts = s.initialize_failure.as_ref().map_or(0, |f| f.attempts) + 1;
            s.initialize_failure = Some(InitializeFailure { node, reason, attempts, at });
            s.lease = None;
        })
    }

    fn set_config(&mut self, index: u64, value: Value, expected: Option<u64>) -> Outcome {
        if self.initialize == Initialize::Absent {
            return Outcome::refused("the cluster is not initialised yet");
        }
        if expected.is_some_and(|version| version != self.config_version) {
            return Outcome::refused("the configuration was changed by somebody else meanwhile");
        }
        self.config = Some(value);
        self.config_version = index;
        self.note_standby();
        self.note_ttl();
        Outcome::Done
    }

    fn patch_config(&mut self, index: u64, patch: Value) -> Outcome {
        let Some(config) = &mut self.config else {
            return Outcome::refused("the cluster is not initialised yet");
        };
        merge(config, &patch);
        self.config_version = index;
        self.note_standby();
        self.note_ttl();
        Outcome::Done
    }

    fn clear_failover(&mut self, expected: Option<super::state::FailoverRequest>) -> Outcome {
        if expected.is_some() && expected != self.failover {
            return Outcome::refused("the request was replaced meanwhile");
        }
        self.failover_in_force = false;
        match self.failover.take() {
            Some(_) => Outcome::Done,
            None => Outcome::refused("no failover or switchover is requested"),
        }
    }

    fn add_history(&mut self, row: HistoryRow, timeline: u32, way: &[Switch]) -> Outcome {
        if way.last().is_none_or(|left| left.timeline != row.timeline || left.at != row.lsn) {
            return Outcome::refused("the row is not the end of the history that was read");
        }
        let is_late = self.timelines.newest().is_some_and(|newest| newest > timeline);
        self.timelines.note(timeline, way);
        if is_late {
            return Outcome::Done; // another leader has begun a newer one meanwhile
        }
        let is_ours = |old: &HistoryRow| {
            way.iter().any(|switch| (switch.timeline, switch.at) == (old.timeline, old.lsn))
        };
        self.history.retain(|old| old.timeline != row.timeline && is_ours(old));
        self.history.push(row);
        let excess = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..excess);
        Outcome::Done
    }

    fn remember(&mut self, decision: Decision) {
        self.decisions.push(decision);
        let excess = self.decisions.len().saturating_sub(DECISIONS_MAX);
        self.decisions.drain(..excess);
    }
}

/// Patroni's PATCH: deep merge of objects, null deletes, everything else replaces.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Value::Object(into) = into else { return };
    for (key, value) in patch {
        match into.get_mut(key) {
            _ if value.is_null() => {
                into.shift_remove(key);
            }
            Some(old) if old.is_object() && value.is_object() => merge(old, value),
            // A new object is stored as it is written: below `slots`, null is a physical slot.
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Member;
    use super::*;

    /// SEC-9: what the holder alone knows, only the holder says.
    #[test]
    fn only_the_holder_speaks_of_its_lease_and_only_oneself_of_oneself() {
        let lease = Lease::new(1, 4, 6000, Purpose::Lead);
        let members = [(1, Member::default())].into();
        let held =
            ClusterState { epoch: 4, lease: Some(lease), members, ..ClusterState::default() };
        let status = Status::default;
        let commands = [
            Command::Retime { epoch: 4, ttl_ms: 1, expected: 0 },
            Command::SetSync { epoch: 4, sync: None, expected: None },
            Command::SetStatus { epoch: 4, status: status() },
            Command::Demoted { epoch: 4, shutdown: status() },
            Command::SetMember { id: 1, member: Member::default() },
            Command::Release {
                epoch: 4,
                reason: String::new(),
                shutdown: None,
                hand_over_to: None,
                carried_out: false,
            },
        ];
        for command in commands {
            let mut state = held.clone();
            let refused = state.apply_of(2, 9, command.clone());
            assert!(matches!(refused, Outcome::Refused(_)), "{command:?}");
            assert_eq!(state, ClusterState { applied: 9, ..held.clone() }, "{command:?}");
            assert_eq!(held.clone().apply_of(1, 9, command.clone()), Outcome::Done, "{command:?}");
        }
    }
}
