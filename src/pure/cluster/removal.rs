//! How a member leaves the replicated state for good: ordered by the operator, carried out by the arbiter.
use super::RaftId;
use super::command::Outcome;
use super::state::{ClusterState, Kept, REMOVED_MAX};

impl ClusterState {
    /// Why this member must stay, as far as the state itself says; nothing when it may go.
    pub fn objection_to_removal(&self, id: RaftId) -> Option<String> {
        let Some(member) = self.members.get(&id) else {
            return Some(format!("{id:016x} is no member of the cluster"));
        };
        let name = &member.name;
        if self.lease.as_ref().is_some_and(|lease| lease.holder == id) {
            return Some(format!(
                "{name} holds the leader lease: hand it over first (`surus ctl switchover`), or wait \
                 until another node leads"
            ));
        }
        let sync = self.sync.as_ref()?;
        let named = sync.leader == *name || sync.sync_standby.contains(name);
        let other = self.members.iter().any(|(other, m)| *other != id && m.name == *name);
        (named && !other).then(|| {
            format!(
                "{name} is in the synchronous set and may be the only one that holds all that was \
                 acknowledged: wait until a leader has taken it out of the set"
            )
        })
    }

    /// Notes the operator's request; repeating it does no harm.
    pub(super) fn remove_member(&mut self, id: RaftId) -> Outcome {
        if let Some(rejection) = self.objection_to_removal(id) {
            return Outcome::refused(rejection);
        }
        let name = self.name_of(id).unwrap_or_default().to_owned();
        self.removing.insert(id, name);
        self.kept = None;
        Outcome::Done
    }

    pub(super) fn keep_member(&mut self, id: RaftId, reason: String) -> Outcome {
        if self.removing.remove(&id).is_none() {
            return Outcome::refused(format!("nobody wants {id:016x} removed"));
        }
        self.kept = Some(Kept { id, index: self.applied, reason });
        Outcome::Done
    }

    /// The membership change is applied: this id is never a member again.
    pub fn forget_member(&mut self, id: RaftId) {
        self.members.remove(&id);
        self.removing.remove(&id);
        self.removed.retain(|old| *old != id);
        self.removed.push(id);
        let excess = self.removed.len().saturating_sub(REMOVED_MAX);
        self.removed.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::cluster::command::Command;
    use crate::pure::cluster::state::{Decision, Lease, Member, Purpose, Sync};

    fn cluster() -> ClusterState {
        let member = |name: &str| Member { name: name.into(), ..Member::default() };
        let members = (1..=3).map(|id| (id, member(&format!("n{id}")))).collect();
        let lease = Lease::new(1, 1, 2000, Purpose::Lead);
        ClusterState { members, epoch: 1, lease: Some(lease), ..ClusterState::default() }
    }

    fn refused(state: &mut ClusterState, command: Command) -> String {
        match state.apply(9, command) {
            Outcome::Refused(why) => why,
            Outcome::Done => panic!("it was done"),
        }
    }

    /// Spec: CON-6.
    #[test]
    fn the_holder_the_synchronous_and_strangers_are_not_removed() {
        let mut state = cluster();
        let said = refused(&mut state, Command::RemoveMember { id: 1 });
        assert!(said.starts_with("n1 holds the leader lease"), "{said}");
        let said = refused(&mut state, Command::RemoveMember { id: 9 });
        assert!(said.ends_with("is no member of the cluster"), "{said}");
        let sync_standby = vec![String::from("n2")];
        state.sync = Some(Sync { leader: "n1".into(), sync_standby, ..Sync::default() });
        let said = refused(&mut state, Command::RemoveMember { id: 2 });
        assert!(said.starts_with("n2 is in the synchronous set"), "{said}");
        assert_eq!(state.apply(9, Command::RemoveMember { id: 3 }), Outcome::Done);
    }

    /// From the order on it is neither granted the lease nor counted on.
    #[test]
    fn whoever_is_being_removed_gets_nothing_any_more() {
        let mut state = cluster();
        assert_eq!(state.apply(5, Command::RemoveMember { id: 3 }), Outcome::Done);
        let sync =
            Some(Sync { leader: "n1".into(), sync_standby: vec!["n3".into()], ..Sync::default() });
        let set = Command::SetSync { epoch: 1, sync, expected: None };
        assert_eq!(refused(&mut state, set), "n3 is being removed");
        state.lease = None;
        state.initialize = super::super::state::Initialize::Done { system_identifier: "7".into() };
        let decision = Decision {
            epoch: 2,
            winner: None,
            reason: String::new(),
            verdicts: vec![],
            at: String::new(),
        };
        let grant = Command::Grant {
            epoch: 2,
            holder: 3,
            ttl_ms: 2000,
            purpose: Purpose::Lead,
            decision,
            timeline: 0,
            copy: None,
        };
        assert_eq!(refused(&mut state, grant), "3 is being removed");
        let keep = Command::KeepMember { id: 3, reason: "it answers".into() };
        assert_eq!(state.apply(6, keep.clone()), Outcome::Done);
        assert!(state.removing.is_empty() && state.members.contains_key(&3));
        assert!(refused(&mut state, keep).starts_with("nobody wants"));
        state.forget_member(3);
        assert_eq!((state.members.len(), state.removed.clone()), (2, vec![3]));
    }
}
