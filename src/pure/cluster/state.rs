//! The replicated state: the content of Patroni's keys, the lease, and who the members are.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RaftId;
use super::handover::Token;
use super::standby::Standby;
use super::timelines::Timelines;
use crate::pure::config::{HostPort, Tags};
use crate::pure::postgres::lsn::Lsn;

/// Everything the nodes have agreed on. Changed only by [`super::command::Command`]s.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterState {
    /// Index of the last entry that changed this.
    pub applied: u64,
    pub members: BTreeMap<RaftId, Member>,
    pub initialize: Initialize,
    /// Number of the last grant; never falls.
    pub epoch: u64,
    pub lease: Option<Lease>,
    /// The dynamic configuration as the operator wrote it; absent before initialisation.
    pub config: Option<Value>,
    /// Index of the entry that last changed `config`.
    pub config_version: u64,
    pub status: Status,
    pub sync: Option<Sync>,
    /// Index of the entry that last said what `sync` is, the same or another.
    #[serde(default)]
    pub sync_version: u64,
    /// The way to the present timeline, as far as it was gone here.
    pub history: Vec<HistoryRow>,
    /// Where timelines began, abandoned ones too.
    #[serde(default)]
    pub timelines: Timelines,
    pub failover: Option<FailoverRequest>,
    /// The leader handed over by this very request, or nobody led when it was given: until the next grant
    /// it may do what nothing automatic may (HA-2). One that waits for its time may not, nor one that its
    /// leader's death overtook.
    #[serde(default)]
    pub failover_in_force: bool,
    /// The last decisions, newest last; at most [`DECISIONS_MAX`].
    pub decisions: Vec<Decision>,
    /// Why the last attempt to create the cluster failed, on which node.
    pub initialize_failure: Option<InitializeFailure>,
    /// This cluster follows another one, or did until its section was taken out.
    #[serde(default)]
    pub standby: Option<Standby>,
    /// The newest timeline that was set aside for a leader. A timeline of an earlier leader that
    /// nobody heard of is thereby never begun twice.
    #[serde(default)]
    pub timeline: u32,
    /// Where our WAL ended when this cluster was demoted to a standby cluster.
    #[serde(default)]
    pub handover: Option<Token>,
    /// Members that the operator wants removed, with their names, until the arbiter has done it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removing: BTreeMap<RaftId, String>,
    /// The last removal that the arbiter did not carry out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Ids that are never members again, oldest first; at most [`REMOVED_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<RaftId>,
}

/// A member that stays although the operator wanted it removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub id: RaftId,
    /// Index of the entry that says so.
    pub index: u64,
    /// One sentence.
    pub reason: String,
}

/// Removed ids that are remembered, to refuse them with a sentence.
pub const REMOVED_MAX: usize = 1000;

/// Decisions kept for `dump`, `history` and metrics.
pub const DECISIONS_MAX: usize = 20;

/// What a member is, as far as everybody must agree on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub name: String,
    pub raft_addr: String,
    /// `http://host:port/patroni`
    pub api_url: String,
    /// `postgres://host:port/postgres`; empty for a witness.
    pub conn_url: String,
    pub version: String,
    pub tags: Tags,
    /// A voter without PostgreSQL, never a candidate.
    pub witness: bool,
    /// Gave up its vote in an orderly stop.
    pub left: bool,
}

impl Member {
    /// Host and port out of `conn_url`.
    pub fn host_port(&self) -> Option<HostPort> {
        HostPort::of_url(&self.conn_url, 5432)
    }
}

/// Patroni's `initialize` key: absent, empty while somebody creates the cluster, then its identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Initialize {
    #[default]
    Absent,
    Done {
        system_identifier: String,
    },
}

/// The right to accept writes: held by one node, by log entries only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    pub holder: RaftId,
    pub epoch: u64,
    pub ttl_ms: u64,
    /// Granted to create the cluster: Patroni's `initialize` is empty and `leader` absent meanwhile.
    pub purpose: Purpose,
    /// The lowest ttl that the configuration has asked for since `ttl_ms` was agreed on, where that is
    /// lower. The holder may have told the log any of them, and its word may still be on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest_ms: Option<u64>,
    /// How often `ttl_ms` was changed: a change is proposed for one number and applied under no other.
    #[serde(default)]
    pub retimes: u64,
}

impl Lease {
    pub fn new(holder: RaftId, epoch: u64, ttl_ms: u64, purpose: Purpose) -> Lease {
        Lease { holder, epoch, ttl_ms, purpose, lowest_ms: None, retimes: 0 }
    }

    /// The ttl that a renewal may carry, in ms: the shorter of what is agreed on and what is about to be.
    /// What an arbiter respects (`ttl_ms`) is never less.
    pub fn counted_ms(&self) -> u64 {
        self.lowest_ms.map_or(self.ttl_ms, |lowest| lowest.min(self.ttl_ms))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    Initialise,
    Lead,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Where the leader was when it last told the log (release, decision): not sampled each loop.
    pub optime: Lsn,
    pub timeline: u32,
}

/// Patroni's `sync` key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sync {
    pub leader: String,
    /// Sorted names.
    pub sync_standby: Vec<String>,
    pub quorum: u32,
    /// Which copy each of them had when it was named: another one under the same name holds nothing for
    /// certain. Whoever is not in it was named by a version that did not tell copies apart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub copies: BTreeMap<String, CopyId>,
    /// The timeline that was reserved for the leader by the grant that put it here; zero once the leader
    /// itself has named its standbys.
    #[serde(default)]
    pub timeline: u32,
    /// What held until that grant: it still does while that timeline has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Sync>>,
}

