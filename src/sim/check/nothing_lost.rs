//! P2: in synchronous mode nothing acknowledged is ever lost; in asynchronous mode the loss is
//! counted.
use super::super::client::Promised;
use super::super::node::Node;
use super::super::postgres::{RECORD_BYTES, lsn_of};
use super::super::world::World;
use crate::pure::cluster::state::{Lease, Purpose};

impl World {
    /// The log names these as synchronous: whoever is new among them may be chosen from now on, so
    /// it must hold everything that was acknowledged. Where another copy lies there by now, nobody
    /// chooses it.
    pub fn check_named(&mut self, names: Vec<(String, Option<u64>)>) {
        let known = std::mem::replace(&mut self.checks.synchronous, names.clone());
        for (name, copy) in names.iter().filter(|named| !known.contains(named)) {
            let Some(node) = self.nodes.iter().find(|n| n.name == *name) else { continue };
            let cluster = node.postgres.cluster();
            let cluster = cluster.filter(|c| copy.is_none_or(|copy| copy == c.copy));
            let Some(wal) = cluster.map(|c| &c.wal) else { continue };
            let promised = self.client.promised.iter().filter(|p| p.protected);
            let lacks: Vec<_> = promised.filter(|p| !wal.has(p.place, p.id)).collect();
            if let Some(first) = lacks.first() {
                let what = format!(
                    "{name} (at {}) may be chosen and lacks {} acknowledged commits: {first:?}",
                    wal.len(),
                    lacks.len()
                );
                return self.checks.broken("P2", what);
            }
        }
    }

    /// The newest arbiter granted a lease: of the commits that clients were told of, up to where it had heard
    /// the last leader to be, no more may be missing there than the operator allows. Commits, not
    /// positions: those of two timelines cannot be compared. Where the winner has since been given another
    /// cluster's data, that is refused.
    pub fn check_lag(&mut self, lease: &Lease) {
        let arbiters = self.nodes.iter().filter_map(|n| {
            let core = &n.daemon.as_ref()?.core;
            Some((core.group().filter(|g| g.is_leader())?.term(), n))
        });
        let Some((_, arbiter)) = arbiters.max_by_key(|(term, _)| *term) else { return };
        let Some(daemon) = &arbiter.daemon else { return };
        let lag_max = daemon.core.dynamic().maximum_lag_on_failover;
        let ours = |n: &&Node| n.raft_id == lease.holder && self.is_of_this_cluster(n);
        let winner = self.nodes.iter().find(ours);
        let Some(wal) = winner.and_then(|n| n.postgres.cluster()).map(|c| &c.wal) else { return };
        let (epoch, position) = arbiter.heard_leader_at;
        let heard =
            |p: &&Promised| p.epoch < epoch || p.epoch == epoch && lsn_of(p.place + 1) <= position;
        let promised = self.client.promised.iter().filter(heard);
        let gone = promised.filter(|p| !wal.has(p.place, p.id)).count() as u64 * RECORD_BYTES;
        if lease.purpose == Purpose::Lead && gone > lag_max {
            let what = format!(
                "epoch {} went to a member that lacks {gone} bytes of acknowledged commits, and \
                 {lag_max} are allowed",
                lease.epoch
            );
            self.checks.broken("P2", what);
        }
    }

    /// It told a client that something is safe, and another leads already, without it.
    pub fn check_acknowledged_by_the_leader(&mut self, at: usize) {
        let Some(last) = self.client.promised.last() else { return };
        let lacks = |n: &&Node| {
            let wal = n.postgres.cluster().map(|c| &c.wal);
            n.at != at && self.may_commit(n) && wal.is_some_and(|w| !w.has(last.place, last.id))
        };
        if let Some(leader) = self.nodes.iter().find(lacks) {
            let (old, new) = (&self.nodes[at].name, &leader.name);
            let what =
                format!("{old} acknowledged commit {} while {new} leads without it", last.id);
            self.checks.broken("P2", what);
        }
    }

    /// This PostgreSQL becomes writable now: everything that was promised must be in its history.
    pub fn check_nothing_lost(&mut self, at: usize) {
        if self.now < self.nodes[at].waking_until {
            return; // it goes on where it was suspended, and its guard stops it
        }
        let Some(wal) = self.nodes[at].postgres.cluster().map(|c| &c.wal) else { return };
        let missing: Vec<_> =
            self.client.promised.iter().filter(|p| !wal.has(p.place, p.id)).cloned().collect();
        let name = self.nodes[at].name.clone();
        self.checks.promotions += 1;
        if let Some(lost) = missing.iter().find(|p| p.protected) {
            let what = format!(
                "{name} leads without commit {}, which {} acknowledged at {} under epoch {}",
                lost.id, self.nodes[lost.node].name, lost.at, lost.epoch
            );
            self.checks.broken("P2", what);
        }
        self.checks.lost += missing.len() as u64;
        let gone: std::collections::BTreeSet<u64> = missing.iter().map(|p| p.id).collect();
        self.client.promised.retain(|p| !gone.contains(&p.id));
    }
}
