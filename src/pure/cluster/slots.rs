//! Replication slots: those that nobody speaks for hold WAL until the disk is full; those of a replica stand
//! where the leader's stand, so that whoever is away while the leader changes goes on where it was.
use std::collections::BTreeMap;

use super::Millis;
use super::facts::Slot;
use crate::pure::config::Dynamic;
use crate::pure::postgres::lsn::Lsn;

/// What a slot that another node stands for needs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Made with WAL reserved, which begins at the last restartpoint.
    Make,
    /// It stands where it must not: made anew.
    Remake,
    /// Forwards, to this position.
    Advance(Lsn),
}

/// The next step of a slot that nobody uses here. `leaders`: where the leader's of this name stands; `None`
/// where it has none that holds WAL. `redo`: where our last restartpoint begins, before which nothing is sure
/// to be kept; `replayed`: beyond it no slot can be moved. Never beyond the leader's.
/// Spec: SL-3, SL-41.
pub fn step(own: Option<&Slot>, leaders: Option<Lsn>, redo: Lsn, replayed: Lsn) -> Option<Step> {
    let Some(own) = own else { return Some(Step::Make) };
    if own.active || !own.physical {
        return None;
    }
    let too_far = leaders.is_some_and(|at| own.restart_lsn > at && own.restart_lsn > redo);
    if own.lost || own.restart_lsn == Lsn(0) || too_far {
        return Some(Step::Remake);
    }
    let to = leaders.unwrap_or(redo).min(replayed);
    (to > own.restart_lsn).then_some(Step::Advance(to))
}

/// Since when each has been nobody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans(BTreeMap<String, Millis>);

impl Orphans {
    /// Physical slots without a client that no member and no key of the dynamic configuration
    /// speaks for: those seen for the first time, and those due to be dropped. Logical ones are not
    /// Surus's to judge.
    pub fn look(
        &mut self,
        slots: &[Slot],
        known: &[&str],
        dynamic: &Dynamic,
        now: Millis,
    ) -> (Vec<String>, Vec<String>) {
        let spoken_for = |slot: &Slot| {
            let ignored = |rule: &crate::pure::config::IgnoredSlot| {
                rule.name.as_ref().is_none_or(|name| *name == slot.name)
            };
            known.contains(&slot.name.as_str()) || dynamic.ignored_slots.iter().any(ignored)
        };
        let orphan = |slot: &&Slot| slot.physical && !slot.active && !spoken_for(slot);
        let names: Vec<&String> = slots.iter().filter(orphan).map(|slot| &slot.name).collect();
        self.0.retain(|name, _| names.contains(&name));
        let new: Vec<String> = names
            .iter()
            .filter(|name| !self.0.contains_key(**name))
            .map(|n| (*n).clone())
            .collect();
        self.0.extend(new.iter().map(|name| (name.clone(), now)));
        let over = |since: &Millis| now >= since + dynamic.member_slots_ttl_ms;
        let due = self.0.iter().filter(|(_, since)| over(since)).map(|(name, _)| name.clone());
        (new, due.collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slot(name: &str, active: bool, physical: bool) -> Slot {
        Slot { name: name.into(), active, physical, ..Slot::default() }
    }

    /// The leader is at 50, our last restartpoint at 20, replay at 60.
    #[test]
    fn a_replicas_slot_stands_where_the_leaders_stands() {
        let at = |restart_lsn| Slot { restart_lsn: Lsn(restart_lsn), ..slot("n3", false, true) };
        let next =
            |own: &Slot, leaders: Option<u64>| step(Some(own), leaders.map(Lsn), Lsn(20), Lsn(60));
        assert_eq!(step(None, Some(Lsn(50)), Lsn(20), Lsn(60)), Some(Step::Make));
        assert_eq!(next(&at(20), Some(50)), Some(Step::Advance(Lsn(50))));
        assert_eq!(next(&at(50), Some(50)), None);
        assert_eq!(next(&at(20), Some(70)), Some(Step::Advance(Lsn(60))), "not beyond replay");
        assert_eq!(next(&at(55), Some(50)), Some(Step::Remake), "a leftover of our own lead");
        assert_eq!(next(&at(20), Some(10)), None, "nothing older is here");
        assert_eq!(next(&at(0), Some(50)), Some(Step::Remake), "it holds nothing");
        assert_eq!(next(&at(10), None), Some(Step::Advance(Lsn(20))), "the leader has none");
        assert_eq!(next(&Slot { active: true, ..at(20) }, Some(50)), None);
        assert_eq!(next(&Slot { lost: true, ..at(20) }, Some(50)), Some(Step::Remake));
    }

    /// Spec: A-3, P-10.
    #[test]
    fn a_slot_is_dropped_when_nobody_has_spoken_for_it_for_a_while() {
        let dynamic = Dynamic::from_value(Some(&json!({"member_slots_ttl": 60,
            "ignore_slots": [{"name": "backup", "type": "physical"}, {"name": "x", "database": "d"},
                             {"plugin": "wal2json"}]})));
        assert_eq!(dynamic.warnings, Vec::<String>::new());
        let mut orphans = Orphans::default();
        let idle = ["n2", "backup", "x", "old"].map(|name| slot(name, false, true));
        let logical = slot("cdc", false, false);
        let seen =
            |active: bool| [&idle[..], &[logical.clone(), slot("tool", active, true)]].concat();
        let mut look = |active: bool, now: Millis| {
            let (new, due) = orphans.look(&seen(active), &["n2"], &dynamic, now);
            (new.join(" "), due.join(" "))
        };
        assert_eq!(look(true, 0), ("x old".into(), "".into()));
        assert_eq!(look(false, 59_000), ("tool".into(), "".into()));
        assert_eq!(look(true, 60_000), ("".into(), "old x".into()));
        assert_eq!(look(false, 70_000), ("tool".into(), "old x".into()), "counted anew");
    }

    /// One rule without a name or a plugin covers them all.
    #[test]
    fn all_physical_slots_can_be_left_alone() {
        let rule = json!({"ignore_slots": [{"type": "physical"}], "member_slots_ttl": 0});
        let dynamic = Dynamic::from_value(Some(&rule));
        let slots = [slot("old", false, true)];
        assert_eq!(Orphans::default().look(&slots, &[], &dynamic, 9).1, Vec::<String>::new());
        let dynamic = Dynamic::from_value(Some(&json!({"member_slots_ttl": 0})));
        assert_eq!(Orphans::default().look(&slots, &[], &dynamic, 9).1, ["old"]);
    }
}
