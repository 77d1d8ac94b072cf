//! Single values as Patroni reads them: booleans, numbers with units, and Python's spelling.
use serde_json::Value;

/// `on/true/yes/1` and `off/false/no/0` in any case; absent for anything else.
pub fn parse_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(n) if n.as_i64() == Some(1) => Some(true),
        Value::Number(n) if n.as_i64() == Some(0) => Some(false),
        Value::String(text) => match text.trim().to_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// The units PostgreSQL knows, as (name, family, size in the family's smallest unit).
const UNITS: [(&str, Family, f64); 11] = [
    ("B", Family::Memory, 1.0),
    ("kB", Family::Memory, 1024.0),
    ("MB", Family::Memory, 1024.0 * 1024.0),
    ("GB", Family::Memory, 1024.0 * 1024.0 * 1024.0),
    ("TB", Family::Memory, 1024.0 * 1024.0 * 1024.0 * 1024.0),
    ("us", Family::Time, 1.0),
    ("ms", Family::Time, 1e3),
    ("s", Family::Time, 1e6),
    ("min", Family::Time, 60e6),
    ("h", Family::Time, 3_600e6),
    ("d", Family::Time, 86_400e6),
];

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Memory,
    Time,
}

fn unit(name: &str) -> Option<(Family, f64)> {
    UNITS.iter().find(|(n, ..)| *n == name).map(|(_, family, size)| (*family, *size))
}

/// A whole number: decimal (rounded), `0x` or octal `0…`, with a unit of `base`'s family if
/// `base` names one. Without a unit the number counts in `base`.
pub fn parse_int(value: &Value, base: Option<&str>) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().and_then(whole)),
        Value::String(text) => parse_text(text.trim(), base),
        _ => None,
    }
}

fn parse_text(text: &str, base: Option<&str>) -> Option<i64> {
    let hex = text.trim_start_matches(['-', '+']).to_lowercase().starts_with("0x");
    let ends = |c: char| {
        c.is_ascii_alphabetic() && !(hex && (c.is_ascii_hexdigit() || c == 'x' || c == 'X'))
    };
    let cut = text.find(ends).unwrap_or(text.len());
    let (digits, suffix) = (text[..cut].trim(), text[cut..].trim());
    let number = number(digits, hex)?;
    if suffix.is_empty() {
        return whole(number);
    }
    let (family, size) = unit(suffix)?;
    let (base_family, base_size) = unit(base?)?;
    if family != base_family { None } else { whole(number * size / base_size) }
}

fn number(digits: &str, hex: bool) -> Option<f64> {
    let (sign, bare) = match digits.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let octal = bare.len() > 1 && bare.starts_with('0') && bare.bytes().all(|b| b.is_ascii_digit());
    let magnitude = if hex {
        i64::from_str_radix(&bare[2..], 16).ok()? as f64
    } else if octal {
        i64::from_str_radix(bare, 8).ok()? as f64
    } else if bare.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        bare.parse().ok()?
    } else {
        return None;
    };
    Some(sign * magnitude)
}

fn whole(number: f64) -> Option<i64> {
    let rounded = number.round_ties_even();
    (rounded.abs() < 9.0e18).then_some(rounded as i64)
}

/// Text of a scalar as one would write it into a PostgreSQL file: `on`/`off` for booleans.
/// Absent for null, lists and maps.
pub fn setting_text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(true) => Some("on".into()),
        Value::Bool(false) => Some("off".into()),
        Value::Number(n) => Some(n.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// What Python's `str()` makes of a value; commands written for Patroni expect it in arguments.
pub fn python_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => python_repr(other),
    }
}

fn python_repr(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(n) => n.to_string(),
        Value::String(text) => python_quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python_repr).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let pair =
                |(k, v): (&String, &Value)| format!("{}: {}", python_quoted(k), python_repr(v));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

fn python_quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Python's truth: what is empty, zero, false or null is false; the text `false` is true.
pub fn python_truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn booleans_have_many_names() {
        for yes in [json!(true), json!("ON"), json!("yes"), json!(1), json!("1")] {
            assert_eq!(parse_bool(&yes), Some(true), "{yes}");
        }
        for no in [json!(false), json!("Off"), json!("no"), json!(0), json!("0")] {
            assert_eq!(parse_bool(&no), Some(false), "{no}");
        }
        assert_eq!(parse_bool(&json!("quorum")), None);
        assert_eq!(parse_bool(&json!(2)), None);
    }

    #[test]
    fn integers_take_hex_octal_decimals_and_units() {
        let cases: [(Value, Option<&str>, Option<i64>); 13] = [
            (json!(7), None, Some(7)),
            (json!("7"), None, Some(7)),
            (json!("0x1F"), None, Some(31)),
            (json!("-010"), None, Some(-8)),
            (json!("1.6"), None, Some(2)),
            (json!("30min"), Some("s"), Some(1800)),
            (json!("5 s"), Some("s"), Some(5)),
            (json!("1500ms"), Some("s"), Some(2)),
            (json!("1GB"), Some("MB"), Some(1024)),
            (json!("1GB"), Some("s"), None),
            (json!("1GB"), None, None),
            (json!("abc"), Some("s"), None),
            (json!(true), None, None),
        ];
        for (value, base, expected) in cases {
            assert_eq!(parse_int(&value, base), expected, "{value} in {base:?}");
        }
    }

    #[test]
    fn arguments_are_spelt_as_python_does() {
        assert_eq!(python_text(&json!(true)), "True");
        assert_eq!(python_text(&json!(null)), "None");
        assert_eq!(python_text(&json!([1, 2])), "[1, 2]");
        assert_eq!(python_text(&json!(["a", {"b": "it's"}])), "['a', {'b': \"it's\"}]");
        assert_eq!(python_text(&json!("plain 'x'")), "plain 'x'");
    }

    #[test]
    fn truth_is_pythons() {
        assert!(python_truth(&json!("false")));
        assert!(!python_truth(&json!("")) && !python_truth(&json!(0)));
    }
}
