//! What the page that daemon and guard share says: which epoch may write, until when.
//!
//! The one logic of it: the daemon and the guard process use it on shared memory, the simulator as a value.
use super::cluster::Millis;

/// Deadlines have 42 bits (139 years of milliseconds), the epoch's lowest 22 bits stand above.
const DEADLINE_BITS: u32 = 42;
const DEADLINE_MASK: u64 = (1 << DEADLINE_BITS) - 1;

/// Which epoch may write, and until when (the host's own clock, in ms): one word, so that a deadline of
/// one epoch never stands beside another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant(u64);

impl Grant {
    /// Nobody may write, and nobody is stopped.
    pub const NONE: Grant = Grant(0);

    /// Epochs are told apart by their lowest 22 bits: no cluster has four million in one life.
    pub fn new(epoch: u64, deadline: Millis) -> Grant {
        Grant(epoch << DEADLINE_BITS | deadline.clamp(1, DEADLINE_MASK))
    }

    /// As it stands in the page.
    pub fn of_word(word: u64) -> Grant {
        Grant(word)
    }

    pub fn word(self) -> u64 {
        self.0
    }

    pub fn is_armed(self) -> bool {
        self != Grant::NONE
    }

    pub fn deadline(self) -> Millis {
        self.0 & DEADLINE_MASK
    }

    pub fn is_of(self, epoch: u64) -> bool {
        self.is_armed() && self.0 >> DEADLINE_BITS == epoch << DEADLINE_BITS >> DEADLINE_BITS
    }

    /// Armed, and its deadline has passed: PostgreSQL is to be stopped.
    pub fn is_over(self, now: Millis) -> bool {
        self.is_armed() && now >= self.deadline()
    }

    /// With this deadline, earlier or later than before: the ttl may have been lowered. `None` where it is
    /// not armed for this epoch: then nothing changes.
    pub fn moved(self, epoch: u64, deadline: Millis) -> Option<Grant> {
        self.is_of(epoch).then(|| Grant::new(epoch, deadline))
    }

    /// Armed for `epoch` until `deadline`; `armed_epoch` is the full epoch of what is armed now.
    ///
    /// # Errors
    /// The deadline has passed, or a later epoch is armed.
    pub fn armed_for(
        self,
        armed_epoch: u64,
        epoch: u64,
        deadline: Millis,
        now: Millis,
    ) -> Result<Grant, String> {
        if deadline <= now {
            return Err(format!("the deadline of epoch {epoch} has passed already"));
        }
        if self.is_armed() && !self.is_of(epoch) && armed_epoch > epoch {
            return Err(format!("the guard is armed for a later epoch than {epoch}"));
        }
        Ok(Grant::new(epoch, deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_moves_both_ways_and_only_within_its_epoch() {
        assert_eq!(Grant::NONE.moved(0, 100), None, "disarmed stays disarmed");
        let grant = Grant::new(7, 100);
        assert_eq!((grant.moved(6, 200), grant.moved(8, 200)), (None, None));
        assert_eq!(grant.moved(7, 200), Some(Grant::new(7, 200)));
        assert_eq!(grant.moved(7, 50), Some(Grant::new(7, 50)), "the ttl was lowered");
        assert!(grant.is_over(100) && !grant.is_over(99) && !Grant::NONE.is_over(100));
    }

    #[test]
    fn only_a_deadline_that_is_ahead_arms_and_never_an_earlier_epoch() {
        assert!(Grant::NONE.armed_for(0, 7, 100, 100).is_err());
        assert_eq!(Grant::NONE.armed_for(0, 7, 100, 99), Ok(Grant::new(7, 100)));
        assert!(Grant::new(7, 100).armed_for(7, 6, 300, 99).is_err());
        assert_eq!(Grant::new(7, 100).armed_for(7, 8, 300, 99), Ok(Grant::new(8, 300)));
    }

    #[test]
    fn large_epochs_and_deadlines_fit() {
        let grant = Grant::new(u64::MAX, u64::MAX);
        assert!(grant.is_of(u64::MAX) && !grant.is_of(0));
        assert_eq!(grant.deadline(), DEADLINE_MASK);
        assert!(Grant::new(0, 0).is_armed(), "a deadline long past is still one");
    }
}
