//! A cluster that follows another one, and how it stops doing so.
//!
//! That the section is gone from the configuration does not promote by itself: a slip of an editor
//! would make two primaries. The cluster goes on following the remote that it followed, until the
//! leader has seen that nobody writes there any more, or the operator has said that it does not
//! matter. Then the leader puts that into the log, and only then is it promoted.
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::command::Outcome;
use super::facts::SqlFacts;
use super::handover::Token;
use super::remote::{RemoteFacts, RemoteRelation, standing};
use super::state::{ClusterState, Status};
use crate::pure::config::{Dynamic, StandbyCluster};

/// The remote that this cluster follows, or followed until its section was taken out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standby {
    /// `standby_cluster` as it was last written.
    pub section: Value,
    /// What the operator said when asking for the promotion; an edit says nothing.
    pub order: Option<Order>,
    /// It was a primary cluster when the section came, and nobody has stood down yet: what was
    /// acknowledged here still binds whoever leads.
    #[serde(default)]
    pub owes_demotion: bool,
}

/// The terms of a promotion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Not before this has been replayed.
    pub token: Option<Token>,
    /// Also while the remote accepts writes, or nobody knows.
    pub even_if_remote_writes: bool,
}

/// The section of a configuration, if it makes a standby cluster.
fn section(config: Option<&Value>) -> Option<&Value> {
    let config = config?;
    Dynamic::from_value(Some(config)).standby_cluster?;
    Some(&config["standby_cluster"])
}

impl ClusterState {
    /// The configuration in force. A cluster whose section was taken out follows its remote until
    /// it is promoted.
    pub fn dynamic(&self) -> Dynamic {
        let mut dynamic = Dynamic::from_value(self.config.as_ref());
        if let (None, Some(standby)) = (&dynamic.standby_cluster, &self.standby) {
            let alone = json!({"standby_cluster": standby.section});
            dynamic.standby_cluster = Dynamic::from_value(Some(&alone)).standby_cluster;
            dynamic.leaves_standby = dynamic.standby_cluster.is_some();
        }
        dynamic
    }

    /// After every change of the configuration.
    pub(super) fn note_standby(&mut self) {
        let Some(section) = section(self.config.as_ref()).cloned() else { return };
        if self.standby.as_ref().is_none_or(|old| old.order.is_some() || old.section != section) {
            let led = self.system_identifier().is_some();
            let owes_demotion = self.standby.as_ref().map_or(led, |old| old.owes_demotion);
            self.standby = Some(Standby { section, order: None, owes_demotion });
        }
    }

    /// It follows another cluster, and nothing that was acknowledged here binds its leader any more.
    pub fn only_follows(&self, dynamic: &Dynamic) -> bool {
        let owes = self.standby.as_ref().is_some_and(|standby| standby.owes_demotion);
        dynamic.standby_cluster.is_some() && !owes
    }

    pub(super) fn promote_cluster(&mut self, index: u64, order: Order) -> Outcome {
        let Some(standby) = &mut self.standby else {
            return Outcome::refused("Cluster is already in the required state");
        };
        standby.order = Some(order);
        if let Some(Value::Object(config)) = &mut self.config {
            config.shift_remove("standby_cluster");
        }
        self.config_version = index;
        Outcome::Done
    }

    /// What speaks for it was judged under one version of the configuration: a section that has been there again
    /// since may have let the other site be promoted.
    pub(super) fn leave_standby(
        &mut self,
        (index, epoch): (u64, u64),
        on: Option<u32>,
        judged_under: Option<u64>,
    ) -> Outcome {
        if section(self.config.as_ref()).is_some() {
            return Outcome::refused("the configuration says again that this is a standby cluster");
        }
        if judged_under.is_some_and(|version| version != self.config_version) {
            return Outcome::refused("the configuration has changed since the remote was judged");
        }
        self.with_lease(epoch, |s| {
            s.standby = None;
            s.handover = None;
            s.status = Status::default();
            s.config_version = index;
            // What was set aside at the grant was before the remote's own timelines. An entry of an
            // older version does not say where its leader stood.
            s.timeline = on.map_or(0, |on| s.timeline.max(on) + 1);
        })
    }

    pub(super) fn demoted(&mut self, epoch: u64, shutdown: Status) -> Outcome {
        let identity = self.system_identifier().unwrap_or_default().to_string();
        self.with_lease(epoch, |s| {
            s.handover = Some(Token {
                system_identifier: identity,
                timeline: shutdown.timeline,
                lsn: shutdown.optime,
            });
            s.status = shutdown;
            s.standby.iter_mut().for_each(|standby| standby.owes_demotion = false);
        })
    }

    /// Where this cluster was demoted itself, its leader has replayed that far, or another primary's
    /// timeline since.
    fn holds_what_was_acknowledged(&self, own: &SqlFacts) -> Result<(), String> {
        let holds = |left: &&Token| (own.timeline, own.replay_lsn) >= (left.timeline, left.lsn);
        match self.handover.as_ref().filter(|left| !holds(left)) {
            None => Ok(()),
            Some(left) => Err(format!(
                "this cluster was demoted on timeline {} at {}, and its leader has replayed only {} on \
                 timeline {}: start the member that holds the rest, or give it up with promote-cluster \
                 --even-if-remote-writes",
                left.timeline, left.lsn, own.replay_lsn, own.timeline
            )),
        }
    }

