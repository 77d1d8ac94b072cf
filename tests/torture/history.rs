//! What the clients asked for and what they were told, as they themselves remember it.
use std::collections::BTreeMap;
use std::fmt;

/// Microseconds since the run began, of this machine's monotonic clock.
pub type Micros = u64;

/// Where in the WAL a primary was while it did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub timeline: u32,
    pub lsn: u64,
}

impl Position {
    /// Out of `pg_walfile_name()` and an LSN, with a blank between them.
    pub fn parse(text: &str) -> Option<Position> {
        let (file, lsn) = text.trim().split_once(' ')?;
        let timeline = u32::from_str_radix(file.get(..8)?, 16).ok()?;
        Some(Position { timeline, lsn: lsn_of(lsn)? })
    }
}

/// `0/3000060` as a number.
pub fn lsn_of(text: &str) -> Option<u64> {
    let (high, low) = text.trim().split_once('/')?;
    Some((u64::from_str_radix(high, 16).ok()? << 32) + u64::from_str_radix(low, 16).ok()?)
}

/// One thing that a client did. What was refused for certain leaves no entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// An element was added to the set, and this was acknowledged.
    Added {
        seq: u64,
        at: Position,
    },
    /// Nobody knows: no answer came, or one that does not say.
    MaybeAdded {
        seq: u64,
    },
    /// The register had the stamp `from` and got the next version with the stamp `to`.
    Swapped {
        from: u64,
        to: u64,
        version: u64,
        at: Position,
    },
    MaybeSwapped {
        from: u64,
        to: u64,
    },
    ReadRegister {
        version: u64,
        stamp: u64,
    },
    /// The highest element of every client.
    ReadSet {
        highest: BTreeMap<usize, u64>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub client: usize,
    pub node: usize,
    pub sent: Micros,
    pub answered: Micros,
    pub act: Act,
}

impl Entry {
    /// Where an acknowledged write was done.
    pub fn written_at(&self) -> Option<Position> {
        match &self.act {
            Act::Added { at, .. } | Act::Swapped { at, .. } => Some(*at),
            _ => None,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |at: Micros| at as f64 / 1e6;
        let (from, to) = (s(self.sent), s(self.answered));
        write!(f, "client {} on n{}, {from:.3}–{to:.3} s: ", self.client, self.node + 1)?;
        match &self.act {
            Act::ReadSet { highest } => write!(f, "read the set, {highest:?}"),
            act => write!(f, "{act:?}"),
        }
    }
}

/// What the cluster holds at the end, read from its leader.
#[derive(Clone, Debug, Default)]
pub struct Final {
    /// Client, element, and the order in which the elements were put down.
    pub set: Vec<(usize, u64, u64)>,
    /// Version and stamp of every change of the register, in the order of versions.
    pub steps: Vec<(u64, u64)>,
    /// Where each timeline of the leader's history ends; the last has no end.
    pub ends: BTreeMap<u32, u64>,
    /// Timelines whose end the cluster's own history shows to the operator.
    pub reported: Vec<u32>,
}
