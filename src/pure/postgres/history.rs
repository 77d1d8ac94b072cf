//! Timeline histories, and whether our WAL went another way than the leader's.
use serde::{Deserialize, Serialize};

use super::lsn::Lsn;

/// The end of one timeline in a server's past: `timeline` was left for the next one at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    pub timeline: u32,
    pub at: Lsn,
}

/// A server's timeline and the way it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Decimal digits, as pg_controldata prints them.
    pub system_identifier: String,
    pub timeline: u32,
    /// Where its WAL ended when it was asked.
    pub position: Lsn,
    /// Oldest first; empty on timeline 1.
    pub history: Vec<Switch>,
}

/// Reads a `0000000N.history` file: one `timeline LSN reason` per line, `#` comments.
pub fn parse(text: &str) -> Result<Vec<Switch>, String> {
    let mut switches: Vec<Switch> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        let wrong = |what: &str| format!("timeline history, line {}: {what}", number + 1);
        let timeline = first.parse().map_err(|_| wrong(&format!("`{first}` is not a timeline")))?;
        let at = words.next().ok_or_else(|| wrong("the switch point is missing"))?;
        let at = at.parse().map_err(|text: String| wrong(&text))?;
        if switches.last().is_some_and(|last| last.timeline >= timeline) {
            return Err(wrong("timelines must grow"));
        }
        switches.push(Switch { timeline, at });
    }
    Ok(switches)
}

/// In place of the history of a timeline that is skipped: it has no parents.
pub const NO_WAY: &str = "# set aside by Surus: an earlier leader may have begun this timeline\n";

/// This history leads from nowhere: PostgreSQL begins no timeline without a parent.
pub fn is_no_way(text: &str) -> bool {
    parse(text).is_ok_and(|switches| switches.is_empty())
}

/// The lines of a history that are older than `timeline`.
pub fn before(text: &str, timeline: u32) -> String {
    let older = |line: &&str| {
        let number = line.split_whitespace().next().and_then(|word| word.parse::<u32>().ok());
        number.is_some_and(|number| number < timeline)
    };
    text.split_inclusive('\n').filter(older).collect()
}

/// The timeline of which a file in pg_wal has the name.
pub fn file_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".history").filter(|number| number.len() == 8)?;
    u32::from_str_radix(number, 16).ok()
}

/// How our cluster was left, as far as divergence is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A primary that wrote its shutdown checkpoint: the last record is at the given position.
    CleanPrimary { checkpoint: Lsn },
    /// A primary that was killed: nobody knows how much more it wrote.
    CrashedPrimary,
    /// A standby that replayed (or must replay) up to here.
    Standby { end: Lsn },
}

/// The answer, with the sentence that explains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    pub yes: bool,
    pub because: String,
}

/// Where the leader's way to our timeline is another one than ours: two nodes that knew nothing of
/// each other may have begun timelines with the same number. `None`: it is the same timeline, as far
/// as can be told; a server whose history file is gone knows no better.
pub fn namesake(timeline: u32, ours: Option<&[Switch]>, leader: &Lineage) -> Option<String> {
    let before = |switch: &&Switch| switch.timeline < timeline;
    let theirs: Vec<Switch> = leader.history.iter().filter(before).copied().collect();
    let ours: Vec<Switch> = ours?.iter().filter(before).copied().collect();
    if timeline > leader.timeline || ours == theirs {
        return None;
    }
    let way = |switches: &[Switch]| {
        let step = |s: &Switch| format!("{} at {}", s.timeline, s.at);
        switches.iter().map(step).collect::<Vec<_>>().join(", ")
    };
    Some(format!(
        "the leader's timeline {timeline} is another one: it came from {}, ours from {}",
        way(&theirs),
        way(&ours)
    ))
}

