//! Tags: what a node says of itself in its file, shown as written and asked only by their meaning.
//!
//! A tag may be written as a boolean, a number, or either of them as text (`"true"`, `'0'`): all of
//! them mean the same. The written values are private, so that no second reader can disagree.
use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::reader::Section;
use super::scalar::{parse_bool, parse_int};

/// A boolean tag and the number that says the same in finer steps.
const PAIRS: [(&str, &str); 2] = [("nofailover", "failover_priority"), ("nosync", "sync_priority")];
const FLAGS: [&str; 5] = ["nofailover", "clonefrom", "noloadbalance", "nosync", "nostream"];
/// A priority of one that has none.
const PRIORITY: i64 = 1;

/// The tags of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(Map<String, Value>);

impl From<Map<String, Value>> for Tags {
    fn from(written: Map<String, Value>) -> Tags {
        Tags(written)
    }
}

impl From<&Value> for Tags {
    /// The tags of a row that a member shows; none where it shows none.
    fn from(shown: &Value) -> Tags {
        Tags(shown.as_object().cloned().unwrap_or_default())
    }
}

impl Tags {
    /// Never promoted: `nofailover`, else a `failover_priority` of zero or less.
    pub fn nofailover(&self) -> bool {
        self.flag("nofailover").unwrap_or_else(|| self.number("failover_priority") <= 0)
    }

    /// Between equals the higher one is promoted; zero with `nofailover: true`.
    pub fn failover_priority(&self) -> i64 {
        self.priority("nofailover", "failover_priority")
    }

    /// Never synchronous: `nosync`, else a `sync_priority` of zero or less.
    pub fn nosync(&self) -> bool {
        self.flag("nosync").unwrap_or_else(|| self.number("sync_priority") <= 0)
    }

    /// The higher one is made synchronous first; zero with `nosync: true`.
    pub fn sync_priority(&self) -> i64 {
        self.priority("nosync", "sync_priority")
    }

    /// Copies are made from here rather than from the leader.
    pub fn clonefrom(&self) -> bool {
        self.flag("clonefrom") == Some(true)
    }

    /// Not offered to load balancers as a replica.
    pub fn noloadbalance(&self) -> bool {
        self.flag("noloadbalance") == Some(true)
    }

    /// Fed from the archive alone.
    pub fn nostream(&self) -> bool {
        self.flag("nostream") == Some(true)
    }

    /// The member to stream from instead of the leader.
    pub fn replicatefrom(&self) -> Option<String> {
        match self.get("replicatefrom")? {
            Value::String(name) => Some(name.clone()).filter(|name| !name.is_empty()),
            Value::Number(name) => Some(name.to_string()),
            _ => None,
        }
    }

    /// One more tag, or another value of it.
    pub fn insert(&mut self, name: String, value: Value) {
        self.0.insert(name, value);
    }

    /// The tags in force as written: boolean ones that are off say nothing and are left out, except
    /// beside the priority that they override.
    pub fn shown(&self) -> Map<String, Value> {
        let told = self.0.iter().filter(|(name, _)| !self.is_idle(name));
        told.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn is_idle(&self, name: &str) -> bool {
        let priority = PAIRS.iter().find(|(flag, _)| *flag == name).map(|(_, number)| *number);
        let overrides = priority.is_some_and(|number| self.0.contains_key(number));
        FLAGS.contains(&name) && self.flag(name) != Some(true) && !overrides
    }

    /// Null counts as absent.
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).and_then(parse_bool)
    }

    fn number(&self, name: &str) -> i64 {
        self.get(name).and_then(|value| parse_int(value, None)).unwrap_or(PRIORITY)
    }

    fn priority(&self, flag: &str, number: &str) -> i64 {
        if self.flag(flag) == Some(true) { 0 } else { self.number(number) }
    }
}

