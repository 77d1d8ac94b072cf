//! Every node in a network namespace of its own, on one bridge with this test.
//!
//! A direction is cut without a packet filter: the sender is told a hardware address for the receiver
//! that nobody has, so its packets vanish in silence, as they do in a broken network. The test
//! reaches every node throughout, so it sees on both sides who takes writes.
use std::process::Command;

use super::cluster::{Cluster, Spec};

const NOBODY: &str = "02:00:5e:00:53:ff";

pub struct Network {
    tag: String,
    /// The first three numbers of every address.
    net: String,
    nodes: usize,
}

impl Network {
    /// Says so and answers `None` where namespaces cannot be made.
    pub fn make(nodes: usize) -> Option<Network> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make network namespaces");
            return None;
        }
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

    pub fn space(&self, k: usize) -> String {
        format!("{}n{k}", self.tag)
    }

    pub fn host(&self, k: usize) -> String {
        format!("{}.{}", self.net, k + 1)
    }

    /// What `from` sends to `to` is lost.
    pub fn cut(&self, from: usize, to: usize) {
        let (space, host) = (self.space(from), self.host(to));
        let words =
            format!("-n {space} neigh replace {host} lladdr {NOBODY} dev eth0 nud permanent");
        ip(&words).expect("the network was made");
    }

    pub fn cut_off(&self, one: usize) {
        for other in (0..self.nodes).filter(|other| *other != one) {
            self.cut(one, other);
            self.cut(other, one);
        }
    }

    /// What `from` sends to `to` arrives again.
    pub fn mend(&self, from: usize, to: usize) {
        ip(&format!("-n {} neigh del {} dev eth0", self.space(from), self.host(to))).ok();
    }

    pub fn heal(&self) {
        for from in 0..self.nodes {
            (0..self.nodes).filter(|to| *to != from).for_each(|to| self.mend(from, to));
        }
    }

    /// A cluster with a node in every namespace; nothing runs yet.
    pub fn plan(&self, spec: Spec) -> Option<Cluster> {
        let hosts = (0..self.nodes).map(|k| self.host(k)).collect();
        Cluster::plan_at(spec, hosts, |k| {
            ["ip", "netns", "exec", &self.space(k)].map(String::from).to_vec()
        })
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
