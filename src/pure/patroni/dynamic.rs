//! Changes of the dynamic configuration: what may be stored, and what a patch makes of it.
//!
//! Patroni stores anything and ignores it later; we say at once which key is wrong. Keys that
//! nobody knows are stored as they are.
use serde_json::{Map, Value};

use super::{Answer, PAUSE_NOT_BUILT};
use crate::pure::cluster::apply::merge;
use crate::pure::config::scalar::{parse_bool, parse_int};
use crate::pure::postgres::hba::unreadable;

/// The configuration after a patch, by the same rule by which the log applies it.
pub fn patched(current: &Value, patch: &Value) -> Value {
    let mut merged = current.clone();
    merge(&mut merged, patch);
    merged
}

/// Of a change that which differs from what is stored: what was there before is nobody's fault now.
pub fn different(current: Option<&Value>, change: &Map<String, Value>) -> Map<String, Value> {
    let mut left = change.clone();
    let Some(current) = current else { return left };
    left.retain(|key, value| current.get(key) != Some(value));
    if let Some(Value::Object(postgresql)) = left.get_mut("postgresql") {
        postgresql.retain(|key, value| current["postgresql"].get(key) != Some(value));
    }
    left
}

/// Refuses values that no node could use. Null is fine: in a patch it deletes.
pub fn check(change: &Map<String, Value>) -> Result<(), Answer> {
    if change.get("pause").is_some_and(is_true) {
        return Err(Answer::new(501, PAUSE_NOT_BUILT));
    }
    change.iter().try_for_each(|(key, value)| check_key(key, value))?;
    let Some(Value::Object(postgresql)) = change.get("postgresql") else {
        return Ok(());
    };
    postgresql.iter().try_for_each(|(key, value)| check_postgresql(key, value))
}

fn check_key(key: &str, value: &Value) -> Result<(), Answer> {
    let expected = match key {
        "ttl" => {
            let long = parse_int(value, Some("s")).filter(|s| *s >= 2).map(|_| ());
            long.ok_or("an integer of at least 2 (seconds)")
        }
        "loop_wait" | "retry_timeout" => at_least(1, value, Some("s"))
            .ok_or("a positive integer (seconds), or with its unit (\"10s\")"),
        "max_timelines_history" => {
            at_least(0, value, None).ok_or("an integer that is not negative")
        }
        "maximum_lag_on_failover" => at_least(0, value, Some("B"))
            .ok_or("an integer that is not negative (bytes), or with its unit (\"1MB\")"),
        "primary_start_timeout"
        | "master_start_timeout"
        | "primary_stop_timeout"
        | "master_stop_timeout"
        | "primary_race_backoff"
        | "member_slots_ttl" => {
            at_least(0, value, Some("s")).ok_or("a time such as 1800 (seconds) or \"30min\"")
        }
        "maximum_lag_on_syncnode" => at_least(i64::MIN, value, Some("B")).ok_or("an integer"),
        "synchronous_node_count" => at_least(1, value, None).ok_or("a positive integer"),
        "check_timeline" | "synchronous_mode_strict" | "failsafe_mode" | "pause" => boolean(value),
        "synchronous_mode" if value.as_str() == Some("quorum") => Ok(()),
        "synchronous_mode" => boolean(value).map_err(|_| "true, false or \"quorum\""),
        "postgresql"
        | "standby_cluster"
        | "slots"
        | "permanent_slots"
        | "permanent_replication_slots" => object(value),
        "ignore_slots" => array(value),
        _ => Ok(()),
    };
    refuse(key, value, expected)
}

fn check_postgresql(key: &str, value: &Value) -> Result<(), Answer> {
    let expected = match key {
        "parameters" | "recovery_conf" | "callbacks" => object(value),
        "pg_hba" => rules(value),
        "pg_ident" => texts(value).map(|_| ()).ok_or("a list of texts"),
        "use_pg_rewind"
        | "use_slots"
        | "remove_data_directory_on_rewind_failure"
        | "remove_data_directory_on_diverged_timelines" => boolean(value),
        _ => Ok(()),
    };
    refuse(&format!("postgresql.{key}"), value, expected)
}

fn refuse(key: &str, value: &Value, expected: Result<(), &str>) -> Result<(), Answer> {
    match expected {
        Err(expected) if !value.is_null() => {
            let text = format!("{key} must be {expected}, not {value}; nothing was changed");
            Err(Answer::new(400, text))
        }
        _ => Ok(()),
    }
}

