//! The dynamic configuration: from what the operator wrote to what the cluster runs with.
//!
//! What is written is never changed; a bad value falls back to its default with one sentence.
use std::sync::Arc;

use serde_json::Value;

use super::faults::{Fault, Report};
use super::reader::Section;
use super::scalar::{parse_bool, setting_text};
use super::tree::Node;
use super::{Dynamic, IgnoredSlot, PermanentSlot, StandbyCluster, SynchronousMode};
use super::{postgresql, unknown};
use crate::pure::postgres::slot::slot_name;

/// Every key that may stand at the top; aliases of older Patronis included.
const KEYS: &[&str] = &[
    "ttl",
    "loop_wait",
    "retry_timeout",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "check_timeline",
    "max_timelines_history",
    "primary_start_timeout",
    "master_start_timeout",
    "primary_stop_timeout",
    "master_stop_timeout",
    "primary_race_backoff",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "failsafe_mode",
    "pause",
    "member_slots_ttl",
    "slots",
    "permanent_slots",
    "permanent_replication_slots",
    "ignore_slots",
    "standby_cluster",
    "postgresql",
];

/// Accepted, and so far not acted on.
const WITHOUT_EFFECT: [&str; 4] =
    ["failsafe_mode", "max_timelines_history", "pause", "primary_race_backoff"];

/// A year: sums of times must not overflow, whatever somebody writes.
const SECONDS_MAX: i64 = 31_536_000;

impl Dynamic {
    /// The configuration `value` with defaults and limits applied; absent means all defaults.
    pub fn from_value(value: Option<&Value>) -> Dynamic {
        let source: Arc<str> = Arc::from("dynamic configuration");
        let tree = Node::from_value(value.unwrap_or(&Value::Null), &source);
        let (mut dynamic, warnings) = from_node(&tree, "");
        dynamic.warnings = warnings.iter().map(ToString::to_string).collect();
        dynamic
    }
}

/// Reads the dynamic configuration that stands at `path` of a file; what is odd comes with it.
pub(super) fn from_node(node: &Node, path: &str) -> (Dynamic, Vec<Fault>) {
    let report = Report::default();
    let top = Section::at(node, path, &report);
    let mut dynamic = read(&top);
    adjust(&top, &mut dynamic);
    name_strangers(&top);
    let (mut odd, warnings) = report.finish();
    for fault in &mut odd {
        fault.message.push_str("; its default is used instead");
    }
    odd.extend(warnings);
    (dynamic, odd)
}

impl Default for Dynamic {
    fn default() -> Dynamic {
        Dynamic::from_value(None)
    }
}

fn read(top: &Section) -> Dynamic {
    Dynamic {
        ttl_ms: seconds(top, &["ttl"], 2, 6),
        loop_wait_ms: seconds(top, &["loop_wait"], 1, 2),
        retry_timeout_ms: seconds(top, &["retry_timeout"], 1, 2),
        maximum_lag_on_failover: unsigned(top, "maximum_lag_on_failover", Some("B"), 1_048_576),
        check_timeline: top.flag("check_timeline").unwrap_or(false),
        max_timelines_history: unsigned(top, "max_timelines_history", None, 0) as usize,
        primary_start_timeout_ms: seconds(
            top,
            &["primary_start_timeout", "master_start_timeout"],
            0,
            300,
        ),
        primary_stop_timeout_ms: seconds(
            top,
            &["primary_stop_timeout", "master_stop_timeout"],
            0,
            0,
        ),
        synchronous_mode: synchronous_mode(top),
        synchronous_mode_strict: top.flag("synchronous_mode_strict").unwrap_or(false),
        synchronous_node_count: top
            .integer("synchronous_node_count", None, 1)
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(1),
        maximum_lag_on_syncnode: top
            .integer("maximum_lag_on_syncnode", Some("B"), -1)
            .unwrap_or(-1),
        member_slots_ttl_ms: seconds(top, &["member_slots_ttl"], 0, 1800),
        postgresql: postgresql::settings(&top.child("postgresql")),
        permanent_slots: permanent_slots(top),
        ignored_slots: ignored_slots(top),
        standby_cluster: standby_cluster(top),
        leaves_standby: false,
        warnings: Vec::new(),
    }
}

