//! `/dev/watchdog`, the last resort behind the guard: for a kernel or hypervisor that stops
//! everything, guard included. Patroni's section, Patroni's arithmetic (patroni-surface §5.16).
//!
//! It is fed only by an answered renewal. Closed with the magic `V`, it stands down; closed without
//! (a killed daemon), it goes on counting, and the machine resets unless the daemon is back.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use crate::pure::cluster::lease::{MARGIN_MS, renew_every};
use crate::pure::config;

/// `_IOWR('W', 6, int)`: set the timeout in seconds; the driver answers what it took.
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xC004_5706;

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Off,
    /// Used where it works.
    Automatic,
    /// Without it this node never leads.
    Required,
}

impl Mode {
    pub fn of(config: &config::Watchdog) -> Mode {
        match config.mode.as_str() {
            "automatic" | "auto" => Mode::Automatic,
            "required" | "require" => Mode::Required,
            _ => Mode::Off,
        }
    }
}

/// An open device that counts.
pub struct Watchdog {
    device: File,
    path: PathBuf,
    /// The ttl that its timeout was worked out from, and with which safety margin.
    ttl_ms: u64,
    margin_s: Option<i64>,
}

/// What one renewal and its answer may take, in ms.
const RENEWAL_MS: u64 = 500;

/// The timeout leaves time for three renewals, and a healthy host is never reset; and it is over before the
/// lease is (WD-10).
///
/// # Errors
/// What cannot be kept, with the numbers.
fn leaves_slack(timeout_s: i64, ttl_ms: u64) -> Result<(), String> {
    let least_ms = 3 * renew_every(ttl_ms) + RENEWAL_MS;
    let timeout_ms = u64::try_from(timeout_s).unwrap_or(0) * 1000;
    if timeout_ms < least_ms || timeout_ms > ttl_ms.saturating_sub(MARGIN_MS) {
        return Err(format!(
            "watchdog.safety_margin: a ttl of {ttl_ms} ms leaves a timeout of {timeout_s} s, and it must \
             be from {least_ms} to {} ms: write another safety_margin or a longer ttl",
            ttl_ms.saturating_sub(MARGIN_MS)
        ));
    }
    Ok(())
}

/// The safety margin nobody wrote, at most; with a short ttl it is a third of that.
const MARGIN_S_MAX: i64 = 5;

/// Seconds without a renewal after which the machine resets: ttl − safety_margin, −1 means ttl / 2. A margin that
/// nobody wrote leaves a short ttl its slack.
pub fn timeout_s(ttl_ms: u64, safety_margin_s: Option<i64>) -> i64 {
    let ttl_s = (ttl_ms / 1000) as i64;
    match safety_margin_s {
        Some(margin_s) if margin_s < 0 => ttl_s / 2,
        Some(margin_s) => ttl_s - margin_s,
        None => ttl_s - MARGIN_S_MAX.min(ttl_s / 3),
    }
}

impl Watchdog {
    /// Opens the device and sets its timeout; from now on it counts.
    ///
    /// # Errors
    /// No device, no permission, or a ttl that leaves no time for a renewal.
    pub fn activate(config: &config::Watchdog, ttl_ms: u64) -> Result<Watchdog, String> {
        let path = config.device.clone();
        let seconds = timeout_s(ttl_ms, config.safety_margin_s);
        leaves_slack(seconds, ttl_ms)?;
        let wrong = |error: io::Error| format!("watchdog.device: {}: {error}", path.display());
        let device = OpenOptions::new().write(true).open(&path).map_err(wrong)?;
        let watchdog =
            Watchdog { device, path: path.clone(), ttl_ms, margin_s: config.safety_margin_s };
        match watchdog.set_timeout(seconds) {
            Ok(actual) if i64::from(actual) > seconds => {
                watchdog.stand_down();
                Err(format!(
                    "watchdog.device: {} takes no less than {actual} s, but {seconds} s are needed",
                    path.display()
                ))
            }
            Ok(_) => Ok(watchdog),
            Err(error) => {
                watchdog.stand_down();
                Err(wrong(error))
            }
        }
    }

    fn set_timeout(&self, seconds: i64) -> io::Result<i32> {
        let mut value = i32::try_from(seconds).unwrap_or(i32::MAX);
        // SAFETY: the request reads and writes one int behind a live pointer.
        let done =
            unsafe { libc::ioctl(self.device.as_raw_fd(), WDIOC_SETTIMEOUT as _, &raw mut value) };
        if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
    }

