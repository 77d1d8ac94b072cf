//! P1: at every instant of real time at most one PostgreSQL can commit.
//!
//! Two sharper forms make luck unnecessary: a writable PostgreSQL without an armed guard is a
//! second writer that only waits for a partition; and a grant while an older guard may still let
//! its PostgreSQL live is one that was merely not fast enough.
use super::super::node::raft_id;
use super::super::world::World;

impl World {
    pub fn check_one_writer(&mut self) {
        let mut writers = self.nodes.iter().filter(|n| n.postgres.is_writable());
        let (Some(one), other) = (writers.next(), writers.next()) else { return };
        if let Some(other) = other {
            let what = format!("{} and {} can both commit", one.name, other.name);
            return self.checks.broken("P1", what);
        }
        if one.guard.is_none() {
            let what = format!("{} can commit and no guard is armed", one.name);
            self.checks.broken("P1", what);
        }
    }

    /// A lease was granted just now: no other may still be allowed to write.
    pub fn check_grant(&mut self, holder: u64, epoch: u64) {
        let now = self.now;
        let late = self.nodes.iter().find_map(|n| {
            let (old, until) = n.right_until?;
            (raft_id(n.at) != holder && old < epoch && until > now).then(|| {
                format!(
                    "epoch {epoch} was granted while the guard of {} (epoch {old}) may let it \
                     write for another {} ms",
                    n.name,
                    until - now
                )
            })
        });
        if let Some(what) = late {
            self.checks.broken("P1", what);
        }
    }
}
