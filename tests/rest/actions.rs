//! Checks before anything is done: switchover, failover, reinitialize, restart conditions.
use serde_json::{Value, json};
use surus::pure::cluster::eligibility::{Candidate, Election};
use surus::pure::cluster::facts::Phase;
use surus::pure::cluster::rank::rank;
use surus::pure::cluster::state::FailoverRequest;
use surus::pure::config::SynchronousMode;
use surus::pure::patroni::Answer;
use surus::pure::patroni::reinit::{self, Reinit};
use surus::pure::patroni::restart::{self, Restart};
use surus::pure::patroni::switchover::{self, Accepted, Action, check, outcome};
use surus::pure::postgres::lsn::Lsn;
use surus::pure::postgres::state::PgState;

use crate::node::{LEADER_LSN, Node, leader, replica};

const NOW: u64 = 1_795_332_227;

fn asked(node: &Node, action: Action, body: Value) -> Result<Accepted, Answer> {
    check(&node.snapshot(), action, body.as_object().expect("an object"), NOW)
}

fn refused(node: &Node, action: Action, body: Value) -> (u16, String) {
    let answer = asked(node, action, body.clone()).expect_err(&body.to_string());
    (answer.code, answer.text)
}

/// Who is asked | what | the body | the code | the words.
const REFUSALS: &str = r#"
leader | failover | {"leader": "pg0"} | 400 | Failover could be performed only to a specific candidate
leader | switchover | {"candidate": "pg1"} | 400 | Switchover could be performed only from a specific leader
leader | failover | {"candidate": "pg1", "scheduled_at": "2030-01-01T00:00Z"} | 400 | Failover can't be scheduled
leader | switchover | {"leader": "pg0", "scheduled_at": "2030-01-01T00:00"} | 400 | Timezone information is mandatory for the scheduled switchover
leader | switchover | {"leader": "pg0", "scheduled_at": "2020-01-01T00:00Z"} | 422 | Cannot schedule switchover in the past
leader | switchover | {"leader": "pg0", "scheduled_at": "soon"} | 422 | Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601
leader | switchover | {"leader": "pg0", "candidate": "pg0"} | 400 | Switchover target and source are the same
leader | switchover | {"leader": "pg1"} | 412 | leader name does not match
synchronous | switchover | {"leader": "pg0", "candidate": "pg2"} | 412 | candidate name does not match with sync_standby
leader | switchover | {"leader": "pg0", "candidate": "pg9"} | 412 | candidate does not exists
no standby | switchover | {"leader": "pg0"} | 412 | switchover is not possible: can not find sync_standby
alone | switchover | {"leader": "pg0"} | 412 | switchover is not possible: cluster does not have members except leader
silence | switchover | {"leader": "pg0"} | 412 | switchover is not possible: no good candidates have been found
unwilling | failover | {"candidate": "pg1"} | 412 | failover is not possible: no good candidates have been found
leader | switchover | {"leader": 5} | 400 | leader must be text, not 5
"#;

fn situation(name: &str) -> Node {
    let mut node = leader();
    match name {
        "synchronous" => node = node.synchronous(SynchronousMode::On, &["pg1"]),
        "no standby" => node = node.synchronous(SynchronousMode::On, &[]),
        "alone" => node.view.cluster.members.retain(|id, _| *id == 1),
        "silence" => node.view.facts.retain(|id, _| *id == 1),
        "unwilling" => {
            for heard in node.view.facts.values_mut() {
                heard.facts.tags.insert("nofailover".into(), true.into());
            }
        }
        _ => assert_eq!(name, "leader"),
    }
    node
}

#[test]
fn every_refusal_has_patronis_words() {
    for line in REFUSALS.lines().filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(" | ").collect();
        let [who, what, body, code, words] = fields[..] else { panic!("five fields: {line}") };
        let action = if what == "failover" { Action::Failover } else { Action::Switchover };
        let body = serde_json::from_str(body).expect(line);
        let answer = refused(&situation(who), action, body);
        assert_eq!((answer.0.to_string().as_str(), answer.1.as_str()), (code, words), "{line}");
    }
}

