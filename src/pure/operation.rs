//! Everything a node can do to the world, and what it can hear back.
//!
//! Flows are sentences, operations are the words. A operation is plain data: a flow imports no other flow,
//! it runs one by a [`Operation::Run`] with a [`FlowInput`].
use serde::{Deserialize, Serialize};

use super::cluster::command::Command;
use super::cluster::facts::DataDirectory;
use super::postgres::history::Switch;
use super::postgres::lsn::Lsn;
use super::postgres::target::RecoveryEnd;

/// Something to do in the world. Each is idempotent: after a crash it is begun again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// Look at the data directory, at a running postmaster, at leftovers of an earlier life.
    InspectNode,
    /// Make the data directory empty, only if all that is in it is ours to remove.
    ClearDataDirectory {
        permission: WipePermission,
    },
    /// Move the data directory's content aside under a dated name.
    MoveDataDirectoryAside {
        suffix: String,
    },
    /// initdb, or the custom bootstrap method of this name.
    CreateCluster {
        method: String,
    },
    /// What a custom method left: a whole cluster of our version, with all that a start needs.
    VerifyRestored {
        method: String,
    },
    /// Until a restored cluster is out of recovery; shows how far it is.
    AwaitRecovery,
    /// Where recovery stopped, against the target that was asked for.
    CheckTarget,
    /// The superuser with the file's password, by a connection that needs none.
    CreateSuperuser,
    /// Every step of the creation is done: the directory counts as whole from here on.
    SealCluster,
    /// Write configuration files and start; done when it accepts connections.
    StartPostgres {
        start_as: StartAs,
    },
    /// done when no process of this data directory is left.
    StopPostgres {
        mode: StopMode,
    },
    /// Leave recovery and begin this timeline, which was set aside with the grant (zero: the next one);
    /// done when writes are possible. Reports the new timeline.
    Promote {
        timeline: u32,
    },
    Checkpoint,
    /// Replication and rewind roles.
    CreateRoles,
    RunPostBootstrap,
    RunPrePromote,
    /// Can this replica method run, and is the source of this cluster? Changes nothing.
    CheckMethod {
        method: String,
        source: Option<Source>,
    },
    /// Fill the data directory by one replica method from one source.
    CopyCluster {
        method: String,
        source: Option<Source>,
        /// What lies there is the tool's to use.
        keep_data: bool,
    },
    /// Is what was copied a cluster, this cluster, of the binaries' version?
    VerifyCopy {
        system_identifier: Option<String>,
    },
    /// Wait until streaming begins.
    WatchReplay,
    /// Compare our WAL with the leader's history.
    CheckDivergence {
        source: Source,
    },
    Rewind {
        source: Source,
    },
    /// Follow another upstream, by reload where PostgreSQL allows it, else by restart.
    PointUpstream {
        source: Option<Source>,
    },
    /// Start (or find) the guard for this epoch; done when it stands and holds a live deadline.
    ArmGuard {
        epoch: u64,
    },
    /// Nothing here can write any more: the guard stands down.
    DisarmGuard,
    /// Put a command into the log; done when it was applied, failed when refused.
    Propose {
        command: Command,
    },
    /// Has the candidate received everything up to here, on this timeline? Waits a bounded time.
    AwaitReceived {
        member: String,
        timeline: u32,
        lsn: Lsn,
    },
    /// Set synchronous_standby_names and wait until it is in force.
    SetSynchronousStandbyNames {
        value: String,
    },
    /// Run archive_command for the WAL file that holds the shutdown checkpoint: PostgreSQL itself
    /// leaves it behind.
    ShipWal {
        timeline: u32,
        lsn: Lsn,
    },
    /// Give up the vote (never the last one) before an orderly stop.
    GiveUpVote,
    /// Run another flow to its end.
    Run(FlowInput),
}

/// How PostgreSQL is to be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StartAs {
    /// Read-write; only under an armed guard.
    Primary { epoch: u64 },
    /// In recovery; without a source it waits for one.
    Standby { source: Option<Source> },
    /// What a custom bootstrap method restored, on its way to its target; ends as a primary, so
    /// only under an armed guard. Done when the postmaster stands, not when recovery ends.
    Restored { epoch: u64, method: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    Fast,
    Immediate,
}

/// Whom to copy or stream from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub member: String,
    pub host: String,
    pub port: u16,
    /// The slot on the source that keeps WAL for us, if slots are used.
    pub slot: Option<String>,
}

