//! The configuration as JSON that may be shown to anybody.
//!
//! Secrets that have a key of their own print as `<secret>` by their type; this finds those that
//! users put into parameters, connection strings, URLs and options of their own programs.
use serde::{Serialize, Serializer};
use serde_json::Value;

const HIDDEN: &str = "<secret>";

/// Anything of the configuration as JSON, without secrets.
pub fn redacted<T: Serialize>(value: &T) -> Value {
    let mut json = serde_json::to_value(value).unwrap_or(Value::Null);
    redact(&mut json);
    json
}

/// Pairs of a name and a text, those named like a secret hidden.
pub fn pairs(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs
        .iter()
        .map(|(name, text)| (name.as_str(), if is_secret_name(name) { HIDDEN } else { text }))
        .collect()
}

/// As [`pairs`], for serde.
pub(super) fn serialize_pairs<S: Serializer>(
    list: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    pairs(list).serialize(serializer)
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = redacted_text(text),
        Value::Array(items) => {
            if let [Value::String(name), Value::String(text)] = items.as_mut_slice()
                && is_secret_name(name)
            {
                *text = HIDDEN.into();
            }
            items.iter_mut().for_each(redact);
        }
        Value::Object(map) => map.iter_mut().for_each(|(name, value)| match value {
            Value::String(text) if is_secret_name(name) => *text = HIDDEN.into(),
            other => redact(other),
        }),
        _ => {}
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    // password_encryption is a setting and no secret.
    let words = ["password", "passwd", "secret", "token", "passphrase"];
    name != "password_encryption" && words.iter().any(|word| name.contains(word))
}

/// Text with the values of `…password=…` and the passwords of URLs hidden.
pub fn redacted_text(text: &str) -> String {
    hide_assignments(&hide_urls(text))
}

fn hide_assignments(text: &str) -> String {
    const WORDS: [&str; 3] = ["password", "passwd", "secret"];
    let lower = text.to_ascii_lowercase();
    let mut out = String::new();
    let mut at = 0;
    while let Some(found) = WORDS.iter().filter_map(|w| Some(lower[at..].find(w)? + w.len())).min()
    {
        let name_end = at + found;
        let rest = text[name_end..].trim_start();
        let sign = rest.strip_prefix('=').or_else(|| rest.strip_prefix(':')).map(str::trim_start);
        let Some(value) = sign.filter(|value| !value.is_empty()) else {
            out.push_str(&text[at..name_end]);
            at = name_end;
            continue;
        };
        let value_start = text.len() - value.len();
        out.push_str(&text[at..value_start]);
        out.push_str(HIDDEN);
        at = value_start + value_length(value);
    }
    out.push_str(&text[at..]);
    out
}

/// Length of a value: up to the closing quote, or to white space that is not escaped.
fn value_length(value: &str) -> usize {
    let quote = value.chars().next().filter(|c| *c == '\'' || *c == '"');
    let mut escaped = false;
    for (index, c) in value.char_indices().skip(usize::from(quote.is_some())) {
        match (escaped, quote) {
            (true, _) => escaped = false,
            (false, _) if c == '\\' => escaped = true,
            (false, Some(q)) if c == q => return index + 1,
            (false, None) if c.is_whitespace() || c == '&' => return index,
            _ => {}
        }
    }
    value.len()
}

/// `scheme://user:password@host` loses its password.
fn hide_urls(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(after.len());
        let authority = &after[..end];
        match authority
            .rsplit_once('@')
            .and_then(|(user, host)| Some((user.split_once(':')?.0, host)))
        {
            Some((user, host)) => out.push_str(&format!("{user}:{HIDDEN}@{host}")),
            None => out.push_str(authority),
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn passwords_in_text_are_hidden_and_nothing_else_is() {
        let cases = [
            ("host=a password=geheim user=b", "host=a password=<secret> user=b"),
            ("password = 'ge\\'heim x' user=b", "password = <secret> user=b"),
            ("x PGPASSWORD=abc cmd", "x PGPASSWORD=<secret> cmd"),
            ("password=ge\\ heim user=b", "password=<secret> user=b"),
            ("postgres://u:p@h:5432/db?x=1", "postgres://u:<secret>@h:5432/db?x=1"),
            ("http://h:80/x", "http://h:80/x"),
            ("host all all all password", "host all all all password"),
        ];
        for (text, expected) in cases {
            assert_eq!(redacted_text(text), expected);
        }
    }

    #[test]
    fn keys_that_name_a_secret_hide_their_value() {
        let value = json!({"sslpassword": "x", "password_encryption": "md5",
            "options": [["aws-secret", "y"], ["sslmode", "prefer"]]});
        let expected = json!({"sslpassword": "<secret>", "password_encryption": "md5",
            "options": [["aws-secret", "<secret>"], ["sslmode", "prefer"]]});
        assert_eq!(redacted(&value), expected);
    }

    proptest::proptest! {
        #[test]
        fn any_text_can_be_redacted(text in "\\PC*") {
            redacted_text(&text);
        }
    }
}
