//! What of a made-up primary's WAL is on its disk, and for whom its commits wait.
use super::flows::Work;
use super::operations::Look::{self, Again, Done};
use super::operations::failed;
use super::world::{Event, World};
use crate::pure::cluster::sync::STRICT_PLACEHOLDER;
use crate::pure::operation::Report;

/// Between two looks at whether commits wait.
const STEP_MS: u64 = 20;
/// After so many looks the step is given up, to be tried again at the next cycle.
const LOOKS_MAX: u32 = 250;
/// A flush that waits for its disk is tried again.
const STUCK_MS: u64 = 50;

impl World {
    /// How many records of a node's WAL would survive a power cut now.
    pub(super) fn flushed(&self, at: usize) -> usize {
        let postgres = &self.nodes[at].postgres;
        let length = postgres.cluster().map_or(0, |cluster| cluster.wal.len());
        let primary = postgres.server.as_ref().filter(|server| !server.in_recovery);
        primary.map_or(length, |server| server.flushed.min(length))
    }

    /// A checkpoint, a promotion, a clean end: everything is on the disk.
    pub(super) fn flush_all(&mut self, at: usize) {
        let postgres = &mut self.nodes[at].postgres;
        let length = postgres.cluster().map_or(0, |cluster| cluster.wal.len());
        if let Some(server) = &mut postgres.server {
            server.flushed = length;
        }
    }

    /// A commit asks for its flush; others go along with it.
    pub(super) fn flush_wal_soon(&mut self, at: usize) {
        if self.plan.wal_flush_ms_max == 0 {
            self.flush_all(at);
            return self.release_commits(at);
        }
        let wait = self.rng.between(0, self.plan.wal_flush_ms_max);
        let Some(server) = &mut self.nodes[at].postgres.server else { return };
        let generation = server.generation;
        if !std::mem::replace(&mut server.flush_is_due, true) {
            self.after(wait, Event::WalFlush { node: at, generation });
        }
    }

    pub(super) fn flush_wal(&mut self, at: usize, generation: u64) {
        if !self.nodes[at].postgres.is_generation(generation) {
            return;
        }
        if self.nodes[at].disk.stuck {
            return self.after(STUCK_MS, Event::WalFlush { node: at, generation });
        }
        if let Some(server) = &mut self.nodes[at].postgres.server {
            server.flush_is_due = false;
        }
        self.flush_all(at);
        self.release_commits(at);
    }

    /// Who waits for nobody yet waits for a name that nobody has until it is seen to wait.
    pub(super) fn set_synchronous(&mut self, at: usize, work: &Work, value: String) -> Look {
        if !self.nodes[at].postgres.answers() {
            return failed("PostgreSQL does not answer");
        }
        let postgres = &self.nodes[at].postgres;
        let names = postgres.cluster().map(|c| c.synchronous_standby_names.clone());
        let names = names.unwrap_or_default();
        let waits = postgres.server.as_ref().is_some_and(|server| server.waits);
        let for_nobody = names.is_empty() || names == STRICT_PLACEHOLDER;
        if !value.is_empty() && for_nobody && !waits {
            self.name_synchronous(at, STRICT_PLACEHOLDER);
            if work.looks > LOOKS_MAX {
                self.look_at_once(at, 0);
                return failed("commits do not wait for synchronous standbys");
            }
            return Again(STEP_MS);
        }
        self.say(at, &format!("commits wait for `{value}`"));
        self.name_synchronous(at, &value);
        self.release_commits(at);
        self.look_at_once(at, 0); // what is decided next knows the value that is in force
        Done(Report::Done)
    }

    /// The setting is shown at once; that commits wait at all, or do not, takes its time.
    fn name_synchronous(&mut self, at: usize, value: &str) {
        let Some(cluster) = self.nodes[at].postgres.cluster_mut() else { return };
        if cluster.synchronous_standby_names == value {
            return;
        }
        value.clone_into(&mut cluster.synchronous_standby_names);
        let Some(generation) = self.nodes[at].postgres.server.as_ref().map(|s| s.generation) else {
            return;
        };
        if self.plan.reload_ms_max == 0 {
            return self.names_in_force(at, generation);
        }
        let wait = self.rng.between(0, self.plan.reload_ms_max);
        self.after(wait, Event::NamesInForce { node: at, generation });
    }

    /// The checkpointer has read its files.
    pub(super) fn names_in_force(&mut self, at: usize, generation: u64) {
        if !self.nodes[at].postgres.is_generation(generation) {
            return;
        }
        let cluster = self.nodes[at].postgres.cluster();
        let names = cluster.is_some_and(|cluster| !cluster.synchronous_standby_names.is_empty());
        if let Some(server) = &mut self.nodes[at].postgres.server {
            server.waits = names;
        }
        self.release_commits(at);
    }
}
