//! How a query parameter matches a tag.
use serde_json::Value;

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
