//! The Raft log and the journal against a model, and against files that rot.
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;
use surus::host::journal::{Journal, RECORDS_MAX};
use surus::host::store::{Identity, Loaded, LogStore, LogWrite, SledLog};
use tempfile::TempDir;

#[derive(Clone, Debug)]
enum Op {
    /// Entries from `back` before the end on, with this many bytes each.
    Append {
        back: u64,
        count: u64,
        term_step: u64,
        size: usize,
    },
    HardState(Vec<u8>),
    /// An own snapshot: everything but the last `keep` entries goes.
    Compact {
        keep: u64,
        size: usize,
    },
    /// A leader's snapshot replaces the log, which goes on after a gap.
    Restore {
        gap: u64,
    },
    Identity(u64),
    Close,
    /// kill -9: the files as the kernel has them, without any goodbye.
    Kill,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let size = prop_oneof![Just(0usize), 1usize..300, 3_990usize..8_100];
    let append = (0u64..4, 1u64..9, 0u64..3, size.clone());
    let op = prop_oneof![
        6 => append.prop_map(|(back, count, term_step, size)| {
            Op::Append { back, count, term_step, size }
        }),
        2 => proptest::collection::vec(any::<u8>(), 0..50).prop_map(Op::HardState),
        1 => (0u64..6, 0usize..20_000).prop_map(|(keep, size)| Op::Compact { keep, size }),
        1 => (1u64..9).prop_map(|gap| Op::Restore { gap }),
        1 => (1u64..9).prop_map(Op::Identity),
        1 => Just(Op::Close),
        2 => Just(Op::Kill),
    ];
    proptest::collection::vec(op, 1..25)
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, (u64, Vec<u8>)>,
    rest: Loaded,
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.keys().next_back().copied().unwrap_or(0)
    }

    fn plan(&self, op: &Op) -> LogWrite {
        match op {
            Op::Append { back, count, term_step, size } => {
                let first = self.last().saturating_sub(*back) + 1;
                let first = first.max(self.entries.keys().next().copied().unwrap_or(first));
                let before = self.entries.range(..first).next_back().map_or(1, |(_, e)| e.0);
                let entry = |n| (first + n, before + term_step, vec![n as u8; *size]);
                LogWrite { entries: (0..*count).map(entry).collect(), ..LogWrite::default() }
            }
            Op::HardState(bytes) => {
                LogWrite { hard_state: Some(bytes.clone()), ..LogWrite::default() }
            }
            Op::Compact { keep, size } => LogWrite {
                snapshot: Some(vec![9; *size]),
                compact_to: Some(self.last().saturating_sub(*keep)),
                ..LogWrite::default()
            },
            Op::Restore { gap } => LogWrite {
                snapshot: Some(b"restored".to_vec()),
                compact_to: Some(u64::MAX),
                entries: vec![(self.last() + gap + 1, 50, vec![1])],
                ..LogWrite::default()
            },
            Op::Identity(raft_id) => LogWrite {
                identity: Some(Identity { raft_id: *raft_id, ..Identity::default() }),
                genesis: Some(json!({ "voters": [raft_id] })),
                ..LogWrite::default()
            },
            Op::Close | Op::Kill => LogWrite::default(),
        }
    }

    fn apply(&mut self, write: LogWrite) {
        if let Some(index) = write.compact_to {
            self.entries.retain(|at, _| *at > index);
        }
        if let Some((first, ..)) = write.entries.first() {
            self.entries.retain(|at, _| at < first);
        }
        self.entries.extend(write.entries.into_iter().map(|(i, t, bytes)| (i, (t, bytes))));
        let rest = &mut self.rest;
        rest.hard_state = write.hard_state.or(rest.hard_state.take());
        rest.snapshot = write.snapshot.or(rest.snapshot.take());
        rest.identity = write.identity.or(rest.identity.take());
        rest.genesis = write.genesis.or(rest.genesis.take());
    }

    fn loaded(&self) -> Loaded {
        let entries = self.entries.iter().map(|(i, (t, bytes))| (*i, *t, bytes.clone())).collect();
        Loaded { entries, ..self.rest.clone() }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("it can be read") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_log_is_its_model(ops in ops()) {
        let home = TempDir::new().expect("a directory");
        let mut model = Model::default();
        let mut life = 0;
        let (mut log, _) = SledLog::open(&home.path().join("0")).expect("it opens");
        for op in &ops {
            let write = model.plan(op);
            log.write(write.clone()).expect("it writes");
            model.apply(write);
            if !matches!(op, Op::Close | Op::Kill) {
                continue;
            }
            let now = home.path().join(life.to_string());
            if matches!(op, Op::Kill) {
                life += 1;
                copy(&now, &home.path().join(life.to_string()));
            }
            drop(log);
            let next = home.path().join(life.to_string());
            let (again, loaded) = SledLog::open(&next).expect("it opens");
            prop_assert_eq!(&loaded, &model.loaded());
            log = again;
        }
        drop(log);
        let loaded = SledLog::read_stopped(&home.path().join(life.to_string())).expect("it reads");
        prop_assert_eq!(&loaded, &model.loaded());
    }
}

