//! Who may write, until when: the arithmetic of the lease on both sides.
//!
//! Holder: deadline = the time it *sent* the last renewal that was answered + ttl − margin. A longer ttl counts
//! for renewals sent after the log knows it. A shorter one counts from the first answered renewal that carries
//! it; only when the guard is bound to that deadline does the holder tell the log ([`Lease::counted_ms`]).
//!
//! [`Lease::counted_ms`]: super::state::Lease::counted_ms
//!
//! Arbiter: the lease may be declared over when, on its own clock, ttl × (1 + drift) has passed
//! since the last renewal it confirmed, since the grant, and since it won its own election: an
//! earlier arbiter may have confirmed renewals this one never heard of, but its majority round ended
//! before a voter of this election voted (quorum intersection), so before the election was won.
use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::Millis;

/// The guard's budget between a holder's deadline and the earliest next grant: SIGQUIT, 300 ms,
/// SIGKILL, and room for a machine under load.
pub const MARGIN_MS: Millis = 700;
/// Clock *rates* of two nodes differ by at most this many percent.
pub const DRIFT_PERCENT: u64 = 1;
/// Unanswered renewals that are remembered.
const SENT_MAX: usize = 64;

/// 16 bytes that only the holder and whom it renewed its lease with know (SEC-9).
pub type Nonce = [u64; 2];

/// `ttl` on the arbiter's side: what the holder counts on, plus drift, rounded up.
pub fn ttl_with_drift(ttl_ms: Millis) -> Millis {
    ttl_ms + (ttl_ms * DRIFT_PERCENT).div_ceil(100)
}

/// How often the holder renewals.
pub fn renew_every(ttl_ms: Millis) -> Millis {
    (ttl_ms / 6).clamp(150, 2000)
}

/// The holder's side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holder {
    pub epoch: u64,
    /// No write may be acknowledged at or after this instant of our own clock.
    pub deadline: Option<Millis>,
    /// When each unanswered renewal was sent, the ttl it counts on, and what its answer must return.
    sent: BTreeMap<u64, (Millis, Millis, Nonce)>,
    /// What nonces are made of; known to this process only.
    seed: u64,
    serial: u64,
    pub last_sent: Option<Millis>,
    /// The ttl of the last renewal that was sent, and of the last that was answered.
    carried_ms: Millis,
    answered_ttl_ms: Option<Millis>,
    /// The deadline that the host last said its guard is bound to.
    bound: Option<Millis>,
    /// What the arbiter had applied when it first answered this life of the node. Whoever comes back knows
    /// only what its disk calls committed: it may not have heard again yet what it had told the log itself
    /// (which standbys it waits for, say), and must not act on less.
    pub caught_up_at: Option<u64>,
}

impl Holder {
    pub fn new(epoch: u64, seed: u64) -> Holder {
        Holder { epoch, seed, ..Holder::default() }
    }

    /// A renewal leaves now; its serial, and what the answer must return.
    pub fn renewal(&mut self, now: Millis, ttl_ms: Millis) -> (u64, Nonce) {
        self.serial += 1;
        let nonce = self.nonce(now);
        self.sent.insert(self.serial, (now, ttl_ms, nonce));
        if self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
        (self.last_sent, self.carried_ms) = (Some(now), ttl_ms);
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

    /// A renewal was answered, for `ttl_ms` at most. True if that says anything new: the deadline is then what
    /// it says, which is earlier than before where the ttl was lowered. An answer to another renewal than the
    /// one that was sent counts for nothing, and leaves it open.
    pub fn answered(&mut self, epoch: u64, serial: u64, nonce: Nonce, ttl_ms: Millis) -> bool {
        if epoch != self.epoch || self.sent.get(&serial).is_none_or(|sent| sent.2 != nonce) {
            return false;
        }
        let Some((sent, carried, _)) = self.sent.remove(&serial) else { return false };
        let ttl_ms = carried.min(ttl_ms);
        self.deadline = Some(sent + ttl_ms.saturating_sub(MARGIN_MS));
        self.answered_ttl_ms = Some(ttl_ms);
        // What was said of an earlier deadline says nothing of a guard that took over this one.
        self.bound = None;
        self.sent.retain(|other, _| *other > serial);
        true
    }

    /// When the next renewal is due: at once when another ttl counts than the last one carried, and until one
    /// is answered under a longer ttl as often as the shorter needs it.
    pub fn is_due(&self, now: Millis, ttl_ms: Millis) -> bool {
        let Some(last) = self.last_sent else { return true };
        let shortest = self.answered_ttl_ms.map_or(ttl_ms, |answered| answered.min(ttl_ms));
        self.carried_ms != ttl_ms || now >= last + renew_every(shortest)
    }

    /// The guard of this epoch, if there is one, stops PostgreSQL at this deadline or earlier.
    pub fn guard_is_bound(&mut self, deadline: Millis) {
        self.bound = Some(deadline);
    }

    /// The guard is bound to a renewal that carried no more than this ttl.
    pub fn is_bound_to(&self, ttl_ms: Millis) -> bool {
        let (Some(bound), Some(deadline)) = (self.bound, self.deadline) else { return false };
        bound <= deadline && self.answered_ttl_ms.is_some_and(|answered| answered <= ttl_ms)
    }

    pub fn is_live(&self, now: Millis) -> bool {
        self.deadline.is_some_and(|deadline| now < deadline)
    }
}

/// The arbiter's side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arbiter {
    /// When this node won its election.
    pub won_at: Millis,
    /// Epoch, and when a renewal of it (or its grant) was last confirmed.
    confirmed: Option<(u64, Millis)>,
    /// Epoch that we have proposed to end: its renewals are no longer answered.
    pub ending: Option<u64>,
}

