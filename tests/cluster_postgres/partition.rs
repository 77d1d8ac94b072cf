//! Partitions, in both directions and in one: see `network`.
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Spec, wait_until};
use super::network::Network;

#[test]
fn partitions_never_make_two_writers() {
    let Some(network) = Network::make(3) else { return };
    let spec = Spec { ttl_s: 3, ..Spec::default() };
    let Some(mut cluster) = network.plan(spec) else { return };
    (0..3).for_each(|k| cluster.start(k));
    cluster.wait_settled(60);
    cluster.make_table();
    let writers = cluster.writers();
    wait_until("some writes", 10, || writers.acked().len() > 50);

    eprintln!("the leader is cut off, both directions");
    leader_is_cut_off(&cluster, &network, |leader, _| network.cut_off(leader));
    eprintln!("the leader cannot send");
    leader_is_cut_off(&cluster, &network, |leader, other| network.cut(leader, other));
    eprintln!("nobody can send to the leader");
    leader_is_cut_off(&cluster, &network, |leader, other| network.cut(other, leader));

    let leader = cluster.leader();
    let replica = cluster.others(leader)[0];
    let cut = Instant::now();
    network.cut_off(replica);
    std::thread::sleep(Duration::from_secs(6));
    assert!(writers.acked_since(cut + Duration::from_secs(4)) > 20, "writes go on");
    network.heal();
    assert_eq!(cluster.wait_settled(60), leader, "a replica that was cut off changes nothing");

    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0, "two nodes took writes");
    cluster.wait_same_rows();
}

fn leader_is_cut_off(cluster: &Cluster, network: &Network, cut: impl Fn(usize, usize)) {
    let leader = cluster.leader();
    let began = Instant::now();
    cluster.others(leader).into_iter().for_each(|other| cut(leader, other));
    wait_until("the other side to lead", 30, || cluster.writable().is_some_and(|k| k != leader));
    eprintln!("the other side takes writes after {:?}", began.elapsed());
    std::thread::sleep(Duration::from_secs(2));
    network.heal();
    cluster.wait_settled(60);
}