#[test]
fn what_does_not_continue_the_log_is_refused_and_changes_nothing() {
    let home = TempDir::new().expect("a directory");
    let (mut log, _) = SledLog::open(home.path()).expect("it opens");
    let entries = |list: &[(u64, u64)]| LogWrite {
        entries: list.iter().map(|(index, term)| (*index, *term, vec![])).collect(),
        ..LogWrite::default()
    };
    log.write(entries(&[(5, 1), (6, 1)])).expect("it writes");
    for bad in [&[(8, 1)][..], &[(4, 1)], &[(7, 2), (9, 2)], &[(7, 2), (8, 1)]] {
        assert!(log.write(entries(bad)).is_err(), "{bad:?}");
    }
    log.write(entries(&[(7, 1)])).expect("a refusal is no failure");
    drop(log);
    let (_, loaded) = SledLog::open(home.path()).expect("it opens");
    assert_eq!(loaded.entries.iter().map(|e| e.0).collect::<Vec<_>>(), [5, 6, 7]);
}

#[test]
fn a_second_process_is_told_and_an_older_file_is_found_out() {
    let home = TempDir::new().expect("a directory");
    let (path, old) = (home.path().join("log"), home.path().join("old"));
    let (mut log, _) = SledLog::open(&path).expect("it opens");
    let second = SledLog::open(&path).map(|_| ()).expect_err("it is locked");
    assert_eq!(second.kind(), ErrorKind::WouldBlock, "{second}");
    log.write_identity(&Identity { raft_id: 7, ..Identity::default() }).expect("it writes");
    copy(&path, &old);
    log.write_genesis(&json!({ "voters": [7] })).expect("it writes");
    drop(log);
    fs::copy(old.join("db"), path.join("db")).expect("it can be copied");
    for snapshot in fs::read_dir(&path).expect("it can be read").flatten() {
        if snapshot.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(snapshot.path()).expect("it can be removed");
        }
    }
    let e = SledLog::open(&path).map(|_| ()).expect_err("a write is missing");
    assert!(e.to_string().contains("1 acknowledged writes are missing"), "{e}");
}

/// Without the count, what is older than it was could not be told from what is whole.
#[test]
fn a_log_whose_count_is_missing_or_cut_short_is_refused() {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("log");
    fill_log(&path);
    let mark = path.join("acknowledged");
    fs::write(&mark, [0; 7]).expect("it can be written");
    let e = SledLog::open(&path).map(|_| ()).expect_err("it is cut short");
    assert!(e.kind() == ErrorKind::InvalidData && e.to_string().contains("cut short"), "{e}");
    fs::remove_file(&mark).expect("it is there");
    let e = SledLog::open(&path).map(|_| ()).expect_err("it is missing");
    assert!(e.kind() == ErrorKind::InvalidData && e.to_string().contains("`acknowledged`"), "{e}");
    assert!(!mark.exists(), "the next start must not take a new one for the old");
    fs::remove_dir_all(&path).expect("it is there");
    let (_, loaded) = SledLog::open(&path).expect("a new one is made whole");
    assert_eq!(loaded.identity, None);
}

fn fill_journal(path: &Path) {
    let mut journal = Journal::open(path).expect("it opens");
    for seq in 0..RECORDS_MAX + 30 {
        journal.append("node", seq, &json!({ "to": "leading", "n": seq })).expect("it writes");
    }
    journal.append("promote", 1, &json!("x".repeat(20_000))).expect("it writes");
}

