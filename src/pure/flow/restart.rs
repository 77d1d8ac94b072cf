//! Restart: the code behind the names in `statecharts/restart.json`.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Meaning;
use crate::pure::cluster::Millis;
use crate::pure::deed::{Deed, StartAs, StopMode};
use crate::pure::machine::{Flow, Input};
use crate::pure::situation::Hears;

include!(concat!(env!("OUT_DIR"), "/restart.rs"));

const SECOND_MS: Millis = 1000;

/// What the restart knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    pub as_: StartAs,
    /// It died by itself: nothing to stop.
    pub crashed: bool,
    /// primary_start_timeout: longer than this and somebody else shall lead.
    pub start_timeout_ms: Millis,
}

/// Nothing but its own work moves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {}

impl Meaning<Names, Input<Restart>> for Restart {
    fn allows(&self, guard: Guard, _input: &Input<Self>) -> bool {
        match guard {
            Guard::HasDied => self.crashed,
        }
    }

    fn apply(&mut self, action: Action, _input: &Input<Self>) {
        match action {}
    }
}

impl Flow for Restart {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "restart";

    fn name(event: &Event) -> EventName {
        match *event {}
    }

    fn deed(&self, activity: Activity) -> Deed {
        match activity {
            Activity::StopPostgres => Deed::StopPostgres { mode: StopMode::Fast },
            Activity::ArmGuard => match &self.as_ {
                StartAs::Primary { epoch } | StartAs::Restored { epoch, .. } => {
                    Deed::ArmGuard { epoch: *epoch }
                }
                StartAs::Standby { .. } => Deed::DisarmGuard,
            },
            Activity::StartPostgres => Deed::StartPostgres { as_: self.as_.clone() },
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

impl Hears for Restart {}