#[test]
fn what_passes_becomes_a_request() {
    let switch = asked(&leader(), Action::Switchover, json!({"leader": "pg0", "member": "pg1"}));
    let request = FailoverRequest {
        leader: Some("pg0".into()),
        candidate: Some("pg1".into()),
        scheduled_at: None,
    };
    assert_eq!(switch, Ok(Accepted { action: Action::Switchover, request }));
    let named = json!({"leader": "pg0", "candidate": "pg1"});
    let as_switchover = asked(&leader(), Action::Failover, named).expect("accepted");
    assert_eq!(as_switchover.action, Action::Switchover);
    // Failover may go to an asynchronous member, also without a leader.
    let node = leader().synchronous(SynchronousMode::On, &["pg1"]);
    assert!(asked(&node, Action::Failover, json!({"candidate": "pg2"})).is_ok());
    let node = replica().leaderless();
    assert!(asked(&node, Action::Failover, json!({"candidate": "pg2"})).is_ok());
    // Names of a scheduled one are looked at when it is due.
    let body = json!({"leader": "pg9", "scheduled_at": "2030-01-01T00:00:00+00:00"});
    let scheduled = asked(&leader(), Action::Switchover, body).expect("accepted");
    assert_eq!(scheduled.request.scheduled_at.as_deref(), Some("2030-01-01T00:00:00+00:00"));
}

#[test]
fn the_outcome_is_read_from_the_cluster() {
    let accepted =
        asked(&leader(), Action::Switchover, json!({"leader": "pg0", "candidate": "pg1"}))
            .expect("accepted");
    let mut view = leader().view;
    for heard in view.facts.values_mut() {
        heard.facts.state = PgState::Running;
        heard.facts.sql.get_or_insert_default().in_recovery = false;
    }
    let mut after = |holder: Option<u64>, settled| {
        match holder {
            None => view.cluster.lease = None,
            Some(holder) => {
                let lease = leader().view.cluster.lease.expect("a lease");
                view.cluster.lease = Some(surus::pure::cluster::state::Lease { holder, ..lease });
            }
        }
        outcome(&view, &accepted, Some("pg0"), settled)
    };
    assert_eq!(after(Some(1), false), None);
    assert_eq!(after(None, true), None);
    let good = Answer::new(200, "Successfully switched over to \"pg1\"");
    assert_eq!(after(Some(2), false), Some(good));
    let other = Answer::new(200, "Switched over to \"pg2\" instead of \"pg1\"");
    assert_eq!(after(Some(3), true), Some(other));
    assert_eq!(after(Some(1), true), Some(Answer::new(503, "Switchover failed")));
    view.facts.get_mut(&2).expect("pg1 was heard").facts.sql = None;
    view.cluster.lease.as_mut().expect("a lease").holder = 2;
    let promoting = outcome(&view, &accepted, Some("pg0"), true);
    assert_eq!(promoting, None, "it does not take writes yet");
    let unknown = switchover::unknown(Action::Failover, 20).text;
    assert!(unknown.starts_with("Failover status unknown after 20 seconds;"));
    assert_eq!((switchover::patience_s(3000), switchover::patience_s(30_000)), (20, 60));
}

#[test]
fn without_a_quorum_nothing_is_asked_of_the_log() {
    let mut node = leader();
    node.view.raft.quorum_at = 1;
    let body = json!({"leader": "pg0", "candidate": "pg1"});
    let refusal = asked(&node, Action::Switchover, body).expect_err("refused");
    assert!(refusal.code == 503 && refusal.text.starts_with("no quorum"), "{refusal:?}");
}

/// Spec: RI-1, EX-32.
#[test]
fn only_replicas_with_a_leader_are_reinitialized() {
    let check = |node: &Node, body: Value| {
        reinit::check(&node.snapshot(), body.as_object().expect("an object"))
    };
    let text = |node: &Node| check(node, json!({})).expect_err("refused").text;
    assert_eq!(text(&leader()), "I am the leader, can not reinitialize");
    let alone = replica().leaderless();
    assert_eq!(text(&alone), "Cluster has no leader, can not reinitialize");
    let body = json!({"force": true, "from-leader": true});
    assert_eq!(
        check(&replica(), body),
        Ok(Reinit { force: true, from_leader: true, ..Reinit::default() })
    );
    assert_eq!(check(&replica(), json!({"force": "yes"})).expect_err("refused").code, 400);
    let source = json!({"source": "pg2", "method": "basebackup"});
    let wanted = check(&replica(), source).expect("accepted");
    assert_eq!(
        (wanted.source.as_deref(), wanted.method.as_deref()),
        (Some("pg2"), Some("basebackup"))
    );
    for bad in [
        json!({"method": "nosuch"}),
        json!({"method": 5}),
        json!({"source": "pg9"}),
        json!({"source": "pg1"}),
        json!({"from_leader": true, "source": "pg0"}),
        json!({"method": "basebackup", "keep_data": true}),
    ] {
        assert_eq!(check(&replica(), bad.clone()).expect_err("refused").code, 400, "{bad}");
    }
}

