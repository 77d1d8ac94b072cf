//! Node: the code behind the names in `statecharts/node.json`.
//!
//! The only flow that is told the whole situation; all others are run by it. It keeps what its
//! operations need (epoch, upstream, candidate), so that a restart of the daemon resumes them.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::facts::DataDirectory;
use crate::pure::cluster::state::FailoverRequest;
use crate::pure::cluster::sync::SyncStep;
use crate::pure::machine::any::Occurrence;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::node::situation::{LeaseStatus, Situation};
use crate::pure::operation::{
    FlowInput, Inspection, Operation, ReinitOptions, RejoinRules, Release, Remote, Report, Source,
    StartAs, StopMode, WipePermission,
};

include!(concat!(env!("OUT_DIR"), "/node.rs"));

const SECOND_MS: Millis = 1000;

/// What the node knows beyond the situation; persisted with every transition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub inspection: Inspection,
    /// The epoch under which this node leads, or led last.
    pub epoch: u64,
    /// Whom this node streams from.
    pub upstream: Option<Source>,
    /// A reinitialize that was asked for: kept until it is done or called off.
    #[serde(default)]
    pub reinit: Option<ReinitOptions>,
    /// The leader's timeline when this replica was last found to be left behind.
    #[serde(default)]
    pub timeline_behind_since: u32,
    pub rules: RejoinRules,
    pub permission: Option<WipePermission>,
    pub pre_promote: bool,
    /// The timeline that was set aside with our lease: a daemon that comes back knows less of the log.
    #[serde(default)]
    pub set_aside: u32,
    pub remote: Option<Remote>,
    /// A restart that was asked for starts a primary: where it leads, and nowhere else. What SQL said last may
    /// be old, or nothing.
    #[serde(default)]
    pub writes: bool,
    pub hand_over: Option<(FailoverRequest, Option<String>)>,
    pub sync_step: Option<SyncStep>,
    /// The version of the synchronous set that the step is for.
    #[serde(default)]
    pub sync_version: u64,
    /// No proposal about the synchronous set can be on its way any more. One that nobody answered
    /// may still be applied much later; so this is only known after another one was.
    #[serde(default)]
    pub sync_settled: bool,
    /// This node began to create the cluster here; whatever came of it was never anybody's.
    #[serde(default)]
    pub created_here: bool,
    /// Held when the daemon was told to stop: then the lease is given back.
    pub led_when_stopped: bool,
}

/// What can happen to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// Said on every change and at least once a `loop_wait`: where the node stands.
    SituationChanged(Box<Situation>),
    PostgresDied,
}

fn situation(input: &Input<Node>) -> Option<&Situation> {
    match input {
        Input::Event(Event::SituationChanged(situation)) => Some(situation),
        _ => None,
    }
}

impl Node {
    fn has_no_copy(&self) -> bool {
        matches!(self.inspection.data, DataDirectory::Empty | DataDirectory::Incomplete)
    }

    fn has_copy(&self) -> bool {
        matches!(self.inspection.data, DataDirectory::Present { .. })
    }

    fn was_primary(&self) -> bool {
        matches!(self.inspection.data, DataDirectory::Present { was_primary: true, .. })
    }

    fn is_broken(&self) -> bool {
        matches!(self.inspection.data, DataDirectory::Broken { .. })
    }

    fn holds_foreign_data(&self, s: &Situation) -> bool {
        match (&self.inspection.data, &s.initialized) {
            (DataDirectory::Present { system_identifier, .. }, Some(cluster)) => {
                system_identifier != cluster
            }
            (DataDirectory::Broken { .. }, _) => true,
            _ => false,
        }
    }

    /// Begun here, and not what the cluster is: another node has created that, or the copy was given up.
    fn is_an_attempt(&self, s: &Situation) -> bool {
        let failed_bootstrap = self.created_here && self.holds_foreign_data(s);
        let begun = failed_bootstrap || self.inspection.data == DataDirectory::Incomplete;
        begun && s.initialized.is_some() && !self.inspection.unmanaged
    }

