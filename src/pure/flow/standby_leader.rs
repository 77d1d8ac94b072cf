//! Standby leader: the code behind the names in `statecharts/standby_leader.json`.
//!
//! Invariant: a remote of another system identifier is not followed, and the cluster is promoted
//! only after the log says that it follows nobody any more.
use serde::{Deserialize, Serialize};

use crate::pure::chart::Implementation;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::remote::RemoteRelation;
use crate::pure::cluster::state::FailoverRequest;
use crate::pure::machine::any::Occurrence;
use crate::pure::machine::{Flow, FollowsSituation, Input};
use crate::pure::node::situation::Situation;
use crate::pure::operation::{Operation, Remote, Report};

include!(concat!(env!("OUT_DIR"), "/standby_leader.rs"));

const SECOND_MS: Millis = 1000;

/// What the standby leader knows; persisted with every transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandbyLeader {
    pub epoch: u64,
    pub remote: Remote,
    /// A planned exchange, and to whom.
    #[serde(default)]
    pub hand_over: Option<(FailoverRequest, Option<String>)>,
    /// Where its PostgreSQL stood when it stopped following.
    #[serde(default)]
    pub timeline: u32,
    /// Of the configuration under which its promotion was judged.
    #[serde(default)]
    pub config_version: u64,
}

/// What can happen to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// Said at every cycle: where the node stands.
    SituationChanged(Box<Situation>),
}

impl StandbyLeader {
    pub fn new(epoch: u64, remote: Remote) -> StandbyLeader {
        StandbyLeader { epoch, remote, hand_over: None, timeline: 0, config_version: 0 }
    }

    fn judge(&self, guard: Guard, s: &Situation) -> bool {
        let same = s.remote.as_ref() == Some(&self.remote);
        let stands = |standing| same && s.remote_relation == standing;
        let candidate = s.hand_over.as_ref().map(|h| h.candidate.is_some());
        match guard {
            Guard::NoLongerLeads => s.epoch() != Some(self.epoch) || s.remote.is_none(),
            Guard::PromotionIsDue => s.may_be_promoted,
            Guard::HandOverIsDue => candidate == Some(true),
            Guard::HandOverIsImpossible => candidate == Some(false),
            Guard::RemoteChanged => !same,
            Guard::RemoteIsForeign => stands(RemoteRelation::Foreign),
            Guard::RemoteIsSameCluster => stands(RemoteRelation::Same),
            Guard::RemoteIsPrimary => stands(RemoteRelation::Same) && s.remote_writes,
            Guard::ArchiveIsAll => same && self.remote.source.is_none(),
            Guard::IsBehindRemote => same && s.behind_remote,
            Guard::IsBackOnCourse => !s.behind_remote,
            Guard::PostmasterIsGone => !s.postmaster_alive,
            Guard::HasDiverged => false, // judged from a report, below
        }
    }
}

impl Implementation<Names, Input<StandbyLeader>> for StandbyLeader {
    fn allows(&self, guard: Guard, input: &Input<Self>) -> bool {
        match (guard, input) {
            (Guard::HasDiverged, Input::Done { report: Report::Diverged { yes, .. }, .. }) => *yes,
            (guard, Input::Event(Event::SituationChanged(s))) => self.judge(guard, s),
            _ => false,
        }
    }

    fn apply(&mut self, action: Action, input: &Input<Self>) {
        let Input::Event(Event::SituationChanged(s)) = input else { return };
        match action {
            Action::TakeRemote => self.remote = s.remote.clone().unwrap_or_default(),
            Action::TakeTimeline => {
                (self.timeline, self.config_version) = (s.timeline, s.config_version);
            }
            Action::TakeCandidate => {
                self.hand_over = s.hand_over.clone().map(|h| (h.request, h.candidate));
            }
        }
    }
}

impl Flow for StandbyLeader {
    type Names = Names;
    type Event = Event;
    const ID: &'static str = "standby_leader";

    fn name(event: &Event) -> EventName {
        match event {
            Event::SituationChanged(_) => EventName::SituationChanged,
        }
    }

    fn operation(&self, activity: Activity) -> Operation {
        let (epoch, source) = (self.epoch, self.remote.source.clone());
        match activity {
            Activity::DisarmGuard => Operation::DisarmGuard,
            Activity::CheckDivergence => {
                Operation::CheckDivergence { source: source.unwrap_or_default() }
            }
            Activity::PointUpstream => Operation::PointUpstream { source },
            Activity::PointNowhere => Operation::PointUpstream { source: None },
            Activity::LeaveStandby => Operation::Propose {
                command: Command::LeaveStandby {
                    epoch,
                    timeline: Some(self.timeline),
                    config_version: Some(self.config_version),
                },
            },
            Activity::ReleaseLease => Operation::Propose {
                command: Command::Release {
                    epoch,
                    reason: String::from("switchover"),
                    shutdown: None,
                    hand_over_to: self.hand_over.as_ref().and_then(|(_, to)| to.clone()),
                    carried_out: true,
                },
            },
            Activity::ClearRequest => Operation::Propose {
                command: Command::ClearFailover {
                    expected: self.hand_over.as_ref().map(|(request, _)| request.clone()),
                },
            },
        }
    }

    fn delay(&self, delay: Delay) -> Millis {
        match delay {
            Delay::GuardTimeout => 10 * SECOND_MS,
            Delay::JudgeTimeout => 5 * SECOND_MS,
            Delay::CompareTimeout => 30 * SECOND_MS,
            Delay::StartTimeout => 300 * SECOND_MS,
            Delay::RetryDelay => 2 * SECOND_MS,
            Delay::BehindRemoteDelay => 5 * SECOND_MS,
            Delay::ProposeTimeout => 10 * SECOND_MS,
        }
    }
}

impl FollowsSituation for StandbyLeader {
    fn event_of(&self, what: Occurrence<'_>) -> Option<Event> {
        let Occurrence::Situation(situation) = what else { return None };
        Some(Event::SituationChanged(Box::new(situation.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::machine::{Machine, Record};
    use crate::pure::node::situation::LeaseStatus;

    /// The other site may be behind, and not promoted yet: ours is not rewound to that.
    #[test]
    fn ours_is_compared_with_a_primary_only() {
        for (writes, wanted) in [(true, State::Comparing), (false, State::Pointing)] {
            let remote = Remote { source: Some(Default::default()), ..Remote::default() };
            let (_, step) = Machine::start(StandbyLeader::new(3, remote.clone()));
            let judging = Record { to: String::from("judging"), ..step.record };
            let (mut machine, _) = Machine::resume(judging);
            let situation = Situation {
                lease: LeaseStatus::Mine { epoch: 3, creates: false },
                remote: Some(remote),
                remote_relation: RemoteRelation::Same,
                remote_writes: writes,
                ..Situation::default()
            };
            let heard = Event::SituationChanged(Box::new(situation));
            assert!(machine.handle(Input::Event(heard)).is_some());
            assert_eq!(machine.state(), wanted);
        }
    }
}
