//! Bodies compared as bytes with what Patroni answered.
use serde_json::{Value, json};
use surus::pure::cluster::facts::Slot;
use surus::pure::cluster::remote::RemoteFacts;
use surus::pure::cluster::state::{FailoverRequest, HistoryRow, Initialize};
use surus::pure::config::{Dynamic, SynchronousMode};
use surus::pure::patroni::json::dumps;
use surus::pure::patroni::{cluster, keys, metrics, status};
use surus::pure::postgres::lsn::Lsn;
use surus::pure::postgres::state::{PgState, Role};

use crate::node::{LEADER_LSN, Node, leader, replica};

/// The body of `/patroni` without our own last key.
fn body(node: &Node) -> String {
    let mut body = status::body(&node.snapshot());
    let keys: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys.last().map(String::as_str), Some("surus"));
    body.as_object_mut().expect("an object").shift_remove("surus");
    dumps(&body)
}

#[test]
fn a_leader_describes_itself() {
    let wanted = r#"{"state": "running", "postmaster_start_time": "2026-11-22 07:23:47.047734+00:00", "role": "primary", "server_version": 150018, "xlog": {"location": 67108960}, "timeline": 1, "replication": [{"usename": "replicator", "application_name": "pg2", "client_addr": "127.0.0.1", "state": "streaming", "sync_state": "async", "sync_priority": 0}], "dcs_last_seen": 1795332278, "tags": {"clonefrom": true}, "database_system_identifier": "7710893189902435061", "patroni": {"version": "4.1.4", "scope": "batman", "name": "pg0"}}"#;
    assert_eq!(body(&leader()), wanted);
}

