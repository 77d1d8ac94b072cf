//! Tags: which of the configured ones count, and how a query parameter matches one.
use serde_json::{Map, Value};

/// Tags in force: the boolean ones that are false say nothing and are left out, except where they
/// override a priority.
pub fn effective(configured: &Map<String, Value>) -> Map<String, Value> {
    configured
        .iter()
        .filter(|(name, value)| !is_idle(name, value, configured))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn is_idle(name: &str, value: &Value, all: &Map<String, Value>) -> bool {
    let overrides = match name {
        "clonefrom" | "noloadbalance" | "nostream" => false,
        "nofailover" => all.contains_key("failover_priority"),
        "nosync" => all.contains_key("sync_priority"),
        _ => return false,
    };
    let off = matches!(value, Value::Null | Value::Bool(false));
    off && !overrides
}

/// `?tag_X=wanted` against the tag's value: text as it stands, anything else in lower case.
pub fn matches(tag: Option<&Value>, wanted: &str) -> bool {
    match tag {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => text == wanted,
        Some(other) => other.to_string().to_lowercase() == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(tags: Value) -> Value {
        Value::Object(effective(tags.as_object().expect("an object")))
    }

    #[test]
    fn false_tags_disappear_unless_they_override_a_priority() {
        let idle = json!({"nofailover": false, "noloadbalance": false, "nosync": false,
            "clonefrom": false, "nostream": false, "rack": "a", "mine": false});
        assert_eq!(shown(idle), json!({"rack": "a", "mine": false}));
        let overriding = json!({"nofailover": false, "failover_priority": 2});
        assert_eq!(shown(overriding.clone()), overriding);
        let sync = json!({"nosync": false, "sync_priority": 0});
        assert_eq!(shown(sync.clone()), sync);
    }

    #[test]
    fn a_tag_matches_as_lower_case_text() {
        assert!(matches(Some(&json!(true)), "true"));
        assert!(!matches(Some(&json!(true)), "True"));
        assert!(matches(Some(&json!(1.4)), "1.4"));
        assert!(matches(Some(&json!("A")), "A"));
        assert!(!matches(Some(&json!("A")), "a"));
        assert!(!matches(None, "true"));
    }
}
