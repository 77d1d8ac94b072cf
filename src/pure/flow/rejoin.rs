//! Rejoin: the code behind the names in `statecharts/rejoin.json`.
//!
//! Invariant (promise P4): data that went another way is removed only if the operator's
//! configuration says so by name; otherwise it is moved aside and kept.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Meaning;
use crate::pure::cluster::Millis;
use crate::pure::deed::{Deed, RejoinRules, Report, Source, StartAs, StopMode, WipePermission};
use crate::pure::machine::{Flow, Input};
use crate::pure::situation::Hears;

include!(concat!(env!("OUT_DIR"), "/rejoin.rs"));

const SECOND_MS: Millis = 1000;
const HOUR_MS: Millis = 3600 * SECOND_MS;

/// What the rejoin knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejoin {
    pub source: Source,
    pub rules: RejoinRules,
}

/// Nothing but its own work moves it.
#[derive(Clone, Debug)]
pub enum Event {}

impl Meaning<Names, Input<Rejoin>> for Rejoin {
    fn allows(&self, guard: Guard, input: &Input<Self>) -> bool {
        match guard {
            Guard::IsOnTheWay => {
                matches!(input, Input::Done { report: Report::Diverged { yes: false, .. }, .. })
            }
            Guard::MayRewind => self.rules.use_pg_rewind,
        }
    }

    fn apply(&mut self, action: Action, _input: &Input<Self>) {
        match action {}
    }
}

impl Flow for Rejoin {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "rejoin";

    fn name(event: &Event) -> EventName {
        match *event {}
    }

    fn deed(&self, activity: Activity) -> Deed {
        let source = self.source.clone();
        match activity {
            Activity::StopPostgres => Deed::StopPostgres { mode: StopMode::Fast },
            Activity::CheckDivergence => Deed::CheckDivergence { source },
            Activity::Rewind => Deed::Rewind { source },
            Activity::SetAside => self.set_aside(),
            Activity::StartStandby => {
                Deed::StartPostgres { as_: StartAs::Standby { source: Some(source) } }
            }
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::StartTimeout => 600 * SECOND_MS,
            Delay::CompareTimeout => 60 * SECOND_MS,
            Delay::RewindTimeout => 6 * HOUR_MS,
        }
    }
}

impl Rejoin {
    /// Which of the operator's two keys permits removal depends on how we got here.
    fn set_aside(&self) -> Deed {
        let key = match (self.rules.use_pg_rewind, &self.rules) {
            (true, rules) if rules.remove_on_rewind_failure => {
                "remove_data_directory_on_rewind_failure"
            }
            (_, rules) if rules.remove_on_diverged_timelines => {
                "remove_data_directory_on_diverged_timelines"
            }
            _ => return Deed::MoveDataDirectoryAside { suffix: String::from("diverged") },
        };
        let permission = WipePermission::Operator { what: key.to_string() };
        Deed::ClearDataDirectory { permission }
    }
}

impl Hears for Rejoin {}
