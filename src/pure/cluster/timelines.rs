//! Where each timeline began: its parent and the switch point, as a history file said when it was read.
//!
//! Numbers of timelines are set aside and skipped, so nothing follows from a number. And a position means
//! something only on the way that leads to it: what a deposed leader wrote after the switch is no progress.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pure::postgres::history::Switch;
use crate::pure::postgres::lsn::Lsn;

/// Timelines that are remembered at most.
const TIMELINES_MAX: usize = 10_000;

/// For every timeline that a leader of this cluster began or had behind it: what it left, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timelines(BTreeMap<u32, Switch>);

impl Timelines {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest that is known to have begun.
    pub fn newest(&self) -> Option<u32> {
        self.0.last_key_value().map(|(timeline, _)| *timeline)
    }

    /// Takes over a timeline's history file: `way`, oldest first.
    pub fn note(&mut self, timeline: u32, way: &[Switch]) {
        let next = way.iter().skip(1).map(|switch| switch.timeline).chain([timeline]);
        self.0.extend(next.zip(way.iter().copied()));
        while self.0.len() > TIMELINES_MAX {
            self.0.pop_first();
        }
    }

    /// How much of what a server holds lies on the way to the newest timeline: the timeline where its way
    /// and that one part, and how far it goes there. `None`: nobody recorded where its timeline began.
    pub fn kept(&self, timeline: u32, position: Lsn) -> Option<(u32, Lsn)> {
        let Some(newest) = self.newest().filter(|newest| timeline < *newest) else {
            return Some((timeline, position));
        };
        let way = self.way(newest);
        let (mut on, mut end) = (timeline, position);
        loop {
            if let Some(left) = way.iter().find(|switch| switch.timeline == on) {
                return Some((on, end.min(left.at)));
            }
            let Some(began) = self.0.get(&on).filter(|began| began.timeline < on) else { break };
            (on, end) = (began.timeline, end.min(began.at));
        }
        // Older than all that is recorded: left before the first switch that is.
        let first = way.last().filter(|first| on < first.timeline)?;
        Some((on, end.min(first.at)))
    }

    /// Backwards from a timeline, as far as it is recorded.
    fn way(&self, timeline: u32) -> Vec<Switch> {
        let before = |switch: &Switch| {
            self.0.get(&switch.timeline).copied().filter(|older| older.timeline < switch.timeline)
        };
        std::iter::successors(self.0.get(&timeline).copied(), before).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(switches: &[(u32, u64)]) -> Vec<Switch> {
        switches.iter().map(|(timeline, at)| Switch { timeline: *timeline, at: Lsn(*at) }).collect()
    }

    /// 3 and 4 were set aside for leaders that failed; 5 began on 2. Then 6 began on 2, too.
    #[test]
    fn a_position_counts_as_far_as_the_newest_way_took_it_over() {
        let mut known = Timelines::default();
        assert_eq!(known.kept(2, Lsn(900)), Some((2, Lsn(900))), "nothing is recorded");
        known.note(5, &way(&[(1, 100), (2, 500)]));
        let kept = |known: &Timelines, on, at| known.kept(on, Lsn(at)).map(|(on, at)| (on, at.0));
        assert_eq!(kept(&known, 2, 900), Some((2, 500)), "a tail on the parent");
        assert_eq!(kept(&known, 2, 400), Some((2, 400)));
        assert_eq!(kept(&known, 1, 900), Some((1, 100)));
        assert_eq!(kept(&known, 5, 900), Some((5, 900)));
        assert_eq!(kept(&known, 4, 900), None, "nobody knows where it began");
        known.note(6, &way(&[(1, 100), (2, 600)]));
        assert_eq!(kept(&known, 5, 900), Some((2, 500)), "abandoned: it parted there");
        assert_eq!(kept(&known, 2, 900), Some((2, 600)));
    }

    #[test]
    fn what_lies_before_the_first_record_was_left_before_it() {
        let mut known = Timelines::default();
        known.note(9, &way(&[(7, 300)]));
        assert_eq!(known.kept(3, Lsn(900)), Some((3, Lsn(300))));
        assert_eq!(known.kept(8, Lsn(900)), None);
    }
}
