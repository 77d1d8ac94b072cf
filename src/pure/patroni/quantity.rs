//! Numbers with units, as PostgreSQL and Patroni write them: `16MB`, `30min`.

/// Bytes: an integer (a sign is allowed), bare or in kB, MB, GB, TB.
pub fn bytes(text: &str) -> Option<i64> {
    let factor = |unit: &str| match unit {
        "" | "B" => Some(1.0),
        "kB" => Some(1024.0),
        "MB" => Some(1024.0 * 1024.0),
        "GB" => Some(1024.0 * 1024.0 * 1024.0),
        "TB" => Some(1024.0 * 1024.0 * 1024.0 * 1024.0),
        _ => None,
    };
    scaled(text, factor).map(|value| value.round() as i64)
}

/// Milliseconds out of a number of seconds, bare or in us, ms, s, min, h, d.
pub fn milliseconds(text: &str) -> Option<i64> {
    let factor = |unit: &str| match unit {
        "us" => Some(0.001),
        "ms" => Some(1.0),
        "" | "s" => Some(1000.0),
        "min" => Some(60_000.0),
        "h" => Some(3_600_000.0),
        "d" => Some(86_400_000.0),
        _ => None,
    };
    scaled(text, factor).map(|value| value.round() as i64)
}

fn scaled(text: &str, factor: impl Fn(&str) -> Option<f64>) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.trim().parse().ok()?;
    Some(number * factor(unit.trim())?).filter(|value| value.is_finite())
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
    }

    #[test]
    fn what_is_no_number_is_nothing() {
        for text in ["", "MB", "1mb", "x", "1 day", "nan", "inf"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
