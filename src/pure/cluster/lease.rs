//! Who may write, until when: the arithmetic of the lease on both sides.
//!
//! Holder: deadline = the time it *sent* the last beat that was answered + ttl − margin.
//! Arbiter: the lease may be declared over when, on its own clock, ttl × (1 + drift) has passed
//! since the last beat it confirmed, since the grant, and since it won its own election: an
//! earlier arbiter may have confirmed beats this one never heard of, but its majority round ended
//! before a voter of this election voted (quorum intersection), so before the election was won.
use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::Millis;

/// The guard's budget between a holder's deadline and the earliest next grant: SIGQUIT, 300 ms,
/// SIGKILL, and room for a machine under load.
pub const MARGIN_MS: Millis = 700;
/// Clock *rates* of two nodes differ by at most this many percent.
pub const DRIFT_PERCENT: u64 = 1;
/// Unanswered beats that are remembered.
const SENT_MAX: usize = 64;

/// 16 bytes that only the holder and whom it renewed its lease with know (SEC-9).
pub type Nonce = [u64; 2];

/// `ttl` on the arbiter's side: what the holder counts on, plus drift, rounded up.
pub fn ttl_with_drift(ttl_ms: Millis) -> Millis {
    ttl_ms + (ttl_ms * DRIFT_PERCENT).div_ceil(100)
}

/// How often the holder beats.
pub fn beat_every(ttl_ms: Millis) -> Millis {
    (ttl_ms / 6).clamp(150, 2000)
}

/// The holder's side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holder {
    pub epoch: u64,
    /// No write may be acknowledged at or after this instant of our own clock.
    pub deadline: Option<Millis>,
    /// When each unanswered beat was sent, the ttl it counts on, and what its answer must return.
    sent: BTreeMap<u64, (Millis, Millis, Nonce)>,
    /// What nonces are made of; known to this process only.
    seed: u64,
    serial: u64,
    pub last_sent: Option<Millis>,
    /// What the arbiter had applied when it first answered this life of the node. Whoever comes back knows
    /// only what its disk calls committed: it may not have heard again yet what it had told the log itself
    /// (which standbys it waits for, say), and must not act on less.
    pub abreast_at: Option<u64>,
}

impl Holder {
    pub fn new(epoch: u64, seed: u64) -> Holder {
        Holder { epoch, seed, ..Holder::default() }
    }

    /// A beat leaves now; its serial, and what the answer must return.
    pub fn beat(&mut self, now: Millis, ttl_ms: Millis) -> (u64, Nonce) {
        self.serial += 1;
        let nonce = self.nonce(now);
        self.sent.insert(self.serial, (now, ttl_ms, nonce));
        if self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
        self.last_sent = Some(now);
        (self.serial, nonce)
    }

    /// Nobody can tell it without the seed.
    fn nonce(&self, now: Millis) -> Nonce {
        let mut hash = Sha256::new();
        for part in [self.seed, self.epoch, self.serial, now] {
            hash.update(part.to_be_bytes());
        }
        let bytes = hash.finalize();
        let word = |at: usize| (0..8).fold(0, |word, i| word << 8 | u64::from(bytes[at + i]));
        [word(0), word(8)]
    }

    /// A beat was answered. True if the deadline moved. An answer to another beat than the one that was
    /// sent counts for nothing, and leaves it open.
    pub fn answered(&mut self, epoch: u64, serial: u64, nonce: Nonce) -> bool {
        if epoch != self.epoch || self.sent.get(&serial).is_none_or(|sent| sent.2 != nonce) {
            return false;
        }
        let Some((sent, ttl_ms, _)) = self.sent.remove(&serial) else { return false };
        let deadline = sent + ttl_ms.saturating_sub(MARGIN_MS);
        let moved = self.deadline.is_none_or(|old| deadline > old);
        if moved {
            self.deadline = Some(deadline);
        }
        self.sent.retain(|other, _| *other > serial);
        moved
    }

    pub fn is_live(&self, now: Millis) -> bool {
        self.deadline.is_some_and(|deadline| now < deadline)
    }

    /// The ttl shrank: whatever was counted on under the longer one is cut, at once.
    pub fn shorten(&mut self, by: Millis) {
        self.deadline = self.deadline.map(|d| d.saturating_sub(by));
        for (_, ttl, _) in self.sent.values_mut() {
            *ttl = ttl.saturating_sub(by);
        }
    }
}

/// The arbiter's side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arbiter {
    /// When this node won its election.
    pub won_at: Millis,
    /// Epoch, and until when it must be respected.
    confirmed: Option<(u64, Millis)>,
    /// Epoch that we have proposed to end: its beats are no longer answered.
    pub ending: Option<u64>,
}

impl Arbiter {
    pub fn new(won_at: Millis) -> Arbiter {
        Arbiter { won_at, ..Arbiter::default() }
    }

    /// A beat (or the grant itself) was confirmed now. False if the epoch is being ended.
    pub fn confirm(&mut self, now: Millis, epoch: u64, ttl_ms: Millis) -> bool {
        if self.ending == Some(epoch) {
            return false;
        }
        let until = now + ttl_with_drift(ttl_ms);
        match &mut self.confirmed {
            Some((known, old)) if *known == epoch => *old = (*old).max(until),
            other => *other = Some((epoch, until)),
        }
        true
    }

    /// The earliest instant at which the lease `epoch` may be declared over.
    pub fn not_before(&self, epoch: u64, ttl_ms: Millis) -> Millis {
        let elected = self.won_at + ttl_with_drift(ttl_ms);
        match self.confirmed {
            Some((known, until)) if known == epoch => until.max(elected),
            _ => elected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEC-9: who counts serials up is not believed.
    #[test]
    fn only_what_was_sent_with_a_beat_answers_it() {
        let mut holder = Holder::new(4, 7);
        let (serial, nonce) = holder.beat(1000, 6000);
        let (_, other) = holder.beat(1000, 6000);
        assert_ne!(nonce, other);
        assert!(!holder.answered(4, serial, [0, 0]) && !holder.answered(4, serial, other));
        assert!(holder.deadline.is_none() && holder.answered(4, serial, nonce));
        assert_eq!(holder.deadline, Some(7000 - MARGIN_MS));
        let elsewhere = Holder::new(4, 8).beat(1000, 6000).1;
        assert_ne!(nonce, elsewhere);
    }
}
