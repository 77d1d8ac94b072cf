//! Directories disappear, copies are interrupted: the node is made whole again.
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::{http, process};

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

/// The leader's files are removed under its running PostgreSQL: it stops it and gives the lease
/// away, though it could go on acknowledging what is nowhere; the other leads, and it is built anew.
/// Spec: I-2, EX-42.
#[test]
fn a_leader_without_its_data_gives_way() {
    let spec = Spec { nodes: 2, ttl_s: 20, ..Spec::default() };
    let Some(cluster) = Cluster::start_all(spec) else { return };
    let old = cluster.leader();
    let new = cluster.others(old)[0];
    cluster.nodes[old].column("INSERT INTO acked VALUES (1, 0)").expect("it takes writes");
    wait_until("the row there", 10, || cluster.stored(new).len() == 1);
    let pid = cluster.nodes[old].postmaster();
    remove_under(&cluster, old);
    wait_until("the other to lead", 15, || cluster.writable() == Some(new));
    assert!(!process::title(pid.expect("it ran")).contains("postgres"), "it was stopped");
    assert!(cluster.nodes[old].said("the data directory is gone") > 0);
    assert_eq!(cluster.wait_settled(40), new);
    assert_eq!(cluster.stored(old).len(), 1);
}

/// The control file goes first; what PostgreSQL makes anew meanwhile goes as well.
fn remove_under(cluster: &Cluster, k: usize) {
    let data = cluster.nodes[k].data();
    fs::remove_dir_all(data.join("global")).expect("it is there");
    let left = || fs::read_dir(&data).expect("it stays").flatten().map(|e| e.path());
    wait_until("it to be empty", 20, || {
        for path in left() {
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.ok();
        }
        left().next().is_none()
    });
}

/// A replica whose control file is spoilt does nothing but say so, until it is told to.
/// Spec: E-3, RI-3, EX-41.
#[test]
fn a_broken_replica_is_replaced_when_the_operator_says_so() {
    let spec = Spec { nodes: 2, ttl_s: 3, ..Spec::default() };
    let Some(mut cluster) = Cluster::start_all(spec) else { return };
    let leader = cluster.leader();
    let replica = cluster.others(leader)[0];
    let follows = || {
        let seen = http::get_json(&cluster.nodes[leader].rest(), "/cluster").unwrap_or_default();
        let name = &cluster.nodes[replica].name;
        seen["surus"]["members"][name.as_str()]["node_state"] == "following"
    };
    wait_until("it to follow", 20, follows);
    assert_eq!(cluster.nodes[replica].stop(30), Some(0));
    fs::write(cluster.nodes[replica].data().join("global/pg_control"), "junk").expect("written");
    cluster.start(replica);
    let says = |text: &str| {
        cluster.nodes[replica].dump().is_some_and(|dump| dump.to_string().contains(text))
    };
    wait_until("the sentence", 20, || says("is broken") && says("surus ctl reinit"));
    std::thread::sleep(Duration::from_secs(3));
    let control = cluster.nodes[replica].data().join("global/pg_control");
    assert_eq!(fs::read_to_string(control).expect("it is there"), "junk");
    let name = cluster.nodes[replica].name.clone();
    let (code, said) = cluster.ctl(leader, &["reinit", "e2e", &name, "--force", "--wait"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cluster.wait_settled(30), leader);
}
