//! Promote: the code behind the names in `statecharts/promote.json`.
//!
//! Invariant (promise P1): the guard is armed for this very epoch before PostgreSQL leaves
//! recovery.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::state::HistoryRow;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::operation::{Operation, Report, StartAs};
use crate::pure::postgres::history::Switch;
use crate::pure::postgres::lsn::Lsn;

include!(concat!(env!("OUT_DIR"), "/promote.rs"));

const SECOND_MS: Millis = 1000;

/// What the promotion knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promote {
    pub epoch: u64,
    pub node: String,
    pub pre_promote: bool,
    pub start_needed: bool,
    /// The timeline to begin; zero: the next one.
    #[serde(default)]
    pub set_aside: u32,
    /// The new timeline, and its history as its file has it.
    pub timeline: u32,
    #[serde(default)]
    pub way: Vec<Switch>,
}

/// Nothing but its own work moves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {}

impl Implementation<Names, Input<Promote>> for Promote {
    fn allows(&self, guard: Guard, _input: &Input<Self>) -> bool {
        match guard {
            Guard::HasPrePromote => self.pre_promote,
            Guard::StartIsNeeded => self.start_needed,
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        match (action, input) {
            (
                Action::NotePosition,
                Input::Done { report: Report::Promoted { timeline, way }, .. },
            ) => {
                (self.timeline, self.way) = (*timeline, way.clone());
            }
            (Action::NotePosition, _) => {}
        }
    }
}

impl Promote {
    /// What was left, as the history file says.
    fn row(&self) -> HistoryRow {
        let left = self.way.last().copied().unwrap_or(Switch { timeline: 0, at: Lsn(0) });
        HistoryRow {
            timeline: left.timeline,
            lsn: left.at,
            reason: String::from("no recovery target specified"),
            timestamp: String::new(),
            new_leader: self.node.clone(),
        }
    }
}

impl Flow for Promote {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "promote";

    fn name(event: &Event) -> EventName {
        match *event {}
    }

    fn operation(&self, activity: Activity) -> Operation {
        match activity {
            Activity::ArmGuard => Operation::ArmGuard { epoch: self.epoch },
            Activity::RunPrePromote => Operation::RunPrePromote,
            Activity::StartStandby => {
                Operation::StartPostgres { start_as: StartAs::Standby { source: None } }
            }
            Activity::Promote => Operation::Promote { timeline: self.set_aside },
            Activity::RecordHistory => Operation::Propose {
                command: Command::AddHistory {
                    row: self.row(),
                    timeline: self.timeline,
                    way: self.way.clone(),
                },
            },
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::GuardTimeout => 10 * SECOND_MS,
            Delay::ScriptTimeout => 300 * SECOND_MS,
            Delay::StartTimeout => 300 * SECOND_MS,
            Delay::PromoteTimeout => 120 * SECOND_MS,
        }
    }
}

impl FollowsSituation for Promote {}