    /// It was running before us, and is not to be adopted: a standby while no cluster exists that
    /// it could belong to (its primary is somewhere, and may accept writes), or one that does not
    /// answer us, so nobody knows what it is.
    fn is_unmanaged(&self, s: &Situation) -> bool {
        let adoptable = match s.in_recovery {
            None => false,
            Some(standby) => s.initialized.is_some() || !standby,
        };
        self.inspection.unmanaged && !adoptable && s.postmaster_alive
    }

    /// Until it is adopted, by an entry of the log or by our leading with it. Who brings Surus to a running
    /// cluster starts one daemon after the other: its primary goes on meanwhile.
    fn waits_to_be_adopted(&self, s: &Situation) -> bool {
        let adopted = s.initialized.is_some() || matches!(s.lease, LeaseStatus::Mine { .. });
        let unknown = self.inspection.unmanaged && !self.inspection.numbered;
        unknown && s.postmaster_alive && !adopted
    }

    /// Not ours to stop.
    fn is_foreign(&self, s: &Situation) -> bool {
        let elsewhere = self.inspection.unmanaged && self.holds_foreign_data(s);
        self.waits_to_be_adopted(s) || self.is_unmanaged(s) || elsewhere
    }

    fn judge(&self, guard: Guard, s: &Situation) -> bool {
        let leads = matches!(s.lease, LeaseStatus::Mine { creates: false, .. });
        let runs = s.postmaster_alive;
        let writable = runs && s.in_recovery == Some(false);
        let led = matches!(&s.lease, LeaseStatus::Mine { epoch, .. } if *epoch == self.epoch);
        match guard {
            Guard::StopAsked => s.requests.stop,
            Guard::RunsAgain => !s.requests.stop,
            Guard::StopsWithoutPostgres => s.requests.stop && self.is_foreign(s),
            Guard::IsUnmanaged => self.is_unmanaged(s),
            Guard::IsFailedBootstrap => self.created_here && !runs && self.holds_foreign_data(s),
            Guard::AttemptRuns => runs && self.is_an_attempt(s) && !leads,
            Guard::HoldsForeignData => self.holds_foreign_data(s),
            Guard::LeadsWithForeignData => leads && !runs && self.holds_foreign_data(s),
            Guard::ForeignClusterRuns => runs && s.stranger,
            Guard::GuardIsLeftOver => Self::guard_is_left_over(s) && !self.may_be_writable(s),
            Guard::CreatesHere => matches!(s.lease, LeaseStatus::Mine { creates: true, .. }),
            Guard::MustStepDown => leads && s.remote.is_some() && writable,
            Guard::HasNeverFollowed => leads && s.never_followed,
            Guard::LeadsStandbyCluster => {
                leads && s.remote.is_some() && self.has_copy() && !self.may_be_writable(s)
            }
            Guard::LeadsWithoutData => leads && s.remote.is_some() && !runs && self.has_no_copy(),
            Guard::LeadsAndIsWritable => leads && s.remote.is_none() && writable,
            Guard::LeadsAndWasPrimary => leads && s.remote.is_none() && !runs && self.was_primary(),
            Guard::LeadsHere => leads && s.remote.is_none(),
            Guard::IsWritable => writable && !s.guarded && !self.waits_to_be_adopted(s),
            Guard::ReinitializeAsked => self.rebuild_asked(s),
            Guard::ReplacementAsked => !runs && self.is_broken() && self.rebuild_asked(s),
            Guard::ReinitializeForced => s.requests.reinitialize && self.may_be_rebuilt(s),
            Guard::MustBuild => self.has_no_copy() && !runs && s.initialized.is_some() && !leads,
            Guard::CanFollow => {
                runs && s.in_recovery == Some(true) && s.initialized.is_some() && !leads
            }
            // It was started when nobody led: it may need WAL to become consistent, and gets none.
            Guard::WaitsWithoutUpstream => {
                runs && s.in_recovery.is_none()
                    && !self.inspection.running_as_primary
                    && self.has_copy()
                    && s.initialized.is_some()
                    && s.upstream.is_some()
                    && s.upstream != self.upstream
                    && !leads
            }
            Guard::CanRejoin => !runs && self.has_copy() && s.upstream.is_some() && !leads,
            Guard::MustStandBy => {
                !runs
                    && self.has_copy()
                    && s.initialized.is_some()
                    && s.upstream.is_none()
                    && !leads
            }
            Guard::LeaseIsLost => self.lease_is_lost(s),
            Guard::PrimaryLostItsLease => self.epoch != 0 && writable && !led && !s.guarded,
            Guard::LeaderChanged => s.upstream.is_some() && s.upstream != self.upstream,
            Guard::PostmasterIsGone => !runs,
            Guard::IsTimelineBehind => self.is_timeline_behind(s),
            Guard::DataIsGone => runs && s.data_is_gone,
            Guard::RestartAsked => s.requests.restart,
            Guard::UpstreamChanged => s.upstream.is_some() && s.upstream != self.upstream,
            Guard::HandOverIsDue => {
                leads && s.hand_over.as_ref().is_some_and(|h| h.candidate.is_some())
            }
            Guard::HandOverIsImpossible => {
                leads && s.hand_over.as_ref().is_some_and(|h| h.candidate.is_none())
            }
            Guard::SyncStepIsDue => leads && s.sync_step.is_some(),
            Guard::HasDiverged | Guard::HasDivergedFromRemote => false, // judged from a report, below
        }
    }

