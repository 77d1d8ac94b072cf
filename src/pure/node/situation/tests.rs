//! What a situation makes of the facts.
use super::*;
use crate::pure::cluster::facts::Phase;
use crate::pure::cluster::facts::SqlFacts;
use crate::pure::cluster::state::{Lease, Member};
use crate::pure::config::Tags;
use serde_json::{Value, json};

/// Members a, b and c with ids 1, 2 and 3; `leader` holds the lease.
fn cluster(config: Value, leader: Option<RaftId>) -> ClusterState {
    let member = |name: &str, port: u16| Member {
        name: name.into(),
        conn_url: format!("postgres://h:{port}/postgres"),
        ..Member::default()
    };
    let lease = |holder| Lease::new(holder, 4, 6000, Purpose::Lead);
    let mut cluster = ClusterState {
        initialize: Initialize::Done { system_identifier: "771".into() },
        members: BTreeMap::from([(1, member("a", 1)), (2, member("b", 2)), (3, member("c", 3))]),
        epoch: 4,
        lease: leader.map(lease),
        config: Some(json!({})),
        ..ClusterState::default()
    };
    cluster.apply(9, crate::pure::cluster::command::Command::PatchConfig { patch: config });
    cluster
}

fn facts(id: RaftId, name: &str, tags: Value) -> Facts {
    Facts {
        raft_id: id,
        name: name.into(),
        has_postgres: true,
        state: PgState::Running,
        tags: Tags::from(&tags),
        sql: Some(SqlFacts { in_recovery: true, ..SqlFacts::default() }),
        ..Facts::default()
    }
}

/// What node a sees, with these tags, while b and c run.
fn seen_by_a(cluster: &ClusterState, tags: Value, remote: Option<RemoteFacts>) -> Situation {
    seen_by(cluster, tags, remote, false)
}

fn seen_by(
    cluster: &ClusterState,
    tags: Value,
    remote: Option<RemoteFacts>,
    remove_on_diverged_timelines: bool,
) -> Situation {
    let own = Facts { remote, ..facts(1, "a", tags) };
    let (b, c) = (facts(2, "b", json!({})), facts(3, "c", json!({})));
    let heard = BTreeMap::from([(1, &own), (2, &b), (3, &c)]);
    Situation::compute(Sources {
        remove_on_diverged_timelines,
        ..sources(cluster, &cluster.dynamic(), &heard)
    })
}

/// What node a computes its situation from.
fn sources<'a>(
    cluster: &'a ClusterState,
    dynamic: &'a Dynamic,
    heard: &'a BTreeMap<RaftId, &'a Facts>,
) -> Sources<'a> {
    Sources {
        own: 1,
        cluster,
        dynamic,
        live_epoch: cluster.lease.as_ref().filter(|l| l.holder == 1).map(|l| l.epoch),
        heard,
        requests: OperatorRequests::default(),
        methods: Vec::new(),
        postmaster_alive: true,
        data_is_gone: false,
        guarded: None,
        armed: None,
        failover_is_due: false,
        use_pg_rewind: false,
        use_slots: true,
        remove_on_rewind_failure: false,
        remove_on_diverged_timelines: false,
        pre_promote: false,
        sync_step: None,
        another_can_lead: false,
    }
}

fn upstream(cluster: &ClusterState, tags: Value) -> Option<String> {
    seen_by_a(cluster, tags, None).upstream.map(|source| source.member)
}

/// Spec: S-2, S-5, EX-75, EX-76.
#[test]
fn tags_choose_whom_a_replica_follows() {
    let led = cluster(json!({}), Some(2));
    let follows = |tags: Value| upstream(&led, tags);
    assert_eq!(follows(json!({})).as_deref(), Some("b"));
    assert_eq!(follows(json!({"replicatefrom": "c"})).as_deref(), Some("c"));
    for nobody in ["a", "z"] {
        assert_eq!(follows(json!({"replicatefrom": nobody})).as_deref(), Some("b"), "{nobody}");
    }
    assert_eq!(follows(json!({"nostream": true})), None);
    let offers = seen_by_a(&led, json!({"nostream": true}), None).clone_offers;
    assert_eq!(offers[0].source.member, "b", "it is copied all the same");
}

/// Spec: SC-1, SC-3, SC-20.
#[test]
fn only_the_leader_of_a_standby_cluster_follows_the_remote() {
    let section = json!({"standby_cluster":
        {"host": "r", "port": 5433, "primary_slot_name": "My-slot"}});
    let own = seen_by_a(&cluster(section.clone(), Some(1)), json!({}), None);
    let upstream = own.upstream.expect("the remote");
    assert!(upstream.is_remote() && upstream.host == "r" && upstream.port == 5433);
    assert_eq!(upstream.slot.as_deref(), Some("my_slot"));
    assert_eq!(own.remote_relation, RemoteRelation::Unknown);
    let slot = |slot_busy_looks| {
        let looked = RemoteFacts { slot_busy_looks, ..RemoteFacts::default() };
        let own = seen_by_a(&cluster(section.clone(), Some(1)), json!({}), Some(looked));
        own.remote.and_then(|remote| remote.source)?.slot
    };
    assert_eq!((slot(1).as_deref(), slot(2)), (Some("my_slot"), None), "another has it");
    let theirs = seen_by_a(&cluster(section.clone(), Some(2)), json!({}), None);
    assert_eq!(theirs.upstream.map(|u| u.member).as_deref(), Some("b"));
    let archive = json!({"standby_cluster": {"restore_command": "cp %f %p"}});
    let own = seen_by_a(&cluster(archive, Some(1)), json!({}), None);
    assert!(own.remote.is_some(), "it follows the archive, and is not promoted");
    assert_eq!((own.upstream, own.remote_relation), (None, RemoteRelation::Same));
}

