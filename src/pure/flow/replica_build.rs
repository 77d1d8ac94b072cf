//! Replica build: the code behind the names in `statecharts/replica_build.json`.
//!
//! Fills an empty node with a copy of the cluster. Differs from Patroni in that a restart of the
//! daemon resumes the build at the state it had reached instead of starting over.
//!
//! Invariant: the permission to empty the data directory is used for what it was given for. Once
//! the directory was emptied, only our own unfinished copies may be removed.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Meaning;
use crate::pure::cluster::Millis;
use crate::pure::deed::{Deed, Method, Source, StartAs, WipePermission};
use crate::pure::machine::{Flow, Input};
use crate::pure::situation::{Hears, Situation};

include!(concat!(env!("OUT_DIR"), "/replica_build.rs"));

/// Rounds over all methods before a person has to look.
pub const ATTEMPTS_MAX: u32 = 3;

const SECOND_MS: Millis = 1000;
const HOUR_MS: Millis = 3600 * SECOND_MS;

/// What the build knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaBuild {
    /// Never empty.
    pub methods: Vec<Method>,
    pub permission: WipePermission,
    pub source: Option<Source>,
    /// The method being tried, a place in `methods`.
    pub method: usize,
    /// The round being tried, from 0.
    pub attempt: u32,
}

/// What can happen to the build.
#[derive(Clone, Debug)]
pub enum Event {
    /// Said at every beat: whom one could copy from now.
    TopologyChanged {
        source: Option<Source>,
    },
    LeaderLost,
    Cancel,
}

impl ReplicaBuild {
    /// From its brief; without methods it is `basebackup`, as in Patroni.
    pub fn new(source: Option<Source>, permission: WipePermission, methods: Vec<Method>) -> Self {
        let basebackup =
            || Method { name: "basebackup".into(), keep_data: false, no_leader: false };
        let methods = if methods.is_empty() { vec![basebackup()] } else { methods };
        ReplicaBuild { methods, permission, source, method: 0, attempt: 0 }
    }

    fn method(&self) -> &Method {
        &self.methods[self.method]
    }
}

fn source_in(input: &Input<ReplicaBuild>) -> Option<Source> {
    match input {
        Input::Event(Event::TopologyChanged { source }) => source.clone(),
        _ => None,
    }
}

impl Meaning<Names, Input<ReplicaBuild>> for ReplicaBuild {
    fn allows(&self, guard: Guard, input: &Input<Self>) -> bool {
        match guard {
            Guard::SourceKnown => self.source.is_some() || self.method().no_leader,
            Guard::SourceAvailable => source_in(input).is_some() || self.method().no_leader,
            Guard::SourceMoved => match (&self.source, source_in(input)) {
                (Some(copied), Some(now)) => copied.member != now.member,
                (None, _) | (_, None) => false,
            },
            Guard::KeepsData => self.method().keep_data,
            Guard::MethodNeedsLeader => !self.method().no_leader,
            Guard::MethodRemains => self.method + 1 < self.methods.len(),
            Guard::AttemptRemains => self.attempt + 1 < ATTEMPTS_MAX,
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        match action {
            Action::ChooseSource => self.source = source_in(input),
            Action::ClaimDataDirectory => self.permission = WipePermission::OwnLeftovers,
            Action::NextMethod => self.method += 1,
            Action::NextAttempt => (self.method, self.attempt) = (0, self.attempt + 1),
        }
    }
}

impl Flow for ReplicaBuild {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "replica_build";

    fn name(event: &Event) -> EventName {
        match event {
            Event::TopologyChanged { .. } => EventName::TopologyChanged,
            Event::LeaderLost => EventName::LeaderLost,
            Event::Cancel => EventName::Cancel,
        }
    }

    fn deed(&self, activity: Activity) -> Deed {
        let source = self.source.clone();
        match activity {
            Activity::ClearDataDirectory => {
                Deed::ClearDataDirectory { permission: self.permission.clone() }
            }
            Activity::RunMethod => Deed::CopyCluster { method: self.method().name.clone(), source },
            Activity::VerifyCopy => Deed::VerifyCopy { system_identifier: None },
            Activity::StartPostgres => Deed::StartPostgres { as_: StartAs::Standby { source } },
            Activity::WatchReplay => Deed::WatchReplay,
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::LocalTimeout => 600 * SECOND_MS,
            Delay::CopyTimeout => 6 * HOUR_MS,
            Delay::StartTimeout => 300 * SECOND_MS,
            Delay::StallTimeout => HOUR_MS,
            Delay::RetryDelay => 5 * SECOND_MS,
        }
    }
}

impl Hears for ReplicaBuild {
    fn hear(&self, situation: &Situation) -> Vec<Event> {
        // A leader that is lost while we copy is no reason to stop: the source may live on.
        let source = situation.clone_source.clone().or_else(|| situation.remote.clone());
        vec![Event::TopologyChanged { source }]
    }
}
