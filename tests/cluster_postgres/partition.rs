//! Partitions: every node in a network namespace of its own, on one bridge with this test.
//!
//! A direction is cut without a packet filter: the sender is told a hardware address for the receiver
//! that nobody has, so its packets vanish in silence, as they do in a broken network. This test
//! reaches every node throughout, so it sees on both sides who takes writes.
use std::process::Command;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Spec, wait_until};

const NOBODY: &str = "02:00:5e:00:53:ff";

struct Network {
    tag: String,
    /// The first three numbers of every address.
    net: String,
    nodes: usize,
}

impl Network {
    /// Says so and answers `None` where namespaces cannot be made.
    fn make(nodes: usize) -> Option<Network> {
        let pid = std::process::id();
        let net = format!("10.{}.{}", 100 + pid / 250 % 100, pid % 250);
        let network = Network { tag: format!("su{pid}"), net, nodes };
        match network.build() {
            Ok(()) => Some(network),
            Err(why) => {
                eprintln!("SKIPPED: no network namespaces here: {why}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let (tag, net) = (&self.tag, &self.net);
        ip(&format!("link add {tag} type bridge"))?;
        ip(&format!("addr add {net}.254/24 dev {tag}"))?;
        ip(&format!("link set {tag} up"))?;
        for k in 0..self.nodes {
            let (space, link) = (self.space(k), format!("{tag}v{k}"));
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {link} master {tag} up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", self.host(k)))?;
            ip(&format!("-n {space} link set lo up"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
        }
        Ok(())
    }

    fn space(&self, k: usize) -> String {
        format!("{}n{k}", self.tag)
    }

    fn host(&self, k: usize) -> String {
        format!("{}.{}", self.net, k + 1)
    }

    /// What `from` sends to `to` is lost.
    fn cut(&self, from: usize, to: usize) {
        let (space, host) = (self.space(from), self.host(to));
        let words =
            format!("-n {space} neigh replace {host} lladdr {NOBODY} dev eth0 nud permanent");
        ip(&words).expect("the network was made");
    }

    fn cut_off(&self, one: usize) {
        for other in (0..self.nodes).filter(|other| *other != one) {
            self.cut(one, other);
            self.cut(other, one);
        }
    }

    fn heal(&self) {
        for from in 0..self.nodes {
            for to in (0..self.nodes).filter(|to| *to != from) {
                let words = format!("-n {} neigh del {} dev eth0", self.space(from), self.host(to));
                ip(&words).ok();
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        (0..self.nodes).for_each(|k| drop(ip(&format!("netns del {}", self.space(k)))));
        ip(&format!("link del {}", self.tag)).ok();
    }
}

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[test]
fn partitions_never_make_two_writers() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make network namespaces");
        return;
    }
    let Some(network) = Network::make(3) else { return };
    let hosts = (0..3).map(|k| network.host(k)).collect();
    let prefix = |k: usize| ["ip", "netns", "exec", &network.space(k)].map(String::from).to_vec();
    let spec = Spec { ttl_s: 3, ..Spec::default() };
    let Some(mut cluster) = Cluster::plan_at(spec, hosts, prefix) else { return };
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
