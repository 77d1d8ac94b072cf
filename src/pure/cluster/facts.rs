//! What a node tells the others about itself: soft state, gossip, never a log entry.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RaftId;
use super::remote::RemoteFacts;
use super::state::CopyId;
use crate::pure::config::Tags;
use crate::pure::postgres::history::Switch;
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::{PgState, Role};
use crate::pure::postgres::target::RecoveryProgress;

/// One node's latest word about itself. Whoever hears it stamps it with the time of hearing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub raft_id: RaftId,
    pub name: String,
    /// Grows with every change on the sender; an older one never replaces a newer one.
    pub serial: u64,
    /// The arbiter's question this answers; 0 when nobody asked.
    pub round: u64,
    /// False for a witness: a node without PostgreSQL.
    pub has_postgres: bool,
    pub state: PgState,
    pub role: Role,
    /// A postmaster of this data directory is alive.
    pub postmaster_alive: bool,
    pub data: DataDirectory,
    /// Which copy lies there.
    #[serde(default)]
    pub copy: CopyId,
    /// Facts from SQL; absent while PostgreSQL does not answer.
    pub sql: Option<SqlFacts>,
    /// Why PostgreSQL, which runs, gave none.
    #[serde(default)]
    pub sql_failure: Option<SqlFailure>,
    /// Tags that are in force (`nofailover`, `failover_priority`, `clonefrom`, …).
    pub tags: Tags,
    pub pending_restart: Map<String, Value>,
    pub watchdog_failed: bool,
    /// This node's file can create a cluster (has `bootstrap`), and with which ttl in ms.
    pub bootstrap_ttl_ms: Option<u64>,
    /// By this node's file the cluster begins as a standby of another one.
    #[serde(default)]
    pub begins_as_standby: bool,
    /// The state of the flow `node`, for people; decisions go by `phase`.
    pub node_state: String,
    #[serde(default)]
    pub phase: Phase,
    /// The HA cycle's one sentence.
    pub sentence: String,
    pub build: Option<BuildProgress>,
    /// How far the recovery of a restored cluster is.
    #[serde(default)]
    pub recovery: Option<RecoveryProgress>,
    /// What a bootstrap method restored lies here, and is not a cluster yet.
    #[serde(default)]
    pub restored: bool,
    /// The leader of a standby cluster only: its last look at the remote.
    #[serde(default)]
    pub remote: Option<RemoteFacts>,
    pub scheduled_restart: Option<Value>,
    /// The node is leaving in an orderly way.
    pub leaving: bool,
    pub version: String,
}

/// What a node is doing, as far as others decide by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing that others would have to know.
    #[default]
    Idle,
    Initialising,
    Building,
    /// The operator asked for a new copy; the old one is about to go.
    Rebuilding,
    Restarting,
    /// Starts a primary that crashed.
    Recovering,
    Promoting,
    Demoting,
    Rejoining,
    Leading,
    LeadingStandby,
    Following,
}

impl Phase {
    /// Patroni's word for a task that forbids another one.
    pub fn task(self) -> Option<&'static str> {
        Some(match self {
            Phase::Initialising => "bootstrap",
            Phase::Building | Phase::Rebuilding => "reinitialize",
            Phase::Restarting | Phase::Recovering => "restart",
            Phase::Promoting => "promote",
            Phase::Demoting => "demote",
            Phase::Rejoining => "rejoin",
            Phase::Idle | Phase::Leading | Phase::LeadingStandby | Phase::Following => return None,
        })
    }

    /// PostgreSQL here is in service, as a primary or as a standby.
    pub fn serves(self) -> bool {
        matches!(self, Phase::Leading | Phase::LeadingStandby | Phase::Following)
    }
}

/// What lies in the data directory, as far as it can be told without starting anything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum DataDirectory {
    #[default]
    Unknown,
    Empty,
    /// A copy that was never finished: only its own flow may touch it.
    Incomplete,
    Present {
        system_identifier: String,
        timeline: u32,
        /// Latest checkpoint, or the minimum recovery point where that is later.
        lsn: Lsn,
        /// Had no standby.signal and was never in recovery when it stopped.
        was_primary: bool,
        clean: bool,
    },
    Broken {
        problem: String,
    },
}

impl std::fmt::Display for DataDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DataDirectory::Unknown => f.write_str("what nobody has looked at"),
            DataDirectory::Empty => f.write_str("nothing"),
            DataDirectory::Incomplete => f.write_str("an unfinished copy"),
            DataDirectory::Broken { problem } => write!(f, "broken data ({problem})"),
            DataDirectory::Present { system_identifier, timeline, lsn, was_primary, .. } => {
                let of = if *was_primary { "primary" } else { "standby" };
                write!(
                    f,
                    "a {of}'s data (system identifier {system_identifier}, timeline {timeline}, \
                     {lsn})"
                )
            }
        }
    }
}

/// Why a PostgreSQL that accepts connections gives no facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlFailure {
    /// PostgreSQL's own words with the SQLSTATE where there are some; never a secret.
    pub text: String,
    /// It is our login that is refused: of the server itself this says nothing bad.
    pub denied: bool,
}

