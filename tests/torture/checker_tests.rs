//! A check that nobody has seen fail is no check: every violation, planted.
use std::collections::BTreeMap;

use super::checker::{Mode, Report, Rules, check};
use super::history::{Act, Entry, Final, Position, lsn_of};

const MS: u64 = 1000;

fn rules(mode: Mode) -> Rules {
    Rules { mode, ttl: 3000 * MS, pause: 500 * MS }
}

fn at(timeline: u32, lsn: u64) -> Position {
    Position { timeline, lsn }
}

fn entry(client: usize, node: usize, sent_ms: u64, act: Act) -> Entry {
    Entry { client, node, sent: sent_ms * MS, answered: (sent_ms + 5) * MS, act }
}

/// Two clients; n1 writes on timeline 1 until n2 takes over on timeline 2 at LSN 1000.
fn history() -> Vec<Entry> {
    let mut history = Vec::new();
    for seq in 1..=20u64 {
        let (node, timeline) = if seq <= 10 { (0, 1) } else { (1, 2) };
        let position = at(timeline, seq * 100 - 50);
        history.push(entry(7, node, seq * 100, Act::Added { seq, at: position }));
        let (from, to) = (seq - 1, seq);
        let swapped = Act::Swapped { from, to, version: seq, at: position };
        history.push(entry(8, node, seq * 100 + 20, swapped));
        let read = Act::ReadRegister { version: seq, stamp: seq };
        history.push(entry(9, node, seq * 100 + 40, read));
        let highest = BTreeMap::from([(7, seq)]);
        history.push(entry(9, node, seq * 100 + 60, Act::ReadSet { highest }));
    }
    history
}

fn held() -> Final {
    Final {
        set: (1..=20).map(|seq| (7, seq, seq)).collect(),
        steps: (0..=20).map(|version| (version, version)).collect(),
        ends: BTreeMap::from([(1, 1000)]),
        reported: vec![1],
    }
}

#[track_caller]
fn caught(report: &Report, kind: &str) {
    assert!(report.violations.iter().any(|what| what.starts_with(kind)), "{report}");
}

#[test]
fn a_sound_history_has_nothing_to_complain_about() {
    for mode in [Mode::Sync, Mode::Async { lag_max: 100 }] {
        let report = check(&history(), &held(), rules(mode));
        assert!(report.violations.is_empty(), "{report}");
        assert_eq!((report.acknowledged, report.lost, report.failovers), (40, 0, 1));
    }
    assert_eq!(lsn_of("1/10"), Some((1 << 32) + 16));
    assert_eq!(Position::parse("00000003000000000000000A 0/A1"), Some(at(3, 0xA1)));
}

#[test]
fn a_lost_write_is_reported() {
    let mut held = held();
    held.set.retain(|(_, seq, _)| *seq != 10);
    let report = check(&history(), &held, rules(Mode::Sync));
    caught(&report, "lost in synchronous mode");
    let lost_register = Final { steps: vec![(0, 0)], ..self::held() };
    caught(&check(&history(), &lost_register, rules(Mode::Sync)), "lost in synchronous mode");
}

#[test]
fn in_asynchronous_mode_the_last_writes_may_be_lost_and_no_others() {
    let cut = |keep: u64, end: u64| {
        let mut held = held();
        held.set.retain(|(_, seq, _)| *seq <= keep || *seq > 10);
        let lost = |version: &u64| *version > keep && *version <= 10;
        held.steps.retain(|(version, _)| !lost(version));
        held.ends = BTreeMap::from([(1, end)]);
        held
    };
    // What follows the gap renumbers itself in a real run; here only losses are looked at.
    let lost = |held: &Final, lag_max: u64, ttl: u64| {
        let rules = Rules { ttl: ttl * MS, ..rules(Mode::Async { lag_max }) };
        let report = check(&history(), held, rules);
        let kinds: Vec<String> =
            report.violations.iter().filter(|v| v.starts_with("lost")).cloned().collect();
        (report.lost, report.lost_bytes.clone(), kinds)
    };
    let (count, bytes, kinds) = lost(&cut(8, 800), 500, 3000);
    assert_eq!((count, bytes), (4, BTreeMap::from([(1, 150)])));
    assert!(kinds.is_empty(), "{kinds:?}");
    let (_, _, kinds) = lost(&cut(2, 200), 100, 300);
    assert!(kinds[0].starts_with("lost beyond maximum_lag_on_failover"), "{kinds:?}");
    let mut hole = held();
    hole.set.retain(|(_, seq, _)| *seq != 5);
    let (_, _, kinds) = lost(&hole, 1_000_000, 3000);
    assert!(kinds[0].starts_with("lost, though later writes survive"), "{kinds:?}");
}

#[test]
fn a_doubled_write_is_reported() {
    let mut held = held();
    held.set.push((7, 4, 21));
    caught(&check(&history(), &held, rules(Mode::Sync)), "doubled");
    let mut held = self::held();
    held.steps.push((20, 99));
    caught(&check(&history(), &held, rules(Mode::Sync)), "doubled");
    let mut held = self::held();
    held.set.push((7, 400, 21));
    caught(&check(&history(), &held, rules(Mode::Sync)), "invented");
}

#[test]
fn a_reordered_write_is_reported() {
    let mut held = held();
    (held.set[3].2, held.set[4].2) = (5, 4);
    caught(&check(&history(), &held, rules(Mode::Sync)), "reordered");
    let mut held = self::held();
    held.steps.remove(6);
    caught(&check(&history(), &held, rules(Mode::Async { lag_max: 1 })), "reordered");
}

#[test]
fn two_writers_are_reported() {
    let mut history = history();
    let late = Act::Added { seq: 21, at: at(1, 1060) };
    history.push(entry(7, 0, 1400, late));
    let mut held = held();
    held.set.push((7, 21, 21));
    caught(&check(&history, &held, rules(Mode::Sync)), "two writers");
    // Two nodes on the same timeline, in turns.
    let mut history = self::history();
    history.iter_mut().filter(|e| e.client == 7 && e.sent % 200_000 == 0).for_each(|e| e.node = 2);
    caught(&check(&history, &self::held(), rules(Mode::Sync)), "two writers");
}

#[test]
fn reads_that_go_back_are_reported() {
    let mut history = history();
    let stale = Act::ReadRegister { version: 6, stamp: 6 };
    history.push(entry(9, 0, 1500, stale));
    caught(&check(&history, &held(), rules(Mode::Sync)), "went backwards");
    let mut history = self::history();
    let highest = BTreeMap::from([(7, 9)]);
    history.push(entry(9, 0, 1500, Act::ReadSet { highest }));
    caught(&check(&history, &held(), rules(Mode::Sync)), "read without what was promised");
}

#[test]
fn a_silent_change_of_timeline_is_reported() {
    let held = Final { reported: Vec::new(), ..held() };
    assert_eq!(check(&history(), &held, rules(Mode::Sync)).silent, [1]);
}

#[test]
fn pauses_are_added_up() {
    let mut history = history();
    history.retain(|e| e.sent < 500 * MS || e.sent > 1_500 * MS);
    let report = check(&history, &held(), rules(Mode::Async { lag_max: 1 }));
    assert_eq!((report.not_writable, report.longest_pause), (1100 * MS, 1100 * MS));
}
