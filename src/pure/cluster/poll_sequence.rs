//! Looks at PostgreSQL that overlap: what one that began earlier says is older, whenever it ends.
//!
//! Else a slow look that began before a setting was changed would say, after the change, that the old value is
//! in force, and somebody would be counted on for whom nobody waits.

/// The order in which looks began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollSequence {
    begun: u64,
    told: u64,
}

impl PollSequence {
    /// A look begins; its number.
    pub fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// The look of this number is over: is what it saw news?
    pub fn is_news(&mut self, number: u64) -> bool {
        let news = number > self.told;
        self.told = self.told.max(number);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_earlier_is_no_news_after_what_began_later() {
        let mut looks = PollSequence::default();
        let (slow, quick) = (looks.begin(), looks.begin());
        assert!(looks.is_news(quick));
        assert!(!looks.is_news(slow));
        let next = looks.begin();
        assert!(looks.is_news(next));
    }
}
