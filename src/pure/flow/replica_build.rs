//! Replica build: the code behind the names in `statecharts/replica_build.json`.
//!
//! Fills an empty node with a copy of the cluster. A restart of the daemon resumes the build at the
//! state it had reached; a build that failed is tried again for ever, less and less often, and says
//! all the while what went wrong and when it goes on.
//!
//! Invariant: the permission to empty the data directory is used for what it was given for. Once
//! the directory was emptied, only our own unfinished copies may be removed.
use serde::{Deserialize, Serialize};

use crate::pure::chart::{Implementation, Name};
use crate::pure::cluster::Millis;
use crate::pure::cluster::facts::BuildProgress;
use crate::pure::machine::any::Occurrence;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::node::situation::{LeaseStatus, Situation};
use crate::pure::operation::{
    Method, Offer, OfferKind, Operation, ReinitOptions, Source, StartAs, StopMode, WipePermission,
};
use crate::pure::random;

include!(concat!(env!("OUT_DIR"), "/replica_build.rs"));

/// The method that is built in: pg_basebackup.
pub const BASEBACKUP: &str = "basebackup";
/// Failures that are remembered and shown.
const FAILURES_MAX: usize = 10;
/// Of what a failed method said, this much is kept.
const PROBLEM_CHARS_MAX: usize = 600;

const SECOND_MS: Millis = 1000;
const HOUR_MS: Millis = 3600 * SECOND_MS;
/// The wait after the first round of failures; it doubles with every round.
const RETRY_MS_MIN: Millis = 5 * SECOND_MS;
const RETRY_MS_MAX: Millis = 60 * SECOND_MS;

/// What the build knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaBuild {
    /// This node's name: nodes that failed together do not come back together.
    #[serde(default)]
    pub node: String,
    /// Never empty.
    pub methods: Vec<Method>,
    pub permission: WipePermission,
    /// What the operator asked for, if this is a reinitialize.
    #[serde(default)]
    pub reinit: ReinitOptions,
    /// Whom to copy from in this round, best first.
    #[serde(default)]
    pub sources: Vec<Source>,
    #[serde(default)]
    pub source_at: usize,
    /// Nobody led when this round began: only methods that need no leader are run.
    #[serde(default)]
    pub leaderless: bool,
    /// The method being tried, a place in `methods`.
    pub method: usize,
    /// The round being tried, from 0.
    pub attempt: u32,
    /// Who leads now, and whom to stream from when the copy is there.
    #[serde(default)]
    pub leader: Option<String>,
    #[serde(default)]
    pub upstream: Option<Source>,
    /// The lease under which the sources were chosen.
    #[serde(default)]
    pub epoch: u64,
    /// The data directory could not be emptied, though nothing runs on it.
    #[serde(default)]
    pub refused: bool,
    /// The last failures, oldest first.
    #[serde(default)]
    pub failures: Vec<Failure>,
}

/// A method that did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The round, from 0.
    pub attempt: u32,
    pub method: String,
    /// The member that was copied from; empty without one.
    pub source: String,
    pub problem: String,
}

/// What can happen to the build.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// Said at every cycle: who leads, whom to stream from, whom one could copy from.
    TopologyChanged {
        leader: Option<String>,
        upstream: Option<Source>,
        offers: Vec<Offer>,
        /// Of the newest lease: whoever leads under another may lack what a copy of before holds.
        #[serde(default)]
        epoch: u64,
    },
    Cancel,
}

impl Event {
    /// The level, as this flow hears it. A standby cluster's leader copies from the remote.
    pub fn of(situation: &Situation) -> Event {
        if situation.requests.cancel_build {
            return Event::Cancel;
        }
        let remote = || situation.remote.as_ref().and_then(|remote| remote.source.clone());
        let (leader, own) = match &situation.lease {
            LeaseStatus::Nobody => (None, false),
            LeaseStatus::Theirs { leader } => (leader.clone(), false),
            // A standby cluster that follows an archive is copied like one that nobody leads.
            LeaseStatus::Mine { .. } if remote().is_none() => (None, true),
            LeaseStatus::Mine { .. } => (Some(String::new()), true),
        };
        let upstream = situation.upstream.clone().or_else(|| remote().filter(|_| own));
        let mut offers = situation.clone_offers.clone();
        if offers.is_empty() {
            offers.extend(remote().map(|source| Offer { source, kind: OfferKind::Leader }));
        }
        let epoch = situation.rules.leader_epoch;
        Event::TopologyChanged { leader, upstream, offers, epoch }
    }
}

impl ReplicaBuild {
    /// From its brief; without methods it is `basebackup`, as in Patroni.
    pub fn new(
        node: &str,
        permission: WipePermission,
        methods: Vec<Method>,
        reinit: ReinitOptions,
    ) -> Self {
        ReplicaBuild {
            node: node.to_string(),
            methods: chosen(methods, &reinit),
            permission,
            reinit,
            sources: vec![],
            source_at: 0,
            leaderless: false,
            method: 0,
            attempt: 0,
            leader: None,
            upstream: None,
            epoch: 0,
            refused: false,
            failures: vec![],
        }
    }

