//! Everything of a node dies at once, as when its power fails; later it returns.
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cluster::{Cluster, Spec, wait_until};
use super::process;
use super::writers::Writers;

/// What a primary leaves behind that died with writes nobody else has.
struct Loss {
    old: usize,
    new: usize,
    /// Rows that the others had, too.
    shared: BTreeSet<u64>,
}

/// Keeps the leader's last writes to itself, and kills the whole node.
fn lose_leader(cluster: &mut Cluster, writers: &Writers) -> Loss {
    let old = cluster.leader();
    wait_until("some writes", 10, || writers.acked().len() > 50);
    let data = cluster.nodes[old].data();
    let senders: Vec<i32> = process::of(&data)
        .into_iter()
        .filter(|p| process::title(*p).contains("walsender"))
        .collect();
    assert!(!senders.is_empty(), "the leader streams");
    let shared = cluster.stored(cluster.others(old)[0]);
    let alone = Instant::now();
    senders.iter().for_each(|pid| process::signal(*pid, Signal::STOP));
    std::thread::sleep(Duration::from_millis(300));
    wait_until("writes that are not replicated", 10, || writers.acked_since(alone) > 5);
    let killed = Instant::now();
    cluster.nodes[old].kill();
    wait_until("another node to lead", 30, || cluster.writable().is_some_and(|k| k != old));
    eprintln!("another node takes writes after {:?}", killed.elapsed());
    let new = cluster.leader();
    wait_until("new writes", 10, || writers.acked_since(killed) > 50);
    Loss { old, new, shared }
}

fn assert_returned(cluster: &mut Cluster, writers: Writers, loss: &Loss) {
    cluster.start(loss.old);
    assert_eq!(cluster.wait_settled(90), loss.new);
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0, "two nodes took writes");
    cluster.wait_holds_everywhere(&loss.shared);
    cluster.wait_same_rows();
}

fn spec(use_pg_rewind: bool) -> Spec {
    Spec { ttl_s: 2, use_pg_rewind, ..Spec::default() }
}

/// Spec: RW-1, RW-7.
#[test]
fn a_dead_primary_returns_by_pg_rewind() {
    let Some(mut cluster) = Cluster::start_all(spec(true)) else { return };
    let writers = cluster.writers();
    let loss = lose_leader(&mut cluster, &writers);
    assert_returned(&mut cluster, writers, &loss);
    assert!(cluster.nodes[loss.old].said("rewinding") > 0, "it diverged and was rewound");
    assert_eq!(aside(&cluster, loss.old), 0, "nothing was moved aside");
}

/// Spec: RW-3.
#[test]
fn without_pg_rewind_its_data_is_moved_aside() {
    let Some(mut cluster) = Cluster::start_all(spec(false)) else { return };
    let writers = cluster.writers();
    let loss = lose_leader(&mut cluster, &writers);
    assert_returned(&mut cluster, writers, &loss);
    assert_eq!(cluster.nodes[loss.old].said("rewinding"), 0);
    assert_eq!(aside(&cluster, loss.old), 1, "what only it had is kept");
}

/// Whole data directories beside the node's own.
fn aside(cluster: &Cluster, k: usize) -> usize {
    let entries = fs::read_dir(&cluster.nodes[k].dir).expect("it is there").flatten();
    let beside = entries.map(|e| e.path()).filter(|path| *path != cluster.nodes[k].data());
    beside.filter(|path| path.join("global/pg_control").exists()).count()
}
