//! Bootstrap: the code behind the names in `statecharts/bootstrap.json`.
//!
//! Each step is a state, so a restart of the daemon goes on where it was: no second initdb.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Meaning;
use crate::pure::cluster::Millis;
use crate::pure::deed::{Deed, StartAs};
use crate::pure::machine::{Flow, Input};
use crate::pure::situation::Hears;

include!(concat!(env!("OUT_DIR"), "/bootstrap.rs"));

const SECOND_MS: Millis = 1000;
const HOUR_MS: Millis = 3600 * SECOND_MS;

/// What the bootstrap knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    pub epoch: u64,
    /// The file names a post_bootstrap script.
    pub has_script: bool,
}

/// Nothing but its own work moves it.
#[derive(Clone, Debug)]
pub enum Event {}

impl Meaning<Names, Input<Bootstrap>> for Bootstrap {
    fn allows(&self, guard: Guard, _input: &Input<Self>) -> bool {
        match guard {
            Guard::HasScript => self.has_script,
        }
    }

    fn apply(&mut self, action: Action, _input: &Input<Self>) {
        match action {}
    }
}

impl Flow for Bootstrap {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "bootstrap";

    fn name(event: &Event) -> EventName {
        match *event {}
    }

    fn deed(&self, activity: Activity) -> Deed {
        match activity {
            Activity::CreateCluster => Deed::CreateCluster,
            Activity::StartPrimary => {
                Deed::StartPostgres { as_: StartAs::Primary { epoch: self.epoch } }
            }
            Activity::CreateRoles => Deed::CreateRoles,
            Activity::RunScript => Deed::RunPostBootstrap,
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::CreateTimeout => 48 * HOUR_MS,
            Delay::StartTimeout => 600 * SECOND_MS,
        }
    }
}

impl Hears for Bootstrap {}
