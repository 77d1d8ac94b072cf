//! The leader's processes die or hang one by one; the machine they run on stays.
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cluster::{Cluster, Spec, wait_until};
use super::process;

#[test]
fn a_killed_postmaster_is_restarted_in_place() {
    let Some(cluster) = Cluster::start_all(Spec::default()) else { return };
    let leader = cluster.leader();
    let timeline = cluster.timeline(leader);
    let writers = cluster.writers();
    wait_until("some writes", 10, || writers.acked().len() > 50);

    let killed = Instant::now();
    process::signal(cluster.nodes[leader].postmaster().expect("it runs"), Signal::KILL);
    wait_until("writes after the kill", 20, || writers.acked_since(killed) > 50);

    let seen = writers.stop();
    assert_eq!(cluster.wait_settled(30), leader);
    assert_eq!(cluster.timeline(leader), timeline, "restarted in place, not promoted");
    assert_eq!(seen.overlap_ms(), 0);
    cluster.wait_holds_everywhere(&seen.acked());
    eprintln!("no acknowledged write for {:?}", seen.longest_gap());
}

#[test]
fn a_daemon_that_returns_within_ttl_costs_no_write() {
    let Some(mut cluster) = Cluster::start_all(Spec::default()) else { return };
    let leader = cluster.leader();
    let (timeline, pid) = (cluster.timeline(leader), cluster.nodes[leader].postmaster());
    assert!(pid.is_some());
    let writers = cluster.writers();
    wait_until("some writes", 10, || writers.acked().len() > 50);

    let killed = Instant::now();
    cluster.nodes[leader].kill_daemon();
    std::thread::sleep(Duration::from_millis(500));
    cluster.start(leader);
    std::thread::sleep(Duration::from_secs(2 * u64::from(Spec::default().ttl_s)));

    assert_eq!(cluster.wait_settled(30), leader);
    let failures = writers.failures(leader, killed);
    assert!(failures.is_empty(), "{} failed, first {:?}", failures.len(), failures[0]);
    assert_eq!(cluster.nodes[leader].postmaster(), pid, "PostgreSQL was not touched");
    assert_eq!(cluster.timeline(leader), timeline);
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0);
    cluster.wait_holds_everywhere(&seen.acked());
}

#[test]
fn a_frozen_daemon_loses_the_lead_and_rejoins() {
    let Some(cluster) = Cluster::start_all(Spec { ttl_s: 3, ..Spec::default() }) else { return };
    let leader = cluster.leader();
    let writers = cluster.writers();
    wait_until("some writes", 10, || writers.acked().len() > 50);

    let frozen = Instant::now();
    cluster.nodes[leader].signal(Signal::STOP);
    wait_until("another node to lead", 30, || cluster.writable().is_some_and(|k| k != leader));
    eprintln!("another node takes writes after {:?}", frozen.elapsed());
    std::thread::sleep(Duration::from_secs(3));
    assert!(cluster.nodes[leader].postmaster().is_none(), "the guard stopped PostgreSQL");
    cluster.nodes[leader].signal(Signal::CONT);

    assert_ne!(cluster.wait_settled(60), leader);
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0, "two nodes took writes");
    // The guard stops PostgreSQL in the middle of its work, and replication is asynchronous.
    cluster.wait_holds_everywhere(&seen.acked_before(frozen));
    cluster.wait_same_rows();
}