impl Arbiter {
    pub fn new(won_at: Millis) -> Arbiter {
        Arbiter { won_at, ..Arbiter::default() }
    }

    /// A renewal (or the grant itself) was confirmed now. False if the epoch is being ended.
    pub fn confirm(&mut self, now: Millis, epoch: u64) -> bool {
        if self.ending == Some(epoch) {
            return false;
        }
        self.confirmed = Some((epoch, now));
        true
    }

    /// The earliest instant at which the lease `epoch` may be declared over, by the ttl agreed on: no
    /// renewal carries a longer one, because the holder's guard is bound before the log knows a shorter.
    pub fn not_before(&self, epoch: u64, ttl_ms: Millis) -> Millis {
        let known = self.confirmed.filter(|(known, _)| *known == epoch);
        known.map_or(self.won_at, |(_, at)| at.max(self.won_at)) + ttl_with_drift(ttl_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEC-9: who counts serials up is not believed.
    #[test]
    fn only_what_was_sent_with_a_beat_answers_it() {
        let mut holder = Holder::new(4, 7);
        let (serial, nonce) = holder.renewal(1000, 6000);
        let (_, other) = holder.renewal(1000, 6000);
        assert_ne!(nonce, other);
        assert!(
            !holder.answered(4, serial, [0, 0], 6000) && !holder.answered(4, serial, other, 6000)
        );
        assert!(holder.deadline.is_none() && holder.answered(4, serial, nonce, 6000));
        assert_eq!(holder.deadline, Some(7000 - MARGIN_MS));
        let elsewhere = Holder::new(4, 8).renewal(1000, 6000).1;
        assert_ne!(nonce, elsewhere);
    }

    /// Of a lease under 30 s a renewal under 2 s is answered: the deadline moves back, and only when the
    /// host has said that the guard is bound to it may the log know.
    #[test]
    fn a_shorter_ttl_counts_from_its_first_answer_and_binds_the_guard_first() {
        let mut holder = Holder::new(4, 7);
        let (one, nonce) = holder.renewal(1_000, 30_000);
        assert!(holder.answered(4, one, nonce, 30_000));
        holder.guard_is_bound(30_300);
        assert!(!holder.is_due(2_900, 30_000) && holder.is_due(2_900, 2_000), "at once");
        let (two, nonce) = holder.renewal(2_900, 2_000);
        assert!(!holder.is_bound_to(2_000) && holder.is_live(20_000), "not answered yet");
        assert!(holder.answered(4, two, nonce, 2_000));
        assert_eq!(holder.deadline, Some(4_900 - MARGIN_MS));
        assert!(!holder.is_bound_to(2_000), "the guard is not");
        holder.guard_is_bound(4_900 - MARGIN_MS);
        assert!(holder.is_bound_to(2_000));
    }

    #[test]
    fn a_longer_ttl_counts_for_what_carries_it_and_until_then_renewals_are_as_frequent_as_before() {
        let mut holder = Holder::new(4, 7);
        let (one, nonce) = holder.renewal(1_000, 2_000);
        assert!(holder.answered(4, one, nonce, 2_000));
        assert!(!holder.is_due(1_100, 2_000) && holder.is_due(1_100, 30_000), "at once");
        let (two, nonce) = holder.renewal(1_100, 30_000);
        assert_eq!(holder.deadline, Some(3_000 - MARGIN_MS));
        assert!(!holder.is_due(1_400, 30_000) && holder.is_due(1_500, 30_000), "it may be lost");
        assert!(holder.answered(4, two, nonce, 2_000), "an arbiter that knows of two seconds only");
        assert_eq!(holder.deadline, Some(3_100 - MARGIN_MS));
    }
}
