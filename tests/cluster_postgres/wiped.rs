//! Directories disappear, copies are interrupted: the node is made whole again.
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::process;

/// Spec: T-4, EX-68.
#[test]
fn wiped_directories_are_made_anew() {
    let Some(mut cluster) = Cluster::start_all(Spec::default()) else { return };
    let writers = cluster.writers();
    let leader = cluster.leader();
    let replica = cluster.others(leader)[0];

    let old_id = raft(&cluster, replica)["id"].clone();
    cluster.nodes[replica].kill();
    fs::remove_dir_all(cluster.nodes[replica].state()).expect("it is there");
    cluster.start(replica);
    assert_eq!(cluster.wait_settled(60), leader);
    votes_under_a_new_id(&cluster, leader, replica, &old_id);

    cluster.nodes[replica].kill();
    cluster.nodes[replica].wipe_data();
    cluster.start(replica);
    assert_eq!(cluster.wait_settled(60), leader);

    interrupted_copy(&mut cluster, leader, replica);
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0);
    cluster.wait_holds_everywhere(&seen.acked());
}

fn raft(cluster: &Cluster, k: usize) -> Value {
    cluster.nodes[k].dump().expect("it answers")["raft"].clone()
}

fn votes_under_a_new_id(cluster: &Cluster, leader: usize, replica: usize, old: &Value) {
    let new = raft(cluster, replica)["id"].clone();
    assert_ne!(&new, old, "a wiped node is somebody else");
    wait_until("the new id to vote, and the old one to go", 30, || {
        let voters = raft(cluster, leader)["voters"].as_array().cloned().unwrap_or_default();
        voters.len() == 3 && voters.contains(&new) && !voters.contains(old)
    });
    let dump = cluster.nodes[leader].dump().expect("it answers");
    let members = dump["cluster"]["members"].as_object().cloned().unwrap_or_default();
    assert!(!members.contains_key(&old.to_string()), "{members:?}");
}

/// The daemon dies in the middle of a slow copy; nobody goes on copying.
fn interrupted_copy(cluster: &mut Cluster, leader: usize, replica: usize) {
    cluster.nodes[replica].kill();
    cluster.nodes[replica].wipe_data();
    cluster.edit(replica, &json!({"postgresql": {"basebackup": [{"max-rate": "2M"}]}}));
    cluster.start(replica);
    let dir = cluster.nodes[replica].dir.clone();
    let copies = || -> Vec<i32> { process::of(&dir).into_iter().filter(|p| is_copy(*p)).collect() };
    wait_until("a copy under way", 30, || !copies().is_empty());
    std::thread::sleep(Duration::from_secs(1));
    let old = copies();
    assert!(!old.is_empty(), "the copy is slow");
    cluster.nodes[replica].kill_daemon();
    cluster.edit(replica, &json!({"postgresql": {"basebackup": []}}));
    cluster.start(replica);
    // pg_basebackup ends with its daemon; its child that receives WAL, at the daemon's next start.
    let left = || copies().into_iter().filter(|pid| old.contains(pid)).count();
    wait_until("the interrupted copy to be gone", 10, || left() == 0);
    assert_eq!(cluster.wait_settled(60), leader);
}

fn is_copy(pid: i32) -> bool {
    process::title(pid).contains("pg_basebackup")
}
