//! Synchronous mode: who is counted on holds everything that was acknowledged.
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::{http, process};

const NAMES: &str = "SHOW synchronous_standby_names";

fn set(cluster: &Cluster, k: usize, change: &Value) {
    let (status, said) =
        http::patch(&cluster.nodes[k].rest(), "/config", &change.to_string()).expect("an answer");
    assert_eq!(status, 200, "{said}");
}

/// Whom `GET /cluster` calls synchronous.
fn write_deadline(cluster: &Cluster, k: usize) -> Vec<String> {
    let seen = http::get_json(&cluster.nodes[k].rest(), "/cluster").unwrap_or_default();
    let members = seen["members"].as_array().cloned().unwrap_or_default();
    let sync = members.iter().filter(|member| member["role"] == "sync_standby");
    sync.filter_map(|member| member["name"].as_str().map(str::to_owned)).collect()
}

fn checkpointer(cluster: &Cluster, k: usize) -> i32 {
    let asked = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
    cluster.nodes[k].sql(asked).and_then(|pid| pid.parse().ok()).expect("a checkpointer")
}

/// A setting that is shown is not yet in force: commits wait for nobody until the checkpointer has read it.
/// A disk can hold that one in a flush for long; until then nobody is counted on.
#[test]
fn nobody_is_counted_on_before_commits_wait() {
    let Some(cluster) = Cluster::start_all(Spec::default()) else { return };
    let leader = cluster.wait_settled(30);
    let frozen = checkpointer(&cluster, leader);
    process::signal(frozen, Signal::STOP);
    set(&cluster, leader, &json!({"synchronous_mode": true}));
    let until = Instant::now() + Duration::from_secs(8);
    while Instant::now() < until {
        assert_eq!(write_deadline(&cluster, leader), Vec::<String>::new());
        let begun = Instant::now();
        let wrote = cluster.nodes[leader].sql("INSERT INTO acked VALUES (-1) RETURNING id");
        assert_eq!(wrote.as_deref(), Some("-1"), "nobody has to wait meanwhile");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    process::signal(frozen, Signal::CONT);
    wait_until("somebody to be counted on", 20, || write_deadline(&cluster, leader).len() == 1);
    assert_eq!(cluster.nodes[leader].sql(NAMES), Some(write_deadline(&cluster, leader).concat()));
}

/// Neither a daemon that comes back nor its reload makes PostgreSQL forget for whom it waits; the
/// operator's own value returns when the mode is switched off, and nothing waits any longer.
#[test]
fn a_daemon_that_comes_back_leaves_commits_waiting() {
    let Some(mut cluster) = Cluster::start_all(Spec { ttl_s: 5, ..Spec::default() }) else {
        return;
    };
    let leader = cluster.wait_settled(30);
    let own = json!({"synchronous_standby_names": "ANY 1 (nobody, n1, n2, n3)"});
    set(&cluster, leader, &json!({"synchronous_mode": true, "postgresql": {"parameters": own}}));
    wait_until("somebody to be counted on", 20, || write_deadline(&cluster, leader).len() == 1);
    let names = cluster.nodes[leader].sql(NAMES);

    cluster.nodes[leader].kill_daemon();
    cluster.start(leader);
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        assert_eq!(cluster.nodes[leader].sql(NAMES), names, "commits wait no longer");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(cluster.wait_settled(20), leader);
    set(&cluster, leader, &json!({"postgresql": {"parameters": {"work_mem": "5MB"}}}));
    let work_mem = || cluster.nodes[leader].sql("SHOW work_mem");
    wait_until("the reload", 10, || work_mem().as_deref() == Some("5MB"));
    assert_eq!(cluster.nodes[leader].sql(NAMES), names);

    set(&cluster, leader, &json!({"synchronous_mode": false}));
    let users = || cluster.nodes[leader].sql(NAMES).is_some_and(|names| names.contains("nobody"));
    wait_until("the operator's own names", 10, users);
    assert_eq!(write_deadline(&cluster, leader), Vec::<String>::new());
}

/// Switched off while its standbys are gone, nothing waits for them.
#[test]
fn switched_off_nobody_waits() {
    let Some(mut cluster) = Cluster::start_all(Spec { nodes: 2, ..Spec::default() }) else {
        return;
    };
    let leader = cluster.wait_settled(30);
    let strict = json!({"synchronous_mode": true, "synchronous_mode_strict": true});
    set(&cluster, leader, &strict);
    wait_until("somebody to be counted on", 20, || write_deadline(&cluster, leader).len() == 1);
    let other = cluster.others(leader)[0];
    assert_eq!(cluster.nodes[other].stop(30), Some(0));
    let placeholder = || {
        let names = cluster.nodes[leader].sql(NAMES);
        names.as_deref() == Some("__patroni_strict_sync_replica_placeholder__")
    };
    wait_until("nobody to be left", 20, placeholder);
    set(&cluster, leader, &json!({"synchronous_mode": false, "synchronous_mode_strict": null}));
    let write = || cluster.nodes[leader].sql("INSERT INTO acked VALUES (-1) RETURNING id");
    wait_until("a write", 10, || write().as_deref() == Some("-1"));
    assert_eq!(cluster.nodes[leader].sql(NAMES).as_deref(), Some(""));
}

/// A copy without its number (somebody else made it, or the file was removed) cannot be told from the next. It
/// gets another when it becomes ours: when it is started, or taken over while it runs.
#[test]
fn a_copy_without_a_number_gets_one_and_is_counted_on_again() {
    let Some(mut cluster) = Cluster::start_all(Spec::default()) else { return };
    let leader = cluster.wait_settled(30);
    let standby = cluster.others(leader)[0];
    let file = cluster.nodes[standby].data().join("surus.copy");
    set(&cluster, leader, &json!({"synchronous_mode": true, "synchronous_node_count": 2}));
    wait_until("both to be counted on", 20, || write_deadline(&cluster, leader).len() == 2);

    let first = fs::read_to_string(&file).expect("each copy has a number");
    cluster.nodes[standby].stop(30);
    fs::remove_file(&file).expect("it is there");
    cluster.start(standby);
    let second = another_number(&cluster, leader, &file, &first);

    cluster.nodes[standby].kill_daemon();
    fs::remove_dir_all(cluster.nodes[standby].state()).expect("it is there");
    fs::remove_file(&file).expect("it is there");
    cluster.start(standby);
    another_number(&cluster, leader, &file, &second);
}

fn another_number(cluster: &Cluster, leader: usize, file: &Path, known: &str) -> String {
    let read = || fs::read_to_string(file).ok().filter(|number| number != known);
    wait_until("another number", 30, || read().is_some());
    wait_until("both to be counted on", 30, || write_deadline(cluster, leader).len() == 2);
    read().expect("it stays")
}
