//! Data that Surus did not make: another cluster's in a node's directory, or the very cluster that is to be
//! taken in, stopped or running.
use serde::{Deserialize, Serialize};

use super::postgres::{Cluster, Data, Wal};
use super::remote::REMOTE;
use super::sites::Change;
use super::world::World;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::standby::Order;
use crate::pure::consensus::core::Input;

/// Another cluster, which is nobody's here.
const STRANGER: u64 = 5_000_000;
/// The cluster that was there before Surus.
const ADOPTED: u64 = 4_000_000;
const RECORDS: u64 = 40;

/// What lies on the nodes when Surus first starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adopts {
    #[default]
    Nothing,
    /// A primary that was stopped, on n0.
    Stopped,
    /// One that runs, on n0; clients write.
    Running,
    /// The same, and its standby on n1, running too.
    RunningWithStandby,
}

fn cluster(system_identifier: u64, standby: bool) -> Cluster {
    let mut wal = Wal::default();
    (0..RECORDS).for_each(|at| wal.push(1, system_identifier + at));
    Cluster::whole(system_identifier, wal, standby)
}

impl World {
    /// Before any daemon starts.
    pub(super) fn lay_down(&mut self) {
        let adopts = self.plan.adopts;
        if adopts == Adopts::Nothing || self.plan.standby {
            return;
        }
        self.nodes[0].postgres.data = Data::Present(cluster(ADOPTED, false));
        if adopts == Adopts::RunningWithStandby {
            self.nodes[1].postgres.data = Data::Present(cluster(ADOPTED, true));
            self.runs_by_itself(1, Some(0));
        }
        if adopts != Adopts::Stopped {
            self.runs_by_itself(0, None);
        }
    }

    fn runs_by_itself(&mut self, at: usize, upstream: Option<usize>) {
        let postgres = &mut self.nodes[at].postgres;
        postgres.start(upstream.is_some(), upstream);
        if let Some(server) = &mut postgres.server {
            (server.accepts, server.unmanaged) = (true, true);
        }
    }

    /// Somebody has put another cluster's data there, and may have started it; what lay there is lost.
    pub(super) fn stranger(&mut self, at: usize, runs: bool) {
        // Whoever does that waits for a quiet moment.
        let rests = [
            "following",
            "leading",
            "standing_by",
            "waiting_to_retry",
            "divergence_unknown",
            "starting",
        ];
        let exists = self.checks.identity.is_some() && !self.plan.standby;
        let exists = exists && rests.contains(&self.node_state(at));
        if !exists || !self.may_lose_data(at) || self.network.is_asleep(at) {
            return;
        }
        self.lose_all_data(at);
        let id = STRANGER + 1000 * self.fresh();
        self.nodes[at].postgres.data = Data::Present(cluster(id, false));
        if runs && self.nodes[at].powered && self.holder() != Some(at) {
            self.runs_by_itself(at, None);
        }
    }

    /// Whose server this is does not matter to the promises: it is not this cluster's.
    pub(super) fn is_of_this_cluster(&self, node: &super::node::Node) -> bool {
        let own = node.postgres.cluster().map(|c| c.system_identifier.to_string());
        self.checks.identity.is_none() || own == self.checks.identity
    }

    /// The other site is promoted by a mistake while this one leads. When it is noticed, this cluster is made
    /// to follow it again: what was acknowledged here since is given up.
    pub(super) fn both_sites_write(&mut self) {
        if self.healed || !matches!(self.remote.change, Change::Away(_)) {
            return;
        }
        let leads = self.holder().is_some_and(|at| self.nodes[at].postgres.takes_writes());
        if !leads || !self.remote.is_itself() {
            return;
        }
        let (timeline, id) = (self.remote.wal.timeline() + 1, self.fresh());
        self.say(0, &format!("the other site is promoted by mistake, to timeline {timeline}"));
        self.remote.wal.push(timeline, id);
        (self.remote.writable, self.remote.by_mistake) = (true, true);
        self.remote.change = Change::None;
        self.checks.mistakes += 1;
        self.client.promised.iter_mut().for_each(|promised| promised.protected = false);
        self.edit_section(super::remote::section());
    }

    /// Of two sites that both wrote one keeps its own writes only: this cluster is promoted though it lacks
    /// some of what it had acknowledged.
    pub(super) fn promote_by_hand(&mut self) {
        let writes = self.nodes.iter().any(|n| n.postgres.takes_writes());
        let (Some(holder), false, false) = (self.holder(), writes, self.remote.writable) else {
            return;
        };
        self.say(holder, "the operator promotes the cluster, whatever it lacks");
        self.client.promised.iter_mut().for_each(|promised| promised.protected = false);
        let order = Order { token: None, even_if_remote_writes: true };
        let ticket = self.fresh();
        self.feed(holder, Input::Propose { ticket, command: Command::PromoteCluster { order } });
    }

    /// Nobody writes here any more: from now on there is one writer of the two sites again.
    pub(super) fn mistake_is_mended(&mut self) {
        let writes = self.nodes.iter().any(|n| n.postgres.is_writable());
        let follows = self.nodes.iter().any(|n| {
            n.postgres.server.as_ref().is_some_and(|server| server.upstream == Some(REMOTE))
        });
        if self.remote.by_mistake {
            self.client.promised.iter_mut().for_each(|promised| promised.protected = false);
        }
        self.remote.by_mistake &= writes || !follows;
    }
}
