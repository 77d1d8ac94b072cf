//! Somebody who knows the password speaks as the arbiter (SEC-9).
use std::time::Duration;

use rustix::process::Signal;
use surus::host::peer::{Access, Frame, Hello, Key, Peers};
use surus::pure::config::HostPort;

use super::cluster::{Cluster, Spec, wait_until};

/// Both other daemons are frozen, and their answers are forged: the guard stops PostgreSQL all the same.
#[test]
fn forged_answers_keep_no_primary_alive() {
    let Some(cluster) = Cluster::start_all(Spec::default()) else { return };
    let leader = cluster.wait_settled(60);
    let number = |key: &str| cluster.nodes[leader].dump().and_then(|d| d["raft"][key].as_u64());
    wait_until("another to arbitrate", 20, || {
        number("leader").is_some_and(|id| id != 0 && Some(id) != number("id"))
    });
    let arbiter = number("leader").expect("it was there");
    for k in cluster.others(leader) {
        cluster.nodes[k].signal(Signal::STOP);
    }
    let at = &cluster.nodes[leader].at;
    let holder = HostPort { host: at.host.clone(), port: at.raft };
    let forging = std::thread::spawn(move || forge(&holder, arbiter));
    wait_until("the guard to stop PostgreSQL", 15, || cluster.nodes[leader].postmaster().is_none());
    for k in cluster.others(leader) {
        cluster.nodes[k].signal(Signal::CONT);
    }
    assert!(forging.join().expect("the forger ends"), "the forger was let in");
    cluster.wait_settled(60);
}

/// Answers every renewal that may be, for ten seconds; whether it was connected at all.
fn forge(holder: &HostPort, arbiter: u64) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let key = Key::stretch("raft-geheim", "service/e2e").expect("there is memory");
        let own = HostPort { host: "127.0.0.1".into(), port: 0 };
        let hello = Hello::new("service/e2e", arbiter, "forger", "127.0.0.1:1");
        let (peers, _events) = Peers::spawn(&own, hello, Access::Key(key)).await.expect("binds");
        peers.set_targets(vec![holder.clone()]);
        let mut sent = false;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for (epoch, serial) in (1..4).flat_map(|epoch| (1..150).map(move |s| (epoch, s))) {
                let answer = serde_json::json!(
                    {"renewal_answer": {"epoch": epoch, "serial": serial, "applied": 1}}
                );
                sent |= peers.send(holder, Frame::Peer(answer.to_string().into_bytes()));
            }
        }
        sent
    })
}