    /// May the cluster whose section is gone be promoted now? `leader` is what its leader last
    /// said of itself and of the remote.
    ///
    /// # Errors
    /// What it waits for, and what the operator can do.
    pub fn may_be_promoted(
        &self,
        section: &StandbyCluster,
        leader: Option<&SqlFacts>,
        remote: Option<&RemoteFacts>,
    ) -> Result<(), String> {
        let order = self.standby.as_ref().and_then(|s| s.order.clone()).unwrap_or_default();
        let own = leader.ok_or("the standby leader's PostgreSQL does not answer")?;
        if let Some(token) = &order.token {
            token.is_replayed(&own.system_identifier, own.timeline, own.replay_lsn)?;
        }
        if !order.even_if_remote_writes {
            self.holds_what_was_acknowledged(own)?;
        }
        if order.even_if_remote_writes || section.host.is_none() {
            return Ok(());
        }
        let fresh = remote.filter(|facts| facts.config_version == self.config_version);
        match (standing(section, fresh, self.system_identifier()), fresh) {
            (RemoteRelation::Unknown, _) => Err(String::from("the remote is being asked")),
            (RemoteRelation::Same, Some(facts)) if facts.accepts_writes != Some(false) => {
                Err(format!(
                    "the remote {} still accepts writes: stop or demote it first, or order it with \
                     promote-cluster --even-if-remote-writes",
                    section.address()
                ))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::cluster::command::Command;
    use crate::pure::cluster::state::{Initialize, Lease, Purpose};
    use crate::pure::postgres::lsn::Lsn;

    fn cluster() -> ClusterState {
        let mut cluster = ClusterState {
            initialize: Initialize::Done { system_identifier: "771".into() },
            lease: Some(Lease::new(1, 4, 6000, Purpose::Lead)),
            epoch: 4,
            config: Some(json!({"ttl": 6})),
            ..ClusterState::default()
        };
        let patch = json!({"standby_cluster": {"host": "a", "port": 5433}});
        assert_eq!(cluster.apply(10, Command::PatchConfig { patch }), Outcome::Done);
        cluster
    }

    fn edit(cluster: &mut ClusterState) {
        let patch = json!({"standby_cluster": null});
        assert_eq!(cluster.apply(11, Command::PatchConfig { patch }), Outcome::Done);
    }

    fn own(replayed: u64) -> SqlFacts {
        SqlFacts {
            in_recovery: true,
            system_identifier: "771".into(),
            timeline: 1,
            replay_lsn: Lsn(replayed),
            ..SqlFacts::default()
        }
    }

    fn seen(cluster: &ClusterState, accepts_writes: Option<bool>) -> RemoteFacts {
        RemoteFacts {
            address: "a:5433".into(),
            config_version: cluster.config_version,
            answered_by: accepts_writes.map(|_| "a:5433".into()),
            system_identifier: "771".into(),
            accepts_writes,
            ..RemoteFacts::default()
        }
    }

    fn may(cluster: &ClusterState, remote: Option<&RemoteFacts>) -> Result<(), String> {
        let section = cluster.dynamic().standby_cluster.expect("it still follows");
        cluster.may_be_promoted(&section, Some(&own(100)), remote)
    }

    /// Spec: SC-30, EX-95.
    #[test]
    fn an_edit_alone_does_not_promote_while_the_remote_writes() {
        let mut cluster = cluster();
        assert!(!cluster.dynamic().leaves_standby);
        edit(&mut cluster);
        let dynamic = cluster.dynamic();
        assert!(dynamic.leaves_standby, "it follows whom it followed");
        assert_eq!(dynamic.standby_cluster.and_then(|s| s.port), Some(5433));
        let why = may(&cluster, Some(&seen(&cluster, Some(true)))).expect_err("it writes there");
        assert!(why.contains("a:5433 still accepts writes") && why.contains("--even-if"), "{why}");
        assert!(may(&cluster, None).is_err(), "nobody has asked it");
        let old = RemoteFacts { config_version: 10, ..seen(&cluster, Some(false)) };
        assert!(may(&cluster, Some(&old)).is_err(), "that was before the edit");
        assert_eq!(may(&cluster, Some(&seen(&cluster, Some(false)))), Ok(()), "read-only");
        assert_eq!(may(&cluster, Some(&seen(&cluster, None))), Ok(()), "it is down");
    }

    /// Spec: SC-30.
    #[test]
    fn the_operator_may_overrule_and_may_set_a_term() {
        let mut cluster = cluster();
        let order = Order { token: None, even_if_remote_writes: true };
        assert_eq!(cluster.apply(12, Command::PromoteCluster { order }), Outcome::Done);
        assert_eq!(may(&cluster, None), Ok(()));
        let token = Some("771:1:0/64".parse().expect("a token"));
        let order = Order { token, even_if_remote_writes: true };
        assert_eq!(cluster.apply(13, Command::PromoteCluster { order }), Outcome::Done);
        assert!(may(&cluster, None).expect_err("0x64 begins there").contains("has not passed"));
    }

    /// Spec: SC-30, EX-95.
    #[test]
    fn the_log_says_first_that_nobody_is_followed() {
        let mut cluster = cluster();
        let leave = |config_version| Command::LeaveStandby {
            epoch: 4,
            timeline: Some(6),
            config_version: Some(config_version),
        };
        let before = cluster.config_version;
        let refused = cluster.apply(11, leave(before));
        assert!(matches!(refused, Outcome::Refused(_)), "the section stands");
        edit(&mut cluster);
        let now = cluster.config_version;
        let (epoch, timeline, config_version) = (3, None, None);
        let other = cluster.apply(12, Command::LeaveStandby { epoch, timeline, config_version });
        assert!(matches!(other, Outcome::Refused(_)), "another led then");
        let late = cluster.apply(12, leave(before));
        assert!(now != before && matches!(late, Outcome::Refused(_)), "it was judged before");
        assert_eq!(cluster.apply(13, leave(now)), Outcome::Done);
        assert_eq!((cluster.standby.clone(), cluster.config_version), (None, 13));
        assert_eq!(cluster.timeline, 7, "set aside: whoever leads next takes another");
        assert_eq!(cluster.dynamic().standby_cluster, None);
        let order = Order::default();
        let again = cluster.apply(14, Command::PromoteCluster { order });
        assert!(matches!(again, Outcome::Refused(_)), "it is no standby cluster");
    }

    /// Spec: SC-1, SC-2.
    #[test]
    fn a_section_that_comes_back_takes_the_order_back() {
        let mut cluster = cluster();
        let order = Order { token: None, even_if_remote_writes: true };
        cluster.apply(11, Command::PromoteCluster { order });
        let patch = json!({"standby_cluster": {"host": "a", "port": 5433, "mine": 1}});
        cluster.apply(12, Command::PatchConfig { patch });
        assert!(!cluster.dynamic().leaves_standby);
        edit(&mut cluster);
        assert!(may(&cluster, Some(&seen(&cluster, Some(true)))).is_err(), "the order is gone");
        let idle = json!({"standby_cluster": {"primary_slot_name": "x"}});
        let mut primary = ClusterState { config: Some(json!({})), ..ClusterState::default() };
        primary.apply(1, Command::PatchConfig { patch: idle });
        assert_eq!(primary.standby, None, "there is nothing to follow in it");
    }

    /// A section that comes, by a slip or for good, takes nothing back of what was acknowledged here.
    #[test]
    fn what_was_acknowledged_binds_until_somebody_has_stood_down() {
        let follows = |cluster: &ClusterState| cluster.only_follows(&cluster.dynamic());
        let mut cluster = cluster();
        assert!(!follows(&cluster), "nobody has stood down");
        let shutdown = Status { optime: Lsn(100), timeline: 1 };
        cluster.apply(11, Command::Demoted { epoch: 4, shutdown });
        assert!(follows(&cluster));
        let patch = json!({"standby_cluster": {"host": "a"}});
        let mut born = ClusterState { config: Some(json!({})), ..ClusterState::default() };
        born.apply(1, Command::PatchConfig { patch });
        assert!(follows(&born), "it never was a primary cluster");
    }

    #[test]
    fn who_was_demoted_is_promoted_with_all_that_it_had() {
        let demoted = |timeline, lsn| {
            let mut cluster = cluster();
            let shutdown = Status { optime: Lsn(lsn), timeline };
            cluster.apply(11, Command::Demoted { epoch: 4, shutdown });
            edit(&mut cluster);
            cluster
        };
        let asked = |cluster: &ClusterState| may(cluster, Some(&seen(cluster, Some(false))));
        assert_eq!(asked(&demoted(1, 100)), Ok(()));
        let why = asked(&demoted(1, 101)).expect_err("it lacks a byte");
        assert!(why.contains("demoted on timeline 1 at 0/65") && why.contains("0/64"), "{why}");
        assert!(asked(&demoted(2, 50)).is_err(), "it is on the timeline before");
        let mut relinquished_epoch = demoted(2, 50);
        let order = Order { token: None, even_if_remote_writes: true };
        relinquished_epoch.apply(12, Command::PromoteCluster { order });
        assert_eq!(asked(&relinquished_epoch), Ok(()), "the operator's word");
    }

    /// Spec: SC-32.
    #[test]
    fn a_demotion_leaves_a_token() {
        let mut cluster = cluster();
        let shutdown = Status { optime: Lsn(0x300_0148), timeline: 3 };
        assert_eq!(cluster.apply(12, Command::Demoted { epoch: 4, shutdown }), Outcome::Done);
        let token = cluster.handover.map(|token| token.to_string());
        assert_eq!(token.as_deref(), Some("771:3:0/3000148"));
    }
}
