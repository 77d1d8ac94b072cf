//! The seven promises of `safety.md`, checked after every event: one file each.
pub mod comes_back;
pub mod every_flow_ends;
pub mod memory_first;
pub mod no_good_copy_dies;
pub mod nothing_lost;
pub mod one_bootstrap;
pub mod one_writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::coverage::StepWalked;
use super::world::World;

/// A promise that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `P1` to `P7`.
    pub promise: &'static str,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}", self.promise, self.what)
    }
}

/// What the checks remember from event to event.
#[derive(Debug, Default)]
pub struct Checks {
    /// The cluster that was founded.
    pub cluster_id: Option<String>,
    /// The system identifier that was agreed on.
    pub identity: Option<String>,
    /// Index of the newest entry that any node has applied, and the epoch then.
    pub applied: u64,
    pub epoch: u64,
    /// The lease that was in force then.
    pub lease: Option<u64>,
    /// Whom each node voted for: its id and the term, the candidate.
    pub votes: BTreeMap<(u64, u64), u64>,
    /// Nodes that the operator wanted rebuilt.
    pub reinitialized: BTreeSet<usize>,
    /// In these the log names a synchronous set: nothing that is acknowledged under them may be lost.
    pub synchronous_epochs: BTreeSet<u64>,
    /// Who is named there last, and with which copy.
    pub synchronous: Vec<(String, Option<u64>)>,
    /// Edges that machines have walked: flow, from, to.
    pub edges: BTreeSet<StepWalked>,
    /// Found while something happened; reported at the end of the event.
    found: Option<Violation>,
    /// Failovers to a name that were written down while nobody led, after which epoch.
    pub failovers: BTreeSet<(u64, String)>,
    /// Commits that asynchronous failovers have cost.
    pub lost: u64,
    pub promotions: u64,
    /// Disks that were lost with all data on them.
    pub disks_lost: u64,
    /// What people did that cost what was acknowledged.
    pub mistakes: u64,
}

impl Checks {
    pub fn broken(&mut self, promise: &'static str, what: String) {
        self.found.get_or_insert(Violation { promise, what });
    }

    pub fn walked(&mut self, flow: &'static str, from: &str, to: &str) {
        self.edges.insert((flow, from.to_string(), to.to_string()));
    }
}

impl World {
    /// Every promise that can be judged at any instant.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check(&mut self) -> Result<(), Violation> {
        self.watch_log();
        self.check_one_writer();
        self.check_one_site();
        self.check_lease_outlives_guard();
        self.check_flows();
        self.checks.found.take().map_or(Ok(()), Err)
    }

    /// What the newest applied entry says; nodes apply the same entries, so one of them is enough.
    fn watch_log(&mut self) {
        let daemons = self.nodes.iter().filter_map(|n| n.daemon.as_ref());
        let newest = daemons.map(|d| d.core.cluster()).max_by_key(|state| state.applied);
        let Some(state) = newest.filter(|state| state.applied > self.checks.applied) else {
            return;
        };
        let granted = (state.epoch > self.checks.epoch).then(|| state.lease.clone()).flatten();
        let lease = state.lease.as_ref().map(|lease| lease.epoch);
        let ended = self.checks.lease.filter(|epoch| lease != Some(*epoch));
        let wanted = self.is_synchronous();
        let sync = state.sync.is_some() && wanted;
        let named = state.sync.clone().unwrap_or_default();
        let names = named.sync_standby.into_iter().map(|name| {
            let copy = named.copies.get(&name).copied();
            (name, copy)
        });
        let names: Vec<_> = names.collect();
        let follows = state.standby.is_some();
        let winner = state.lease.as_ref().and_then(|lease| state.name_of(lease.holder));
        let before = state.epoch.saturating_sub(1);
        let by_hand =
            winner.is_some_and(|name| self.checks.failovers.contains(&(before, name.to_owned())));
        let identity = state.system_identifier().map(str::to_string);
        (self.checks.applied, self.checks.epoch) = (state.applied, state.epoch);
        self.checks.lease = lease;
        if !wanted {
            // From now on an asynchronous member may lead.
            self.client.promised.iter_mut().for_each(|promised| promised.protected = false);
        }
        match sync {
            true => self.checks.synchronous_epochs.insert(state.epoch),
            false => self.checks.synchronous_epochs.remove(&state.epoch),
        };
        if let Some(epoch) = ended {
            self.check_lease_ends(epoch);
        }
        self.check_one_bootstrap(identity);
        self.check_named(names);
        if let Some(lease) = granted {
            self.check_grant(lease.holder, lease.epoch);
            if !follows && !by_hand {
                self.check_lag(&lease);
            }
        }
    }
}
