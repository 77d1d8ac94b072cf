//! Orderly stops, one after the other and all at once; and all nodes killed at once.
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cluster::{Cluster, Spec, wait_until};
use super::process;

#[test]
fn all_nodes_killed_at_once_lose_nothing_replicated() {
    let Some(mut cluster) = Cluster::start_all(Spec { ttl_s: 3, ..Spec::default() }) else {
        return;
    };
    let writers = cluster.writers();
    wait_until("some writes", 10, || writers.acked().len() > 100);
    let leader = cluster.leader();
    let replicated: BTreeSet<u64> =
        cluster.others(leader).into_iter().flat_map(|k| cluster.stored(k)).collect();

    let everything: Vec<i32> =
        cluster.nodes.iter().flat_map(|node| process::of(&node.dir)).collect();
    everything.into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
    cluster.nodes.iter_mut().for_each(|node| node.kill());
    (0..3).for_each(|k| cluster.start(k));

    let restarted = Instant::now();
    cluster.wait_settled(90);
    wait_until("writes after the restart", 20, || writers.acked_since(restarted) > 50);
    cluster.wait_holds_everywhere(&replicated);
    stopped_and_started(&mut cluster, writers);
}

/// All are told to stop at the same moment, while the writers go on.
fn stopped_and_started(cluster: &mut Cluster, writers: super::writers::Writers) {
    cluster.nodes.iter().for_each(|node| node.signal(Signal::TERM));
    for node in &mut cluster.nodes {
        assert_eq!(node.wait_exit(60), Some(0), "{} stops in order", node.name);
        assert_eq!(process::of(&node.dir), Vec::<i32>::new(), "{} left something", node.name);
    }
    let acked_before = Instant::now();
    (0..3).for_each(|k| cluster.start(k));
    let leader = cluster.wait_settled(90);
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0);
    let last = seen.acked_before(acked_before).into_iter().rev().take(100).collect();
    cluster.assert_holds(leader, &last);
    cluster.wait_same_rows();
}

#[test]
fn a_stopped_leader_hands_over_without_loss() {
    let Some(mut cluster) = Cluster::start_all(Spec::default()) else { return };
    let writers = cluster.writers();
    wait_until("some writes", 10, || writers.acked().len() > 50);
    let old = cluster.leader();

    let told = Instant::now();
    assert_eq!(cluster.nodes[old].stop(60), Some(0));
    wait_until("writes elsewhere", 20, || writers.acked_since(told + Duration::from_secs(1)) > 50);
    let new = cluster.wait_settled(30);
    assert_ne!(new, old);
    cluster.assert_holds(new, &writers.acked());
    assert_eq!(voters(&cluster, new), 2, "a stopped node gives up its vote");

    cluster.start(old);
    cluster.wait_settled(60);
    wait_until("the vote to be regained", 20, || voters(&cluster, new) == 3);
    two_stop_one_after_the_other(&mut cluster, new, &writers);
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0);
    cluster.wait_holds_everywhere(&seen.acked());
    eprintln!("no acknowledged write for {:?}", seen.longest_gap());
}

/// First a replica, then the leader: the one that is left leads alone.
fn two_stop_one_after_the_other(
    cluster: &mut Cluster,
    leader: usize,
    writers: &super::writers::Writers,
) {
    let others = cluster.others(leader);
    let (replica, last) = (others[0], others[1]);
    assert_eq!(cluster.nodes[replica].stop(60), Some(0));
    wait_until("two voters", 10, || voters(cluster, leader) == 2);
    assert_eq!(cluster.nodes[leader].stop(60), Some(0));
    assert_eq!(cluster.wait_writable(20), last);
    wait_until("one voter", 10, || voters(cluster, last) == 1);
    let alone = Instant::now();
    std::thread::sleep(Duration::from_secs(8));
    assert!(writers.acked_since(alone + Duration::from_secs(6)) > 50, "it stays writable");
    cluster.assert_holds(last, &writers.acked());
    // It knows by itself that it is the only voter left.
    assert_eq!(cluster.nodes[last].stop(60), Some(0));
    cluster.start(last);
    assert_eq!(cluster.wait_writable(20), last);
    cluster.start(replica);
    cluster.start(leader);
    cluster.wait_settled(60);
    wait_until("three voters", 30, || voters(cluster, last) == 3);
}

fn voters(cluster: &Cluster, k: usize) -> usize {
    let dump = cluster.nodes[k].dump().unwrap_or_default();
    dump["raft"]["voters"].as_array().map_or(0, Vec::len)
}
