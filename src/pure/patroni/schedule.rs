//! When something is to happen: timestamps with an offset, in the future.
use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

use super::Answer;

/// Checks a schedule and gives it back as ISO 8601 with its offset.
///
/// `now_epoch_s` is the wall clock in seconds since 1970; `action` is `switchover` or `restart`.
pub fn check(text: &str, now_epoch_s: u64, action: &str) -> Result<String, Answer> {
    let unparsable = || {
        Answer::new(
            422,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, \
             e.g. ISO 8601",
        )
    };
    let pieces = Pieces::parse(text.trim()).map_err(|_| unparsable())?;
    let time = pieces.time().unwrap_or(Time::midnight());
    let offset = pieces.to_numeric_offset().ok_or_else(|| {
        let text = format!("Timezone information is mandatory for the scheduled {action}");
        Answer::new(400, text)
    })?;
    let civil = DateTime::from_parts(pieces.date(), time);
    let at = offset.to_timestamp(civil).map_err(|_| unparsable())?;
    let now = Timestamp::from_second(now_epoch_s as i64).map_err(|_| unparsable())?;
    if at < now {
        return Err(Answer::new(422, format!("Cannot schedule {action} in the past")));
    }
    Ok(isoformat(civil, offset))
}

/// As Python's `isoformat` prints it: microseconds only where there are some.
fn isoformat(civil: DateTime, offset: Offset) -> String {
    let micros = civil.subsec_nanosecond() / 1000;
    let seconds = civil.strftime("%Y-%m-%dT%H:%M:%S");
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    let minutes = offset.seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    let (hours, minutes) = (minutes.abs() / 60, minutes.abs() % 60);
    format!("{seconds}{fraction}{sign}{hours:02}:{minutes:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_332_227;

    #[test]
    fn good_ones_come_back_in_isoformat() {
        let ok = |text: &str| check(text, NOW, "restart").expect("a good schedule");
        assert_eq!(ok("2030-01-01T00:00+00:00"), "2030-01-01T00:00:00+00:00");
        assert_eq!(ok("2030-01-01 10:00:00.5+01:30"), "2030-01-01T10:00:00.500000+01:30");
        assert_eq!(ok("2030-01-01T00:00:00Z"), "2030-01-01T00:00:00+00:00");
        assert_eq!(ok("2030-01-01T00:00:00-08"), "2030-01-01T00:00:00-08:00");
    }

    #[test]
    fn bad_ones_say_why() {
        let code = |text: &str| check(text, NOW, "switchover").expect_err("a bad schedule");
        assert_eq!(code("2030-01-01T00:00:00").code, 400);
        assert_eq!(code("2020-01-01T00:00:00Z").text, "Cannot schedule switchover in the past");
        for text in ["", "soon", "2030-13-01T00:00:00Z", "2030-01-01T25:00:00Z"] {
            assert_eq!(code(text).code, 422, "{text}");
        }
    }
}
