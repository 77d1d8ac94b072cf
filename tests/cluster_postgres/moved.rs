//! The leader's data directory is moved aside while PostgreSQL runs: it would go on acknowledging
//! what is nowhere. It is stopped before anybody else may write.
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::process::Signal;

use super::cluster::{Cluster, Spec, wait_until};
use super::origin::tool;
use super::{http, process};

fn guard(cluster: &Cluster, k: usize) -> Option<i32> {
    let all = process::of(&cluster.nodes[k].dir);
    all.into_iter().find(|pid| process::title(*pid).starts_with("surus guard"))
}

fn works(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
}

/// What lies under the directory's name when it was moved.
#[derive(Clone, Copy, PartialEq)]
enum Instead {
    Nothing,
    /// A link to a copy, as one puts there who moves the data to another disk.
    LinkToCopy,
}

fn moved(freeze: bool) {
    another_takes_over(freeze, Instead::Nothing);
}

/// Moves it; the other leads, the old postmaster is gone by then, and no two acknowledged at once.
fn another_takes_over(freeze: bool, instead: Instead) {
    let spec = Spec { nodes: 3, ttl_s: 4, ..Spec::default() };
    let Some(cluster) = Cluster::start_all(spec) else { return };
    let writers = cluster.writers();
    let old = cluster.leader();
    let pid = cluster.nodes[old].postmaster().expect("it runs");
    if freeze {
        cluster.nodes[old].signal(Signal::STOP);
    }
    let (data, aside) = (cluster.nodes[old].data(), cluster.nodes[old].dir.join("aside"));
    let copy = cluster.nodes[old].dir.join("copy");
    if instead == Instead::LinkToCopy {
        let done = Command::new("cp").arg("-a").args([&data, &copy]).status();
        assert!(done.expect("cp").success());
    }
    fs::rename(&data, &aside).expect("it is moved");
    if instead == Instead::LinkToCopy {
        symlink(&copy, &data).expect("a link");
    }
    let leads = |k: usize| {
        k != old && cluster.nodes[k].sql("SELECT pg_is_in_recovery()").as_deref() == Some("f")
    };
    wait_until("another to lead", 40, || cluster.numbers().into_iter().any(leads));
    assert!(!works(pid), "the old one could still write");
    if freeze {
        cluster.nodes[old].signal(Signal::CONT);
    }
    if instead == Instead::LinkToCopy {
        // What was copied while it was written to is no backup: a person has to replace it.
        assert_eq!(writers.stop().overlap_ms(), 0, "two writers at once");
        return;
    }
    let new = cluster.wait_settled(60);
    assert_ne!(new, old, "it has no data");
    assert_eq!(writers.stop().overlap_ms(), 0, "two writers at once");
    cluster.wait_same_rows();
}

#[test]
fn a_leader_whose_directory_is_moved_is_stopped_first() {
    moved(false);
}

/// The path leads to other data than those that PostgreSQL works on.
#[test]
fn a_leader_whose_directory_becomes_a_link_is_stopped() {
    another_takes_over(false, Instead::LinkToCopy);
}

/// The guard alone finds it, too.
#[test]
fn a_frozen_leader_whose_directory_is_moved_is_stopped_first() {
    moved(true);
}

/// Its end is told, not found with the pulse, which is half a minute away here.
#[test]
fn a_killed_guard_is_replaced_before_the_pulse() {
    let spec = Spec { nodes: 1, ..Spec::default() };
    let Some(cluster) = Cluster::start_all(spec) else { return };
    let slow = r#"{"ttl": 100, "loop_wait": 30, "retry_timeout": 30}"#;
    wait_until("the change", 20, || {
        let answer = http::patch(&cluster.nodes[0].rest(), "/config", slow);
        answer.is_some_and(|(status, said)| {
            eprintln!("{status} {said}");
            status == 200
        })
    });
    wait_until("the slow pulse", 10, || {
        http::get_json(&cluster.nodes[0].rest(), "/config").is_some_and(|c| c["loop_wait"] == 30)
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    let postmaster = cluster.nodes[0].postmaster();
    for _ in 0..3 {
        let first = guard(&cluster, 0).expect("it is guarded");
        process::signal(first, Signal::KILL);
        wait_until("the next guard", 7, || guard(&cluster, 0).is_some_and(|pid| pid != first));
    }
    assert_eq!(cluster.nodes[0].postmaster(), postmaster, "PostgreSQL is left as it is");
}

/// pg_ctl sees its order obeyed, and the node comes back as Patroni's would.
#[test]
fn a_server_that_is_stopped_by_hand_has_stopped() {
    let spec = Spec { nodes: 1, ..Spec::default() };
    let Some(cluster) = Cluster::start_all(spec) else { return };
    let data = cluster.nodes[0].data().display().to_string();
    let before = cluster.nodes[0].postmaster();
    tool("pg_ctl", &["stop", "-D", &data, "-m", "fast", "-t", "20"]);
    wait_until("it to be back", 30, || cluster.writable() == Some(0));
    assert_ne!(cluster.nodes[0].postmaster(), before);
}
