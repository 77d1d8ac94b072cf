//! The words in which Patroni describes one PostgreSQL: its state and its role.
use serde::{Deserialize, Serialize};

/// Patroni's state strings; the discriminants are its metric numbers and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PgState {
    #[serde(rename = "initializing new cluster")]
    Initializing = 0,
    #[serde(rename = "initdb failed")]
    InitdbFailed = 1,
    #[serde(rename = "running custom bootstrap script")]
    CustomBootstrap = 2,
    #[serde(rename = "custom bootstrap failed")]
    CustomBootstrapFailed = 3,
    #[serde(rename = "creating replica")]
    CreatingReplica = 4,
    #[serde(rename = "running")]
    Running = 5,
    #[serde(rename = "starting")]
    Starting = 6,
    #[serde(rename = "starting after custom bootstrap")]
    StartingAfterBootstrap = 7,
    #[serde(rename = "start failed")]
    StartFailed = 8,
    #[serde(rename = "restarting")]
    Restarting = 9,
    #[serde(rename = "restart failed")]
    RestartFailed = 10,
    #[serde(rename = "stopping")]
    Stopping = 11,
    #[default]
    #[serde(rename = "stopped")]
    Stopped = 12,
    #[serde(rename = "stop failed")]
    StopFailed = 13,
    #[serde(rename = "crashed")]
    Crashed = 14,
}

impl PgState {
    pub const ALL: [PgState; 15] = [
        PgState::Initializing,
        PgState::InitdbFailed,
        PgState::CustomBootstrap,
        PgState::CustomBootstrapFailed,
        PgState::CreatingReplica,
        PgState::Running,
        PgState::Starting,
        PgState::StartingAfterBootstrap,
        PgState::StartFailed,
        PgState::Restarting,
        PgState::RestartFailed,
        PgState::Stopping,
        PgState::Stopped,
        PgState::StopFailed,
        PgState::Crashed,
    ];

    /// The string clients match on.
    pub fn text(self) -> &'static str {
        match self {
            PgState::Initializing => "initializing new cluster",
            PgState::InitdbFailed => "initdb failed",
            PgState::CustomBootstrap => "running custom bootstrap script",
            PgState::CustomBootstrapFailed => "custom bootstrap failed",
            PgState::CreatingReplica => "creating replica",
            PgState::Running => "running",
            PgState::Starting => "starting",
            PgState::StartingAfterBootstrap => "starting after custom bootstrap",
            PgState::StartFailed => "start failed",
            PgState::Restarting => "restarting",
            PgState::RestartFailed => "restart failed",
            PgState::Stopping => "stopping",
            PgState::Stopped => "stopped",
            PgState::StopFailed => "stop failed",
            PgState::Crashed => "crashed",
        }
    }

    /// The value of the metric `patroni_postgres_state`.
    pub fn number(self) -> i32 {
        self as i32
    }
}

/// What this PostgreSQL is to the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Primary,
    Replica,
    StandbyLeader,
    Demoted,
    Promoted,
    #[default]
    Uninitialized,
}

impl Role {
    pub fn text(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::StandbyLeader => "standby_leader",
            Role::Demoted => "demoted",
            Role::Promoted => "promoted",
            Role::Uninitialized => "uninitialized",
        }
    }
}
