//! The parameters that Surus owns: they must agree on all nodes, so only the dynamic
//! configuration sets them, and they travel on the command line where ALTER SYSTEM cannot win.
use serde_json::Value;

use super::version::Version;
use crate::pure::config::scalar::{parse_bool, parse_int};

/// What an owned parameter accepts.
#[derive(Clone, Copy)]
enum Accepts {
    /// A whole number of at least this.
    AtLeast(i64),
    Boolean,
    /// minimal would make standbys impossible.
    WalLevel,
    /// A standby that answers no queries cannot be watched.
    True,
}

const OWNED: [(&str, &str, Accepts); 10] = [
    ("max_connections", "100", Accepts::AtLeast(25)),
    ("max_worker_processes", "8", Accepts::AtLeast(2)),
    ("max_prepared_transactions", "0", Accepts::AtLeast(0)),
    ("max_locks_per_transaction", "64", Accepts::AtLeast(32)),
    ("max_wal_senders", "10", Accepts::AtLeast(3)),
    ("max_replication_slots", "10", Accepts::AtLeast(4)),
    ("wal_level", "replica", Accepts::WalLevel),
    ("track_commit_timestamp", "off", Accepts::Boolean),
    ("wal_log_hints", "on", Accepts::Boolean),
    ("hot_standby", "on", Accepts::True),
];

/// Owned, but in the file only.
const WAL_KEEP: [&str; 2] = ["wal_keep_size", "wal_keep_segments"];
/// Made from `listen` and `scope`; nobody sets them.
const FROM_LOCAL: [&str; 3] = ["listen_addresses", "port", "cluster_name"];
const SEGMENT_MB: i64 = 16;
const WAL_KEEP_MB: i64 = 128;

/// Whether `name`, in any case, is a parameter that a local file may not set.
pub fn is_owned(name: &str) -> bool {
    is_on_command_line(name) || WAL_KEEP.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether `name` is given to the postmaster as an argument.
pub fn is_on_command_line(name: &str) -> bool {
    let owned = OWNED.iter().map(|(own, ..)| *own).chain(FROM_LOCAL);
    owned.into_iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Every owned parameter with its value, in a fixed order. `given` looks one up in the effective
/// settings; a value that does not fit is replaced by the default, with one sentence.
pub fn owned_values<'a>(
    given: impl Fn(&str) -> Option<&'a Value>,
    version: Version,
    warnings: &mut Vec<String>,
) -> Vec<(&'static str, String)> {
    let mut values = Vec::new();
    for (name, default, accepts) in OWNED {
        let value = given(name).filter(|value| !value.is_null());
        let fitting = value.map(|value| fitting(value, accepts));
        if fitting == Some(None) {
            warnings.push(format!(
                "postgresql.parameters.{name}: the value does not fit; {default} is used instead"
            ));
        }
        values.push((name, fitting.flatten().unwrap_or_else(|| default.to_string())));
    }
    values.push(wal_keep(given, version, warnings));
    values
}

fn fitting(value: &Value, accepts: Accepts) -> Option<String> {
    let on_off = |flag: bool| if flag { "on" } else { "off" }.to_string();
    match accepts {
        Accepts::AtLeast(min) => {
            parse_int(value, None).filter(|n| *n >= min).map(|n| n.to_string())
        }
        Accepts::Boolean => parse_bool(value).map(on_off),
        Accepts::True => parse_bool(value).filter(|flag| *flag).map(on_off),
        Accepts::WalLevel => match value.as_str()?.to_lowercase().as_str() {
            "hot_standby" | "replica" => Some("replica".into()),
            "logical" => Some("logical".into()),
            _ => None,
        },
    }
}

/// How much WAL to keep: a size since 13, before that a number of segments; either is understood.
fn wal_keep<'a>(
    given: impl Fn(&str) -> Option<&'a Value>,
    version: Version,
    warnings: &mut Vec<String>,
) -> (&'static str, String) {
    let size =
        given("wal_keep_size").map(|v| parse_int(v, Some("MB")).filter(|mb| *mb >= SEGMENT_MB));
    let segments = given("wal_keep_segments")
        .map(|v| parse_int(v, None).filter(|n| *n >= 1).map(|n| n.saturating_mul(SEGMENT_MB)));
    let chosen =
        if version >= Version::major_release(13) { size.or(segments) } else { segments.or(size) };
    if chosen == Some(None) {
        warnings.push(format!(
            "postgresql.parameters.wal_keep_size: the value does not fit; {WAL_KEEP_MB}MB is used \
             instead"
        ));
    }
    let megabytes = chosen.flatten().unwrap_or(WAL_KEEP_MB);
    if version >= Version::major_release(13) {
        ("wal_keep_size", format!("{megabytes}MB"))
    } else {
        ("wal_keep_segments", (megabytes / SEGMENT_MB).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(given: Value, version: u32) -> (Vec<(&'static str, String)>, usize) {
        let mut warnings = Vec::new();
        let found = owned_values(|name| given.get(name), Version(version), &mut warnings);
        (found, warnings.len())
    }

    fn value_of(given: Value, name: &str, version: u32) -> (Option<String>, usize) {
        let (found, warnings) = values(given, version);
        (found.into_iter().find(|(n, _)| *n == name).map(|(_, v)| v), warnings)
    }

    #[test]
    fn defaults_without_a_word() {
        let (found, warnings) = values(json!({}), 150_000);
        assert_eq!((found.len(), warnings), (11, 0));
        assert_eq!(found[10], ("wal_keep_size", "128MB".to_string()));
    }

    #[test]
    fn what_does_not_fit_is_replaced_with_a_sentence() {
        let cases = [
            (json!({"max_connections": 10}), "max_connections", "100", 1),
            (json!({"max_connections": "300"}), "max_connections", "300", 0),
            (json!({"wal_level": "minimal"}), "wal_level", "replica", 1),
            (json!({"wal_level": "hot_standby"}), "wal_level", "replica", 0),
            (json!({"hot_standby": false}), "hot_standby", "on", 1),
            (json!({"wal_log_hints": "off"}), "wal_log_hints", "off", 0),
            (json!({"wal_keep_segments": 10}), "wal_keep_size", "160MB", 0),
            (json!({"wal_keep_size": "1GB"}), "wal_keep_size", "1024MB", 0),
        ];
        for (given, name, expected, warnings) in cases {
            assert_eq!(
                value_of(given.clone(), name, 150_000),
                (Some(expected.into()), warnings),
                "{given}"
            );
        }
        let old = value_of(json!({"wal_keep_size": "1GB"}), "wal_keep_segments", 120_000);
        assert_eq!(old, (Some("64".into()), 0));
    }

    #[test]
    fn names_are_equal_in_any_case() {
        assert!(is_owned("Max_Connections") && is_owned("wal_keep_size") && is_owned("port"));
        assert!(!is_owned("work_mem") && !is_on_command_line("wal_keep_size"));
    }
}