    /// It writes, or nobody can tell: its files say that it was started as a primary.
    fn may_be_writable(&self, s: &Situation) -> bool {
        let primary = s.in_recovery.is_none() && self.inspection.running_as_primary;
        s.postmaster_alive && (s.in_recovery == Some(false) || primary)
    }

    /// Armed for another lease than the one we hold, if any.
    fn guard_is_left_over(s: &Situation) -> bool {
        s.armed.is_some() && s.armed != s.epoch() && !s.guarded
    }

    fn lease_is_lost(&self, s: &Situation) -> bool {
        match &s.lease {
            LeaseStatus::Mine { epoch, .. } => *epoch != self.epoch,
            LeaseStatus::Theirs { .. } => true,
            // A daemon that has just come back has no answered cycle yet; its guard knows.
            LeaseStatus::Nobody => !s.guarded,
        }
    }

    fn rebuild_asked(&self, s: &Situation) -> bool {
        (s.requests.reinitialize || self.reinit.is_some()) && self.may_be_rebuilt(s)
    }

    fn is_timeline_behind(&self, s: &Situation) -> bool {
        s.timeline_behind_since.unwrap_or(0) > self.timeline_behind_since && self.upstream.is_some()
    }

    /// There is somebody else who leads: its data is what counts.
    fn may_be_rebuilt(&self, s: &Situation) -> bool {
        s.initialized.is_some() && matches!(s.lease, LeaseStatus::Theirs { leader: Some(_) })
    }

    fn take_situation(&mut self, s: &Situation) {
        self.rules = s.rules.clone();
        self.pre_promote = s.pre_promote;
        self.set_aside = s.set_aside;
        self.remote = s.remote.clone();
        self.led_when_stopped = s.guarded || s.epoch().is_some_and(|epoch| epoch == self.epoch);
    }
}