#[test]
fn the_journal_keeps_the_last_records_of_each_machine() {
    let home = TempDir::new().expect("a directory");
    fill_journal(home.path());
    let mut journal = Journal::open(home.path()).expect("it opens");
    let seqs = |records: Vec<(u64, serde_json::Value)>| -> Vec<u64> {
        records.iter().map(|record| record.0).collect()
    };
    let last = RECORDS_MAX + 29;
    assert_eq!(seqs(journal.last_n("node", 3).expect("read")), [last - 2, last - 1, last]);
    assert_eq!(journal.last_n("node", 10_000).expect("read").len() as u64, RECORDS_MAX);
    assert_eq!(journal.last("promote").expect("read"), Some((1, json!("x".repeat(20_000)))));
    assert_eq!(journal.last("demote").expect("read"), None);
    // A machine that begins again may count from the beginning.
    journal.append("node", 0, &json!(null)).expect("it writes");
    assert_eq!(seqs(journal.last_n("node", 2).expect("read")), [last, 0]);
    drop(journal);
    let all = Journal::read_stopped(home.path()).expect("it reads");
    assert_eq!(all.keys().collect::<Vec<_>>(), ["node", "promote"]);
    assert_eq!(all["node"].last(), Some(&(0, json!(null))));
}

#[test]
fn a_damaged_journal_is_moved_aside() {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("journal");
    fill_journal(&path);
    let mark = path.join("acknowledged");
    let mut bytes = fs::read(&mark).expect("it can be read");
    bytes[9] ^= 1;
    fs::write(&mark, bytes).expect("it can be written");
    let (mut journal, note) = Journal::open_or_begin_anew(&path).expect("it opens");
    let note = note.expect("it says so");
    assert!(note.contains("damaged") && note.contains("moved to"), "{note}");
    assert_eq!(journal.machines(), Vec::<String>::new());
    journal.append("node", 1, &json!(1)).expect("it writes");
    let entries = fs::read_dir(home.path()).expect("it can be read").count();
    assert_eq!(entries, 2, "the old one is still there");
}

fn fill_log(path: &Path) {
    let (mut log, _) = SledLog::open(path).expect("it opens");
    for index in 1..120u64 {
        let entry = (index, index / 7, vec![index as u8; (index as usize * 97) % 6_000]);
        log.write(LogWrite {
            entries: vec![entry],
            hard_state: Some(index.to_be_bytes().to_vec()),
            compact_to: index.checked_sub(50),
            ..LogWrite::default()
        })
        .expect("it writes");
    }
    log.write_identity(&Identity { raft_id: 7, ..Identity::default() }).expect("it writes");
}

/// The files of a database and their bytes, once nobody writes them any more.
fn files(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let list = fs::read_dir(path).expect("it can be read").flatten();
    list.filter(|entry| entry.path().is_file())
        .map(|entry| (entry.path(), fs::read(entry.path()).expect("it can be read")))
        .map(|(path, bytes)| (path.file_name().expect("it has a name").into(), bytes))
        .collect()
}

/// A bit of every file, here and there, flips: it is found at open, or it changed nothing.
#[test]
fn a_flipped_bit_is_found_or_harmless_and_never_a_panic() {
    let home = TempDir::new().expect("a directory");
    let (path, rotten) = (home.path().join("log"), home.path().join("rotten"));
    fill_log(&path);
    let good = SledLog::read_stopped(&path).expect("it reads");
    assert_eq!(good.entries.len(), 50);
    let flips: usize = std::env::var("SURUS_FLIPS").map_or(50, |n| n.parse().expect("a number"));
    let mut found = 0;
    for (name, bytes) in files(&path).into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let bits = bytes.len() * 8;
        for n in 0..flips {
            let bit = (bits / flips * n + n * 7_919) % bits;
            fs::remove_dir_all(&rotten).ok();
            copy(&path, &rotten);
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(rotten.join(&name), flipped).expect("it can be written");
            match SledLog::open(&rotten) {
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::InvalidData, "{name:?} bit {bit}: {e}");
                    found += 1;
                }
                Ok((_, loaded)) => assert_eq!(loaded, good, "{name:?} bit {bit}"),
            }
        }
    }
    assert!(found > flips, "only {found} flips were found");
}