#[test]
fn a_replica_describes_itself() {
    let wanted = r#""role": "replica", "server_version": 150018, "xlog": {"received_location": 67108960, "replayed_location": 67108960, "replayed_timestamp": null, "paused": false}, "timeline": 1, "replication_state": "streaming", "dcs_last_seen""#;
    assert!(body(&replica()).contains(wanted), "{}", body(&replica()));
    let sync = replica().synchronous(SynchronousMode::On, &["pg1"]);
    assert!(body(&sync).contains(r#""paused": false}, "sync_standby": true, "timeline": 1"#));
    let quorum = replica().synchronous(SynchronousMode::Quorum, &["pg1"]);
    assert!(body(&quorum).contains(r#""quorum_standby": true, "timeline": 1"#));
    assert!(!body(&sync.stale()).contains("sync_standby"));
}

#[test]
fn a_node_without_an_answer_says_what_it_knows() {
    let down = leader().down(PgState::Starting);
    let start = r#"{"state": "starting", "role": "primary", "dcs_last_seen": 1795332278, "tags""#;
    assert!(body(&down).starts_with(start), "{}", body(&down));
    let silent = leader().down(PgState::Running);
    assert!(body(&silent).starts_with(r#"{"state": "unknown", "role": "primary", "#));
    let mut building = replica().down(PgState::CreatingReplica);
    building.facts().role = Role::Uninitialized;
    let start = r#"{"state": "creating replica", "role": "uninitialized", "#;
    assert!(body(&building).starts_with(start));
    let alone = leader().leaderless().down(PgState::Stopped);
    let start = r#"{"state": "stopped", "role": "primary", "cluster_unlocked": true, "dcs_"#;
    assert!(body(&alone).starts_with(start), "{}", body(&alone));
    assert!(body(&replica().stale()).contains(r#""cluster_unlocked": true"#));
}

#[test]
fn pending_and_scheduled_restarts_are_shown() {
    let mut node = leader();
    let reason = json!({"max_connections": {"old_value": "45", "new_value": "100"}});
    node.facts().pending_restart = reason.as_object().cloned().expect("an object");
    let schedule = json!({"schedule": "2026-11-22T09:25:18.798045+00:00",
        "postgres_version": "15.99"});
    node.facts().scheduled_restart = Some(schedule);
    let body = body(&node);
    let pending = r#""pending_restart": true, "pending_restart_reason": {"max_connections": {"old_value": "45", "new_value": "100"}}, "patroni": {"#;
    assert!(body.contains(pending), "{body}");
    let end = r#""scheduled_restart": {"schedule": "2026-11-22T09:25:18.798045+00:00", "postgres_version": "15.99"}}"#;
    assert!(body.ends_with(end), "{body}");
}

fn member(node: &Node, index: usize) -> String {
    dumps(&cluster::body(&node.snapshot())["members"][index])
}

#[test]
fn the_cluster_lists_its_members() {
    let wanted = r#"{"name": "pg1", "role": "replica", "state": "streaming", "api_url": "http://127.0.0.1:18009/patroni", "host": "127.0.0.1", "port": 15433, "timeline": 1, "tags": {"clonefrom": true}, "receive_lag": 0, "receive_lsn": "0/4000060", "replay_lag": 0, "replay_lsn": "0/4000060", "lag": 0, "lsn": "0/4000060"}"#;
    assert_eq!(member(&replica(), 1), wanted);
    let wanted = r#"{"name": "pg0", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:18008/patroni", "host": "127.0.0.1", "port": 15432, "timeline": 1, "tags": {"clonefrom": true}}"#;
    assert_eq!(member(&replica(), 0), wanted);
    let body = cluster::body(&leader().snapshot());
    let keys: Vec<_> = body.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["members", "scope", "surus"]);
    assert_eq!(body["scope"], "batman");
}

#[test]
fn who_is_silent_for_ttl_is_unknown_and_who_left_is_gone() {
    let mut node = leader();
    node.view.facts.get_mut(&3).expect("pg2").heard_at = 1;
    let silent: Value = serde_json::from_str(&member(&node, 2)).expect("JSON");
    assert_eq!((&silent["state"], &silent["lag"]), (&json!("unknown"), &json!("unknown")));
    assert_eq!(silent["receive_lsn"], "unknown");
    node.view.cluster.members.get_mut(&3).expect("pg2").left = true;
    assert_eq!(member(&node, 2), "null");
}

#[test]
fn lag_never_is_negative() {
    let mut node = replica();
    node.sql().replay_lsn.0 = LEADER_LSN.0 - 100;
    node.sql().receive_lsn.0 = LEADER_LSN.0 + 100;
    let row: Value = serde_json::from_str(&member(&node, 1)).expect("JSON");
    assert_eq!((&row["receive_lag"], &row["replay_lag"]), (&json!(0), &json!(100)));
}

#[test]
fn roles_and_schedules_follow_the_cluster() {
    let mut node = replica().synchronous(SynchronousMode::Quorum, &["pg2"]);
    node.view.cluster.failover = Some(FailoverRequest {
        leader: Some("pg0".into()),
        candidate: None,
        scheduled_at: Some("2030-01-01T00:00:00+00:00".into()),
    });
    let body = cluster::body(&node.snapshot());
    assert_eq!(body["members"][2]["role"], "quorum_standby");
    let scheduled = r#"{"at": "2030-01-01T00:00:00+00:00", "from": "pg0"}"#;
    assert_eq!(dumps(&body["scheduled_switchover"]), scheduled);
}

/// Spec: SC-22, SC-25, SC-31, EX-91.
#[test]
fn a_standby_cluster_shows_its_remote() {
    let mut node = replica().standby_cluster();
    let body = cluster::body(&node.snapshot());
    assert_eq!(body["members"][0]["role"], "leader", "it has not stopped writing yet");
    for heard in node.view.facts.values_mut() {
        heard.facts.sql.as_mut().expect("it answers").in_recovery = true;
        heard.facts.remote = Some(RemoteFacts {
            address: "remote:5432".into(),
            answered_by: Some("remote:5432".into()),
            system_identifier: "999".into(),
            problems: vec!["it is another cluster".into()],
            config_version: 99, // another configuration was in force then
            ..RemoteFacts::default()
        });
    }
    node.dynamic.leaves_standby = true;
    let body = cluster::body(&node.snapshot());
    assert_eq!(body["members"][0]["role"], "standby_leader");
    let own = &body["surus"]["standby"];
    assert_eq!((&own["remote"], &own["system_identifier"]), (&"remote:5432".into(), &"999".into()));
    assert_eq!(own["problems"][0], "it is another cluster");
    assert_eq!(own["promotion_waits_for"], "the remote is being asked");
    let mut node = leader().standby_cluster();
    assert!(surus::pure::patroni::probe::readiness(&node.snapshot(), &Vec::new()));
    node.facts().remote = Some(RemoteFacts {
        address: "remote:5432".into(),
        answered_by: Some("remote:5432".into()),
        system_identifier: "999".into(),
        ..RemoteFacts::default()
    });
    assert!(!surus::pure::patroni::probe::readiness(&node.snapshot(), &Vec::new()));
}

#[test]
fn history_rows_are_arrays() {
    let mut node = leader();
    assert_eq!(dumps(&cluster::history(&node.snapshot())), "[]");
    node.view.cluster.history.push(HistoryRow {
        timeline: 1,
        lsn: Lsn(67_417_112),
        reason: "no recovery target specified".into(),
        timestamp: "2026-11-22T07:28:27.506007+00:00".into(),
        new_leader: "pg1".into(),
    });
    let wanted = r#"[[1, 67417112, "no recovery target specified", "2026-11-22T07:28:27.506007+00:00", "pg1"]]"#;
    assert_eq!(dumps(&cluster::history(&node.snapshot())), wanted);
}

#[test]
fn store_keys_have_patronis_values() {
    let mut node = replica().synchronous(SynchronousMode::On, &["pg1", "pg2"]);
    let get = |node: &Node, key: &str| keys::value(&node.snapshot(), key);
    assert_eq!(get(&node, "leader").as_deref(), Some("pg0"));
    assert_eq!(get(&node, "initialize").as_deref(), Some("7710893189902435061"));
    let sync = r#"{"leader":"pg0","quorum":0,"sync_standby":"pg1,pg2"}"#;
    assert_eq!(get(&node, "sync").as_deref(), Some(sync));
    let status = r#"{"optime":67108960,"slots":{"pg0":67108960}}"#;
    assert_eq!(get(&node, "status").as_deref(), Some(status));
    assert_eq!(get(&node, "failover"), None);
    assert_eq!(get(&node, "members/nobody"), None);
    assert_eq!(get(&node, "nonsense"), None);
    node.view.cluster.failover = Some(FailoverRequest {
        leader: Some("pg0".into()),
        candidate: Some("pg1".into()),
        scheduled_at: None,
    });
    let failover = r#"{"leader":"pg0","member":"pg1"}"#;
    assert_eq!(get(&node, "failover").as_deref(), Some(failover));
    let member: Value =
        serde_json::from_str(&get(&node, "/members/pg1").expect("a key")).expect("JSON");
    assert_eq!(member["conn_url"], "postgres://127.0.0.1:15433/postgres");
    assert_eq!(member["xlog_location"], LEADER_LSN.0);
    node.view.cluster.initialize = Initialize::Absent;
    assert_eq!(get(&node, "initialize").as_deref(), Some(""));
    let node = node.leaderless();
    assert_eq!((get(&node, "initialize"), get(&node, "leader")), (None, None));
}

/// Spec: SL-12.
#[test]
fn status_names_the_leaders_slots_and_the_leader_itself() {
    let mut node = leader();
    let slot = |name: &str, lsn: u64| Slot {
        name: name.to_owned(),
        physical: true,
        restart_lsn: Lsn(lsn),
        ..Slot::default()
    };
    let sql = node.facts().sql.as_mut().expect("it answers");
    sql.slots = vec![slot("pg1", 7), slot("pg0", 8), slot("ours", 9)];
    let status = |node: &Node| keys::value(&node.snapshot(), "status").expect("a key");
    assert_eq!(status(&node), r#"{"optime":67108960,"slots":{"pg1":7,"ours":9,"pg0":67108960}}"#);
    let permanent = json!({"member_slots_ttl": 0, "slots": {"ours": {"type": "physical"}}});
    node.dynamic = Dynamic::from_value(Some(&permanent));
    assert_eq!(status(&node), r#"{"optime":67108960,"slots":{"ours":9}}"#);
    assert_eq!(status(&node.down(PgState::Running)), r#"{"optime":0}"#);
}

fn metric(node: &Node, name: &str) -> Option<String> {
    let text = metrics::text(&node.snapshot());
    let start = format!("{name}{{scope=\"batman\",name=\"pg");
    let line = text.lines().find(|line| line.starts_with(&start))?;
    line.rsplit(' ').next().map(str::to_owned)
}

#[test]
fn metrics_follow_the_node() {
    let value = |node: &Node, name: &str| metric(node, name).unwrap_or_default();
    let node = leader();
    assert_eq!(value(&node, "patroni_version"), "040104");
    assert_eq!(value(&node, "patroni_primary"), "1");
    assert_eq!(value(&node, "patroni_xlog_location"), "67108960");
    assert_eq!(value(&node, "patroni_postmaster_start_time"), "1795332227.047734");
    assert_eq!(value(&node, "patroni_postgres_state"), "5");
    assert_eq!(value(&node, "surus_writable"), "1");
    let node = replica();
    assert_eq!(value(&node, "patroni_replica"), "1");
    assert_eq!(value(&node, "patroni_postgres_streaming"), "1");
    assert_eq!(value(&node, "patroni_xlog_location"), "0");
    let down = replica().down(PgState::Running);
    assert_eq!(value(&down, "patroni_postgres_state"), "-1");
    assert_eq!(metric(&down, "patroni_postgres_streaming"), None);
}

#[test]
fn every_series_has_help_and_type_in_patronis_order() {
    let text = metrics::text(&leader().snapshot());
    let names: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("patroni_"))
        .filter_map(|line| line.split('{').next())
        .collect();
    let wanted = "patroni_version patroni_postgres_running patroni_postmaster_start_time \
        patroni_primary patroni_xlog_location patroni_standby_leader patroni_replica \
        patroni_sync_standby patroni_quorum_standby patroni_xlog_received_location \
        patroni_xlog_replayed_location patroni_xlog_replayed_timestamp patroni_xlog_paused \
        patroni_postgres_streaming patroni_postgres_in_archive_recovery \
        patroni_postgres_server_version patroni_cluster_unlocked patroni_failsafe_mode_is_active \
        patroni_failsafe_mode_enabled patroni_failsafe_member patroni_postgres_timeline \
        patroni_dcs_last_seen patroni_pending_restart patroni_is_paused patroni_postgres_state \
        patroni_failover_priority";
    assert_eq!(names, wanted.split_whitespace().collect::<Vec<_>>());
    for name in names {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
}
