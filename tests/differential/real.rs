//! The real side: three daemons with PostgreSQL in network namespaces.
use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;

use super::super::cluster::{Cluster, Spec};
use super::super::network::Network;
use super::super::{http, process};
use super::Side;

pub struct Real {
    cluster: Cluster,
    network: Network,
    /// Ids that were acknowledged, and seen on every node that was there.
    written: std::cell::Cell<u64>,
}

impl Real {
    pub fn new() -> Option<Real> {
        let network = Network::make(3)?;
        let mut cluster = network.plan(Spec { ttl_s: 3, ..Spec::default() })?;
        (0..3).for_each(|k| cluster.start(k));
        cluster.wait_settled(90);
        cluster.make_table();
        Some(Real { cluster, network, written: std::cell::Cell::new(0) })
    }

    fn write(&self, leader: usize) {
        for _ in 0..20 {
            let id = self.written.get() + 1;
            let done = self.cluster.nodes[leader]
                .column(&format!("INSERT INTO acked (id, node) VALUES ({id}, {leader})"));
            assert!(done.is_some(), "the leader takes writes");
            self.written.set(id);
        }
    }

    fn revive(&mut self) {
        for k in 0..3 {
            if !self.cluster.nodes[k].is_running() {
                self.cluster.nodes[k].reap();
                self.cluster.start(k);
            }
        }
    }

    fn restart_daemon(&mut self, k: usize) {
        self.cluster.nodes[k].kill_daemon();
        std::thread::sleep(Duration::from_millis(500));
        self.cluster.start(k);
    }

    fn kill_all(&mut self) {
        let of = |node: &super::super::cluster::Node| process::of(&node.dir);
        let everything: Vec<i32> = self.cluster.nodes.iter().flat_map(of).collect();
        everything.into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
        self.cluster.nodes.iter_mut().for_each(|node| node.kill());
    }
}

impl Side for Real {
    fn leader(&self) -> Option<usize> {
        self.cluster.writable()
    }

    fn timeline(&self, node: usize) -> u32 {
        let question = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
        let text = self.cluster.nodes[node].sql(question).unwrap_or_default();
        u32::from_str_radix(&text, 16).unwrap_or_default()
    }

    fn streaming(&self, leader: usize, among: &BTreeSet<usize>) -> usize {
        self.cluster.streaming_from(leader).intersection(among).count()
    }

    fn act(&mut self, step: &str, node: usize) {
        match step {
            "write" => self.write(node),
            "kill leader" | "kill replica" => self.cluster.nodes[node].kill(),
            "kill all" => self.kill_all(),
            "kill postmaster" => {
                let pid = self.cluster.nodes[node].postmaster().expect("it runs");
                process::signal(pid, Signal::KILL);
            }
            "restart daemon" => self.restart_daemon(node),
            "freeze leader" => self.cluster.nodes[node].signal(Signal::STOP),
            "thaw" => (0..3).for_each(|k| self.cluster.nodes[k].signal(Signal::CONT)),
            "isolate leader" | "isolate replica" => self.network.cut_off(node),
            "heal" => self.network.heal(),
            "switchover" => {
                let body = format!("{{\"leader\": \"{}\"}}", self.cluster.nodes[node].name);
                let answer = http::post(&self.cluster.nodes[node].rest(), "/switchover", &body);
                assert_eq!(answer.as_ref().map(|a| a.0), Some(200), "{answer:?}");
            }
            "stop leader" => {
                let code = self.cluster.nodes[node].stop(60);
                assert_eq!(code, Some(0), "it stops in order");
            }
            "revive" => self.revive(),
            other => panic!("unknown step `{other}`"),
        }
    }

    fn lost(&self) -> usize {
        let Some(leader) = self.leader() else { return 0 };
        let stored = self.cluster.stored(leader);
        (1..=self.written.get()).filter(|id| !stored.contains(id)).count()
    }

    fn pass(&mut self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}
