//! The health matrix: one row per situation of a node, one column per path.
use serde_json::json;
use surus::pure::config::SynchronousMode;
use surus::pure::patroni::{health, probe};
use surus::pure::postgres::state::{PgState, Role};

use crate::node::{LEADER_LSN, NOW, Node, leader, replica};

const PATHS: [&str; 10] = [
    "/primary",
    "/leader",
    "/standby-leader",
    "/replica",
    "/read-only",
    "/health",
    "/sync",
    "/async",
    "/quorum",
    "/readiness",
];

fn code(node: &Node, path: &str) -> u16 {
    asked(node, path, &[])
}

fn asked(node: &Node, path: &str, query: &[(&str, &str)]) -> u16 {
    let query: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    if path == "/readiness" {
        return if probe::readiness(&node.snapshot(), &query) { 200 } else { 503 };
    }
    health::code(&node.snapshot(), path, &query)
}

/// A row of the matrix: `+` is 200, `-` is 503, a dot is not looked at.
fn row(situation: &str, node: &Node, wanted: &str) {
    for (path, wanted) in PATHS.iter().zip(wanted.split_whitespace()) {
        let code = code(node, path);
        match wanted {
            "+" => assert_eq!(code, 200, "{situation}: {path}"),
            "-" => assert_eq!(code, 503, "{situation}: {path}"),
            _ => {}
        }
    }
    assert!(probe::liveness(&node.snapshot()), "{situation}: /liveness");
}

fn standby_leader() -> Node {
    let mut node = leader().standby_cluster();
    node.facts().role = Role::StandbyLeader;
    node.sql().in_recovery = true;
    node
}

#[test]
fn the_matrix() {
    //                          primary leader stdby-l replica r-only health sync async quorum ready
    row("leader, running", &leader(), "+ + - - + + - - - +");
    for state in [PgState::Crashed, PgState::Starting, PgState::Stopping] {
        // The one difference from Patroni: no writes, no 200 on a write path.
        row("leader, PostgreSQL down", &leader().down(state), "- + - - - - - - - +");
    }
    row("leader, no answer", &leader().down(PgState::Running), "- + - - - - - - - +");
    row("standby leader", &standby_leader(), "- + + - + + - - - +");
    row("async replica", &replica(), "- - - + + + - + - +");
    let sync = replica().synchronous(SynchronousMode::On, &["pg1"]);
    row("sync standby", &sync, "- - - + + + + - - +");
    let quorum = replica().synchronous(SynchronousMode::Quorum, &["pg1"]);
    row("quorum standby", &quorum, "- - - + + + - - + +");
    let mut unbalanced = replica();
    unbalanced.tag("noloadbalance", json!(true));
    row("noloadbalance", &unbalanced, "- - - - - + - - - +");
    let mut waiting = replica();
    waiting.sql().replication_state = None;
    row("walreceiver does not stream", &waiting, "- - - + + + . . . -");
    row("view older than ttl", &replica().stale(), "- - - + + + - - - +");
    let mut alone = replica().stale();
    alone.sql().latest_end_lsn = Default::default();
    row("view older than ttl, no walreceiver", &alone, "- - - + + + - - - -");
    for state in [PgState::Stopped, PgState::CreatingReplica] {
        row("replica down", &replica().down(state), "- - - - - - - - - -");
    }
    let former = leader().leaderless().down(PgState::Stopped);
    row("former leader, stopped", &former, "- - - - - - - - - -");
}

#[test]
fn a_lease_beyond_its_deadline_is_none() {
    let node = leader();
    let code = |now| health::code(&node.look_at(now), "/primary", &[]);
    assert_eq!(code(NOW + 12_299), 200);
    assert_eq!(code(NOW + 12_300), 503);
    let mut lost = leader();
    lost.view.lease.held = false;
    assert_eq!(self::code(&lost, "/primary"), 503);
    assert_eq!(self::code(&lost, "/leader"), 503);
}

