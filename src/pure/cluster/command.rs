//! The only ways to change the replicated state. `apply` is total and deterministic.
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RaftId;
use super::standby::Order;
use super::state::{CopyId, Decision, FailoverRequest, HistoryRow, Member, Purpose, Status, Sync};
use crate::pure::postgres::history::Switch;

/// One proposal. Guarded by what it expects, so that repeating it does no harm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Command {
    /// A member's durable part changed (address, tags, version).
    SetMember {
        id: RaftId,
        member: Member,
    },
    /// The operator wants a lost member out: the arbiter takes its vote and its place in the book
    /// with one membership change, or says why not.
    RemoveMember {
        id: RaftId,
    },
    /// The arbiter did not carry a removal out.
    KeepMember {
        id: RaftId,
        reason: String,
    },
    /// The arbiter's decision that `holder` may write.
    Grant {
        epoch: u64,
        holder: RaftId,
        ttl_ms: u64,
        purpose: Purpose,
        decision: Decision,
        /// If it promotes, it begins this timeline or a later one.
        #[serde(default)]
        timeline: u32,
        /// The copy that was looked at.
        #[serde(default)]
        copy: Option<CopyId>,
    },
    /// The arbiter saw the lease run out.
    LeaseOver {
        epoch: u64,
        reason: String,
    },
    /// The holder gives the lease back; its PostgreSQL no longer accepts writes.
    Release {
        epoch: u64,
        reason: String,
        /// Where its WAL ends, when it stopped cleanly.
        shutdown: Option<Status>,
        hand_over_to: Option<String>,
        /// A request for a change of leader was carried out, as far as it could be: it waits no more.
        #[serde(default)]
        carried_out: bool,
    },
    /// The holder's word that another ttl counts from now on: that its guard is bound to it where it is
    /// a shorter one.
    Retime {
        epoch: u64,
        ttl_ms: u64,
        /// [`Lease::retimes`](super::state::Lease::retimes) as the holder knew it: what comes late is refused.
        #[serde(default)]
        expected: u64,
    },
    /// The cluster exists: its identity, its configuration and its leader in one entry.
    Initialised {
        epoch: u64,
        system_identifier: String,
        config: Value,
    },
    /// Creating the cluster failed; gives the lease back.
    InitialiseFailed {
        epoch: u64,
        node: String,
        reason: String,
        at: String,
    },
    /// Nobody may lead, and why.
    NobodyEligible {
        decision: Decision,
    },
    /// Replaces the dynamic configuration; with `expected`, only if it has that version.
    SetConfig {
        value: Value,
        expected: Option<u64>,
    },
    /// Merges into the dynamic configuration; null deletes.
    PatchConfig {
        patch: Value,
    },
    SetFailover {
        request: FailoverRequest,
    },
    ClearFailover {
        expected: Option<FailoverRequest>,
    },
    /// Changes the synchronous set; only by the holder of `epoch`.
    SetSync {
        epoch: u64,
        sync: Option<Sync>,
        /// Only while the set is still of this version: what was proposed for an earlier one and
        /// comes late must not name a standby for which PostgreSQL waits no longer.
        #[serde(default)]
        expected: Option<u64>,
    },
    /// A leader was promoted; nothing here is derived, all was read from the new timeline's history file.
    AddHistory {
        row: HistoryRow,
        /// The one that began.
        #[serde(default)]
        timeline: u32,
        /// Its history, oldest first; the last switch is the row's.
        #[serde(default)]
        way: Vec<Switch>,
    },
    /// The operator asks for a standby cluster's promotion, on these terms.
    PromoteCluster {
        order: Order,
    },
    /// The leader of a standby cluster saw the terms met: from now on it is a primary cluster.
    LeaveStandby {
        epoch: u64,
        /// The one on which its leader stands; the next is set aside for the promotion.
        #[serde(default)]
        timeline: Option<u32>,
        /// Of the configuration under which the terms were judged; none: whatever it is.
        #[serde(default)]
        config_version: Option<u64>,
    },
    /// The leader of a cluster that follows another one from now on stopped writing here.
    Demoted {
        epoch: u64,
        shutdown: Status,
    },
    /// The holder's position, for those who decide after it is gone (rare: on request only).
    SetStatus {
        epoch: u64,
        status: Status,
    },
}

/// What became of a command that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// The state had moved on; one sentence says how.
    Refused(String),
}

impl Outcome {
    pub fn refused(why: impl Into<String>) -> Outcome {
        Outcome::Refused(why.into())
    }
}
