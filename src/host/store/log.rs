//! The Raft log in sled: one tree, one atomic batch a write, everything checked at open.
//!
//! ```text
//! e + index  term, bytes      b  first and last index     h  hard state
//! s          snapshot         i  identity (JSON)          g  genesis (JSON)
//! ```
use std::io;
use std::ops::Bound::Included;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sled::{Batch, Tree};

use super::{Identity, Loaded, LogEntry, LogStore, LogWrite};
use crate::host::durable::{Database, damaged, record, with_copy};

const HARD_STATE: &[u8] = b"h";
const SNAPSHOT: &[u8] = b"s";
const IDENTITY: &[u8] = b"i";
const GENESIS: &[u8] = b"g";
const BOUNDS: &[u8] = b"b";
const ENTRIES_BEGIN: &[u8] = b"e\0\0\0\0\0\0\0\0";
const ENTRIES_END: &[u8] = b"e\xff\xff\xff\xff\xff\xff\xff\xff";

/// An open Raft log.
pub struct SledLog {
    database: Database,
    tree: Tree,
    bounds: Bounds,
}

/// First and last stored index; empty when the first is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    first: u64,
    last: u64,
}

const EMPTY: Bounds = Bounds { first: 1, last: 0 };

impl SledLog {
    /// Opens or creates, and checks every record. Damage is `ErrorKind::InvalidData` with a
    /// sentence: this state directory must then not vote any more, the node needs a new identity.
    pub fn open(path: &Path) -> io::Result<(SledLog, Loaded)> {
        let database = Database::open(path)?;
        let in_context = |e: io::Error| {
            io::Error::new(e.kind(), format!("the Raft log {} is damaged: {e}", path.display()))
        };
        let tree = database.tree("raft")?;
        let bounds = load_bounds(&tree).map_err(in_context)?;
        let loaded = load(&tree, bounds).map_err(in_context)?;
        Ok((SledLog { database, tree, bounds }, loaded))
    }

    /// All that a stopped daemon's log holds, without changing its files.
    pub fn read_stopped(path: &Path) -> io::Result<Loaded> {
        with_copy(path, |copy| SledLog::open(copy).map(|(_, loaded)| loaded))
    }

    /// Writes who we are, at once and durably.
    pub fn write_identity(&mut self, identity: &Identity) -> io::Result<Duration> {
        self.write(LogWrite { identity: Some(identity.clone()), ..LogWrite::default() })
    }

    /// Writes the record of the cluster's foundation, at once and durably.
    pub fn write_genesis(&mut self, genesis: &Value) -> io::Result<Duration> {
        self.write(LogWrite { genesis: Some(genesis.clone()), ..LogWrite::default() })
    }

    fn put(&self, batch: &mut Batch, key: &[u8], body: Option<Vec<u8>>) -> io::Result<()> {
        body.map_or(Ok(()), |body| record::put(&self.tree, batch, key, &body))
    }
}

impl LogStore for SledLog {
    fn write(&mut self, write: LogWrite) -> io::Result<Duration> {
        check_entries(&write.entries).map_err(invalid)?;
        let mut batch = Batch::default();
        let mut bounds = self.bounds;
        if let Some(index) = write.compact_to {
            bounds = bounds.compacted(index);
            let range = (Included(ENTRIES_BEGIN), Included(&entry_key(index)[..]));
            record::remove(&self.tree, &mut batch, range)?;
        }
        if let Some((first, ..)) = write.entries.first() {
            bounds = bounds.appended(*first, write.entries.len() as u64).map_err(invalid)?;
            let range = (Included(&entry_key(*first)[..]), Included(ENTRIES_END));
            record::remove(&self.tree, &mut batch, range)?;
        }
        for (index, term, bytes) in &write.entries {
            let body = [&term.to_be_bytes()[..], bytes].concat();
            record::put_fresh(&mut batch, &entry_key(*index), &body);
        }
        self.put(&mut batch, HARD_STATE, write.hard_state)?;
        self.put(&mut batch, SNAPSHOT, write.snapshot)?;
        self.put(&mut batch, IDENTITY, write.identity.as_ref().map(json))?;
        self.put(&mut batch, GENESIS, write.genesis.as_ref().map(json))?;
        self.put(&mut batch, BOUNDS, Some(bounds.bytes()))?;
        let took = self.database.commit(&self.tree, batch)?;
        self.bounds = bounds;
        Ok(took)
    }
}

