//! P7: when faults stop, the cluster is writable and every replica streams, within bounded time.
use super::super::world::World;

impl World {
    /// What is still missing; nothing when all is well.
    pub fn missing(&self) -> Option<String> {
        let Some(leader) = self.nodes.iter().find(|n| n.postgres.takes_writes()) else {
            return Some(String::from("nobody accepts writes"));
        };
        let theirs = leader.postgres.cluster()?;
        for node in self.nodes.iter().filter(|n| n.at != leader.at) {
            let streams = node.postgres.server.as_ref().is_some_and(|s| {
                s.in_recovery && s.streamed_at.is_some_and(|t| self.now < t + 2000)
            });
            let near = node.postgres.cluster().is_some_and(|c| c.wal.is_prefix_of(&theirs.wal));
            if !streams || !near {
                return Some(format!("{} does not stream from {}", node.name, leader.name));
            }
        }
        None
    }

    /// I-PR-2: a leader whose PostgreSQL starts too slowly gives way only to somebody.
    pub fn check_another_can_lead(&mut self, at: usize) {
        let now = self.local(at);
        let core = self.nodes[at].daemon.as_ref().map(|daemon| &daemon.core);
        let alone =
            core.is_some_and(|core| core.live_lease(now).is_some() && !core.another_can_lead());
        if alone {
            let name = &self.nodes[at].name;
            let what =
                format!("the leader {name} gave up its start though no other member can lead");
            self.checks.broken("P7", what);
        }
    }

    /// Where every machine stands, for the report of a failure.
    pub fn standing(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            text.push_str(&format!("  {}: ", node.name));
            let Some(daemon) = &node.daemon else {
                text.push_str("no daemon\n");
                continue;
            };
            for slot in &daemon.flows.slots {
                let waits = slot.frame.machine().waiting_for();
                text.push_str(&format!(
                    "{} is {} ({waits}); ",
                    slot.frame.machine().flow(),
                    slot.frame.machine().state()
                ));
            }
            let lease = daemon.core.cluster().lease.as_ref().map(|l| (l.holder, l.epoch));
            let raft = daemon.core.group().map(|g| (g.role(), g.term(), g.leader(), g.voters()));
            text.push_str(&format!("lease {lease:?}; raft {raft:?}; guard {:?}; ", node.guard));
            let server = node.postgres.server.as_ref();
            let server = server.map(|s| (s.in_recovery, s.accepts, s.upstream));
            let wal = node.postgres.cluster().map(|c| (c.wal.timeline(), c.wal.len()));
            text.push_str(&format!("server {server:?} wal {wal:?}\n"));
        }
        text
    }
}
