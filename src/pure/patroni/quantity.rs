//! Numbers with units in requests: `16MB`, `30min`. The configuration's own reader reads them.
use serde_json::Value;

use crate::pure::config::scalar::parse_int;

/// Bytes: an integer (a sign is allowed), bare or in kB, MB, GB, TB.
pub fn bytes(text: &str) -> Option<i64> {
    parse_int(&Value::from(text), Some("B"))
}

/// Milliseconds out of a number of seconds, bare or in us, ms, s, min, h, d.
pub fn milliseconds(text: &str) -> Option<i64> {
    let seconds = parse_int(&Value::from(text), None).and_then(|s| s.checked_mul(1000));
    seconds.or_else(|| parse_int(&Value::from(text), Some("ms")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_multiply() {
        assert_eq!(bytes("16MB"), Some(16 << 20));
        assert_eq!(bytes("1 kB"), Some(1024));
        assert_eq!(bytes("-5"), Some(-5));
        assert_eq!(milliseconds("30min"), Some(1_800_000));
        assert_eq!(milliseconds("10"), Some(10_000));
        assert_eq!(milliseconds("500ms"), Some(500));
    }

    #[test]
    fn what_is_no_number_is_nothing() {
        for text in ["", "MB", "1mb", "x", "1 day", "nan", "inf"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