impl Implementation<Names, Input<Node>> for Node {
    fn allows(&self, guard: Guard, input: &Input<Self>) -> bool {
        match (guard, input) {
            (Guard::HasDiverged, Input::Done { report: Report::Diverged { yes, .. }, .. }) => *yes,
            (
                Guard::HasDivergedFromRemote,
                Input::Done { report: Report::Ended { state, .. }, .. },
            ) => state == "diverged",
            _ => situation(input).is_some_and(|s| self.judge(guard, s)),
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        if let Input::Done { report: Report::Inspected(inspection), .. } = input
            && action == Action::NoteInspection
        {
            self.inspection = inspection.clone();
            self.permission = None;
        }
        if action == Action::TakeRemote {
            self.upstream = self.remote.as_ref().and_then(|remote| remote.source.clone());
        }
        if action == Action::PermitWipe {
            self.permission = Some(WipePermission::Operator { what: String::from("reinitialize") });
        }
        if action == Action::ForgetReinit {
            self.reinit = None;
        }
        if action == Action::ForgetUpstream {
            self.upstream = None;
        }
        if action == Action::NoteSyncSettled {
            self.sync_settled |= matches!(self.sync_step, Some(SyncStep::Publish(_)));
        }
        let Some(s) = situation(input).cloned() else { return };
        self.take_situation(&s);
        match action {
            Action::NoteInspection
            | Action::PermitWipe
            | Action::ForgetReinit
            | Action::ForgetUpstream
            | Action::TakeStanding
            | Action::NoteSyncSettled
            | Action::TakeRemote => {}
            Action::RestartAsPrimary => self.writes = true,
            Action::RestartAsStandby => self.writes = false,
            Action::TakeEpoch => {
                // What was asked of a replica is not done to what has led since.
                self.reinit = None;
                let creates = matches!(s.lease, LeaseStatus::Mine { creates: true, .. });
                self.created_here = creates && (self.created_here || !self.has_copy());
                self.epoch = s.epoch().unwrap_or(self.epoch);
                self.upstream = None;
            }
            Action::TakeReinit => {
                if s.requests.reinitialize {
                    self.reinit = Some(s.requests.build.clone());
                }
                self.upstream = s.upstream.clone();
            }
            Action::TakeUpstream => self.upstream = s.upstream.clone(),
            Action::NoteTimelineBehind => {
                self.timeline_behind_since =
                    s.timeline_behind_since.unwrap_or(self.timeline_behind_since);
            }
            Action::TakeCandidate => {
                self.hand_over = s.hand_over.map(|h| (h.request, h.candidate));
            }
            Action::TakeSyncStep => self.take_sync_step(&s),
        }
    }
}

/// It writes already, whatever the configuration says by now.
fn forgets_remote(epoch: u64) -> Command {
    Command::LeaveStandby { epoch, timeline: Some(0), config_version: None }
}

impl Flow for Node {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "node";

    fn name(event: &Event) -> EventName {
        match event {
            Event::SituationChanged(_) => EventName::SituationChanged,
            Event::PostgresDied => EventName::PostgresDied,
        }
    }

    fn operation(&self, activity: Activity) -> Operation {
        let epoch = self.epoch;
        match activity {
            Activity::InspectNode => Operation::InspectNode,
            Activity::DisarmGuard => Operation::DisarmGuard,
            Activity::SetAside => {
                Operation::MoveDataDirectoryAside { suffix: String::from("failed_bootstrap") }
            }
            Activity::RunClusterInitFlow => Operation::Run(FlowInput::ClusterInit {
                epoch,
                has_data: self.has_copy(),
                runs: self.inspection.unmanaged,
                remote: self.remote.clone(),
            }),
            Activity::RunReplicaBuildFlow => Operation::Run(FlowInput::ReplicaBuild {
                permission: self.permission.clone().unwrap_or(WipePermission::OwnLeftovers),
                methods: self.rules.methods.clone(),
                reinit: self.reinit.clone().unwrap_or_default(),
            }),
            Activity::StopPostgres => Operation::StopPostgres { mode: StopMode::Immediate },
            Activity::RunRejoinFlow => Operation::Run(FlowInput::Rejoin {
                source: self.upstream.clone().unwrap_or_default(),
                rules: self.rules.clone(),
            }),
            Activity::StartStandby => {
                Operation::StartPostgres { start_as: StartAs::Standby { source: None } }
            }
            Activity::PointUpstream => Operation::PointUpstream { source: self.upstream.clone() },
            Activity::CheckDivergence => {
                Operation::CheckDivergence { source: self.upstream.clone().unwrap_or_default() }
            }
            Activity::RunPromoteFlow => Operation::Run(self.promotion()),
            Activity::ClearFailover => Operation::Propose {
                command: Command::ClearFailover {
                    expected: self.hand_over.as_ref().map(|(request, _)| request.clone()),
                },
            },
            Activity::ApplySyncStep => self.sync_operation(),
            Activity::RunStandbyLeaderFlow => Operation::Run(FlowInput::StandbyLeader {
                epoch,
                remote: self.remote.clone().unwrap_or_default(),
            }),
            Activity::RunStepDownFlow => Operation::Run(FlowInput::StepDown { epoch }),
            // It leads already, on what was set aside for it.
            Activity::LeaveStandby => Operation::Propose { command: forgets_remote(epoch) },
            Activity::RunRecoveryFlow => Operation::Run(FlowInput::Restart {
                start_as: StartAs::Primary { epoch },
                crashed: true,
            }),
            Activity::RunRestartFlow => Operation::Run(self.restart()),
            Activity::RunSwitchoverFlow => Operation::Run(FlowInput::Switchover {
                epoch,
                candidate: self.hand_over.as_ref().and_then(|(_, c)| c.clone()),
            }),
            Activity::RunReleaseFlow => {
                self.demotion(StopMode::Immediate, "cannot serve its lease")
            }
            Activity::RunDemotionFlow => {
                Operation::Run(FlowInput::Demote { mode: StopMode::Immediate, release: None })
            }
            Activity::RunShutdownFlow if self.led_when_stopped => {
                self.demotion(StopMode::Fast, "the daemon stops")
            }
            Activity::RunShutdownFlow => {
                Operation::Run(FlowInput::Demote { mode: StopMode::Fast, release: None })
            }
            Activity::GiveUpVote => Operation::GiveUpVote,
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::InspectTimeout => 60 * SECOND_MS,
            Delay::RetryDelay => 2 * SECOND_MS,
            Delay::LookAgainDelay => 30 * SECOND_MS,
            Delay::StartTimeout => 300 * SECOND_MS,
            Delay::StandByDelay => 10 * SECOND_MS,
            Delay::CompareTimeout => 30 * SECOND_MS,
            Delay::ProposeTimeout => 10 * SECOND_MS,
            Delay::StopTimeout => 120 * SECOND_MS,
            Delay::VoteTimeout => 3 * SECOND_MS,
        }
    }
}

impl Node {
    fn demotion(&self, mode: StopMode, reason: &str) -> Operation {
        let release = Release { epoch: self.epoch, reason: reason.to_string(), hand_over_to: None };
        Operation::Run(FlowInput::Demote { mode, release: Some(release) })
    }

