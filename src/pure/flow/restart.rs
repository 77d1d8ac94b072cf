//! Restart: the code behind the names in `statecharts/restart.json`.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::machine::any::Occurrence;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::operation::{Operation, StartAs, StopMode};

include!(concat!(env!("OUT_DIR"), "/restart.rs"));

const SECOND_MS: Millis = 1000;

/// What the restart knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    pub start_as: StartAs,
    /// It died by itself: nothing to stop.
    pub crashed: bool,
    /// primary_start_timeout in ms: after it another member shall lead, if one can; 0: at once.
    pub start_timeout_ms: Millis,
    /// That time is up.
    #[serde(default)]
    pub timed_out: bool,
    /// A member could take over, by what was last heard.
    #[serde(default)]
    pub another_can_lead: bool,
}

/// What moves it besides its own work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    SituationChanged { another_can_lead: bool },
}

impl Implementation<Names, Input<Restart>> for Restart {
    fn allows(&self, guard: Guard, input: &Input<Self>) -> bool {
        match guard {
            Guard::HasDied => self.crashed,
            Guard::IsToGiveWay => self.timed_out && told(input),
            Guard::MayFail => !self.is_primary() || self.another_can_lead,
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        match action {
            Action::NoteWhetherAnotherCanLead => self.another_can_lead = told(input),
            Action::NoteTimeout => self.timed_out = true,
        }
    }
}

fn told(input: &Input<Restart>) -> bool {
    matches!(input, Input::Event(Event::SituationChanged { another_can_lead: true }))
}

impl Restart {
    pub fn new(start_as: StartAs, crashed: bool, start_timeout_ms: Millis) -> Restart {
        Restart { start_as, crashed, start_timeout_ms, timed_out: false, another_can_lead: false }
    }

    fn is_primary(&self) -> bool {
        matches!(self.start_as, StartAs::Primary { .. })
    }
}

impl Flow for Restart {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "restart";

    fn name(event: &Event) -> EventName {
        match event {
            Event::SituationChanged { .. } => EventName::SituationChanged,
        }
    }

    fn operation(&self, activity: Activity) -> Operation {
        match activity {
            Activity::StopPostgres => Operation::StopPostgres { mode: StopMode::Fast },
            Activity::ArmGuard => match &self.start_as {
                StartAs::Primary { epoch } | StartAs::Restored { epoch, .. } => {
                    Operation::ArmGuard { epoch: *epoch }
                }
                StartAs::Standby { .. } => Operation::DisarmGuard,
            },
            Activity::StartPostgres => Operation::StartPostgres { start_as: self.start_as.clone() },
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::StopTimeout => 120 * SECOND_MS,
            Delay::GuardTimeout => 10 * SECOND_MS,
            Delay::StartTimeout => self.start_timeout_ms,
        }
    }
}

impl FollowsSituation for Restart {
    fn event_of(&self, what: Occurrence<'_>) -> Option<Event> {
        let Occurrence::Situation(situation) = what else { return None };
        let another_can_lead = situation.another_can_lead;
        let is_news = another_can_lead != self.another_can_lead;
        is_news.then_some(Event::SituationChanged { another_can_lead })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::machine::Machine;

    fn starting(start_as: StartAs) -> Machine<Restart> {
        let (mut machine, _) = Machine::start(Restart::new(start_as, true, 0));
        let visit = machine.visit();
        handle(&mut machine, Input::Done { visit, report: crate::pure::operation::Report::Done });
        assert_eq!(machine.state(), State::Starting);
        machine
    }

    fn handle(machine: &mut Machine<Restart>, input: Input<Restart>) -> State {
        machine.handle(input);
        machine.state()
    }

    fn elapsed(machine: &mut Machine<Restart>) -> State {
        let visit = machine.visit();
        handle(machine, Input::Elapsed { visit, delay: Delay::StartTimeout })
    }

    fn told(machine: &mut Machine<Restart>, another_can_lead: bool) -> State {
        handle(machine, Input::Event(Event::SituationChanged { another_can_lead }))
    }

    /// ha-parity PR-11.
    #[test]
    fn a_primary_that_starts_slowly_gives_way_only_to_whom_that_helps() {
        let mut alone = starting(StartAs::Primary { epoch: 3 });
        let visit = alone.visit();
        assert_eq!(elapsed(&mut alone), State::Starting, "nobody else can lead");
        assert_eq!(told(&mut alone, false), State::Starting);
        assert_eq!(alone.visit(), visit, "its start goes on");
        assert_eq!(told(&mut alone, true), State::Failed);
        let mut replaced = starting(StartAs::Primary { epoch: 3 });
        assert_eq!(told(&mut replaced, true), State::Starting, "it has time");
        assert_eq!(elapsed(&mut replaced), State::Failed);
        let mut replica = starting(StartAs::Standby { source: None });
        assert_eq!(elapsed(&mut replica), State::Failed);
    }
}
