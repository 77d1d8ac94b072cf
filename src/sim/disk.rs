//! A node's disk: the Raft log, the promises and the journal, and what of them a crash leaves.
//!
//! A write of the log becomes durable some time after it was asked for; a power cut loses what was
//! not, a killed daemon may. The journal and the promises are flushed before anything follows, as
//! in production: there the interesting moments are right before and right after.
use std::collections::{BTreeMap, VecDeque};
use std::io;

use raft::eraftpb::{Entry, HardState, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pure::cluster::state::ClusterState;
use crate::pure::consensus::founding::FoundingRecord;
use crate::pure::consensus::group::{LogWrite, genesis_hard_state};
use crate::pure::consensus::log::MemoryLog;
use crate::pure::machine::any::{AnyJournal, JournalEntry};

/// What is durable of the Raft log.
#[derive(Clone, Debug, Default)]
pub struct DurableLog {
    pub hard_state: Option<HardState>,
    snapshot: Option<Snapshot>,
    pub entries: BTreeMap<u64, Entry>,
}

/// What happens to the next record of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalFate {
    Well,
    /// The daemon dies before the record is durable.
    DiesBefore,
    /// The daemon dies after the record is durable, before any effect.
    DiesAfter,
    /// The disk refuses: the node fences itself.
    Refuses,
}

#[derive(Debug)]
pub struct Disk {
    pub founding_record: FoundingRecord,
    pub log: DurableLog,
    /// Writes that were asked for and are not durable yet.
    pub unflushed: VecDeque<LogWrite>,
    /// The last record of every flow.
    pub journal: BTreeMap<&'static str, JournalEntry>,
    pub fate: JournalFate,
    /// Writes wait while this is set.
    pub stuck: bool,
    /// Flow and record with input, where the run's history is wanted.
    pub recorded: Option<Vec<(&'static str, Value)>>,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk::new()
    }
}

impl Disk {
    pub fn new() -> Disk {
        Disk {
            founding_record: FoundingRecord::default(),
            log: DurableLog::default(),
            unflushed: VecDeque::new(),
            journal: BTreeMap::new(),
            fate: JournalFate::Well,
            stuck: false,
            recorded: None,
        }
    }

    /// The oldest waiting write is durable now; its number.
    pub fn flush_one(&mut self) -> Option<u64> {
        let write = self.unflushed.pop_front()?;
        self.log.apply(&write);
        Some(write.number)
    }

    /// A crash: the first `survive` of the waiting writes are found on the disk all the same.
    pub fn crash(&mut self, survive: usize) {
        for _ in 0..survive.min(self.unflushed.len()) {
            self.flush_one();
        }
        self.unflushed.clear();
    }

    /// The log as a restarted daemon reads it; none if this node was never in a group.
    pub fn read_log(&self) -> Option<MemoryLog> {
        let log = &self.log;
        let snapshot = match (&log.snapshot, self.founding_record.first_snapshot()) {
            (Some(snapshot), _) => snapshot.clone(),
            (None, Some(first)) => first,
            (None, None) if log.hard_state.is_some() => Snapshot::default(),
            (None, None) => return None,
        };
        let hard_state = log.hard_state.clone().unwrap_or_else(genesis_hard_state);
        let entries = log.entries.values().cloned().collect();
        Some(MemoryLog::restore(hard_state, snapshot, entries))
    }
}

impl DurableLog {
    /// A log that begins with this state, these voters and these learners.
    pub fn standing(
        state: &ClusterState,
        term: u64,
        (voters, learners): (Vec<u64>, Vec<u64>),
    ) -> DurableLog {
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (state.applied, term);
        meta.mut_conf_state().set_voters(voters);
        meta.mut_conf_state().set_learners(learners);
        snapshot.data = serde_json::to_vec(state).expect("a state is plain data").into();
        let hard_state = HardState { term, commit: state.applied, ..HardState::default() };
        DurableLog {
            hard_state: Some(hard_state),
            snapshot: Some(snapshot),
            entries: BTreeMap::new(),
        }
    }

    fn apply(&mut self, write: &LogWrite) {
        if let Some(bytes) = &write.snapshot {
            let snapshot = parsed::<Snapshot>(bytes);
            let index = snapshot.get_metadata().index;
            if write.compact_to.is_none() {
                self.entries.clear();
            } else {
                self.entries.retain(|at, _| *at > index || write.compact_to <= Some(*at));
            }
            self.snapshot = Some(snapshot);
        }
        if let Some((first, ..)) = write.entries.first() {
            self.entries.split_off(first);
        }
        for (index, _, bytes) in &write.entries {
            self.entries.insert(*index, parsed::<Entry>(bytes));
        }
        if let Some(bytes) = &write.hard_state {
            self.hard_state = Some(parsed::<HardState>(bytes));
        }
    }

    /// The last durable index.
    pub fn last(&self) -> u64 {
        let snapshot = self.snapshot.as_ref().map_or(0, |s| s.get_metadata().index);
        self.entries.keys().next_back().copied().unwrap_or(0).max(snapshot)
    }
}

fn parsed<M: protobuf::Message>(bytes: &[u8]) -> M {
    let mut message = M::new();
    message.merge_from_bytes(bytes).expect("the core wrote it");
    message
}

/// The journal, as a step sees it.
impl AnyJournal for Disk {
    fn append(&mut self, entry: JournalEntry) -> io::Result<()> {
        let fate = std::mem::replace(&mut self.fate, JournalFate::Well);
        if matches!(fate, JournalFate::DiesBefore | JournalFate::Refuses) {
            return Err(io::Error::other(fate));
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.push((entry.flow, entry.value.clone()));
        }
        self.journal.insert(entry.flow, entry);
        if fate == JournalFate::DiesAfter {
            return Err(io::Error::other(fate));
        }
        Ok(())
    }
}

impl JournalFate {
    /// What befell the journal when it gave this error.
    pub fn of(error: &io::Error) -> Option<JournalFate> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl std::fmt::Display for JournalFate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for JournalFate {}