    fn restart(&self) -> FlowInput {
        let start_as = if self.writes {
            StartAs::Primary { epoch: self.epoch }
        } else {
            StartAs::Standby { source: self.upstream.clone() }
        };
        FlowInput::Restart { start_as, crashed: false }
    }

    /// PostgreSQL may not wait for fewer while a proposal may be on its way that names those it
    /// waits for: first the log says once more what it said, and by that makes any such one void.
    fn take_sync_step(&mut self, s: &Situation) {
        let unsettled = s.sync_barrier.clone().filter(|_| !self.sync_settled);
        self.sync_version = s.sync_version;
        self.sync_step = match (&s.sync_step, unsettled) {
            (Some(SyncStep::Apply(_)), Some(known)) => Some(SyncStep::Publish(Some(known))),
            (step, _) => step.clone(),
        };
        if matches!(self.sync_step, Some(SyncStep::Publish(_))) {
            self.sync_settled = false;
        }
    }

    fn promotion(&self) -> FlowInput {
        FlowInput::Promote {
            epoch: self.epoch,
            pre_promote: self.pre_promote,
            start_needed: false,
            set_aside: self.set_aside,
        }
    }

    fn sync_operation(&self) -> Operation {
        match &self.sync_step {
            Some(SyncStep::Apply(value)) => {
                Operation::SetSynchronousStandbyNames { value: value.clone() }
            }
            Some(SyncStep::Publish(sync)) => Operation::Propose {
                command: Command::SetSync {
                    epoch: self.epoch,
                    sync: sync.clone(),
                    expected: Some(self.sync_version),
                },
            },
            None => Operation::SetSynchronousStandbyNames { value: String::new() },
        }
    }
}

impl FollowsSituation for Node {
    fn event_of(&self, what: Occurrence<'_>) -> Option<Event> {
        Some(match what {
            Occurrence::Situation(situation) => {
                Event::SituationChanged(Box::new(situation.clone()))
            }
            Occurrence::PostgresDied => Event::PostgresDied,
        })
    }
}

#[cfg(test)]
mod tests;
