//! The daemon dies right after a record was written, at every step of the flows that make and
//! change a cluster, and is started again: the flow resumes, nothing is done twice.
//!
//! Needs a debug build: only there the daemon knows SURUS_CRASH_AT.
use std::fs;
use std::time::Duration;

use super::cluster::{Cluster, Spec, wait_until};
use super::http;

/// Ends by a signal, as asked; then it is started without the request.
fn crash_and_return(cluster: &mut Cluster, k: usize, at: &str) {
    assert_eq!(cluster.nodes[k].wait_exit(60), None, "the daemon aborts at {at}");
    cluster.start(k);
}

/// Who crashes is decided by the cluster: the one that founds it.
fn crash_anyone_and_return(cluster: &mut Cluster, at: &str) {
    let mut crashed = None;
    wait_until(&format!("a crash at {at}"), 60, || {
        crashed = cluster.numbers().into_iter().find(|k| !cluster.nodes[*k].is_running());
        crashed.is_some()
    });
    crash_and_return(cluster, crashed.expect("just found"), at);
}

fn bootstrap_survives(nodes: usize, at: &str) {
    let Some(mut cluster) = Cluster::plan(Spec { nodes, ttl_s: 4, ..Spec::default() }) else {
        return;
    };
    let counted = cluster.count_initdb();
    (0..nodes).for_each(|k| cluster.start_with(k, &[("SURUS_CRASH_AT", at)]));
    crash_anyone_and_return(&mut cluster, at);
    cluster.wait_settled(60);
    let finished = fs::read_to_string(counted).expect("initdb was run").matches("finished").count();
    assert_eq!(finished, 1, "after a crash at {at} the cluster was made {finished} times");
    let first = cluster.system_identifier(0);
    assert!(first.is_some());
    for k in cluster.numbers() {
        assert_eq!(cluster.system_identifier(k), first);
    }
}

/// Spec: I-5, EX-21.
#[test]
fn bootstrap_resumes_after_a_crash_at_any_step() {
    let states = ["creating", "starting", "creating_roles", "bootstrapped"];
    states.iter().for_each(|state| bootstrap_survives(1, &format!("bootstrap:{state}")));
    bootstrap_survives(3, "bootstrap:creating_roles");
}

#[test]
fn the_founding_resumes_after_a_crash_at_any_step() {
    let states = ["arming", "bootstrapping", "identifying", "publishing", "initialised"];
    states.iter().for_each(|state| bootstrap_survives(1, &format!("cluster_init:{state}")));
    bootstrap_survives(3, "cluster_init:publishing");
}

#[test]
fn replica_build_resumes_after_a_crash_at_any_step() {
    let Some(mut cluster) = Cluster::start_all(Spec::default()) else { return };
    let writers = cluster.writers();
    let leader = cluster.leader();
    let replica = cluster.others(leader)[0];
    let states = [
        "waiting",
        "checking",
        "clearing",
        "copying",
        "verifying",
        "starting",
        "catching_up",
        "streaming",
    ];
    for state in states {
        let at = format!("replica_build:{state}");
        cluster.nodes[replica].kill();
        cluster.nodes[replica].wipe_data();
        cluster.start_with(replica, &[("SURUS_CRASH_AT", &at)]);
        crash_and_return(&mut cluster, replica, &at);
        assert_eq!(cluster.wait_settled(60), leader, "after a crash at {at}");
    }
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0);
    cluster.wait_holds_everywhere(&seen.acked());
}

#[test]
fn promote_resumes_after_a_crash_at_any_step() {
    let Some(mut cluster) = Cluster::start_all(Spec::default()) else { return };
    let writers = cluster.writers();
    for state in ["arming", "promoting", "recording", "promoted"] {
        let at = format!("promote:{state}");
        let leader = cluster.wait_settled(30);
        let next = cluster.others(leader)[0];
        cluster.nodes[next].kill_daemon();
        cluster.start_with(next, &[("SURUS_CRASH_AT", &at)]);
        std::thread::sleep(Duration::from_secs(1));
        cluster.wait_settled(30);
        switch_over(&cluster, leader, next);
        crash_and_return(&mut cluster, next, &at);
        cluster.wait_settled(60);
    }
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0, "two nodes took writes");
    cluster.wait_holds_everywhere(&seen.acked());
    cluster.wait_same_rows();
}

/// Asks without waiting for the answer: who would give it, may die. Asks again, as a person would,
/// when the change could not be agreed on because the arbiter was just changing.
fn switch_over(cluster: &Cluster, from: usize, to: usize) {
    let at = cluster.nodes[from].rest();
    let (from, to) = (&cluster.nodes[from].name, &cluster.nodes[to].name);
    let body = format!("{{\"leader\": \"{from}\", \"candidate\": \"{to}\"}}");
    std::thread::spawn(move || {
        for _ in 0..3 {
            match http::post(&at, "/switchover", &body) {
                Some((503, _)) => std::thread::sleep(Duration::from_secs(1)),
                answer => return eprintln!("switchover: {answer:?}"),
            }
        }
    });
}
