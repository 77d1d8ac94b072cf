//! Switchover: the code behind the names in `statecharts/switchover.json`.
//!
//! Runs on the leader that hands over. The other half is the arbiter's grant and the candidate's
//! promotion; nothing has to be timed between them.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::state::Status;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::operation::{Operation, Report, StopMode};

include!(concat!(env!("OUT_DIR"), "/switchover.rs"));

const SECOND_MS: Millis = 1000;

/// What the exchange knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switchover {
    pub epoch: u64,
    pub candidate: Option<String>,
    pub shutdown: Option<Status>,
}

/// Nothing but its own work moves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {}

impl Implementation<Names, Input<Switchover>> for Switchover {
    fn allows(&self, guard: Guard, _input: &Input<Self>) -> bool {
        match guard {}
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        match (action, input) {
            (Action::NotePosition, Input::Done { report: Report::At { timeline, lsn }, .. }) => {
                self.shutdown = Some(Status { optime: *lsn, timeline: *timeline });
            }
            (Action::NotePosition, _) => {}
            (Action::LetArbiterChoose, _) => self.candidate = None,
        }
    }
}

impl Flow for Switchover {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "switchover";

    fn name(event: &Event) -> EventName {
        match *event {}
    }

    fn operation(&self, activity: Activity) -> Operation {
        match activity {
            Activity::Checkpoint => Operation::Checkpoint,
            Activity::ClearRequest => {
                Operation::Propose { command: Command::ClearFailover { expected: None } }
            }
            Activity::StopPostgres => Operation::StopPostgres { mode: StopMode::Fast },
            Activity::StopPostgresAtOnce => Operation::StopPostgres { mode: StopMode::Immediate },
            Activity::DisarmGuard => Operation::DisarmGuard,
            Activity::AwaitReceived => Operation::AwaitReceived {
                member: self.candidate.clone().unwrap_or_default(),
                timeline: self.shutdown.as_ref().map_or(0, |s| s.timeline),
                lsn: self.shutdown.as_ref().map_or_else(Default::default, |s| s.optime),
            },
            Activity::ReleaseLease => Operation::Propose {
                command: Command::Release {
                    epoch: self.epoch,
                    reason: String::from("switchover"),
                    shutdown: self.shutdown.clone(),
                    hand_over_to: self.candidate.clone(),
                    carried_out: true,
                },
            },
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::CheckpointTimeout => 60 * SECOND_MS,
            Delay::StopTimeout => 60 * SECOND_MS,
            Delay::AwaitTimeout => 5 * SECOND_MS,
            Delay::ProposeTimeout => 10 * SECOND_MS,
        }
    }
}

impl FollowsSituation for Switchover {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::machine::{Machine, Record};

    /// After an immediate shutdown nobody knows what the candidate lacks.
    #[test]
    fn without_a_fast_shutdown_nobody_is_handed_anything() {
        let candidate = Some(String::from("b"));
        let (_, step) = Machine::start(Switchover { epoch: 3, candidate, shutdown: None });
        let at_once = Record { to: String::from("stopping_at_once"), ..step.record };
        let (mut machine, _) = Machine::resume(at_once);
        let visit = machine.visit();
        assert!(machine.handle(Input::Done { visit, report: Report::Done }).is_some());
        assert_eq!(machine.state(), State::Clearing);
        assert!(matches!(
            machine.knowledge().operation(Activity::ClearRequest),
            Operation::Propose { command: Command::ClearFailover { expected: None } }
        ));
    }
}
