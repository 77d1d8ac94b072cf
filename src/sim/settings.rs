//! The operator changes settings while the cluster runs: one, or two that meet.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fault::{Fault, Target};
use super::plan::Plan;
use super::rng::Rng;
use super::world::World;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::config::SynchronousMode;
use crate::pure::consensus::core::Input;

/// What is written into the dynamic configuration; times in seconds, as the operator writes them. What is
/// not named stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loop_wait: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_lag_on_failover: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous_mode: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous_node_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_start_timeout: Option<u64>,
}

impl Settings {
    /// One setting; the ttl as often as all others together.
    fn drawn(rng: &mut Rng, standby: bool) -> Settings {
        let none = Settings::default();
        match rng.below(12) {
            0 => Settings { loop_wait: Some([1, 2, 5][rng.below(3)]), ..none },
            1 => Settings { retry_timeout: Some([1, 3][rng.below(2)]), ..none },
            2 => Settings { maximum_lag_on_failover: Some([960, 1_048_576][rng.below(2)]), ..none },
            // What a standby cluster acknowledges is the other site's.
            3 | 4 if !standby => Settings { synchronous_mode: Some(rng.in_thousand(600)), ..none },
            5 => Settings { synchronous_node_count: Some(1 + rng.below(2) as u64), ..none },
            6 => Settings { primary_start_timeout: Some([0, 2, 300][rng.below(3)]), ..none },
            _ => Settings { ttl: Some([2, 2, 3, 5, 30, 30][rng.below(6)]), ..none },
        }
    }

    fn patch(self) -> Value {
        serde_json::to_value(self).unwrap_or_else(|_| Value::Object(Map::new()))
    }
}

/// One change, as a fault.
pub(super) fn change(rng: &mut Rng, standby: bool) -> Fault {
    Fault::Patch(Settings::drawn(rng, standby))
}

impl Plan {
    /// Settings change, often two of them at nearly the same time, and often just before something else
    /// happens to the leader or to the arbiter. Three of eight seeds; with randomness of its own.
    pub fn changes_settings(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x5E77_1465);
        if !rng.in_thousand(375) {
            return;
        }
        for _ in 0..rng.between(1, 3) {
            let at = rng.between(5_000, self.heal_at.max(5_001));
            let standby = self.standby;
            self.faults.push((at, change(&mut rng, standby)));
            if rng.in_thousand(600) {
                let later = at + rng.between(1, 2_500);
                self.faults.push((later, change(&mut rng, standby)));
            }
            if rng.in_thousand(500) {
                self.meets_a_change(at, &mut rng);
            }
        }
    }

    /// The leader's daemon stands still or is gone, and so is the arbiter, soon after a setting changed.
    fn meets_a_change(&mut self, at: Millis, rng: &mut Rng) {
        let ms = rng.between(1_000, 40_000);
        let (target, soon) = (Target::Holder, at + rng.between(1, 4_000));
        self.faults.push(match rng.below(3) {
            0 => (soon, Fault::KillDaemon { target, back_ms: ms / 8 }),
            1 => (soon, Fault::Isolate { target, ms }),
            _ => (soon, Fault::Freeze { target, ms }),
        });
        let (target, back_ms) = (Target::Arbiter, rng.between(100, 3_000));
        if rng.in_thousand(700) {
            let at = soon + rng.between(0, 1_500);
            self.faults.push((at, Fault::KillDaemon { target, back_ms }));
        }
        self.heal_at = self.heal_at.max(soon + ms);
    }
}

impl World {
    /// The operator's PATCH reaches the arbiter, or whoever leads.
    pub(super) fn change_settings(&mut self, settings: Settings) {
        let Some(at) = self.arbiter().or_else(|| self.holder()) else { return };
        let ticket = self.fresh();
        let command = Command::PatchConfig { patch: settings.patch() };
        self.feed(at, Input::Propose { ticket, command });
    }

    /// Commits wait for standbys by the configuration that counts now.
    pub(super) fn is_synchronous(&self) -> bool {
        let cores = self.nodes.iter().filter_map(|n| n.daemon.as_ref()).map(|d| &d.core);
        let newest = cores.max_by_key(|core| core.cluster().applied);
        newest.is_some_and(|core| core.dynamic().synchronous_mode != SynchronousMode::Off)
    }

    pub(super) fn loop_wait_ms(&self, at: usize) -> Millis {
        let core = self.nodes[at].daemon.as_ref().map(|daemon| &daemon.core);
        let known = core.filter(|core| core.cluster().config.is_some());
        known.map_or(self.plan.loop_wait_ms, |core| core.dynamic().loop_wait_ms)
    }
}