/// The section `tags`, after a look at those whose meaning is fixed.
pub(super) fn read(section: &Section) -> Tags {
    for flag in FLAGS {
        section.flag(flag);
    }
    for (_, number) in PAIRS {
        section.integer(number, None, i64::MIN);
    }
    section.text("replicatefrom");
    let written = section.entries().iter().map(|(key, node)| (key.clone(), node.value()));
    let tags = Tags(written.collect());
    for (flag, number) in PAIRS {
        name_conflict(section, &tags, flag, number);
    }
    tags
}

/// Patroni's sentence about two tags that contradict each other; the boolean one counts.
fn name_conflict(section: &Section, tags: &Tags, flag: &str, number: &str) {
    let (Some(never), Some(_)) = (tags.flag(flag), tags.get(number)) else { return };
    let priority = tags.number(number);
    if never == (priority.cmp(&0) != Ordering::Greater) {
        return;
    }
    let says = if never { "True" } else { "False" };
    let message = format!(
        "Conflicting configuration between {flag}: {says} and {number}: {priority}. Defaulting to \
         {flag}: {says}"
    );
    section.warn(flag, message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tags(written: Value) -> Tags {
        Tags::from(&written)
    }

    /// Spec: TG-1.
    /// A node with `nofailover: "true"` led.
    #[test]
    fn every_spelling_of_a_flag_means_the_same() {
        type Asked = (&'static str, fn(&Tags) -> bool);
        let asked: [Asked; 5] = [
            ("nofailover", Tags::nofailover),
            ("nosync", Tags::nosync),
            ("clonefrom", Tags::clonefrom),
            ("noloadbalance", Tags::noloadbalance),
            ("nostream", Tags::nostream),
        ];
        for (name, ask) in asked {
            for yes in [json!(true), json!("true"), json!("On"), json!(1), json!("1"), json!("yes")]
            {
                assert!(ask(&tags(json!({ name: yes }))), "{name}: {yes}");
            }
            for no in [json!(false), json!("false"), json!("off"), json!(0), json!(null)] {
                assert!(!ask(&tags(json!({ name: no }))), "{name}: {no}");
            }
        }
    }

    /// Spec: TG-2.
    #[test]
    fn a_priority_counts_unless_its_flag_is_written() {
        for zero in [json!(0), json!("0"), json!(-1), json!(" 0 ")] {
            assert!(tags(json!({"failover_priority": zero})).nofailover(), "{zero}");
            assert!(tags(json!({"sync_priority": zero})).nosync(), "{zero}");
        }
        let high = tags(json!({"failover_priority": "7", "sync_priority": "3"}));
        assert_eq!((high.failover_priority(), high.sync_priority()), (7, 3));
        let both = tags(json!({"nofailover": "false", "failover_priority": 0}));
        assert!(!both.nofailover());
        let never = tags(json!({"nofailover": "true", "failover_priority": 2}));
        assert!(never.nofailover() && never.failover_priority() == 0);
        assert_eq!(tags(json!({})).failover_priority(), 1);
        let nulls = tags(json!({"nofailover": null, "failover_priority": "0"}));
        assert!(nulls.nofailover());
    }

    /// Spec: TG-3.
    #[test]
    fn tags_are_shown_as_written_without_those_that_are_off() {
        let shown = |written: Value| Value::Object(tags(written).shown());
        let idle = json!({"nofailover": false, "noloadbalance": "false", "nosync": false,
            "clonefrom": false, "nostream": null, "rack": "a", "mine": false});
        assert_eq!(shown(idle), json!({"rack": "a", "mine": false}));
        let overriding = json!({"nofailover": false, "failover_priority": "2"});
        assert_eq!(shown(overriding.clone()), overriding);
        let text = json!({"nofailover": "true", "rack": "7"});
        assert_eq!(shown(text.clone()), text);
    }

    #[test]
    fn a_number_may_be_the_name_of_a_member() {
        let follows = |name: Value| tags(json!({ "replicatefrom": name })).replicatefrom();
        assert_eq!(follows(json!(5)).as_deref(), Some("5"));
        assert_eq!(follows(json!("n2")).as_deref(), Some("n2"));
        assert_eq!(follows(json!("")), None);
    }
}
