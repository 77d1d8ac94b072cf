//! `/dev/watchdog`, the last resort behind the guard: for a kernel or hypervisor that stops
//! everything, guard included. Patroni's section, Patroni's arithmetic (patroni-surface §5.16).
//!
//! It is fed only by an answered beat. Closed with the magic `V`, it stands down; closed without
//! (a killed daemon), it goes on counting, and the machine resets unless the daemon is back.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

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
}

/// Seconds without a beat after which the machine resets: ttl − safety_margin, −1 means ttl / 2.
pub fn timeout_s(ttl_ms: u64, safety_margin_s: i64) -> i64 {
    let ttl_s = (ttl_ms / 1000) as i64;
    if safety_margin_s < 0 { ttl_s / 2 } else { ttl_s - safety_margin_s }
}

impl Watchdog {
    /// Opens the device and sets its timeout; from now on it counts.
    ///
    /// # Errors
    /// No device, no permission, or a ttl that leaves no time for a beat.
    pub fn activate(config: &config::Watchdog, ttl_ms: u64) -> Result<Watchdog, String> {
        let path = config.device.clone();
        let seconds = timeout_s(ttl_ms, config.safety_margin_s);
        if seconds < 1 {
            return Err(format!(
                "watchdog.safety_margin: {} s leaves nothing of a ttl of {} ms",
                config.safety_margin_s, ttl_ms
            ));
        }
        let wrong = |error: io::Error| format!("watchdog.device: {}: {error}", path.display());
        let device = OpenOptions::new().write(true).open(&path).map_err(wrong)?;
        let watchdog = Watchdog { device, path: path.clone() };
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

    /// An answered beat feeds it.
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

/// Why a node whose watchdog is required may not lead, if so.
pub fn trouble(config: &config::Watchdog) -> Option<String> {
    if Mode::of(config) != Mode::Required {
        return None;
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
        assert_eq!(timeout_s(20_000, 5), 15);
        assert_eq!(timeout_s(30_000, -1), 15);
        assert_eq!(timeout_s(6_000, 5), 1);
    }

    #[test]
    fn a_device_that_is_no_watchdog_is_refused_and_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let device = dir.path().join("dog");
        std::fs::write(&device, "").expect("a file");
        let config = config::Watchdog { mode: "required".into(), device, safety_margin_s: 5 };
        let refused = Watchdog::activate(&config, 20_000).err().expect("no ioctl on a file");
        assert!(refused.contains("watchdog.device") && refused.contains("dog"), "{refused}");
        assert_eq!(std::fs::read(&config.device).expect("it is there"), b"V", "stood down");
    }

    #[test]
    fn only_a_required_watchdog_keeps_a_node_from_leading() {
        let missing = |mode: &str| config::Watchdog {
            mode: mode.into(),
            device: "/nowhere/watchdog".into(),
            safety_margin_s: 5,
        };
        assert_eq!(trouble(&missing("automatic")), None);
        assert!(trouble(&missing("required")).is_some_and(|text| text.contains("/nowhere")));
    }
}