impl Bounds {
    fn is_empty(self) -> bool {
        self.first > self.last
    }

    fn compacted(self, index: u64) -> Bounds {
        if index >= self.last {
            return EMPTY;
        }
        Bounds { first: self.first.max(index + 1), ..self }
    }

    fn appended(self, first: u64, count: u64) -> Result<Bounds, String> {
        if self.is_empty() {
            return Ok(Bounds { first, last: first + count - 1 });
        }
        if first < self.first || first > self.last + 1 {
            return Err(format!(
                "entry {first} does not continue a log of {} to {}",
                self.first, self.last
            ));
        }
        Ok(Bounds { last: first + count - 1, ..self })
    }

    fn bytes(self) -> Vec<u8> {
        [self.first.to_be_bytes(), self.last.to_be_bytes()].concat()
    }
}

fn load_bounds(tree: &Tree) -> io::Result<Bounds> {
    let Some(bytes) = record::get(tree, BOUNDS)? else { return Ok(EMPTY) };
    let (first, rest) = split_number(&bytes)?;
    let (last, _) = split_number(rest)?;
    Ok(Bounds { first, last })
}

fn load(tree: &Tree, bounds: Bounds) -> io::Result<Loaded> {
    let range = (Included(ENTRIES_BEGIN), Included(ENTRIES_END));
    let entries: Vec<LogEntry> =
        record::scan(tree, range)?.iter().map(parse_entry).collect::<io::Result<_>>()?;
    check_entries(&entries).map_err(damaged)?;
    let found = match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => Bounds { first: first.0, last: last.0 },
        _ => EMPTY,
    };
    if found != bounds {
        return Err(damaged(format!(
            "it should hold entries {} to {} and holds {} to {}",
            bounds.first, bounds.last, found.first, found.last
        )));
    }
    Ok(Loaded {
        hard_state: record::get(tree, HARD_STATE)?,
        entries,
        snapshot: record::get(tree, SNAPSHOT)?,
        identity: load_json(tree, IDENTITY)?,
        genesis: load_json(tree, GENESIS)?,
    })
}

fn parse_entry((key, body): &record::Record) -> io::Result<LogEntry> {
    let (index, _) = split_number(&key[1..])?;
    let (term, bytes) = split_number(body)?;
    Ok((index, term, bytes.to_vec()))
}

/// Contiguous, terms never falling; the same rule for what is written and what is read.
fn check_entries(entries: &[LogEntry]) -> Result<(), String> {
    for pair in entries.windows(2) {
        let ((index, term, _), (next, next_term, _)) = (&pair[0], &pair[1]);
        if Some(*next) != index.checked_add(1) || next_term < term {
            return Err(format!(
                "entry {next} of term {next_term} stands after entry {index} of term {term}"
            ));
        }
    }
    Ok(())
}

fn split_number(bytes: &[u8]) -> io::Result<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk().ok_or_else(|| damaged("a record is too short"))?;
    Ok((u64::from_be_bytes(*head), rest))
}

fn entry_key(index: u64) -> Vec<u8> {
    [&ENTRIES_BEGIN[..1], &index.to_be_bytes()].concat()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the stored values are plain JSON")
}

fn load_json<T: DeserializeOwned>(tree: &Tree, key: &[u8]) -> io::Result<Option<T>> {
    let parse = |bytes: Vec<u8>| {
        serde_json::from_slice(&bytes).map_err(|e| damaged(format!("a record is no JSON: {e}")))
    };
    record::get(tree, key)?.map(parse).transpose()
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
