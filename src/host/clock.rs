//! The two clocks: boot time decides, wall time is for people.
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use crate::pure::cluster::Millis;

/// CLOCK_BOOTTIME in milliseconds: monotonic, and suspend counts.
pub fn now() -> Millis {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The wall clock as ISO 8601 in UTC with microseconds, for logs and history.
pub fn wall() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

/// Seconds since 1970, for Patroni's `dcs_last_seen`.
pub fn epoch_s() -> u64 {
    Timestamp::now().as_second().max(0) as u64
}
