//! P4: a data directory is removed only when the leader has all of it, or the operator said so.
use super::super::world::World;
use crate::pure::operation::WipePermission;

impl World {
    /// The operator said so, and only the operator: no key of the file permits removal here.
    fn check_operators_word(&mut self, at: usize, what: &str) {
        if what != "reinitialize" || !self.checks.reinitialized.contains(&at) {
            let name = &self.nodes[at].name;
            let what =
                format!("{name} removes its data because of `{what}`, which nobody asked for");
            self.checks.broken("P4", what);
        }
    }

    /// The data directory of this node is about to be emptied.
    pub fn check_removal(&mut self, at: usize, permission: &WipePermission) {
        let Some(ours) = self.nodes[at].postgres.cluster() else { return };
        if let WipePermission::Operator { what } = permission {
            return self.check_operators_word(at, what);
        }
        let others = self.nodes.iter().filter(|n| n.at != at);
        let covered = others.filter_map(|n| n.postgres.cluster()).any(|c| {
            c.system_identifier == ours.system_identifier && ours.wal.is_prefix_of(&c.wal)
        });
        if !covered {
            let what = format!(
                "{} removes the only copy of its history, permitted by {permission:?}",
                self.nodes[at].name
            );
            self.checks.broken("P4", what);
        }
    }
}
