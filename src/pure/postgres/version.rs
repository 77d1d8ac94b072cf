//! PostgreSQL's version, as programs print it and as the server counts it.
use std::fmt;

use serde::Serialize;

/// A version as the server's number: 150018 is 15.18, 90624 is 9.6.24.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Version(pub u32);

impl Version {
    /// The first release of a major version.
    pub const fn major_release(major: u32) -> Version {
        Version(major * 10_000)
    }

    /// The major version: 15 of 15.18, and 9 of all the 9s.
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// From `15.18`, `9.6.24`, `16beta1` or the content of PG_VERSION.
    pub fn parse(text: &str) -> Option<Version> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut numbers = Vec::new();
        for part in text[..end].split('.') {
            numbers.push(part.parse::<u32>().ok().filter(|n| *n < 1000)?);
        }
        match numbers.as_slice() {
            [major] if *major >= 10 => Some(Version(major * 10_000)),
            [major, minor] if *major >= 10 => Some(Version(major * 10_000 + minor)),
            [major, minor] => Some(Version(major * 10_000 + minor * 100)),
            [major, minor, patch] => Some(Version(major * 10_000 + minor * 100 + patch)),
            _ => None,
        }
    }

    /// From the answer to `--version`, such as `postgres (PostgreSQL) 15.18 (Debian 15.18-1)`.
    pub fn of_program(answer: &str) -> Option<Version> {
        let after = answer.split_once("(PostgreSQL)").map_or(answer, |(_, rest)| rest);
        after.split_whitespace().find_map(Version::parse)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, rest) = (self.0 / 10_000, self.0 % 10_000);
        if major >= 10 {
            write!(f, "{major}.{rest}")
        } else {
            write!(f, "{major}.{}.{}", rest / 100, rest % 100)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_programs_print_them() {
        let answer = "pg_ctl (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)";
        assert_eq!(Version::of_program(answer), Some(Version(150_018)));
        assert_eq!(Version::of_program("postgres (PostgreSQL) 17beta1"), Some(Version(170_000)));
        assert_eq!(Version::parse("9.6.24"), Some(Version(90_624)));
        assert_eq!(Version::parse("15\n"), Some(Version(150_000)));
        assert_eq!(Version::parse("9.6"), Some(Version(90_600)));
        for wrong in ["", "x", "9", "1.2.3.4", "99999", "."] {
            assert_eq!(Version::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn printing_gives_back_what_was_read() {
        for text in ["15.18", "9.6.24", "10.0"] {
            assert_eq!(Version::parse(text).map(|v| v.to_string()).as_deref(), Some(text));
        }
    }
}
