//! Cluster init: the code behind the names in `statecharts/cluster_init.json`.
//!
//! Runs under the lease that was granted for it, so a dead initialiser is no riddle: its lease
//! runs out, its guard stops what it started, and another node may try.
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::operation::{
    FlowInput, Operation, ReinitOptions, Remote, Report, StartAs, StopMode, WipePermission,
};

include!(concat!(env!("OUT_DIR"), "/cluster_init.rs"));

const SECOND_MS: Millis = 1000;
/// A restore takes as long as it takes; the bootstrap knows the limits that the operator set.
const NO_LIMIT_MS: Millis = 2 * 365 * 24 * 3600 * SECOND_MS;
/// What of a problem goes into the log that every node keeps.
const REASON_CHARS_MAX: usize = 2000;

/// What the initialisation knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterInit {
    pub epoch: u64,
    pub node: String,
    /// Data lies here already: it is adopted, not created.
    pub has_data: bool,
    /// A PostgreSQL that Surus did not start runs on it: it is adopted as it runs.
    #[serde(default)]
    pub runs: bool,
    /// A standby cluster begins as a copy of this.
    pub remote: Option<Remote>,
    /// The first dynamic configuration, `bootstrap.dcs`.
    pub config: Value,
    pub system_identifier: String,
    pub problem: String,
}

/// Nothing but its own work moves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {}

impl Implementation<Names, Input<ClusterInit>> for ClusterInit {
    fn allows(&self, guard: Guard, _input: &Input<Self>) -> bool {
        match guard {
            Guard::HasData => self.has_data,
            Guard::HasRemote => self.remote.is_some(),
            Guard::IsForeign => self.runs,
            Guard::NothingToCopy => self.remote.as_ref().is_some_and(|remote| {
                remote.source.is_none() && !remote.methods.iter().any(|m| m.no_leader)
            }),
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        match (action, input) {
            (
                Action::NoteIdentity,
                Input::Done { report: Report::Identified { system_identifier }, .. },
            ) => self.system_identifier = system_identifier.clone(),
            (Action::NoteProblem, Input::Failed { problem, .. }) => self.problem = problem.clone(),
            (Action::NameMissingMethod, _) => {
                self.problem = String::from(
                    "standby_cluster has no host to copy from, and none of its \
                     create_replica_methods has no_leader: add one of them",
                );
            }
            (Action::NoteIdentity | Action::NoteProblem, _) => {}
        }
    }
}

impl Flow for ClusterInit {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "cluster_init";

    fn name(event: &Event) -> EventName {
        match *event {}
    }

    fn operation(&self, activity: Activity) -> Operation {
        let epoch = self.epoch;
        match activity {
            Activity::ArmGuard => Operation::ArmGuard { epoch },
            Activity::StartAdopted => Operation::StartPostgres { start_as: self.adopted_as() },
            Activity::RunReplicaBuildFlow => Operation::Run(FlowInput::ReplicaBuild {
                permission: WipePermission::OwnLeftovers,
                methods: self.remote.clone().unwrap_or_default().methods,
                reinit: ReinitOptions::default(),
            }),
            Activity::RunBootstrapFlow => Operation::Run(FlowInput::Bootstrap { epoch }),
            Activity::ReadIdentity => Operation::VerifyCopy { system_identifier: None },
            Activity::Publish => Operation::Propose {
                command: Command::Initialised {
                    epoch,
                    system_identifier: self.system_identifier.clone(),
                    config: self.config.clone(),
                },
            },
            Activity::StopPostgres => Operation::StopPostgres { mode: StopMode::Immediate },
            Activity::SetAside => {
                Operation::MoveDataDirectoryAside { suffix: String::from("failed") }
            }
            Activity::ReportFailure => Operation::Propose {
                command: Command::InitialiseFailed {
                    epoch,
                    node: self.node.clone(),
                    reason: self.problem.chars().take(REASON_CHARS_MAX).collect(),
                    at: String::new(),
                },
            },
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::GuardTimeout => 30 * SECOND_MS,
            Delay::StartTimeout => 600 * SECOND_MS,
            Delay::PublishTimeout => 60 * SECOND_MS,
            Delay::CreateTimeout => NO_LIMIT_MS,
        }
    }
}

impl ClusterInit {
    /// In a standby cluster nothing that lies here may write, not even for a moment.
    fn adopted_as(&self) -> StartAs {
        match &self.remote {
            Some(remote) => StartAs::Standby { source: remote.source.clone() },
            None => StartAs::Primary { epoch: self.epoch },
        }
    }
}

impl FollowsSituation for ClusterInit {}