fn is_true(value: &Value) -> bool {
    parse_bool(value) == Some(true)
}

fn boolean(value: &Value) -> Result<(), &'static str> {
    parse_bool(value).map(|_| ()).ok_or("true or false")
}

/// A whole number as the configuration's own reader takes it, with a unit of `base`'s family.
fn at_least(min: i64, value: &Value, base: Option<&str>) -> Option<()> {
    parse_int(value, base).filter(|number| *number >= min).map(|_| ())
}

fn object(value: &Value) -> Result<(), &'static str> {
    value.is_object().then_some(()).ok_or("an object")
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn rules(value: &Value) -> Result<(), &'static str> {
    let readable = texts(value).is_some_and(|lines| unreadable(&lines).is_empty());
    readable
        .then_some(())
        .ok_or("a list of lines such as \"host all all 10.0.0.0/8 scram-sha-256\"")
}

fn array(value: &Value) -> Result<(), &'static str> {
    value.is_array().then_some(()).ok_or("a list")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(change: Value) -> String {
        check(change.as_object().expect("an object")).expect_err("refused").text
    }

    #[test]
    fn a_patch_merges_deep_and_null_deletes() {
        let before = json!({"ttl": 30, "postgresql": {"parameters": {"a": 1, "b": 2}, "c": 3}});
        let patch = json!({"ttl": null, "new": {"x": null, "y": 1},
            "postgresql": {"parameters": {"a": null, "d": 4}}});
        let after = json!({"postgresql": {"parameters": {"b": 2, "d": 4}, "c": 3},
            "new": {"x": null, "y": 1}});
        assert_eq!(patched(&before, &patch), after);
        assert_eq!(patched(&before, &json!({})), before);
        assert_eq!(patched(&json!({"a": {"b": 1}}), &json!({"a": 5})), json!({"a": 5}));
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        let text = refusal(json!({"ttl": "abc"}));
        assert_eq!(
            text,
            "ttl must be an integer of at least 2 (seconds), not \"abc\"; nothing was changed"
        );
        assert!(refusal(json!({"loop_wait": 0})).starts_with("loop_wait "));
        assert!(refusal(json!({"retry_timeout": "5MB"})).starts_with("retry_timeout "));
        assert!(refusal(json!({"synchronous_mode": "maybe"})).contains("quorum"));
        assert!(refusal(json!({"maximum_lag_on_failover": "1min"})).starts_with("maximum_lag"));
        let nested = json!({"postgresql": {"parameters": ["x"]}});
        assert!(refusal(nested).starts_with("postgresql.parameters must be an object"));
        assert!(refusal(json!({"slots": 3})).starts_with("slots must be an object"));
        for hba in [json!([1]), json!(["hots all all all md5"]), json!("local all all trust")] {
            let text = refusal(json!({"postgresql": {"pg_hba": hba}}));
            assert!(text.starts_with("postgresql.pg_hba must be a list of lines"), "{text}");
        }
        assert!(refusal(json!({"ttl": 1})).starts_with("ttl must be an integer of at least 2"));
    }

    #[test]
    fn what_was_there_before_is_not_judged_again() {
        let stored = json!({"ttl": "abc", "postgresql": {"pg_hba": ["odd"], "use_slots": true}});
        let change = json!({"ttl": "abc", "loop_wait": 3,
            "postgresql": {"pg_hba": ["odd"], "use_slots": "x"}});
        let map = |value: &Value| value.as_object().cloned().expect("an object");
        let left = different(Some(&stored), &map(&change));
        let expected = json!({"loop_wait": 3, "postgresql": {"use_slots": "x"}});
        assert_eq!(Value::Object(left), expected);
        assert_eq!(different(None, &map(&change)), map(&change));
    }

    #[test]
    fn good_and_unknown_values_pass() {
        let good = json!({"ttl": "30s", "loop_wait": "10", "retry_timeout": null, "mine": [1],
            "synchronous_mode": "quorum", "check_timeline": "on", "member_slots_ttl": "30min",
            "maximum_lag_on_failover": "1MB", "primary_start_timeout": "5 min",
            "postgresql": {"parameters": null, "use_slots": true, "mine": 1}, "pause": false});
        assert_eq!(check(good.as_object().expect("an object")), Ok(()));
    }

    #[test]
    fn pause_is_refused_in_words() {
        assert_eq!(refusal(json!({"pause": true})), PAUSE_NOT_BUILT);
    }
}
