//! Standby leader: the code behind the names in `statecharts/standby_leader.json`.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Meaning;
use crate::pure::cluster::Millis;
use crate::pure::deed::{Deed, Source};
use crate::pure::machine::{Flow, Input};
use crate::pure::situation::{Hears, Situation};

include!(concat!(env!("OUT_DIR"), "/standby_leader.rs"));

/// What the standby leader knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandbyLeader {
    pub epoch: u64,
    pub remote: Source,
}

/// What can happen to it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Said at every beat: the epoch of our live lease, and whom the cluster follows.
    SituationChanged { epoch: Option<u64>, remote: Option<Source> },
}

impl Meaning<Names, Input<StandbyLeader>> for StandbyLeader {
    fn allows(&self, guard: Guard, input: &Input<Self>) -> bool {
        let Input::Event(Event::SituationChanged { epoch, remote }) = input else { return false };
        match guard {
            Guard::NoLongerLeads => *epoch != Some(self.epoch) || remote.is_none(),
            Guard::RemoteChanged => remote.as_ref().is_some_and(|r| *r != self.remote),
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        let Input::Event(Event::SituationChanged { remote: Some(remote), .. }) = input else {
            return;
        };
        match action {
            Action::TakeRemote => self.remote = remote.clone(),
        }
    }
}

impl Flow for StandbyLeader {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "standby_leader";

    fn name(event: &Event) -> EventName {
        match event {
            Event::SituationChanged { .. } => EventName::SituationChanged,
        }
    }

    fn deed(&self, activity: Activity) -> Deed {
        match activity {
            Activity::PointUpstream => Deed::PointUpstream { source: Some(self.remote.clone()) },
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::StartTimeout => 300_000,
            Delay::RetryDelay => 2_000,
        }
    }
}

impl Hears for StandbyLeader {
    fn hear(&self, situation: &Situation) -> Vec<Event> {
        let remote = situation.remote.clone();
        vec![Event::SituationChanged { epoch: situation.epoch(), remote }]
    }
}
