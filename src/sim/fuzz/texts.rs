//! What PostgreSQL and its tools write, and what people write for it. The first byte says which
//! parser reads the rest.
use std::collections::BTreeSet;
use std::str::FromStr;

use super::bytes::Bytes;
use crate::pure::cluster::handover::Token;
use crate::pure::patroni::{quantity, restart, schedule};
use crate::pure::postgres::history::{self, Left, Lineage};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::target::{self, RecoveryEnd};
use crate::pure::postgres::version::Version;
use crate::pure::postgres::wal_e::{self, Limits};
use crate::pure::postgres::{
    backup_label, conninfo, control, hba, postmaster_pid, progress, recovery, settings, slot,
    sync_names, wal,
};

/// Files of a data directory: control data as text, lock, label, history.
pub fn server_files(bytes: &[u8]) {
    let mut choices = Bytes::new(bytes);
    let (which, number) = (choices.below(4), choices.number());
    let text = super::text(choices.rest());
    match which {
        0 => {
            if let Ok(control) = control::parse(&text) {
                let (_, at) = control.position();
                assert!(at >= control.checkpoint, "a position is not before the checkpoint");
                let _ = (control.clean(), control.out_of_recovery());
            }
        }
        1 => drop(postmaster_pid::parse(&text)),
        2 => drop(backup_label::parse(&text)),
        _ => histories(&text, number),
    }
}

fn histories(text: &str, number: u64) {
    let _ = target::last_switch(text);
    let Ok(switches) = history::parse(text) else { return };
    let (timeline, at) = (number as u32, Lsn(number << 24));
    let timelines = switches.len() as u32 + 1;
    let leader = Lineage { timeline: timelines, history: switches, ..Lineage::default() };
    let lefts =
        [Left::CleanPrimary { checkpoint: at }, Left::CrashedPrimary, Left::Standby { end: at }];
    for left in lefts {
        let divergence = history::divergence(timeline, None, left, &leader);
        assert!(!divergence.because.is_empty(), "a verdict says why");
    }
}

/// What programs print: progress, versions, a listing of backups, where recovery ended.
pub fn tool_output(bytes: &[u8]) {
    let mut choices = Bytes::new(bytes);
    let (which, number) = (choices.below(4), choices.number());
    let text = super::text(choices.rest());
    match which {
        0 => drop(progress::parse(&text)),
        1 => {
            let version = Version::of_program(&text);
            let _ = version.map(|version| (version.major(), version.to_string()));
        }
        2 => {
            if let Ok(backup) = wal_e::parse(&text) {
                let limits = Limits { wal_megabytes: number, wal_percent: number };
                let _ = limits.allow(&backup, number);
            }
        }
        _ => {
            let (asked, reached) = text.split_once('\n').unwrap_or((&text, ""));
            let (asked, reached) = (asked.to_owned(), reached.to_owned());
            let end = RecoveryEnd { asked, reached, ..RecoveryEnd::default() };
            let _ = end.judge();
        }
    }
}

/// What people write: connection strings, rules, positions, sizes, times, names, commands.
pub fn settings(bytes: &[u8]) {
    let mut choices = Bytes::new(bytes);
    let (which, number) = (choices.below(10), choices.number());
    let text = super::text(choices.rest());
    match which {
        0 => conninfos(&text),
        1 => rules(&text),
        2 => positions(&text),
        3 => drop((quantity::bytes(&text), quantity::milliseconds(&text))),
        4 => drop(schedule::check(&text, number, "restart")),
        5 => drop((restart::version(&text), Version::parse(&text))),
        6 => names(&text),
        7 => drop(wal::archive_words(&text, "pg_wal/1", "000000010000000000000001")),
        8 => {
            let clean = recovery::without_recovery(&text);
            assert_eq!(recovery::without_recovery(&clean), clean, "nothing is left to take out");
        }
        _ => {
            let given: Vec<String> = text.lines().map(str::to_owned).collect();
            let bounds = [("max_connections".to_owned(), number.to_string())].into();
            drop(settings::raised_arguments(&given, &bounds));
            drop(wal::file_name(number as u32, Lsn(number), number));
        }
    }
}

fn conninfos(text: &str) {
    let Ok(pairs) = conninfo::parse_conninfo(text) else { return };
    let filled = pairs.iter().filter(|(_, value)| !value.is_empty());
    let shown = conninfo::conninfo(filled.clone().map(|(k, v)| (k.as_str(), v.as_str())));
    let again = conninfo::parse_conninfo(&shown).expect("what we write can be read");
    assert!(again.iter().eq(filled), "{shown:?} is not what was read");
}

fn rules(text: &str) {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(hba::unreadable(&lines).len() <= lines.len());
    drop(hba::file_text(&lines));
    drop(hba::trusting(text, "replicator", &lines));
    let own = hba::trust_lines("postgres", "replicator", &["10.0.0.1".to_owned()]);
    assert!(hba::unreadable(&own).is_empty(), "our own lines can be read");
}

fn positions(text: &str) {
    if let Ok(at) = Lsn::from_str(text) {
        assert_eq!(Lsn::from_str(&at.to_string()), Ok(at));
    }
    if let Ok(token) = Token::from_str(text) {
        assert_eq!(Token::from_str(&token.to_string()).as_ref(), Ok(&token));
    }
}

fn names(text: &str) {
    let slot = slot::slot_name(text);
    assert!(slot.len() <= slot::NAME_LENGTH_MAX);
    assert!(slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    let all: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    drop((sync_names::first_names(1, &all), sync_names::any_names(2, &all)));
    let quoted = settings::quoted(text);
    assert!(quoted.starts_with('\'') && quoted.ends_with('\'') && !quoted.contains('\n'));
}
