//! The disk that holds the Raft log and the journal hangs: nothing written there comes back.
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Spec, wait_until};
use super::http;
use super::state_disks::state_disks;

/// The lease is extended without a disk, so the writes go on; the log goes on without this node.
#[test]
fn a_stuck_disk_costs_no_write_and_the_log_goes_on() {
    let spec = Spec { ttl_s: 3, ..Spec::default() };
    let Some(mut cluster) = Cluster::plan(spec) else { return };
    let Some(disks) = state_disks(&cluster) else { return };
    (0..3).for_each(|k| cluster.start(k));
    cluster.wait_settled(60);
    cluster.make_table();
    let leader = cluster.leader();
    let timeline = cluster.timeline(leader);
    let other = cluster.others(leader)[0];
    let writers = cluster.writers();
    wait_until("some writes", 10, || writers.acked().len() > 50);

    let began = Instant::now();
    let frozen = disks[leader].freeze().expect("it can be frozen");
    wait_until("a change that the majority wrote down", 30, || {
        let answer = http::patch(&cluster.nodes[other].rest(), "/config", r#"{"loop_wait":2}"#);
        answer.is_some_and(|(status, _)| status == 200)
    });
    eprintln!("the log goes on after {:?}", began.elapsed());
    std::thread::sleep(Duration::from_secs(6));
    let late = Instant::now();
    wait_until("writes long after the disk hung", 10, || writers.acked_since(late) > 50);
    drop(frozen);

    assert_eq!(cluster.wait_settled(60), leader, "the lease needs no disk");
    assert_eq!(cluster.timeline(leader), timeline);
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0, "two nodes took writes");
    eprintln!("no acknowledged write for {:?}", seen.longest_gap());
    cluster.wait_holds_everywhere(&seen.acked_before(began));
    cluster.wait_same_rows();
    drop(cluster);
    drop(disks);
}
