//! Rng and time as values: a generator from a seed, and clocks that do not quite agree.
use crate::pure::cluster::Millis;
use crate::pure::random;

/// A stream of randomness; the same seed gives the same stream.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed ^ 0x5EED_0F5A_11AD_0001)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        random::next(&mut self.0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.any() % (high - low + 1)
    }

    /// A place in a list of this length.
    pub fn below(&mut self, length: usize) -> usize {
        (self.any() % length as u64) as usize
    }

    /// True this many times in a thousand.
    pub fn in_thousand(&mut self, times: u64) -> bool {
        self.any() % 1000 < times
    }
}

/// One host's CLOCK_BOOTTIME against real time: an offset and a rate.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub offset: Millis,
    /// Parts per million by which it runs fast (or slow).
    pub ppm: i64,
}

/// Two clocks differ in rate by at most this much in all: just under the 1 % that is promised.
pub const PPM_MAX: i64 = 4900;

impl Clock {
    /// What it shows at this real time.
    pub fn at(&self, real: Millis) -> Millis {
        let drift = i128::from(real) * i128::from(self.ppm) / 1_000_000;
        let shown = i128::from(self.offset) + i128::from(real) + drift;
        u64::try_from(shown).expect("a clock starts well above its drift")
    }

    /// The first real time at which it shows at least this.
    pub fn when(&self, shown: Millis) -> Millis {
        let since = i128::from(shown.saturating_sub(self.offset));
        let mut real = (since * 1_000_000 / i128::from(1_000_000 + self.ppm)) as u64;
        while real > 0 && self.at(real - 1) >= shown {
            real -= 1;
        }
        while self.at(real) < shown {
            real += 1;
        }
        real
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_first_moment_that_shows_it() {
        for ppm in [-PPM_MAX, -17, 0, 250, PPM_MAX] {
            let clock = Clock { offset: 5000, ppm };
            for shown in [5000, 5001, 9_999, 123_456] {
                let real = clock.when(shown);
                assert!(clock.at(real) >= shown, "ppm {ppm} shown {shown}");
                assert!(real == 0 || clock.at(real - 1) < shown, "ppm {ppm} shown {shown}");
            }
        }
    }
}
