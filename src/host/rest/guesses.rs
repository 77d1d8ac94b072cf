//! Wrong passwords cost time, and soon everything else from that address does too (SEC-25).
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a wrong password waits for its answer.
pub const DELAY: Duration = Duration::from_millis(200);
/// So many in one [`WINDOW`] close the address out for another.
const MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 1024;
const LOG_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Inner {
    /// Since when, and how many.
    wrong: BTreeMap<IpAddr, (Instant, u32)>,
    told_at: Option<Instant>,
    untold: u32,
}

/// Wrong passwords by address.
#[derive(Default)]
pub struct Guesses(Mutex<Inner>);

impl Guesses {
    /// Whether this address has guessed too often.
    pub fn is_closed(&self, address: IpAddr, now: Instant) -> bool {
        let mut inner = self.lock();
        inner.wrong.retain(|_, (since, _)| now < *since + WINDOW);
        inner.wrong.get(&address).is_some_and(|(_, count)| *count >= MAX)
    }

    /// One more wrong password; the count for the log, at most once a second.
    pub fn note(&self, address: IpAddr, now: Instant) -> Option<u32> {
        let mut inner = self.lock();
        if inner.wrong.len() >= ADDRESSES_MAX && !inner.wrong.contains_key(&address) {
            inner.wrong.pop_first();
        }
        let (since, count) = inner.wrong.entry(address).or_insert((now, 0));
        *count += 1;
        if *count == MAX {
            *since = now;
        }
        inner.untold += 1;
        if inner.told_at.is_some_and(|at| now < at + LOG_EVERY) {
            return None;
        }
        inner.told_at = Some(now);
        Some(std::mem::take(&mut inner.untold))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenth_wrong_password_in_a_minute_closes_the_address() {
        let (guesses, begin) = (Guesses::default(), Instant::now());
        let at = |s: u64| begin + Duration::from_secs(s);
        let one = IpAddr::from([10, 0, 0, 1]);
        let told: Vec<_> = (0..10).filter_map(|n| guesses.note(one, at(n / 4))).collect();
        assert_eq!(told, [1, 4, 4], "one line a second");
        assert!(guesses.is_closed(one, at(50)) && !guesses.is_closed([10, 0, 0, 2].into(), at(3)));
        assert!(!guesses.is_closed(one, at(70)));
        for n in 0..9 {
            guesses.note(one, at(70 + 10 * n));
            assert!(!guesses.is_closed(one, at(70 + 10 * n)), "nine are not too many");
        }
    }
}
