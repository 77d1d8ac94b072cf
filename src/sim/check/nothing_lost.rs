//! P2: in synchronous mode nothing acknowledged is ever lost; in asynchronous mode the loss is
//! counted.
use super::super::world::World;

impl World {
    /// This PostgreSQL becomes writable now: everything that was promised must be in its history.
    pub fn check_nothing_lost(&mut self, at: usize) {
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
