//! The network between hosts: which way it is cut, how slow it is, and which connections stand.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rng::Rng;
use crate::pure::cluster::Millis;

/// How the network misbehaves for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkProfile {
    pub delay_min: Millis,
    pub delay_max: Millis,
    /// In a thousand messages.
    pub lost: u64,
    pub doubled: u64,
    /// In a thousand messages: so late that others overtake it.
    pub late: u64,
}

pub const FAIR: LinkProfile =
    LinkProfile { delay_min: 1, delay_max: 4, lost: 0, doubled: 0, late: 0 };

impl Default for LinkProfile {
    fn default() -> LinkProfile {
        FAIR
    }
}

#[derive(Debug)]
pub struct Network {
    pub link_profile: LinkProfile,
    /// Nothing gets from the first to the second.
    cut: BTreeSet<(usize, usize)>,
    /// Hosts that are suspended: whatever else ends, nothing gets there.
    asleep: BTreeSet<usize>,
    /// Pairs of daemons that are connected, the smaller number first, and who they said to be.
    pub connected: BTreeMap<(usize, usize), (u64, u64)>,
}

impl Network {
    pub fn new(link_profile: LinkProfile) -> Network {
        Network {
            link_profile,
            cut: BTreeSet::new(),
            asleep: BTreeSet::new(),
            connected: BTreeMap::new(),
        }
    }

    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub fn mend(&mut self, from: usize, to: usize) {
        self.cut.remove(&(from, to));
    }

    pub fn is_asleep(&self, host: usize) -> bool {
        self.asleep.contains(&host)
    }

    pub fn sleeps(&mut self, host: usize) {
        self.asleep.insert(host);
    }

    pub fn wakes(&mut self, host: usize) {
        self.asleep.remove(&host);
    }

    pub fn mend_all(&mut self) {
        self.cut.clear();
    }

    /// Does a packet get through this way?
    pub fn passes(&self, from: usize, to: usize) -> bool {
        let sleeps = self.is_asleep(from) || self.is_asleep(to);
        from == to || !(sleeps || self.cut.contains(&(from, to)))
    }

    /// Can a connection stand, which needs both ways?
    pub fn reaches(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    pub fn is_connected(&self, a: usize, b: usize) -> bool {
        self.connected.contains_key(&(a.min(b), a.max(b)))
    }

    /// When the copies of a message arrive, counted from now; none if it is lost.
    pub fn arrivals(&self, from: usize, to: usize, rng: &mut Rng) -> Vec<Millis> {
        let w = self.link_profile;
        if !self.passes(from, to) || rng.in_thousand(w.lost) {
            return Vec::new();
        }
        let mut delay = rng.between(w.delay_min, w.delay_max);
        if rng.in_thousand(w.late) {
            delay += rng.between(10, 400);
        }
        let mut arrivals = vec![delay];
        if rng.in_thousand(w.doubled) {
            arrivals.push(delay + rng.between(1, 200));
        }
        arrivals
    }
}
