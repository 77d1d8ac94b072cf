//! Demote: the code behind the names in `statecharts/demote.json`.
//!
//! Invariant: the guard stands down, and the lease goes back, only after no process of the data
//! directory is left.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::state::Status;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::operation::{Operation, Release, Report, StopMode};

include!(concat!(env!("OUT_DIR"), "/demote.rs"));

const SECOND_MS: Millis = 1000;

/// What the demotion knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demote {
    pub mode: StopMode,
    /// The lease is ours to give back.
    pub release: Option<Release>,
    /// Where our WAL ends, after a clean stop.
    pub shutdown: Option<Status>,
    /// The whole cluster stops writing, under this epoch: it follows another one from now on.
    #[serde(default)]
    pub hands_over: Option<u64>,
}

/// Nothing but its own work moves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {}

impl Implementation<Names, Input<Demote>> for Demote {
    fn allows(&self, guard: Guard, _input: &Input<Self>) -> bool {
        match guard {
            Guard::GivesLeaseBack => self.release.is_some(),
            Guard::HandsClusterOver => self.hands_over.is_some(),
            Guard::HasShutdownCheckpoint => self.hands_over.is_some() && self.shutdown.is_some(),
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        match (action, input) {
            (Action::NotePosition, Input::Done { report: Report::At { timeline, lsn }, .. }) => {
                self.shutdown = Some(Status { optime: *lsn, timeline: *timeline });
            }
            (Action::NotePosition, _) => {}
        }
    }
}

impl Flow for Demote {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "demote";

    fn name(event: &Event) -> EventName {
        match *event {}
    }

    fn operation(&self, activity: Activity) -> Operation {
        match activity {
            Activity::StopPostgres => Operation::StopPostgres { mode: self.mode },
            Activity::StopPostgresAtOnce => Operation::StopPostgres { mode: StopMode::Immediate },
            Activity::DisarmGuard => Operation::DisarmGuard,
            Activity::Checkpoint => Operation::Checkpoint,
            Activity::ShipWal => {
                let end = self.shutdown.clone().unwrap_or_default();
                Operation::ShipWal { timeline: end.timeline, lsn: end.optime }
            }
            Activity::RecordHandover => Operation::Propose {
                command: Command::Demoted {
                    epoch: self.hands_over.unwrap_or_default(),
                    shutdown: self.shutdown.clone().unwrap_or_default(),
                },
            },
            Activity::ReleaseLease => {
                let release = self.release.clone().unwrap_or_else(|| Release {
                    epoch: 0,
                    reason: String::new(),
                    hand_over_to: None,
                });
                Operation::Propose {
                    command: Command::Release {
                        epoch: release.epoch,
                        reason: release.reason,
                        shutdown: self.shutdown.clone(),
                        hand_over_to: release.hand_over_to,
                        carried_out: false,
                    },
                }
            }
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::StopTimeout => 60 * SECOND_MS,
            Delay::GuardTimeout => 10 * SECOND_MS,
            Delay::ShipTimeout => 60 * SECOND_MS,
        }
    }
}

impl FollowsSituation for Demote {}