/// The first of `keys` that is set, in milliseconds; too small or large a number counts as
/// the bound.
fn seconds(top: &Section, keys: &[&str], min: i64, default: i64) -> u64 {
    let key = keys.iter().find(|key| top.get(key).is_some()).copied();
    let given = key.and_then(|key| top.integer(key, Some("s"), i64::MIN));
    let seconds = match (key, given) {
        (Some(key), Some(number)) if number < min => {
            top.warn(key, format!("{number} is too small; {min} is used instead"));
            min
        }
        (Some(key), Some(number)) if number > SECONDS_MAX => {
            top.warn(key, format!("{number} is too large; {SECONDS_MAX} is used instead"));
            SECONDS_MAX
        }
        (_, given) => given.unwrap_or(default),
    };
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

fn unsigned(top: &Section, key: &str, base: Option<&str>, default: u64) -> u64 {
    top.integer(key, base, 0).and_then(|n| u64::try_from(n).ok()).unwrap_or(default)
}

fn synchronous_mode(top: &Section) -> SynchronousMode {
    let Some(value) = top.get("synchronous_mode").map(Node::value) else {
        return SynchronousMode::Off;
    };
    let quorum = value.as_str().is_some_and(|text| text.trim().eq_ignore_ascii_case("quorum"));
    match parse_bool(&value) {
        _ if quorum => SynchronousMode::Quorum,
        Some(true) => SynchronousMode::On,
        Some(false) => SynchronousMode::Off,
        None => {
            top.fault("synchronous_mode", "must be on, off or quorum");
            SynchronousMode::Off
        }
    }
}

/// The first of the three names of this key that holds something.
fn permanent_slots(top: &Section) -> Vec<PermanentSlot> {
    let keys = ["slots", "permanent_replication_slots", "permanent_slots"];
    let sections = keys.into_iter().map(|key| top.child(key));
    let Some(section) = sections.into_iter().find(|section| !section.entries().is_empty()) else {
        return Vec::new();
    };
    let names: Vec<String> = section.entries().iter().map(|(name, _)| name.clone()).collect();
    names.iter().filter_map(|name| permanent_slot(&section, name)).collect()
}

fn permanent_slot(section: &Section, name: &str) -> Option<PermanentSlot> {
    if slot_name(name) != name {
        let message = format!("is no name of a slot; it is created as `{}`", slot_name(name));
        section.warn(name, message);
    }
    if !postgresql::is_map(section, name) {
        return Some(PermanentSlot { name: slot_name(name), in_standby_cluster: None });
    }
    let own = section.child(name);
    if own.text("type").is_some_and(|kind| kind != "physical") {
        section.warn(name, "is a logical slot; those do not exist in Surus yet, it is not created");
        return None;
    }
    let in_standby_cluster = match own.text("cluster_type").as_deref() {
        None => None,
        Some("primary") => Some(false),
        Some("standby") => Some(true),
        Some(other) => {
            let message = format!("is `{other}`; it must be primary or standby, and is ignored");
            own.warn("cluster_type", message);
            None
        }
    };
    Some(PermanentSlot { name: slot_name(name), in_standby_cluster })
}

/// The rules that can be about a physical slot: one that names a database or plugin is not.
fn ignored_slots(top: &Section) -> Vec<IgnoredSlot> {
    let list = top.get("ignore_slots").map(Node::value).unwrap_or_default();
    let no_rule = |rule: &Value| rule.as_object().is_none_or(serde_json::Map::is_empty);
    if list.as_array().into_iter().flatten().any(no_rule) {
        let message = "has entries that are no rules and cover nothing; write {name: SLOT}";
        top.warn("ignore_slots", message);
    }
    let rules = list.as_array().into_iter().flatten().filter_map(Value::as_object);
    let physical = rules.filter(|rule| {
        let kind = rule.get("type").and_then(Value::as_str).unwrap_or("physical");
        let logical = ["database", "plugin"].iter().any(|key| rule.contains_key(*key));
        kind == "physical" && !logical && !rule.is_empty()
    });
    let name = |rule: &serde_json::Map<String, Value>| {
        rule.get("name").and_then(Value::as_str).map(str::to_string)
    };
    physical.map(|rule| IgnoredSlot { name: name(rule) }).collect()
}

/// A standby cluster needs somewhere to get WAL from: a host, a port or a restore_command.
fn standby_cluster(top: &Section) -> Option<StandbyCluster> {
    let section = top.child("standby_cluster");
    if !["host", "port", "restore_command"].iter().any(|key| section.truthy(key)) {
        if !section.entries().is_empty() {
            let message = "has no host, port or restore_command and is ignored; add one of them";
            top.warn("standby_cluster", message);
        }
        return None;
    }
    let text = |key: &str| section.text(key).filter(|text| !text.is_empty());
    Some(StandbyCluster {
        host: text("host"),
        port: section.integer("port", None, 1).and_then(|port| u16::try_from(port).ok()),
        primary_slot_name: text("primary_slot_name").map(|name| slot_name(&name)),
        create_replica_methods: section.texts("create_replica_methods").unwrap_or_default(),
        restore_command: text("restore_command"),
        archive_cleanup_command: text("archive_cleanup_command"),
        recovery_min_apply_delay: section
            .get("recovery_min_apply_delay")
            .and_then(|node| setting_text(&node.value())),
    })
}

/// A leader must be able to fail once and still be in time: the loop and one retry fit into the
/// ttl. If they do not, the loop gives way first, as in Patroni.
fn adjust(top: &Section, dynamic: &mut Dynamic) {
    let (ttl, retry) = (dynamic.ttl_ms, dynamic.retry_timeout_ms);
    if dynamic.loop_wait_ms.saturating_add(retry) <= ttl {
        return;
    }
    match ttl.checked_sub(retry.saturating_mul(2)).filter(|rest| *rest >= 1000) {
        Some(rest) => dynamic.loop_wait_ms = rest,
        None => {
            dynamic.loop_wait_ms = 1000;
            dynamic.retry_timeout_ms = ((ttl / 1000 - 1) / 2).max(1) * 1000;
        }
    }
    let (loop_wait, retry) = (dynamic.loop_wait_ms / 1000, dynamic.retry_timeout_ms / 1000);
    top.warn(
        "ttl",
        format!(
            "loop_wait and retry_timeout do not fit into {} seconds; loop_wait {loop_wait} and \
             retry_timeout {retry} are used instead",
            ttl / 1000
        ),
    );
}

fn name_strangers(top: &Section) {
    for (key, _) in top.entries().iter().filter(|(key, _)| !KEYS.contains(&key.as_str())) {
        let nearest = KEYS
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let hint = nearest.filter(|name| strsim::jaro_winkler(name, key) > 0.8);
        let hint = hint.map_or("remove it".into(), |name| format!("did you mean `{name}`?"));
        top.warn(key, format!("is unknown and has no effect; {hint}"));
    }
    for key in WITHOUT_EFFECT.iter().filter(|key| top.truthy(key)) {
        top.warn(key, "is Patroni's and has no effect in Surus yet");
    }
    let quorum = top.get("synchronous_mode").is_some_and(|node| node.value() == "quorum");
    if quorum {
        let message = "quorum commit does not exist in Surus yet; commits wait as with `on`";
        top.warn("synchronous_mode", message);
    }
    for key in ["primary_stop_timeout", "master_stop_timeout"] {
        if top.truthy(key) {
            top.warn(key, "has no effect in Surus yet: stops are fast for 45 s, then immediate");
        }
    }
    unknown::check_dynamic(&top.child("postgresql"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn times(value: Value) -> (u64, u64, u64, usize) {
        let dynamic = Dynamic::from_value(Some(&value));
        let warnings = dynamic.warnings.len();
        (dynamic.ttl_ms, dynamic.loop_wait_ms, dynamic.retry_timeout_ms, warnings)
    }

    #[test]
    fn nothing_written_means_the_defaults_without_a_word() {
        let dynamic = Dynamic::default();
        assert_eq!(
            (dynamic.ttl_ms, dynamic.loop_wait_ms, dynamic.retry_timeout_ms),
            (6000, 2000, 2000)
        );
        assert_eq!(dynamic.primary_start_timeout_ms, 300_000);
        assert_eq!((dynamic.maximum_lag_on_failover, dynamic.warnings.len()), (1_048_576, 0));
        assert_eq!(Dynamic::from_value(Some(&json!({}))), dynamic);
    }

    #[test]
    fn patronis_own_times_and_the_fast_ones_are_taken_as_they_are() {
        let patroni = json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10});
        assert_eq!(times(patroni), (30_000, 10_000, 10_000, 0));
        let fast = json!({"ttl": 2, "loop_wait": 1, "retry_timeout": 1});
        assert_eq!(times(fast), (2000, 1000, 1000, 0));
    }

    #[test]
    fn what_does_not_fit_gives_way_with_a_sentence() {
        assert_eq!(
            times(json!({"ttl": 20, "loop_wait": 20, "retry_timeout": 6})),
            (20_000, 8000, 6000, 1)
        );
        assert_eq!(
            times(json!({"ttl": 5, "loop_wait": 9, "retry_timeout": 9})),
            (5000, 1000, 2000, 1)
        );
        assert_eq!(times(json!({"ttl": 1, "loop_wait": 0})), (2000, 1000, 1000, 3));
        assert_eq!(times(json!({"ttl": "abc"})), (6000, 2000, 2000, 1));
        assert_eq!(times(json!({"ttl": i64::MAX, "loop_wait": i64::MAX})).3, 3);
    }

    #[test]
    fn synchronous_mode_is_boolean_like_or_quorum() {
        let mode =
            |v: Value| Dynamic::from_value(Some(&json!({"synchronous_mode": v}))).synchronous_mode;
        assert_eq!(mode(json!("on")), SynchronousMode::On);
        assert_eq!(mode(json!(false)), SynchronousMode::Off);
        assert_eq!(mode(json!("Quorum")), SynchronousMode::Quorum);
        assert_eq!(mode(json!("maybe")), SynchronousMode::Off);
    }

    #[test]
    fn older_names_count_too() {
        let dynamic = Dynamic::from_value(Some(&json!({"master_start_timeout": "2min"})));
        assert_eq!((dynamic.primary_start_timeout_ms, dynamic.warnings.len()), (120_000, 0));
    }

    #[test]
    fn a_standby_cluster_needs_a_source() {
        let read =
            |v: Value| Dynamic::from_value(Some(&json!({"standby_cluster": v}))).standby_cluster;
        assert_eq!(read(json!({"primary_slot_name": "x"})), None);
        assert_eq!(read(json!({"host": ""})), None);
        let found = read(json!({"port": 5433, "primary_slot_name": "my-slot.X"})).expect("active");
        assert_eq!(
            (found.port, found.primary_slot_name.as_deref()),
            (Some(5433), Some("my_slot_x"))
        );
    }

    /// Spec: SC-8.
    #[test]
    fn permanent_slots_know_their_kind_of_cluster() {
        let read = |v: Value| Dynamic::from_value(Some(&v));
        let all = json!({"slots": {"a": {"type": "physical", "cluster_type": "standby"},
            "b-x": null, "c": {"type": "logical", "database": "d", "plugin": "p"},
            "d": {"cluster_type": "primary"}, "e": {"cluster_type": "other"}}});
        let found = read(all);
        let slots = found.permanent_slots.iter();
        let slots: Vec<_> = slots.map(|s| (s.name.as_str(), s.in_standby_cluster)).collect();
        let both = None;
        assert_eq!(slots, [("a", Some(true)), ("b_x", both), ("d", Some(false)), ("e", both)]);
        assert_eq!(found.warnings.len(), 3, "{:?}", found.warnings);
        let alias = read(json!({"slots": {}, "permanent_slots": {"y": 1}}));
        assert_eq!(alias.permanent_slots.len(), 1);
    }

    #[test]
    fn strangers_are_named_with_the_nearest_key() {
        let value = json!({"loop_wiat": 1, "postgresql": {"data_dir": "/x"}});
        let warnings = Dynamic::from_value(Some(&value)).warnings;
        assert!(warnings[0].contains("did you mean `loop_wait`?"), "{warnings:?}");
        assert!(warnings[1].contains("postgresql.data_dir"), "{warnings:?}");
    }
}
