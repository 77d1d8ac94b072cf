//! The machines' memory: every transition, on the disk before anything follows from it.
//!
//! One tree per machine, keyed by the order of arrival; a record is a fact and carries its own
//! sequence number. A database of its own: a damaged one is moved aside, and the machines are
//! rebuilt from Raft's state and from what PostgreSQL shows.
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Bound::{Excluded, Included};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;
use sled::{Batch, Tree};

use super::durable::{Database, damaged, from_sled, record, with_copy};

/// Records that are kept of each machine.
pub const RECORDS_MAX: u64 = 200;

const BEGIN: &[u8] = b"r\0\0\0\0\0\0\0\0";
const END: &[u8] = b"r\xff\xff\xff\xff\xff\xff\xff\xff";

/// A machine's sequence number and the record as it was given.
pub type JournalRecord = (u64, Value);

/// An open journal.
pub struct Journal {
    database: Database,
    machines: BTreeMap<String, Machine>,
}

struct Machine {
    tree: Tree,
    /// Arrival number of the next record.
    next: u64,
}

impl Journal {
    /// Opens or creates, and checks every record. `InvalidData`: it is damaged.
    pub fn open(path: &Path) -> io::Result<Journal> {
        let database = Database::open(path)?;
        let mut journal = Journal { database, machines: BTreeMap::new() };
        for name in journal.database.tree_names() {
            journal.check(&name).map_err(|e| {
                let what = format!("the journal {} of {name} is damaged: {e}", path.display());
                io::Error::new(e.kind(), what)
            })?;
        }
        Ok(journal)
    }

    /// Opens; a damaged journal is moved aside and a fresh one begun, and the sentence says so.
    pub fn open_or_begin_anew(path: &Path) -> io::Result<(Journal, Option<String>)> {
        match Journal::open(path) {
            Ok(journal) => Ok((journal, None)),
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                let aside = move_aside(path)?;
                let what = format!("{e}; moved to {}, a new one begins", aside.display());
                Ok((Journal::open(path)?, Some(what)))
            }
            Err(e) => Err(e),
        }
    }

    /// Adds a record; it is on the disk when this returns. An error is final: fence.
    pub fn append(&mut self, machine: &str, seq: u64, record: &Value) -> io::Result<()> {
        let Machine { tree, next } = self.machine(machine)?;
        let (tree, number) = (tree.clone(), *next);
        let mut batch = Batch::default();
        if let Some(oldest) = number.checked_sub(RECORDS_MAX) {
            let range = (Included(BEGIN), Included(&key(oldest)[..]));
            record::remove(&tree, &mut batch, range)?;
        }
        let json = serde_json::to_vec(record).expect("a value is plain JSON");
        record::put_fresh(&mut batch, &key(number), &[&seq.to_be_bytes()[..], &json].concat());
        self.database.commit(&tree, batch)?;
        self.machine(machine)?.next = number + 1;
        Ok(())
    }

    /// The machine's last record.
    pub fn last(&self, machine: &str) -> io::Result<Option<JournalRecord>> {
        Ok(self.last_n(machine, 1)?.pop())
    }

    /// The machine's last `n` records, oldest first.
    pub fn last_n(&self, machine: &str, n: usize) -> io::Result<Vec<JournalRecord>> {
        let Some(Machine { tree, next }) = self.machines.get(machine) else { return Ok(vec![]) };
        let from = key(next.saturating_sub(n as u64));
        let found = record::scan(tree, (Included(&from[..]), Excluded(&key(*next)[..])))?;
        found.iter().map(|(_, body)| parse(body)).collect()
    }

    /// Names of all machines that ever wrote.
    pub fn machines(&self) -> Vec<String> {
        self.machines.keys().cloned().collect()
    }

    /// Everything that a stopped daemon's journal holds, oldest first, without changing its files.
    pub fn read_stopped(path: &Path) -> io::Result<BTreeMap<String, Vec<JournalRecord>>> {
        with_copy(path, |copy| {
            let journal = Journal::open(copy)?;
            let all = |name: String| {
                let records = journal.last_n(&name, RECORDS_MAX as usize)?;
                Ok((name, records))
            };
            journal.machines().into_iter().map(all).collect()
        })
    }

    fn machine(&mut self, name: &str) -> io::Result<&mut Machine> {
        if !self.machines.contains_key(name) {
            let tree = self.database.tree(name)?;
            let next = match tree.get_lt(key(u64::MAX)).map_err(from_sled)? {
                Some((last, _)) if last.starts_with(b"r") => number(&last)? + 1,
                _ => 0,
            };
            self.machines.insert(name.to_owned(), Machine { tree, next });
        }
        Ok(self.machines.get_mut(name).expect("it was put there above"))
    }

    /// Reads every record, and that none is missing in between.
    fn check(&mut self, name: &str) -> io::Result<()> {
        let Machine { tree, next } = self.machine(name)?;
        let mut expected = next.saturating_sub(RECORDS_MAX);
        for (key, body) in record::scan(tree, (Included(BEGIN), Included(END)))? {
            if number(&key)? != expected {
                return Err(damaged(format!("record {expected} is missing")));
            }
            expected += 1;
            parse(&body)?;
        }
        if expected == *next { Ok(()) } else { Err(damaged("its last records are missing")) }
    }
}

/// Renames a database's directory to a dated name beside it, and answers with that name.
pub fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let date = Timestamp::now().strftime("%Y%m%dT%H%M%S%6fZ");
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{date}"));
    let aside = path.with_file_name(name);
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

fn key(number: u64) -> Vec<u8> {
    [&BEGIN[..1], &number.to_be_bytes()].concat()
}

/// The arrival number in a key, with or without the number of a piece behind it.
fn number(key: &[u8]) -> io::Result<u64> {
    let bytes = key.get(1..9).ok_or_else(|| damaged("a key is too short"))?;
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn parse(body: &[u8]) -> io::Result<JournalRecord> {
    let (seq, json) = body.split_first_chunk().ok_or_else(|| damaged("a record is too short"))?;
    let record =
        serde_json::from_slice(json).map_err(|e| damaged(format!("a record is no JSON: {e}")))?;
    Ok((u64::from_be_bytes(*seq), record))
}
