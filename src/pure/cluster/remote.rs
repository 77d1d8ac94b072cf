//! What the leader of a standby cluster found out about the cluster that it follows.
//!
//! Soft state, like all facts: asked again and again, gossiped, never a log entry.
use serde::{Deserialize, Serialize};

use super::facts::SqlFacts;
use crate::pure::config::StandbyCluster;
use crate::pure::postgres::lsn::Lsn;

/// One look at the remote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteFacts {
    /// Which remote was asked, [`StandbyCluster::address`].
    pub address: String,
    /// The version of the configuration that was in force then.
    pub config_version: u64,
    /// The host that answered; of several the one that accepts writes.
    pub answered_by: Option<String>,
    pub system_identifier: String,
    pub timeline: u32,
    pub position: Lsn,
    pub server_version: u32,
    /// Out of recovery, so that a client could commit there; nothing while nobody answers.
    pub accepts_writes: Option<bool>,
    /// Faults, one sentence each; the first is the gravest.
    pub problems: Vec<String>,
    /// So many looks in a row found our slot there in another's hands; counted up to two.
    #[serde(default)]
    pub slot_busy_looks: u8,
}

/// What the remote is to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteRelation {
    /// Nobody has asked it yet.
    #[default]
    Unknown,
    /// It does not answer.
    Silent,
    /// Another cluster: never followed, rewound to or copied from.
    Foreign,
    /// The cluster that ours is a copy of; or there is only an archive, which nobody can ask.
    Same,
}

/// One look may find the slot with whom we are just taking over from.
pub const SLOT_LOOKS: u8 = 2;

impl RemoteFacts {
    /// Somebody keeps the slot: a former leader whose daemon is dead, or a stranger.
    pub fn slot_is_taken(&self) -> bool {
        self.slot_busy_looks >= SLOT_LOOKS
    }

    /// What this look says to a cluster of this identity.
    pub fn standing(&self, identity: Option<&str>) -> RemoteRelation {
        match (&self.answered_by, identity) {
            (None, _) => RemoteRelation::Silent,
            (Some(_), Some(own)) if own != self.system_identifier => RemoteRelation::Foreign,
            (Some(_), _) => RemoteRelation::Same,
        }
    }
}

/// What the remote of `section` is to a cluster of this identity, by the last look at it.
pub fn standing(
    section: &StandbyCluster,
    facts: Option<&RemoteFacts>,
    identity: Option<&str>,
) -> RemoteRelation {
    match facts.filter(|facts| facts.address == section.address()) {
        _ if section.host.is_none() => RemoteRelation::Same,
        None => RemoteRelation::Unknown,
        Some(facts) => facts.standing(identity),
    }
}

/// A standby leader that does not stream, while its remote writes on another timeline: only a
/// comparison tells whether it still can follow.
pub fn is_behind_remote(facts: Option<&RemoteFacts>, own: Option<&SqlFacts>) -> bool {
    let (Some(remote), Some(own)) = (facts, own) else { return false };
    let streams = own.replication_state.as_deref() == Some("streaming");
    let elsewhere = remote.timeline > 0 && remote.timeline != own.timeline;
    own.in_recovery && !streams && elsewhere && remote.accepts_writes == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(answered: bool, identity: &str) -> RemoteFacts {
        RemoteFacts {
            address: "a:5432".into(),
            answered_by: answered.then(|| "a".into()),
            system_identifier: identity.into(),
            ..RemoteFacts::default()
        }
    }

    /// Spec: SC-25, EX-91, EX-94.
    #[test]
    fn another_identity_is_a_stranger_and_silence_is_not() {
        let section = StandbyCluster { host: Some("a".into()), ..StandbyCluster::default() };
        let at = |facts: Option<&RemoteFacts>| standing(&section, facts, Some("771"));
        assert_eq!(at(None), RemoteRelation::Unknown);
        assert_eq!(at(Some(&facts(false, ""))), RemoteRelation::Silent);
        assert_eq!(at(Some(&facts(true, "771"))), RemoteRelation::Same);
        assert_eq!(at(Some(&facts(true, "772"))), RemoteRelation::Foreign);
        let old = RemoteFacts { address: "b:5432".into(), ..facts(true, "772") };
        assert_eq!(at(Some(&old)), RemoteRelation::Unknown, "that was another remote");
        let archive = StandbyCluster { restore_command: Some("x".into()), ..Default::default() };
        assert_eq!(standing(&archive, None, Some("771")), RemoteRelation::Same);
    }

    #[test]
    fn a_member_that_does_not_stream_is_behind_the_remote() {
        let remote = RemoteFacts { timeline: 2, accepts_writes: Some(true), ..facts(true, "771") };
        let own = |state: Option<&str>, timeline| SqlFacts {
            in_recovery: true,
            timeline,
            replication_state: state.map(str::to_owned),
            ..SqlFacts::default()
        };
        assert!(is_behind_remote(Some(&remote), Some(&own(None, 1))));
        assert!(!is_behind_remote(Some(&remote), Some(&own(Some("streaming"), 1))));
        assert!(!is_behind_remote(Some(&remote), Some(&own(None, 2))));
        let standby = RemoteFacts { accepts_writes: Some(false), ..remote };
        assert!(
            !is_behind_remote(Some(&standby), Some(&own(None, 1))),
            "nobody rewinds to a standby"
        );
    }
}
