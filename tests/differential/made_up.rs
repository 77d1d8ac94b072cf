//! The made-up side: a quiet simulated cluster of three.
use std::collections::BTreeSet;

use surus::sim::fault::{Fault, Target};
use surus::sim::plan::Plan;
use surus::sim::world::World;

use super::Side;

/// Longer than any history.
const LONG_MS: u64 = 3_600_000;

pub struct MadeUp {
    world: World,
}

impl MadeUp {
    pub fn new(seed: u64) -> MadeUp {
        let mut plan = Plan::quiet(seed, 3);
        plan.heal_at = LONG_MS;
        plan.write_ms_max = LONG_MS; // writes are steps of the histories
        let mut made_up = MadeUp { world: World::new(plan) };
        made_up.pass(10_000);
        made_up
    }

    fn inject_all(&mut self, fault: impl Fn(usize) -> Fault) {
        (0..3).for_each(|node| self.world.inject(fault(node)));
    }
}

impl Side for MadeUp {
    fn leader(&self) -> Option<usize> {
        self.world.nodes.iter().position(|n| n.postgres.takes_writes())
    }

    fn timeline(&self, node: usize) -> u32 {
        self.world.nodes[node].postgres.cluster().map_or(0, |c| c.wal.timeline())
    }

    fn streaming(&self, leader: usize, among: &BTreeSet<usize>) -> usize {
        let now = self.world.now;
        let streams = |k: &&usize| {
            let server = self.world.nodes[**k].postgres.server.as_ref();
            server.is_some_and(|s| {
                s.upstream == Some(leader) && s.streamed_at.is_some_and(|at| now < at + 1000)
            })
        };
        among.iter().filter(|k| **k != leader).filter(streams).count()
    }

    fn act(&mut self, step: &str, node: usize) {
        let (target, ms) = (Target::Node(node), LONG_MS);
        match step {
            "write" => (0..20).for_each(|_| self.world.client_writes()),
            "kill leader" | "kill replica" => self.world.inject(Fault::PowerCut { target, ms }),
            "kill all" => self.inject_all(|k| Fault::PowerCut { target: Target::Node(k), ms }),
            "kill postmaster" => self.world.inject(Fault::KillPostgres { target }),
            "restart daemon" => self.world.inject(Fault::KillDaemon { target, back_ms: 500 }),
            "freeze leader" => self.world.inject(Fault::Freeze { target, ms }),
            "thaw" => self.inject_all(|node| Fault::Thaw { node }),
            "isolate leader" | "isolate replica" => {
                self.world.inject(Fault::Isolate { target, ms })
            }
            "heal" => self.inject_all(|node| Fault::MendNode { node }),
            "switchover" => self.world.inject(Fault::Switchover),
            "stop leader" => self.world.inject(Fault::Stop { target, ms }),
            "revive" => {
                self.inject_all(|node| Fault::PowerBack { node });
                self.inject_all(|node| Fault::Start { node });
            }
            other => panic!("unknown step `{other}`"),
        }
    }

    fn lost(&self) -> usize {
        self.world.checks.lost as usize
    }

    fn pass(&mut self, ms: u64) {
        let until = self.world.now + ms;
        while self.world.now < until {
            self.world.step().unwrap_or_else(|broken| panic!("{broken}"));
        }
    }
}
