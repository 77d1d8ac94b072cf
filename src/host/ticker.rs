//! A pulse from the kernel.
//!
//! A sleeping reactor is woken once per tick; by a timer of the reactor's own it would be woken
//! about three times (its wheel turns, the timer fires, it wakes itself). An idle node does little
//! else than tick, so this is a quarter of what it costs.
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Ticks until dropped. A tick that nobody waited for is not made up for.
pub struct Ticker {
    fd: AsyncFd<OwnedFd>,
    every: Duration,
}

impl Ticker {
    /// The first tick comes after `every`. Needs a running reactor.
    ///
    /// # Errors
    /// The kernel gives no timer (no descriptors are left).
    pub fn new(every: Duration) -> io::Result<Ticker> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Boottime, flags)?;
        // SAFETY: the descriptor is owned by the AsyncFd from here on and closed only with it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        let mut ticker = Ticker { fd, every: Duration::ZERO };
        ticker.set(every)?;
        Ok(ticker)
    }

    /// From now on a tick every so often; nothing happens when that is so already.
    ///
    /// # Errors
    /// The kernel refuses the time.
    pub fn set(&mut self, every: Duration) -> io::Result<()> {
        if every == self.every {
            return Ok(());
        }
        let time =
            Timespec { tv_sec: every.as_secs() as i64, tv_nsec: i64::from(every.subsec_nanos()) };
        let wanted = Itimerspec { it_interval: time, it_value: time };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &wanted)?;
        self.every = every;
        Ok(())
    }

    /// Resolves at the next tick, or at once when one was missed.
    ///
    /// # Errors
    /// The reactor is shutting down.
    pub async fn tick(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut count = [0; 8];
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut count)?));
            if let Ok(read) = read {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn ticks_at_its_pace_and_at_a_new_one() {
        let began = Instant::now();
        let mut ticker = Ticker::new(Duration::from_millis(20)).expect("a timer");
        for _ in 0..5 {
            ticker.tick().await.expect("a tick");
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(99), "{took:?}");
        ticker.set(Duration::from_secs(3600)).expect("it is set");
        let next = tokio::time::timeout(Duration::from_millis(100), ticker.tick()).await;
        assert!(next.is_err(), "the old pace is over");
    }

    #[tokio::test]
    async fn what_was_missed_is_one_tick() {
        let ticker = Ticker::new(Duration::from_millis(10)).expect("a timer");
        std::thread::sleep(Duration::from_millis(100));
        ticker.tick().await.expect("a tick");
        let again = Instant::now();
        ticker.tick().await.expect("a tick");
        assert!(again.elapsed() > Duration::from_millis(1), "the missed ones are not made up for");
    }
}
