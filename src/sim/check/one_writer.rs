//! P1: at every instant of real time at most one PostgreSQL can commit.
//!
//! Sharper forms make randomness unnecessary: an arbiter that would respect a lease for less long than
//! its holder's guard lets PostgreSQL live is a second writer that only waits for a partition; so is a writable
//! PostgreSQL without an armed guard; and a grant while an older guard may still let
//! its PostgreSQL live is one that was merely not fast enough.
use super::super::world::World;

/// Clocks show whole milliseconds.
const ROUNDING_MS: u64 = 2;

impl World {
    pub fn check_one_writer(&mut self) {
        let mut writers = self.nodes.iter().filter(|n| self.may_commit(n));
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

    /// The arbiter of the newest term respects the lease at least as long as the guard may take.
    pub fn check_lease_outlives_guard(&mut self) {
        let daemons = self.nodes.iter().filter_map(|n| n.daemon.as_ref().map(|d| (n, d)));
        let arbiters = daemons.filter_map(|(n, d)| {
            let term = d.core.group().filter(|g| g.is_leader())?.term();
            Some((term, n, d.core.lease_not_before()?))
        });
        let newest = arbiters.max_by_key(|(term, ..)| *term);
        let Some((term, arbiter, (epoch, until))) = newest else { return };
        let voted = |n: &super::super::node::Node| n.disk.log.hard_state.as_ref().map(|h| h.term);
        if self.nodes.iter().any(|n| voted(n) > Some(term)) {
            return; // it was deposed and can commit nothing any more
        }
        let until = arbiter.clock.when(until);
        let late = self.nodes.iter().find_map(|n| {
            let (_, right) = n.right_until.filter(|(e, _)| *e == epoch)?;
            (right > until + ROUNDING_MS).then(|| {
                format!(
                    "the guard of {} may let it write {} ms longer than {} respects epoch {epoch}",
                    n.name,
                    right - until,
                    arbiter.name
                )
            })
        });
        if let Some(what) = late {
            self.checks.broken("P1", what);
        }
    }

    /// The holder says itself that it could not create the cluster, and nothing runs there: what its
    /// guard might still have allowed, had it been slower, is over.
    pub fn note_holders_word(&mut self, sentence: &str) {
        let Some((_, rest)) = sentence.split_once("applied: ") else { return };
        let Some((name, _)) = rest.split_once(" failed to create the cluster") else { return };
        let stopped = self.nodes.iter_mut().filter(|n| n.postgres.server.is_none());
        stopped.filter(|n| n.name == name).for_each(|n| n.right_until = None);
    }

    /// The log has ended a lease that was not given back: its holder may not count on it any more.
    pub fn check_lease_over(&mut self, sentence: &str) {
        let Some((_, rest)) = sentence.split_once("applied: lease of epoch ") else { return };
        let Some(epoch) = rest.split_once(" over:").and_then(|(e, _)| e.parse::<u64>().ok()) else {
            return;
        };
        let now = self.now;
        let late = self.nodes.iter().find_map(|n| {
            let live = n.daemon.as_ref()?.core.write_deadline(n.clock.at(now));
            let (_, deadline) = live.filter(|(e, _)| *e == epoch)?;
            let until = n.clock.when(deadline);
            (until > now).then(|| {
                let more = until - now;
                format!("epoch {epoch} was ended while {} counts on it for {more} ms", n.name)
            })
        });
        if let Some(what) = late {
            self.checks.broken("P1", what);
        }
    }

    /// The log has ended the lease of this epoch, in whatever way: run out, given back, failed to
    /// create. Its holder's PostgreSQL must not be able to write any more.
    pub fn check_lease_ends(&mut self, epoch: u64) {
        let now = self.now;
        let late = self.nodes.iter().find_map(|n| {
            let (_, until) = n.right_until.filter(|(of, _)| *of == epoch)?;
            let server = n.postgres.server.as_ref().filter(|_| self.runs_ours(n));
            let writes = server.is_some_and(|server| !server.in_recovery);
            (writes && until > now + ROUNDING_MS).then(|| {
                let more = until - now;
                format!("the lease of epoch {epoch} ended, and {} may write for {more} ms", n.name)
            })
        });
        if let Some(what) = late {
            self.checks.broken("P1", what);
        }
    }

    /// A lease was granted just now: no other may still be allowed to write.
    pub fn check_grant(&mut self, holder: u64, epoch: u64) {
        let now = self.now;
        let late = self.nodes.iter().find_map(|n| {
            let writes = n.postgres.server.as_ref().is_some_and(|s| !s.in_recovery);
            let (old, until) = n.right_until.filter(|_| writes)?;
            (n.raft_id != holder && old < epoch && until > now).then(|| {
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
