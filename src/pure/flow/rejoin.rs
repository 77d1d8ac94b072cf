//! Rejoin: the code behind the names in `statecharts/rejoin.json`.
//!
//! Invariant (promise P4): data that went another way is removed only if the operator's
//! configuration says so by name; otherwise it is moved aside and kept.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::operation::{
    Operation, RejoinRules, Report, Source, StartAs, StopMode, WipePermission,
};

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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {}

impl Implementation<Names, Input<Rejoin>> for Rejoin {
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

    fn operation(&self, activity: Activity) -> Operation {
        let source = self.source.clone();
        match activity {
            Activity::StopPostgres => Operation::StopPostgres { mode: StopMode::Fast },
            Activity::CheckDivergence => Operation::CheckDivergence { source },
            Activity::Rewind => Operation::Rewind { source },
            Activity::SetAside => self.set_aside(),
            Activity::StartStandby => {
                Operation::StartPostgres { start_as: StartAs::Standby { source: Some(source) } }
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
    fn set_aside(&self) -> Operation {
        let key = match (self.rules.use_pg_rewind, &self.rules) {
            (true, rules) if rules.remove_on_rewind_failure => {
                "remove_data_directory_on_rewind_failure"
            }
            (_, rules) if rules.remove_on_diverged_timelines => {
                "remove_data_directory_on_diverged_timelines"
            }
            _ => return Operation::MoveDataDirectoryAside { suffix: String::from("diverged") },
        };
        let permission = WipePermission::Operator { what: key.to_string() };
        Operation::ClearDataDirectory { permission }
    }
}

impl FollowsSituation for Rejoin {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::machine::Machine;

    /// What is done with diverged data under these rules, when a rewind that is tried fails.
    fn fate(use_pg_rewind: bool, on_failure: bool, on_divergence: bool) -> Operation {
        let rules = RejoinRules {
            use_pg_rewind,
            remove_on_rewind_failure: on_failure,
            remove_on_diverged_timelines: on_divergence,
            ..RejoinRules::default()
        };
        let (mut machine, step) = Machine::start(Rejoin { source: Source::default(), rules });
        let mut visit = step.record.visit;
        let diverged = Report::Diverged { yes: true, because: String::from("alone") };
        let mut inputs = vec![Ok(Report::Done), Ok(diverged)];
        inputs.extend(use_pg_rewind.then(|| Err(String::from("pg_rewind failed"))));
        for outcome in inputs {
            let input = match outcome {
                Ok(report) => Input::Done { visit, report },
                Err(problem) => Input::Failed { visit, problem },
            };
            visit = machine.handle(input).expect("it moves").record.visit;
        }
        assert_eq!(machine.state(), State::MovingAside);
        machine.knowledge().operation(Activity::SetAside)
    }

    /// Removed where the operator's key covers the case, and by that key's name; else kept.
    /// Spec: RW-2.
    #[test]
    fn diverged_data_goes_only_by_the_operators_key() {
        let aside = Operation::MoveDataDirectoryAside { suffix: String::from("diverged") };
        let removed = |key: &str| {
            let what = format!("remove_data_directory_on_{key}");
            Operation::ClearDataDirectory { permission: WipePermission::Operator { what } }
        };
        // Without pg_rewind the key about its failure says nothing.
        assert_eq!(fate(false, false, false), aside);
        assert_eq!(fate(false, true, false), aside);
        assert_eq!(fate(false, false, true), removed("diverged_timelines"));
        // With it, either key covers data that a failed rewind left.
        assert_eq!(fate(true, false, false), aside);
        assert_eq!(fate(true, true, false), removed("rewind_failure"));
        assert_eq!(fate(true, false, true), removed("diverged_timelines"));
    }
}
