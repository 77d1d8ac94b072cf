//! When something is to happen, as an operator types it: `now`, or a time, local without an offset.
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::{Outcome, prompt};

/// What was typed, asked for when it was not, as ISO 8601 with an offset. `None` is now.
pub fn given_or_asked(given: Option<&str>, action: &str, force: bool) -> Outcome<Option<String>> {
    let text = match given {
        Some(text) => text.to_owned(),
        None if force => return Ok(None),
        None => {
            let hour = Zoned::now().checked_add(SignedDuration::from_hours(1));
            let example = hour.map(|at| at.strftime("%Y-%m-%dT%H:%M").to_string());
            let example = example.unwrap_or_default();
            let question = format!("When should the {action} take place (e.g. {example} ) ");
            prompt::ask(&question, Some("now"))?
        }
    };
    parse(&text, &TimeZone::system())
}

fn parse(text: &str, zone: &TimeZone) -> Outcome<Option<String>> {
    if text == "now" {
        return Ok(None);
    }
    let wrong = || {
        format!(
            "Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format \
             (e.g. ISO 8601)"
        )
    };
    let pieces = Pieces::parse(text.trim()).map_err(|_| wrong())?;
    let civil = DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight()));
    let zoned = match pieces.to_numeric_offset() {
        Some(offset) => offset.to_timestamp(civil).map(|at| at.to_zoned(offset.to_time_zone())),
        None => civil.to_zoned(zone.clone()),
    };
    let zoned = zoned.map_err(|_| wrong())?;
    if zoned.timestamp() < Timestamp::now() {
        return Err(format!("{text} is in the past").into());
    }
    Ok(Some(zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::Offset;

    fn read(text: &str) -> Outcome<Option<String>> {
        parse(text, &TimeZone::fixed(Offset::constant(2)))
    }

    #[test]
    fn times_without_an_offset_are_local() {
        assert_eq!(read("now"), Ok(None));
        assert_eq!(read("2230-01-01T10:00"), Ok(Some("2230-01-01T10:00:00+02:00".into())));
        assert_eq!(read("2230-01-01T10:00-01"), Ok(Some("2230-01-01T10:00:00-01:00".into())));
    }

    #[test]
    fn nonsense_and_the_past_are_refused() {
        assert!(read("soon").is_err());
        assert!(read("2000-01-01T10:00Z").is_err());
    }
}
