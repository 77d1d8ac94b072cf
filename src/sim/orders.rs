//! An operator orders who leads next, at once or for later, and which orders may skip the limits.
//!
//! The check reads the log's own sentences: only a failover to a name that was written down while nobody
//! led may give the lease to somebody who lags too much. An exchange never may: its candidate has received
//! everything, or it is an ordinary decision.
use jiff::Timestamp;

use super::fault::{Fault, Target};
use super::rng::Rng;
use super::world::World;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::state::{ClusterState, FailoverRequest};
use crate::pure::consensus::core::{Input, Output};

/// The grant that a node applied last, and whether its lease is in force.
type Led = (u64, bool);

/// What the log says of the lease before some entries are applied.
pub fn led(cluster: &ClusterState) -> Led {
    (cluster.epoch, cluster.lease.is_some())
}

impl World {
    /// A switchover (`in_ms` 0: at once) or a failover to this member.
    pub(super) fn order(&mut self, to: usize, failover: bool, in_ms: Millis) {
        let Some(asked) = self.holder().or_else(|| self.arbiter()) else { return };
        let leader = self.holder().filter(|_| !failover);
        let leader = leader.map(|holder| self.nodes[holder].name.clone());
        let candidate = Some(self.nodes[to].name.clone());
        let later = in_ms > 0 && leader.is_some();
        let scheduled_at = later.then(|| moment(self.now + in_ms));
        let request = FailoverRequest { leader, candidate, scheduled_at };
        let ticket = self.fresh();
        self.feed(asked, Input::Propose { ticket, command: Command::SetFailover { request } });
    }

    /// Is the request that this node knows of due?
    pub(super) fn is_due(&self, cluster: &ClusterState) -> bool {
        let Some(request) = &cluster.failover else { return false };
        let at = request.scheduled_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        request.scheduled_at.is_none() || at.is_some_and(|at| at <= time(self.now))
    }

    /// Orders among what a node has just applied, after it stood at `led`.
    pub(super) fn note_orders(&mut self, mut led: Led, outputs: &[Output]) {
        let told = outputs.iter().filter_map(|output| match output {
            Output::Told(sentence) => sentence.split_once(" applied: ").map(|(_, what)| what),
            _ => None,
        });
        for what in told {
            if let Some(rest) = what.strip_prefix("grant of epoch ") {
                let epoch = rest.split(' ').next().and_then(|epoch| epoch.parse().ok());
                led = (epoch.unwrap_or(led.0), true);
            } else if what.starts_with("lease of epoch ")
                || what.contains(" failed to create the cluster")
            {
                led.1 = false;
            } else if let Some(to) =
                what.strip_prefix("failover requested from whoever leads to ").filter(|_| !led.1)
            {
                self.checks.failovers.insert((led.0, to.to_owned()));
                self.give_up_what_lacks(to);
            }
        }
    }
}

impl World {
    /// Nobody leads, and the operator names this member: what it lacks is given up.
    fn give_up_what_lacks(&mut self, name: &str) {
        let named = self.nodes.iter().find(|node| node.name == name);
        let wal = named.and_then(|node| node.postgres.cluster()).map(|cluster| &cluster.wal);
        for promised in &mut self.client.promised {
            promised.protected &= wal.is_some_and(|wal| wal.has(promised.place, promised.id));
        }
    }
}

fn time(now: Millis) -> Timestamp {
    Timestamp::from_millisecond(now as i64).unwrap_or_default()
}

fn moment(at: Millis) -> String {
    time(at).to_string()
}

/// A switchover or failover to a member, most of them for later.
pub fn draw(rng: &mut Rng, nodes: usize) -> Fault {
    let target = Target::Node(rng.below(nodes));
    let failover = rng.in_thousand(300);
    let in_ms = [0, 2_000, 600_000][rng.below(3)];
    Fault::Order { target, failover, in_ms }
}
