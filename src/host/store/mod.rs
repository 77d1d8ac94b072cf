//! Where the Raft log lives: a database of its own, apart from the journal, so that one cannot take
//! the other along.
mod log;
mod writer;

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use log::SledLog;
pub use writer::LogWriter;

/// Index, term and protobuf bytes of one entry.
pub type LogEntry = (u64, u64, Vec<u8>);

/// What one `Ready` wants on the disk: all of it or nothing.
///
/// Applied in this order: `compact_to`, `entries`, the rest. A snapshot from a leader replaces the
/// whole log: give `compact_to: Some(u64::MAX)` with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogWrite {
    /// Replaces the stored snapshot.
    pub snapshot: Option<Vec<u8>>,
    /// Contiguous; everything stored from the first one's index on is replaced.
    pub entries: Vec<LogEntry>,
    pub hard_state: Option<Vec<u8>>,
    /// Entries up to and including this index go.
    pub compact_to: Option<u64>,
    pub identity: Option<Identity>,
    pub genesis: Option<Value>,
}

/// Who this state directory is. The raft id is drawn once and never used by another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub raft_id: u64,
    /// Absent until the node belongs to a cluster.
    pub cluster_id: Option<String>,
    pub cluster_epoch: u64,
}

/// All that is stored, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub hard_state: Option<Vec<u8>>,
    /// Contiguous, terms never falling.
    pub entries: Vec<LogEntry>,
    pub snapshot: Option<Vec<u8>>,
    pub identity: Option<Identity>,
    pub genesis: Option<Value>,
}

/// A durable Raft log. An error of `write` is final.
pub trait LogStore: Send {
    /// Returns when everything is on the disk, with the time that took.
    fn write(&mut self, write: LogWrite) -> io::Result<Duration>;
}