#[test]
fn a_primary_that_recovers_cannot_take_writes() {
    let mut node = leader();
    node.sql().in_recovery = true;
    for path in ["/", "/primary", "/read-write", "/master"] {
        assert_eq!(code(&node, path), 503, "{path}");
    }
    assert_eq!(code(&node, "/leader"), 200);
}

#[test]
fn words_count_anywhere_in_a_path_and_names_only_as_a_whole() {
    for path in ["/", "/master", "/read-write", "/xmaster/foo", "/primary/", "/leader"] {
        assert_eq!(code(&leader(), path), 200, "{path}");
        assert_eq!(code(&replica(), path), 503, "{path}");
    }
    for path in ["/replicaXYZ", "/replica/", "/read-only", "/asynchronous", "/healthy"] {
        assert_eq!(code(&replica(), path), 200, "{path}");
    }
    let sync = replica().synchronous(SynchronousMode::On, &["pg1"]);
    for path in ["/synchronous", "/read-only-sync", "/read-only-synchronous"] {
        assert_eq!(code(&sync, path), 200, "{path}");
        assert_eq!(code(&replica(), path), 503, "{path}");
    }
    let quorum = replica().synchronous(SynchronousMode::Quorum, &["pg1"]);
    assert_eq!(code(&quorum, "/read-only-quorum"), 200);
    assert_eq!(code(&sync, "/read-only-quorum"), 503);
    for path in ["/sync/", "/async/", "/nonsense", "/patroni", "/cluster", ""] {
        assert_eq!(code(&sync, path), 503, "{path}");
    }
    for path in ["/read-only-sync", "/read-only-quorum"] {
        assert_eq!(code(&leader(), path), 200, "{path}");
    }
    assert_eq!(code(&standby_leader(), "/standby_leader"), 200);
}

#[test]
fn lag_is_measured_against_the_furthest_position_known() {
    let mut node = replica();
    node.sql().replay_lsn.0 = LEADER_LSN.0 - 2048;
    for (lag, wanted) in
        [("2048", 200), ("2047", 503), ("2kB", 200), ("1kB", 503), ("x", 200), ("-1", 503)]
    {
        assert_eq!(asked(&node, "/replica", &[("lag", lag)]), wanted, "lag={lag}");
    }
    assert_eq!(asked(&leader(), "/primary", &[("lag", "-1")]), 200);
}

#[test]
fn replication_state_and_tags_must_match() {
    let mut node = replica();
    node.tag("rack", json!("A"));
    node.tag("weight", json!(1.4));
    let ask = |query: &[(&str, &str)]| asked(&node, "/replica", query);
    assert_eq!(ask(&[("replication_state", "streaming")]), 200);
    assert_eq!(ask(&[("replication_state", "in archive recovery")]), 503);
    assert_eq!(ask(&[("tag_clonefrom", "true"), ("tag_rack", "A")]), 200);
    assert_eq!(ask(&[("tag_weight", "1.4")]), 200);
    assert_eq!(ask(&[("tag_rack", "a")]), 503);
    assert_eq!(ask(&[("tag_missing", "x")]), 503);
    assert_eq!(asked(&node, "/health", &[("tag_rack", "B")]), 503);
    assert_eq!(asked(&leader(), "/primary", &[("tag_rack", "B")]), 200);
    assert_eq!(asked(&leader(), "/leader", &[("tag_rack", "B")]), 200);
}

#[test]
fn readiness_knows_lag_and_mode() {
    let mut node = replica();
    node.sql().replay_lsn.0 = LEADER_LSN.0 - 2_000_000;
    assert_eq!(code(&node, "/readiness"), 503);
    assert_eq!(asked(&node, "/readiness", &[("lag", "2MB")]), 200);
    assert_eq!(asked(&node, "/readiness", &[("mode", "write")]), 200);
    assert_eq!(asked(&node, "/readiness", &[("mode", "other")]), 503);
}

#[test]
fn liveness_ends_when_the_view_is_no_longer_renewed() {
    let live = |node: &Node, later| probe::liveness(&node.look_at(NOW + later));
    assert!(live(&leader(), 39_999) && !live(&leader(), 40_000));
    assert!(live(&replica(), 69_999) && !live(&replica(), 70_000));
}