    /// The ttl was changed: so is the timeout, where that leaves slack; else the device goes on as it was.
    pub fn follow_ttl(&mut self, ttl_ms: u64) {
        if self.ttl_ms == ttl_ms {
            return;
        }
        self.ttl_ms = ttl_ms;
        let seconds = timeout_s(ttl_ms, self.margin_s);
        let changed = leaves_slack(seconds, ttl_ms).and_then(|()| {
            let wrong = |error| format!("watchdog.device: {}: {error}", self.path.display());
            self.set_timeout(seconds).map_err(wrong)
        });
        match changed {
            Ok(seconds) => tracing::info!(seconds, "the watchdog's timeout follows the ttl"),
            Err(problem) => tracing::error!(problem, "the watchdog's timeout stays as it was"),
        }
    }

    /// An answered renewal feeds it.
    pub fn feed(&mut self) {
        if let Err(error) = self.device.write_all(b"1") {
            tracing::error!(%error, device = %self.path.display(), "the watchdog was not fed");
        }
    }

    /// The magic close: it stops counting.
    pub fn stand_down(mut self) {
        if let Err(error) = self.device.write_all(b"V") {
            tracing::error!(%error, device = %self.path.display(), "the watchdog goes on");
        }
    }
}

/// Why a node whose watchdog is required may not lead, if so: no device, or a ttl that leaves it no slack.
pub fn trouble(config: &config::Watchdog, ttl_ms: u64) -> Option<String> {
    if Mode::of(config) != Mode::Required {
        return None;
    }
    if let Err(problem) = leaves_slack(timeout_s(ttl_ms, config.safety_margin_s), ttl_ms) {
        return Some(problem);
    }
    // Never opened just to look: opening a watchdog starts it.
    rustix::fs::access(&config.device, rustix::fs::Access::WRITE_OK)
        .err()
        .map(|error| format!("watchdog.device: {}: {error}", config.device.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_leaves_the_safety_margin() {
        assert_eq!(timeout_s(20_000, Some(5)), 15);
        assert_eq!(timeout_s(30_000, Some(-1)), 15);
        assert_eq!(timeout_s(6_000, Some(5)), 1);
        assert_eq!((timeout_s(30_000, None), timeout_s(6_000, None)), (25, 4), "nobody wrote one");
    }

    /// WD-10: a ttl of six seconds with the margin of five reset healthy hosts.
    #[test]
    fn a_timeout_without_slack_is_refused_with_the_numbers() {
        let refused =
            leaves_slack(timeout_s(6_000, Some(5)), 6_000).expect_err("one second is no slack");
        assert!(refused.contains("6000 ms") && refused.contains("3500"), "{refused}");
        assert_eq!(leaves_slack(timeout_s(6_000, Some(2)), 6_000), Ok(()));
        assert_eq!(leaves_slack(timeout_s(30_000, Some(5)), 30_000), Ok(()));
        for ttl_ms in [6_000, 10_000, 15_000, 20_000, 30_000, 300_000] {
            assert_eq!(leaves_slack(timeout_s(ttl_ms, None), ttl_ms), Ok(()), "{ttl_ms}");
        }
        assert!(leaves_slack(timeout_s(30_000, Some(0)), 30_000).is_err(), "later than the guard");
    }

    #[test]
    fn a_device_that_is_no_watchdog_is_refused_and_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let device = dir.path().join("dog");
        std::fs::write(&device, "").expect("a file");
        let config = config::Watchdog { mode: "required".into(), device, safety_margin_s: Some(5) };
        let refused = Watchdog::activate(&config, 20_000).err().expect("no ioctl on a file");
        assert!(refused.contains("watchdog.device") && refused.contains("dog"), "{refused}");
        assert_eq!(std::fs::read(&config.device).expect("it is there"), b"V", "stood down");
    }

    #[test]
    fn only_a_required_watchdog_keeps_a_node_from_leading() {
        let missing = |mode: &str| config::Watchdog {
            mode: mode.into(),
            device: "/nowhere/watchdog".into(),
            safety_margin_s: Some(5),
        };
        assert_eq!(trouble(&missing("automatic"), 30_000), None);
        let refused = trouble(&missing("required"), 30_000);
        assert!(refused.is_some_and(|text| text.contains("/nowhere")));
    }

    /// Else it is chosen again and again, and its promotion fails every time.
    #[test]
    fn a_required_watchdog_without_slack_keeps_a_node_from_leading() {
        let dir = tempfile::tempdir().expect("a directory");
        let device = dir.path().join("dog");
        std::fs::write(&device, "").expect("a file");
        let config = config::Watchdog { mode: "required".into(), device, safety_margin_s: Some(5) };
        assert!(trouble(&config, 6_000).is_some_and(|text| text.contains("3500")));
        assert_eq!(trouble(&config, 30_000), None);
        let automatic = config::Watchdog { mode: "automatic".into(), ..config };
        assert_eq!(trouble(&automatic, 6_000), None);
    }
}