#[test]
fn restart_conditions_are_compared_with_the_node() {
    let applies = |node: &Node, restart: Restart| restart::applies(&restart, &node.snapshot());
    let role = |role: &str| Restart { role: Some(role.into()), ..Restart::default() };
    assert!(applies(&leader(), role("primary")) && !applies(&leader(), role("replica")));
    let older = |n| Restart { postgres_version: Some(("x".into(), n)), ..Restart::default() };
    assert!(applies(&leader(), older(150_019)) && !applies(&leader(), older(150_018)));
    let pending = Restart { restart_pending: true, ..Restart::default() };
    assert!(!applies(&leader(), pending.clone()));
    let mut node = leader();
    node.facts().pending_restart.insert("x".into(), json!({}));
    assert!(applies(&node, pending));
}

/// What may be wrong with pg1 while pg0 leads, and shows before pg0 stops.
fn wrong_with_pg1(fault: &str, node: &mut Node) {
    let facts = &mut node.view.facts.get_mut(&2).expect("pg1 was heard").facts;
    let sql = facts.sql.as_mut().expect("SQL facts");
    match fault {
        "nothing" => {}
        "watchdog" => facts.watchdog_failed = true,
        "rebuilding" => facts.phase = Phase::Rebuilding,
        "leaving" => facts.leaving = true,
        "tagged" => facts.tags.insert("nofailover".into(), true.into()),
        "no server" => facts.has_postgres = false,
        "witness" => node.view.cluster.members.get_mut(&2).expect("pg1").witness = true,
        "stopped" => (facts.state, facts.sql) = (PgState::Stopped, None),
        "foreign" => sql.system_identifier = "9".into(),
        "timeline" => {
            node.dynamic.check_timeline = true;
            sql.timeline = 0;
        }
        "lag" => {
            (sql.receive_lsn, sql.replay_lsn) = (Lsn(1), Lsn(1));
            sql.replication_state = Some("in archive recovery".into());
        }
        "not synchronous" => *node = node.clone().synchronous(SynchronousMode::Quorum, &["pg2"]),
        "nobody synchronous" => *node = node.clone().synchronous(SynchronousMode::Quorum, &[]),
        _ => panic!("{fault}"),
    }
}

/// The arbiter's decision after pg0 stopped for the request and handed over to pg1.
fn arbiter_takes_pg1(node: &Node, request: &FailoverRequest) -> bool {
    let mut cluster = node.view.cluster.clone();
    (cluster.lease, cluster.failover_in_force) = (None, true);
    let fresh = |id: &u64| node.view.facts.get(id).map(|heard| &heard.facts);
    let members = cluster.members.iter().filter(|(_, member)| member.name == "pg1");
    let candidates: Vec<Candidate> =
        members.map(|(id, member)| Candidate { id: *id, member, fresh: fresh(id) }).collect();
    let election = Election {
        cluster: &cluster,
        dynamic: &node.dynamic,
        timelines: &cluster.timelines,
        optime: LEADER_LSN,
        timeline: 1,
        wanted: Some("pg1"),
        forced: request.leader.is_none(),
        leader_runs: false,
    };
    rank(&election, &candidates).0.is_some()
}

/// A leader stopped for a candidate whose required watchdog was broken, and the arbiter refused it.
#[test]
fn whom_rest_accepts_the_arbiter_takes() {
    let faults = [
        "nothing",
        "watchdog",
        "rebuilding",
        "leaving",
        "tagged",
        "no server",
        "witness",
        "stopped",
        "foreign",
        "timeline",
        "lag",
        "not synchronous",
        "nobody synchronous",
    ];
    let requests = [
        (Action::Switchover, json!({"leader": "pg0", "candidate": "pg1"})),
        (Action::Switchover, json!({"leader": "pg0"})),
        (Action::Failover, json!({"candidate": "pg1"})),
    ];
    let mut accepted = vec![];
    for fault in faults {
        for (number, (action, body)) in requests.iter().enumerate() {
            let mut node = leader();
            node.view.facts.remove(&3);
            wrong_with_pg1(fault, &mut node);
            if let Ok(passed) = asked(&node, *action, body.clone()) {
                assert!(arbiter_takes_pg1(&node, &passed.request), "{fault}, {body}");
                accepted.push((fault, number));
            }
        }
    }
    let lenient = [
        ("nothing", 0),
        ("nothing", 1),
        ("nothing", 2),
        ("lag", 0),
        ("lag", 2),
        ("not synchronous", 2),
        ("nobody synchronous", 2),
    ];
    assert_eq!(accepted, lenient, "an operator who names it has looked");
}