/// A lease of somebody whose row is gone names nobody: no upstream is made up for it.
/// Spec: SC-23.
#[test]
fn a_leader_that_nobody_knows_is_followed_by_nobody() {
    let seen = seen_by_a(&cluster(json!({}), Some(9)), json!({}), None);
    assert_eq!(seen.lease, LeaseStatus::Theirs { leader: None });
    assert_eq!(seen.upstream, None);
    let replicates = seen_by_a(&cluster(json!({}), Some(9)), json!({"replicatefrom": "c"}), None);
    assert_eq!(replicates.upstream, None);
}

/// Data is removed only where the operator's key covers the case: never for a divergence alone
/// in a standby cluster, where the remote may be the one that went diverged.
/// Spec: RW-2.
#[test]
fn in_a_standby_cluster_diverged_data_is_not_removed() {
    let rules = |config: Value| {
        let cluster = cluster(config, Some(2));
        seen_by(&cluster, json!({}), None, true).rules.remove_on_diverged_timelines
    };
    assert!(rules(json!({})));
    assert!(!rules(json!({"standby_cluster": {"host": "r"}})));
}

/// Spec: SC-30, EX-95.
#[test]
fn without_its_section_it_follows_until_it_may_be_promoted() {
    let section = json!({"standby_cluster": {"host": "r", "port": 5433}});
    let mut cluster = cluster(section, Some(1));
    let patch = json!({"standby_cluster": null});
    cluster.apply(10, crate::pure::cluster::command::Command::PatchConfig { patch });
    let remote = |accepts_writes| RemoteFacts {
        address: "r:5433".into(),
        config_version: 10,
        answered_by: Some("r:5433".into()),
        system_identifier: "771".into(),
        accepts_writes: Some(accepts_writes),
        ..RemoteFacts::default()
    };
    let waits = seen_by_a(&cluster, json!({}), Some(remote(true)));
    assert!(waits.remote.is_some() && !waits.may_be_promoted);
    let due = seen_by_a(&cluster, json!({}), Some(remote(false)));
    assert!(due.remote.is_some() && due.may_be_promoted, "the log has to say so first");
}

/// Its state directory is lost, and it came back under another id: what it was holds the lease.
#[test]
fn nobody_leads_under_our_own_name() {
    let mut cluster = cluster(json!({}), Some(9));
    let before = cluster.members[&1].clone();
    cluster.members.insert(9, before);
    assert_eq!(seen_by_a(&cluster, json!({}), None).lease, LeaseStatus::Nobody);
    cluster.members.insert(9, Member { name: "b".into(), ..Member::default() });
    let theirs = LeaseStatus::Theirs { leader: Some("b".into()) };
    assert_eq!(seen_by_a(&cluster, json!({}), None).lease, theirs);
}

/// The leader does not stop for a candidate whom the arbiter would refuse.
#[test]
fn a_hand_over_goes_to_whom_the_arbiter_takes() {
    let handed = |named: bool, bend: &dyn Fn(&mut Facts)| {
        let mut cluster = cluster(json!({"synchronous_mode": false}), Some(1));
        let candidate = named.then(|| "b".to_owned());
        let leader = Some("a".to_owned());
        cluster.failover = Some(FailoverRequest { leader, candidate, scheduled_at: None });
        let mut own = facts(1, "a", json!({}));
        let (mut b, c) = (facts(2, "b", json!({})), facts(3, "c", json!({"failover_priority": 0})));
        for known in [&mut own, &mut b] {
            known.sql.as_mut().expect("SQL facts").system_identifier = "771".into();
        }
        bend(&mut b);
        let heard = BTreeMap::from([(1, &own), (2, &b), (3, &c)]);
        let dynamic = cluster.dynamic();
        let sources = sources(&cluster, &dynamic, &heard);
        let situation = Situation::compute(Sources { failover_is_due: true, ..sources });
        situation.hand_over.expect("it is due").candidate
    };
    for named in [true, false] {
        assert_eq!(handed(named, &|_| {}).as_deref(), Some("b"));
        assert_eq!(handed(named, &|b| b.watchdog_failed = true), None);
        assert_eq!(handed(named, &|b| b.phase = Phase::Rebuilding), None);
        assert_eq!(handed(named, &|b| b.leaving = true), None);
        assert_eq!(handed(named, &|b| b.sql = None), None);
    }
}