/// One answer of the monitoring query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SqlFacts {
    pub in_recovery: bool,
    pub server_version: u32,
    pub system_identifier: String,
    /// Text as PostgreSQL prints it in UTC, `2026-11-22 07:23:47.047734+00:00`.
    pub postmaster_start_time: String,
    pub timeline: u32,
    /// Primary: the timeline that its own left, and where. `None`: it left none, or that could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Switch>,
    /// Primary: flushed WAL. Replica: zero.
    pub flush_lsn: Lsn,
    pub receive_lsn: Lsn,
    pub replay_lsn: Lsn,
    pub replay_timestamp: Option<String>,
    pub replay_paused: bool,
    /// `streaming`, `in archive recovery`, or nothing.
    pub replication_state: Option<String>,
    /// The upstream's last position that the walreceiver was told of.
    pub latest_end_lsn: Lsn,
    pub replication: Vec<Walsender>,
    pub synchronous_standby_names: String,
    /// Surus has put them there; otherwise they are the operator's own.
    #[serde(default)]
    pub names_are_ours: bool,
    /// Primary: where its WAL ended when it was first seen to wait for these names; whoever has
    /// flushed as much holds everything that was acknowledged before. Noted by the consensus.
    #[serde(default)]
    pub waits_since: Lsn,
    /// Whose copies it has waited for since then. Noted by the consensus, too.
    #[serde(default)]
    pub waits_for: BTreeMap<String, CopyId>,
    /// Names of physical and logical slots with their restart LSN.
    pub slots: Vec<Slot>,
}

impl SqlFacts {
    /// The furthest position this PostgreSQL has on its disk.
    pub fn position(&self) -> Lsn {
        if self.in_recovery { self.receive_lsn.max(self.replay_lsn) } else { self.flush_lsn }
    }

    /// It holds the WAL of this timeline up to `end` (exclusive). A position on another timeline says
    /// nothing of what lies there: it may be the tail of an earlier leader.
    pub fn has_received(&self, timeline: u32, end: Lsn) -> bool {
        self.timeline == timeline && self.position() >= end
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Walsender {
    pub usename: String,
    pub application_name: String,
    pub client_addr: Option<String>,
    pub state: String,
    pub sync_state: String,
    pub sync_priority: i32,
    pub flush_lsn: Lsn,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    pub name: String,
    pub physical: bool,
    pub active: bool,
    pub restart_lsn: Lsn,
    /// PostgreSQL gave it up, as it held too much WAL: nobody can stream by it any more.
    #[serde(default)]
    pub lost: bool,
}

/// How far a replica build is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildProgress {
    pub method: String,
    pub method_number: u32,
    pub methods: u32,
    pub attempt: u32,
    pub source: String,
    pub phase: String,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub bytes_per_second: u64,
    /// Unknown while the total is.
    pub eta_s: Option<u64>,
    /// What the method said last, oldest first.
    pub last_lines: Vec<String>,
    /// The last failure in one sentence; empty while nothing has failed.
    pub problem: String,
    /// Seconds until everything is tried again; nothing while something is being tried.
    pub next_attempt_s: Option<u64>,
}

impl Facts {
    /// `nofailover`, or a failover_priority of zero or less: never promoted.
    pub fn nofailover(&self) -> bool {
        self.tags.nofailover()
    }

    pub fn failover_priority(&self) -> i64 {
        self.tags.failover_priority()
    }

    /// PostgreSQL runs and can commit, by its own answer; where it only refuses our login, by its last one
    /// or its control file: clients have their own passwords.
    pub fn is_writable(&self) -> bool {
        let denied = self.sql_failure.as_ref().is_some_and(|failure| failure.denied);
        let primary = match &self.sql {
            Some(sql) => !sql.in_recovery,
            None => denied && self.postmaster_alive && self.role == Role::Primary,
        };
        self.state == PgState::Running && primary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by a clustered story: a standby with a dead leader's tail was handed the lease.
    #[test]
    fn a_position_on_another_timeline_is_nothing_received() {
        let at = |timeline, lsn| SqlFacts {
            in_recovery: true,
            timeline,
            receive_lsn: Lsn(lsn),
            ..SqlFacts::default()
        };
        assert!(at(2, 900).has_received(2, Lsn(900)));
        assert!(!at(2, 899).has_received(2, Lsn(900)));
        assert!(!at(1, 5000).has_received(2, Lsn(900)));
    }

    /// A password that was rotated under us does not take the primary out of every load balancer.
    #[test]
    fn a_primary_that_refuses_only_us_is_writable() {
        let failure = SqlFailure { text: "FATAL: no (SQLSTATE 28P01)".into(), denied: true };
        let mut facts = Facts {
            state: PgState::Running,
            role: Role::Primary,
            postmaster_alive: true,
            sql_failure: Some(failure),
            ..Facts::default()
        };
        assert!(facts.is_writable());
        facts.role = Role::Replica;
        assert!(!facts.is_writable());
        facts.role = Role::Primary;
        facts.sql_failure.as_mut().expect("one").denied = false;
        assert!(!facts.is_writable(), "an error says nothing of what it can do");
        facts.sql_failure = None;
        assert!(!facts.is_writable());
    }
}
