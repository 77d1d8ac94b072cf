//! A position in the write-ahead log, in bytes since the beginning of time.
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of WAL; PostgreSQL prints it as two hexadecimal halves, `16/B374D848`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    /// As Patroni and PostgreSQL print it: upper case, no zero padding.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an LSN such as 0/3000148");
        let (high, low) = text.trim().split_once('/').ok_or_else(wrong)?;
        let half = |s: &str| u32::from_str_radix(s, 16).map_err(|_| wrong());
        Ok(Lsn((u64::from(half(high)?) << 32) | u64::from(half(low)?)))
    }
}

impl Lsn {
    /// Bytes from `other` up to here; zero where `other` is ahead.
    pub fn since(self, other: Lsn) -> u64 {
        self.0.saturating_sub(other.0)
    }
}
