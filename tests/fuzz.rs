//! The fuzzers' targets on the stable toolchain: every input of the corpus (what once broke something
//! stays there), random bytes, and the corpus's inputs changed in a few places.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;

type Target = fn(&[u8]);
/// Inputs by name.
type Corpus = Vec<(String, Vec<u8>)>;

fn targets() -> Vec<(&'static str, Target)> {
    let mut all: Vec<(&str, Target)> = surus::sim::fuzz::TARGETS.to_vec();
    all.extend(surus::host::fuzz::TARGETS);
    all.sort_by_key(|(name, _)| *name);
    all
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs in the tree, by name.
fn corpus(target: &str) -> Corpus {
    let entries = fs::read_dir(home().join("corpus").join(target)).into_iter().flatten().flatten();
    let mut all: Corpus = entries
        .filter_map(|entry| {
            Some((entry.path().display().to_string(), fs::read(entry.path()).ok()?))
        })
        .collect();
    all.sort();
    all
}

/// One place of an input that becomes something else.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Remove(Index, u8),
    Repeat(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), 0..20u8).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<Index>(), 0..20u8).prop_map(|(at, count)| Change::Repeat(at, count)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        any::<Index>().prop_map(Change::Cut),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let length = bytes.len() + 1;
        let range = |at: &Index, count: &u8| {
            let from = at.index(length);
            from..(from + usize::from(*count)).min(length - 1)
        };
        match change {
            Change::Set(at, byte) => {
                let at = at.index(length);
                bytes.splice(at..(at + 1).min(length - 1), [*byte]);
            }
            Change::Remove(at, count) => drop(bytes.drain(range(at, count))),
            Change::Repeat(at, count) => {
                let part = bytes[range(at, count)].to_vec();
                let from = at.index(length);
                bytes.splice(from..from, part);
            }
            Change::Insert(at, new) => {
                let at = at.index(length);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

#[test]
fn what_is_in_the_corpus_breaks_nothing() {
    for (name, target) in targets() {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "fuzz/corpus/{name} is empty: give it a beginning");
        for (file, bytes) in inputs {
            let broken = std::panic::catch_unwind(|| target(&bytes));
            assert!(broken.is_ok(), "{file} breaks the target {name}");
        }
    }
}

/// A target that no program calls is never fuzzed, and one that no test calls is forgotten.
#[test]
fn every_target_has_its_program() {
    let manifest = fs::read_to_string(home().join("Cargo.toml")).expect("fuzz/Cargo.toml");
    let programs: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .filter(|name| *name != "surus-fuzz")
        .collect();
    let names: Vec<&str> = targets().iter().map(|(name, _)| *name).collect();
    assert_eq!(programs, names);
    for name in names {
        let file = home().join(format!("fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(&file).unwrap_or_default();
        assert!(text.contains("fuzz::"), "{} calls no target", file.display());
    }
}

/// Every target with its corpus, read once.
static ALL: LazyLock<Vec<(Target, Corpus)>> =
    LazyLock::new(|| targets().into_iter().map(|(name, target)| (target, corpus(name))).collect());

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (_, target) in targets() {
            target(&bytes);
        }
    }

    #[test]
    fn changed_inputs_are_taken(
        which in any::<Index>(),
        changes in prop::collection::vec(change(), 1..5),
    ) {
        for (target, inputs) in ALL.iter() {
            target(&changed(which.get(inputs).1.clone(), &changes));
        }
    }
}
