//! The text of `pg_controldata`: what a stopped cluster says about itself.
//!
//! Only the C locale's words are understood; the host runs the program with `LC_ALL=C`.
use std::collections::BTreeMap;

use super::lsn::Lsn;

/// Where initdb was told nothing else.
const WAL_SEGMENT_BYTES: u64 = 16 << 20;

/// The control file's facts that decisions rest on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Decimal digits; the identity of the cluster.
    pub system_identifier: String,
    /// PostgreSQL's word: `in production`, `shut down`, `in archive recovery`, …
    pub state: String,
    pub catalog_version: String,
    pub checkpoint: Lsn,
    pub redo: Lsn,
    pub timeline: u32,
    /// Zero unless the cluster was in recovery.
    pub min_recovery_end: Lsn,
    /// Zero unless the cluster was in recovery.
    pub min_recovery_timeline: u32,
    pub checksums: bool,
    pub wal_segment_bytes: u64,
    pub wal_log_hints: bool,
    /// `max_connections` and its kin: a standby may not start with less.
    pub settings: BTreeMap<String, String>,
}

impl Control {
    /// It was stopped in an orderly way, in or out of recovery.
    pub fn clean(&self) -> bool {
        matches!(self.state.as_str(), "shut down" | "shut down in recovery")
    }

    /// It was not in recovery when the control file was last written.
    pub fn out_of_recovery(&self) -> bool {
        matches!(
            self.state.as_str(),
            "shut down" | "shutting down" | "in production" | "in crash recovery"
        )
    }

    /// The latest checkpoint, or the minimum recovery point where that is later.
    pub fn position(&self) -> (u32, Lsn) {
        if self.min_recovery_end > self.checkpoint {
            (self.min_recovery_timeline.max(self.timeline), self.min_recovery_end)
        } else {
            (self.timeline, self.checkpoint)
        }
    }
}

/// Reads what `pg_controldata` printed.
pub fn parse(text: &str) -> Result<Control, String> {
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let get = |name: &str| {
        fields.get(name).copied().ok_or_else(|| {
            format!("pg_controldata printed no `{name}`: is the control file whole?")
        })
    };
    let number = |name: &str| -> Result<u32, String> {
        let value = get(name)?;
        value.parse().map_err(|_| format!("pg_controldata: `{name}` is `{value}`, not a number"))
    };
    Ok(Control {
        system_identifier: digits(get("Database system identifier")?)?,
        state: get("Database cluster state")?.to_owned(),
        catalog_version: get("Catalog version number")?.to_owned(),
        checkpoint: get("Latest checkpoint location")?.parse()?,
        redo: get("Latest checkpoint's REDO location")?.parse()?,
        timeline: number("Latest checkpoint's TimeLineID")?,
        min_recovery_end: get("Minimum recovery ending location")?.parse()?,
        min_recovery_timeline: number("Min recovery ending loc's timeline")?,
        checksums: number("Data page checksum version")? > 0,
        wal_segment_bytes: get("Bytes per WAL segment")?.parse().unwrap_or(WAL_SEGMENT_BYTES),
        wal_log_hints: get("wal_log_hints setting")? == "on",
        settings: settings(&fields),
    })
}

fn digits(text: &str) -> Result<String, String> {
    if text.len() >= 10 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err(format!("pg_controldata: `{text}` is not a system identifier"))
    }
}

fn settings(fields: &BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    fields
        .iter()
        .filter_map(|(name, value)| Some((name.strip_suffix(" setting")?, value)))
        .map(|(name, value)| {
            // The control file shortens two of the names.
            let name = match name {
                "max_prepared_xacts" => "max_prepared_transactions",
                "max_locks_per_xact" => "max_locks_per_transaction",
                other => other,
            };
            (name.to_owned(), (*value).to_owned())
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const SAMPLE: &str = "\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7575292331414216201
Database cluster state:               shut down in recovery
pg_control last modified:             Sun 22 Nov 2026 03:12:45 PM UTC
Latest checkpoint location:           0/3000060
Latest checkpoint's REDO location:    0/3000028
Latest checkpoint's TimeLineID:       2
Latest checkpoint's PrevTimeLineID:   1
Minimum recovery ending location:     0/5000110
Min recovery ending loc's timeline:   3
Bytes per WAL segment:                16777216
wal_log_hints setting:                on
max_connections setting:              100
max_prepared_xacts setting:           7
max_locks_per_xact setting:           64
Data page checksum version:           0
";

    #[test]
    fn reads_a_stopped_standby() {
        let control = parse(SAMPLE).expect("the sample is whole");
        assert_eq!(control.system_identifier, "7575292331414216201");
        assert_eq!(control.position(), (3, Lsn(0x500_0110)));
        assert!(control.clean() && !control.out_of_recovery());
        assert!(control.wal_log_hints && !control.checksums);
        assert_eq!(control.settings["max_prepared_transactions"], "7");
        assert_eq!(control.settings["max_connections"], "100");
    }

    #[test]
    fn the_checkpoint_counts_where_it_is_later() {
        let text = SAMPLE.replace("0/5000110", "0/0");
        assert_eq!(parse(&text).expect("whole").position(), (2, Lsn(0x300_0060)));
    }

    #[test]
    fn says_what_is_missing_or_wrong() {
        let lost = SAMPLE.replace("Database cluster state", "Zustand");
        assert!(parse(&lost).expect_err("incomplete").contains("Database cluster state"));
        let odd = SAMPLE.replace("7575292331414216201", "0");
        assert!(parse(&odd).expect_err("no id").contains("system identifier"));
    }
}