/// Somebody to copy from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    pub source: Source,
    pub kind: OfferKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OfferKind {
    /// Tagged `clonefrom`.
    CloneFrom,
    Leader,
    /// Any other healthy member: only where the operator named it, or nobody leads.
    Member,
}

/// How the operator wants a replica to be rebuilt; what is not said is as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReinitOptions {
    /// Copy from the leader by `basebackup`.
    #[serde(default)]
    pub from_leader: bool,
    /// Only this method.
    #[serde(default)]
    pub method: Option<String>,
    /// Only from this member.
    #[serde(default)]
    pub source: Option<String>,
    #[serde(default)]
    pub keep_data: Option<bool>,
}

/// How a source that is not a member is called; no member's name has a space.
const REMOTE: &str = "remote ";

impl Source {
    /// The cluster at this address, which a standby cluster follows.
    pub fn remote(host: &str, port: u16, slot: Option<String>) -> Source {
        Source { member: format!("{REMOTE}{host}:{port}"), host: host.to_string(), port, slot }
    }

    pub fn is_remote(&self) -> bool {
        self.member.starts_with(REMOTE)
    }
}

/// The cluster that a standby cluster follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remote {
    /// Nobody: from the archive alone.
    pub source: Option<Source>,
    /// How copies are made in a standby cluster.
    pub methods: Vec<Method>,
}

/// Why a data directory may be removed (promise P4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WipePermission {
    /// It is empty or holds only an unfinished copy of our own making.
    OwnLeftovers,
    /// The operator asked for it by name (reinit, or remove_data_directory_* in the file).
    Operator { what: String },
    /// A leader of the same system identifier, on a timeline at least ours, is ahead of it.
    NewerCopyElsewhere { leader: String, epoch: u64 },
}

/// The plain data another flow starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FlowInput {
    ClusterInit {
        epoch: u64,
        has_data: bool,
        runs: bool,
        remote: Option<Remote>,
    },
    Bootstrap {
        epoch: u64,
    },
    ReplicaBuild {
        permission: WipePermission,
        methods: Vec<Method>,
        reinit: ReinitOptions,
    },
    Rejoin {
        source: Source,
        rules: RejoinRules,
    },
    Promote {
        epoch: u64,
        pre_promote: bool,
        start_needed: bool,
        #[serde(default)]
        set_aside: u32,
    },
    Demote {
        mode: StopMode,
        release: Option<Release>,
    },
    Switchover {
        epoch: u64,
        candidate: Option<String>,
    },
    Restart {
        start_as: StartAs,
        crashed: bool,
    },
    StandbyLeader {
        epoch: u64,
        remote: Remote,
    },
    /// The leader's cluster follows another one from now on.
    StepDown {
        epoch: u64,
    },
}

/// How the lease is given back after a demotion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub epoch: u64,
    pub reason: String,
    pub hand_over_to: Option<String>,
}

/// One replica method and what the flow must know about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    pub name: String,
    pub keep_data: bool,
    pub no_leader: bool,
}

/// What may be done with a data directory that has gone another way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejoinRules {
    pub use_pg_rewind: bool,
    pub remove_on_rewind_failure: bool,
    pub remove_on_diverged_timelines: bool,
    pub methods: Vec<Method>,
    pub system_identifier: String,
    pub leader_epoch: u64,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    Done,
    Inspected(Inspection),
    /// The server's position after a start or stop.
    At {
        timeline: u32,
        lsn: Lsn,
    },
    /// It left recovery on this timeline, whose history file says which way led there, oldest first.
    Promoted {
        timeline: u32,
        way: Vec<Switch>,
    },
    /// `initialize` was written, or the copy belongs to this system identifier.
    Identified {
        system_identifier: String,
    },
    Diverged {
        yes: bool,
        because: String,
    },
    /// A program of the operator's ended well: how, and its last lines.
    Ran(Ran),
    /// Recovery ended here.
    Recovered(RecoveryEnd),
    /// A child flow came to rest in this final state.
    Ended {
        flow: String,
        state: String,
    },
    Applied,
}

/// What a program left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// `initdb`, a method's name, `post_bootstrap`.
    pub program: String,
    pub code: i32,
    /// The last lines of its output.
    pub tail: Vec<String>,
}

/// What a look at the node found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    pub data: DataDirectory,
    pub postmaster_alive: bool,
    /// Out of recovery, as far as can be told.
    pub running_as_primary: bool,
    /// The running PostgreSQL was not started by us.
    pub unmanaged: bool,
    /// Its data has a number of its own: Surus has had it before.
    #[serde(default)]
    pub numbered: bool,
}