    fn method(&self) -> &Method {
        &self.methods[self.method.min(self.methods.len() - 1)]
    }

    /// Whom the method being tried copies from; nobody where it restores without a leader.
    pub fn source(&self) -> Option<&Source> {
        let wanted = !self.leaderless || self.method().name == BASEBACKUP;
        self.sources.get(self.source_at).filter(|_| wanted)
    }

    /// The next method, from `from` on, that can be run in this round.
    fn usable(&self, from: usize, sources: &[Source], leaderless: bool) -> Option<usize> {
        let can = |method: &Method| match (leaderless, method.name == BASEBACKUP) {
            (false, _) => true,
            (true, true) => !sources.is_empty(),
            (true, false) => method.no_leader,
        };
        (from..self.methods.len()).find(|at| can(&self.methods[*at]))
    }

    /// Whom of these the build would copy from. Those that failed last time come last.
    fn acceptable(&self, offers: &[Offer], leaderless: bool) -> Vec<Source> {
        let wanted = |offer: &&Offer| match (&self.reinit.source, self.reinit.from_leader) {
            (Some(name), _) => offer.source.member == *name,
            (None, true) => offer.kind == OfferKind::Leader,
            (None, false) => leaderless || offer.kind != OfferKind::Member,
        };
        let mut sources: Vec<Source> =
            offers.iter().filter(wanted).map(|o| o.source.clone()).collect();
        sources.sort_by_key(|source| self.failed_last_time(&source.member));
        sources
    }

    fn failed_last_time(&self, member: &str) -> bool {
        self.failures.iter().any(|f| f.attempt + 1 == self.attempt && f.source == member)
    }

    fn choose(&mut self, input: &Input<Self>, leaderless: bool) {
        let Input::Event(Event::TopologyChanged { offers, epoch, .. }) = input else { return };
        self.epoch = *epoch;
        self.sources = self.acceptable(offers, leaderless);
        (self.source_at, self.leaderless) = (0, leaderless);
        self.method = self.usable(0, &self.sources, leaderless).unwrap_or(0);
    }

    fn note_failure(&mut self, input: &Input<Self>) {
        let problem = match input {
            Input::Failed { problem, .. } => problem.chars().take(PROBLEM_CHARS_MAX).collect(),
            Input::Elapsed { delay, .. } => format!("{} is over", delay.text()),
            Input::Start | Input::Event(_) | Input::Done { .. } => return,
        };
        self.failures.push(Failure {
            attempt: self.attempt,
            method: self.method().name.clone(),
            source: self.source().map(|source| source.member.clone()).unwrap_or_default(),
            problem,
        });
        let excess = self.failures.len().saturating_sub(FAILURES_MAX);
        self.failures.drain(..excess);
    }

    /// Doubled with every round, and a quarter more or less, drawn from name and round.
    fn retry_ms(&self) -> Millis {
        let base = (RETRY_MS_MIN << self.attempt.min(10)).min(RETRY_MS_MAX);
        let seed = format!("{} {}", self.node, self.attempt);
        base - base / 4 + random::from_text(&seed) % (base / 2)
    }

    /// What people are shown of a build that is in this state; without bytes, which nobody here
    /// counts.
    pub fn progress(&self, state: State) -> Option<BuildProgress> {
        let phase = match state {
            State::Waiting | State::Leaderless => "waiting for a source",
            State::Clearing => "emptying the data directory",
            State::CatchingUp => "catching up",
            State::BackingOff => "backing off",
            State::Checking
            | State::Copying
            | State::Verifying
            | State::Starting
            | State::Stopping => state.name(),
            _ => return None,
        };
        Some(BuildProgress {
            method: self.method().name.clone(),
            method_number: self.method as u32 + 1,
            methods: self.methods.len() as u32,
            attempt: self.attempt + 1,
            source: self.source().map(|source| source.member.clone()).unwrap_or_default(),
            phase: phase.to_string(),
            problem: self.failures.last().map(Failure::sentence).unwrap_or_default(),
            ..BuildProgress::default()
        })
    }
}

impl Failure {
    pub fn sentence(&self) -> String {
        let from = if self.source.is_empty() { "" } else { " from " };
        format!("{}{from}{}: {}", self.method, self.source, self.problem)
    }
}

