//! The Raft log in memory: what raft-rs reads. The host keeps the durable copy.
//!
//! Invariant: `entries` are contiguous and begin right after the snapshot's index (or later
//! entries of a compacted log begin right after `offset`). raft-rs sees entries here before they
//! are durable; messages that promise durability are held back in `group`.
use std::cell::Cell;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

/// Entries kept behind a snapshot, so that a slow follower needs no snapshot.
pub const KEEP_ENTRIES: u64 = 500;
/// A snapshot is made when this many entries were applied since the last one.
pub const SNAPSHOT_EVERY: u64 = 2000;

#[derive(Clone, Default)]
pub struct MemoryLog {
    pub hard_state: HardState,
    pub conf_state: ConfState,
    /// The newest snapshot: what a follower far behind is sent.
    pub snapshot: Snapshot,
    /// Index and term of the entry right before `entries`.
    offset: (u64, u64),
    entries: Vec<Entry>,
    /// A newcomer needs a snapshot that knows of it.
    wanted: Cell<bool>,
}

impl MemoryLog {
    /// The log as it was on disk. `entries` may begin before the snapshot's index.
    pub fn restore(hard_state: HardState, snapshot: Snapshot, mut entries: Vec<Entry>) -> Self {
        let meta = snapshot.get_metadata();
        let at = (meta.index, meta.term);
        entries.retain(|entry| entry.index > at.0);
        let conf_state = meta.get_conf_state().clone();
        let mut hard_state = hard_state;
        hard_state.commit = hard_state.commit.max(at.0).min(at.0 + entries.len() as u64);
        hard_state.term = hard_state.term.max(at.1);
        MemoryLog { hard_state, conf_state, snapshot, offset: at, entries, wanted: Cell::default() }
    }

    pub fn last(&self) -> (u64, u64) {
        self.entries.last().map_or(self.offset, |entry| (entry.index, entry.term))
    }

    pub fn first(&self) -> u64 {
        self.offset.0 + 1
    }

    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.offset.0 && first.index <= self.last().0 + 1,
            "entry {} leaves a gap in {}..={}",
            first.index,
            self.first(),
            self.last().0
        );
        self.entries.truncate((first.index - self.first()) as usize);
        self.entries.extend_from_slice(entries);
    }

    /// A fresh snapshot is needed, however young the last one is.
    pub fn snapshot_is_wanted(&self) -> bool {
        self.wanted.get()
    }

    /// Replaces everything by a snapshot that the leader sent.
    pub fn install(&mut self, snapshot: Snapshot) {
        let meta = snapshot.get_metadata();
        self.offset = (meta.index, meta.term);
        self.conf_state = meta.get_conf_state().clone();
        self.hard_state.commit = self.hard_state.commit.max(meta.index);
        self.hard_state.term = self.hard_state.term.max(meta.term);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    /// Remembers a snapshot of our own and drops entries well behind it. Returns the first index
    /// that is kept.
    pub fn compact(&mut self, snapshot: Snapshot) -> u64 {
        let index = snapshot.get_metadata().index;
        self.wanted.set(false);
        self.snapshot = snapshot;
        let until = index.saturating_sub(KEEP_ENTRIES);
        if until > self.offset.0 {
            let count = (until - self.offset.0) as usize;
            self.offset = (until, self.entries[count - 1].term);
            self.entries.drain(..count);
        }
        self.first()
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last().0 + 1, "asked for {high}, the log ends at {}", self.last().0);
        let from = (low - self.first()) as usize;
        let mut wanted = self.entries[from..(high - self.first()) as usize].to_vec();
        raft::util::limit_size(&mut wanted, max_size.into());
        Ok(wanted)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.offset.0 {
            return Ok(self.offset.1);
        }
        if index == self.snapshot.get_metadata().index {
            return Ok(self.snapshot.get_metadata().term);
        }
        if index < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        match self.entries.get((index - self.first()) as usize) {
            Some(entry) => Ok(entry.term),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last().0)
    }

    /// Whoever joined after the snapshot would refuse it: a fresh one is asked for.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let meta = self.snapshot.get_metadata();
        let names = |conf: &ConfState| conf.voters.contains(&to) || conf.learners.contains(&to);
        let strange = !names(meta.get_conf_state()) && names(&self.conf_state);
        if meta.index < request_index || strange {
            self.wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}