/// Can a cluster on `timeline`, left as `left`, simply follow `leader`? `ours` is the history of that
/// timeline as our own file has it.
///
/// Says no only when nothing we hold is absent from the leader's history; every doubt is a yes.
pub fn divergence(
    timeline: u32,
    ours: Option<&[Switch]>,
    left: Left,
    leader: &Lineage,
) -> Divergence {
    let answer = |yes, because| Divergence { yes, because };
    if let Some(because) = namesake(timeline, ours, leader) {
        return answer(true, because);
    }
    if timeline > leader.timeline {
        return answer(
            true,
            format!("we are on timeline {timeline}, the leader only on {}", leader.timeline),
        );
    }
    if timeline == leader.timeline {
        return answer(false, format!("we and the leader are on timeline {timeline}"));
    }
    let Some(switch) = leader.history.iter().find(|switch| switch.timeline == timeline) else {
        return answer(true, format!("timeline {timeline} is not in the leader's history"));
    };
    let at = switch.at;
    match left {
        Left::CrashedPrimary => answer(
            true,
            format!("a crashed primary may have written more than timeline {timeline} kept, {at}"),
        ),
        Left::CleanPrimary { checkpoint } if at > checkpoint => answer(
            false,
            format!("our shutdown checkpoint {checkpoint} precedes the leader's switch at {at}"),
        ),
        Left::CleanPrimary { checkpoint } => answer(
            true,
            format!("the leader left timeline {timeline} at {at}, before our end at {checkpoint}"),
        ),
        Left::Standby { end } if end <= at => {
            answer(false, format!("we reach {end}, the leader switched later, at {at}"))
        }
        Left::Standby { end } => {
            answer(true, format!("the leader left timeline {timeline} at {at}, we reach {end}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leader(timeline: u32, history: &[(u32, u64)]) -> Lineage {
        let history =
            history.iter().map(|&(timeline, at)| Switch { timeline, at: Lsn(at) }).collect();
        Lineage { system_identifier: "1".into(), timeline, position: Lsn(0), history }
    }

    #[test]
    fn reads_a_history_file() {
        let text = "1\t0/5000000\tno recovery target specified\n\n# a remark\n3\t0/6000148\tx\n";
        let switches = parse(text).expect("whole");
        assert_eq!(switches[0], Switch { timeline: 1, at: Lsn(0x500_0000) });
        assert_eq!(switches[1].timeline, 3);
        assert!(parse("1\n").expect_err("no lsn").contains("line 1"));
        assert!(parse("2\t0/1\n1\t0/2\n").expect_err("backwards").contains("line 2"));
    }

    #[test]
    fn a_clean_primary_follows_when_its_checkpoint_was_replayed() {
        let primary = |at| Left::CleanPrimary { checkpoint: Lsn(at) };
        let leader = leader(2, &[(1, 100)]);
        assert!(!divergence(1, None, primary(28), &leader).yes);
        assert!(divergence(1, None, primary(100), &leader).yes);
        assert!(divergence(1, None, primary(128), &leader).yes);
        assert!(!divergence(2, None, primary(128), &leader).yes);
    }

    #[test]
    fn a_standby_follows_up_to_the_switch() {
        let standby = |at| Left::Standby { end: Lsn(at) };
        let leader = leader(3, &[(1, 100), (2, 200)]);
        assert!(!divergence(1, None, standby(100), &leader).yes);
        assert!(divergence(1, None, standby(101), &leader).yes);
        assert!(!divergence(2, None, standby(150), &leader).yes);
    }

    /// Both the old leader and a replica that had not heard of it began timeline 3.
    #[test]
    fn a_timeline_of_the_same_number_is_not_ours() {
        let theirs = leader(4, &[(1, 100), (2, 200), (3, 900)]);
        let standby = Left::Standby { end: Lsn(250) };
        let switch = |timeline, at| Switch { timeline, at: Lsn(at) };
        let ours = [switch(1, 100), switch(2, 180)];
        assert!(!divergence(3, None, standby, &theirs).yes);
        assert!(!divergence(3, Some(&[switch(1, 100), switch(2, 200)]), standby, &theirs).yes);
        let answer = divergence(3, Some(&ours), standby, &theirs);
        assert!(answer.yes && answer.because.contains("is another one"), "{answer:?}");
        let same_number = leader(3, &[(1, 100), (2, 200)]);
        assert!(divergence(3, Some(&ours), standby, &same_number).yes);
        assert!(divergence(3, Some(&ours), Left::CrashedPrimary, &same_number).yes);
        assert!(!divergence(1, Some(&[]), Left::Standby { end: Lsn(50) }, &same_number).yes);
    }

    #[test]
    fn doubt_is_divergence() {
        let leader = leader(3, &[(1, 100)]);
        assert!(divergence(1, None, Left::CrashedPrimary, &leader).yes);
        assert!(!divergence(3, None, Left::CrashedPrimary, &leader).yes);
        assert!(divergence(2, None, Left::Standby { end: Lsn(0) }, &leader).yes);
        assert!(divergence(4, None, Left::Standby { end: Lsn(0) }, &leader).yes);
    }

    proptest! {
        #[test]
        fn what_the_leader_does_not_hold_is_never_followed(
            timeline in 1u32..6, end in 0u64..300, one in 1u64..100, two in 100u64..200,
        ) {
            let leader = leader(3, &[(1, one), (2, two)]);
            let kept = match timeline { 1 => one, 2 => two, 3 => u64::MAX, _ => 0 };
            let standby = divergence(timeline, None, Left::Standby { end: Lsn(end) }, &leader);
            prop_assert!(standby.yes || end <= kept);
            let primary = Left::CleanPrimary { checkpoint: Lsn(end) };
            prop_assert!(divergence(timeline, None, primary, &leader).yes || end < kept);
        }

        #[test]
        fn a_history_is_read_back(starts in proptest::collection::vec(1u64..1 << 40, 0..5)) {
            let text: String = starts.iter().enumerate()
                .map(|(index, at)| format!("{}\t{}\twhy\n", index + 1, Lsn(*at))).collect();
            let switches = parse(&text).expect("whole");
            prop_assert_eq!(switches.iter().map(|s| s.at.0).collect::<Vec<_>>(), starts);
        }
    }
}