/// The methods in force: all that are configured, unless the operator asked for something else.
fn chosen(methods: Vec<Method>, reinit: &ReinitOptions) -> Vec<Method> {
    let basebackup = || Method { name: BASEBACKUP.into(), keep_data: false, no_leader: false };
    let mut methods = if methods.is_empty() { vec![basebackup()] } else { methods };
    if let Some(name) = &reinit.method {
        methods.retain(|method| method.name == *name);
    } else if reinit.from_leader {
        methods.clear();
    }
    if let Some(keep_data) = reinit.keep_data {
        // pg_basebackup needs an empty directory: it would not keep what is to be kept.
        methods.retain(|method| !keep_data || method.name != BASEBACKUP);
        methods.iter_mut().for_each(|method| method.keep_data = keep_data);
    }
    if methods.is_empty() { vec![basebackup()] } else { methods }
}

impl Implementation<Names, Input<ReplicaBuild>> for ReplicaBuild {
    fn allows(&self, guard: Guard, input: &Input<Self>) -> bool {
        match guard {
            Guard::SourceAvailable => match input {
                Input::Event(Event::TopologyChanged { leader, offers, .. }) => {
                    leader.is_some() && !self.acceptable(offers, false).is_empty()
                }
                _ => false,
            },
            Guard::WouldRemoveACopy => {
                let nobody_leads =
                    matches!(input, Input::Event(Event::TopologyChanged { leader: None, .. }));
                nobody_leads && self.permission != WipePermission::OwnLeftovers
            }
            Guard::WorksWithoutLeader => match input {
                Input::Event(Event::TopologyChanged { leader: None, offers, .. }) => {
                    let sources = self.acceptable(offers, true);
                    !self.reinit.from_leader && self.usable(0, &sources, true).is_some()
                }
                _ => false,
            },
            Guard::UpstreamMoved => match input {
                Input::Event(Event::TopologyChanged { upstream: Some(now), epoch, .. }) => {
                    let same = self.upstream.as_ref().is_some_and(|old| old.member == now.member);
                    !same || *epoch != self.epoch
                }
                _ => false,
            },
            Guard::NobodyLeads => self.leader.is_none() && self.upstream.is_none(),
            Guard::WasRefusedBefore => self.refused,
            Guard::KeepsData => self.method().keep_data,
            Guard::SourceRemains => {
                self.method().name == BASEBACKUP && self.source_at + 1 < self.sources.len()
            }
            Guard::MethodRemains => {
                self.usable(self.method + 1, &self.sources, self.leaderless).is_some()
            }
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        match action {
            Action::NoteTopology => {
                if let Input::Event(Event::TopologyChanged { leader, upstream, .. }) = input {
                    (self.leader, self.upstream) = (leader.clone(), upstream.clone());
                }
            }
            Action::ChooseSources => self.choose(input, false),
            Action::ChooseWithoutLeader => self.choose(input, true),
            Action::NoteFailure => self.note_failure(input),
            Action::ClaimDataDirectory => {
                (self.permission, self.refused) = (WipePermission::OwnLeftovers, false);
            }
            Action::NoteRefusal => self.refused = true,
            Action::NextSource => self.source_at += 1,
            Action::NextMethod => {
                let next = self.usable(self.method + 1, &self.sources, self.leaderless);
                (self.method, self.source_at) = (next.unwrap_or(0), 0);
            }
            Action::NextAttempt => {
                (self.method, self.source_at, self.attempt) = (0, 0, self.attempt + 1);
            }
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
            Event::Cancel => EventName::Cancel,
        }
    }

    fn operation(&self, activity: Activity) -> Operation {
        let method = self.method().name.clone();
        match activity {
            Activity::CheckMethod => {
                Operation::CheckMethod { method, source: self.source().cloned() }
            }
            Activity::ClearDataDirectory => {
                Operation::ClearDataDirectory { permission: self.permission.clone() }
            }
            Activity::RunMethod => Operation::CopyCluster {
                method,
                source: self.source().cloned(),
                keep_data: self.method().keep_data,
            },
            Activity::VerifyCopy => Operation::VerifyCopy { system_identifier: None },
            Activity::StartPostgres => Operation::StartPostgres {
                start_as: StartAs::Standby { source: self.upstream.clone() },
            },
            Activity::WatchReplay => Operation::WatchReplay,
            Activity::StopPostgres => Operation::StopPostgres { mode: StopMode::Immediate },
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::LeaderlessDelay => 10 * SECOND_MS,
            Delay::CheckTimeout => 60 * SECOND_MS,
            Delay::LocalTimeout => 600 * SECOND_MS,
            // A big cluster takes days; what stands still is noticed by whoever runs the tool.
            Delay::CopyTimeout => 30 * 24 * HOUR_MS,
            Delay::StartTimeout => 24 * HOUR_MS,
            Delay::StallTimeout => HOUR_MS,
            Delay::StopTimeout => 120 * SECOND_MS,
            Delay::RetryDelay => self.retry_ms(),
        }
    }
}

impl FollowsSituation for ReplicaBuild {
    fn event_of(&self, what: Occurrence<'_>) -> Option<Event> {
        let Occurrence::Situation(situation) = what else { return None };
        Some(Event::of(situation))
    }
}