impl Sync {
    /// How many grants in a row that came to nothing are remembered.
    const BEFORE_MAX: usize = 8;

    /// A grant to another member: from that entry on it alone is known to hold everything.
    pub fn granted(self, leader: String, copy: Option<CopyId>, timeline: u32) -> Sync {
        let older = std::iter::successors(Some(&self), |sync| sync.before.as_deref()).count();
        let copies = copy.map(|copy| (leader.clone(), copy)).into_iter().collect();
        let before = (older < Sync::BEFORE_MAX).then(|| Box::new(self));
        Sync { leader, copies, timeline, before, ..Sync::default() }
    }
}

/// Drawn for every copy of the cluster when it has been made, and kept with it: a member's name stays, its
/// copy may be another. 0: nobody has drawn one (initdb's, or an older version's).
pub type CopyId = u64;

/// One row of Patroni's `history` key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryRow {
    /// The parent, and where it was left.
    pub timeline: u32,
    pub lsn: Lsn,
    pub reason: String,
    /// ISO 8601, for people.
    pub timestamp: String,
    pub new_leader: String,
}

/// Patroni's `failover` key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverRequest {
    /// Who must be leading for this to apply; empty for a failover.
    pub leader: Option<String>,
    pub candidate: Option<String>,
    /// ISO 8601 with an offset.
    pub scheduled_at: Option<String>,
}

/// Who may lead next, and why nobody else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The grant's epoch; for a decision without a winner the epoch that would have come.
    pub epoch: u64,
    pub winner: Option<String>,
    pub reason: String,
    pub verdicts: Vec<Verdict>,
    /// Wall clock, ISO 8601, for people.
    pub at: String,
}

/// Why one member may or may not lead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    pub member: String,
    /// `chosen`, `eligible`, or `refused`.
    pub outcome: String,
    /// The rule that decided.
    pub rule: String,
    /// What the rule looked at, `lag_bytes=0 timeline=3`.
    pub inputs: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitializeFailure {
    pub node: String,
    pub reason: String,
    pub attempts: u32,
    pub at: String,
}

impl InitializeFailure {
    /// Without the program's own words: the step and how it ended, for those who need no password.
    pub fn without_output(&self) -> InitializeFailure {
        let marks = ["ended with exit code ", "was killed by signal ", "did not end within "];
        let said = marks.iter().filter_map(|mark| Some(self.reason.find(mark)? + mark.len())).min();
        let end = said.and_then(|at| Some(at + self.reason[at..].find(": ")?));
        let reason = self.reason[..end.unwrap_or(self.reason.len())].to_owned();
        InitializeFailure { reason, ..self.clone() }
    }
}

impl ClusterState {
    pub fn member_named(&self, name: &str) -> Option<(RaftId, &Member)> {
        self.members.iter().find(|(_, m)| m.name == name).map(|(id, m)| (*id, m))
    }

    pub fn name_of(&self, id: RaftId) -> Option<&str> {
        self.members.get(&id).map(|m| m.name.as_str())
    }

    /// Patroni's `leader` key: the holder's name, absent while the cluster is being created.
    pub fn leader(&self) -> Option<&str> {
        let lease = self.lease.as_ref().filter(|l| l.purpose == Purpose::Lead)?;
        self.name_of(lease.holder)
    }

    /// The request whose privileges count now.
    pub fn order_in_force(&self) -> Option<&FailoverRequest> {
        self.failover.as_ref().filter(|_| self.failover_in_force && self.lease.is_none())
    }

    /// The request that names this member and must not count: in words for a verdict.
    pub fn idle_order_to(&self, name: &str) -> Option<String> {
        let request = self.failover.as_ref().filter(|_| self.order_in_force().is_none())?;
        let named = request.candidate.as_deref() == Some(name);
        named.then(|| match &request.scheduled_at {
            Some(at) => format!("it waits for {at}"),
            None => String::from("its leader did not hand over"),
        })
    }

    pub fn system_identifier(&self) -> Option<&str> {
        match &self.initialize {
            Initialize::Absent => None,
            Initialize::Done { system_identifier } => Some(system_identifier),
        }
    }

    /// Patroni's `initialize` key: absent, empty while somebody creates the cluster, or the sysid.
    pub fn initialize_key(&self) -> Option<String> {
        match (&self.initialize, &self.lease) {
            (Initialize::Done { system_identifier }, _) => Some(system_identifier.clone()),
            (Initialize::Absent, Some(_)) => Some(String::new()),
            (Initialize::Absent, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::InitializeFailure;

    #[test]
    fn a_failure_is_told_without_the_programs_words() {
        let short = |reason: &str| {
            let failure =
                InitializeFailure { reason: reason.into(), ..InitializeFailure::default() };
            failure.without_output().reason
        };
        let whole = "post_bootstrap: post.sh ended with exit code 3: ERROR:  near \"x\" | more: y";
        assert_eq!(short(whole), "post_bootstrap: post.sh ended with exit code 3");
        assert_eq!(short("initdb: is missing: install it"), "initdb: is missing: install it");
    }
}
