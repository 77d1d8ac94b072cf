//! What became of acknowledged writes: lost, doubled, reordered; and who wrote when.
//!
//! A plain function of what the clients remember and what the cluster holds at the end. Two facts
//! make its rules exact: replication keeps a prefix of the WAL, so a write that was done before a
//! surviving one on the same timeline survives, too; and whoever begins to lead begins a timeline,
//! so a timeline and a node name one reign, and reigns may not interleave.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::history::{Act, Entry, Final, Micros, Position};

/// What was promised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// At most so many bytes, besides what the leader wrote when nobody heard it any more.
    Async {
        lag_max: u64,
    },
    Sync,
}

#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub mode: Mode,
    pub ttl: Micros,
    /// Pauses between two acknowledged writes that are shorter than this are none.
    pub pause: Micros,
}

#[derive(Debug, Default)]
pub struct Report {
    pub acknowledged: usize,
    pub unknown: usize,
    pub reads: usize,
    pub lost: usize,
    /// Bytes of WAL between the end that survived and the last acknowledged write behind it, by
    /// timeline.
    pub lost_bytes: BTreeMap<u32, u64>,
    /// Read by somebody and gone later, although nobody was promised them.
    pub withdrawn: usize,
    /// Timelines that somebody wrote on, besides the first.
    pub failovers: usize,
    /// Timelines whose end is not in the cluster's history.
    pub silent: Vec<u32>,
    pub not_writable: Micros,
    pub longest_pause: Micros,
    pub violations: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |micros: Micros| micros as f64 / 1e6;
        writeln!(f, "acknowledged   {} writes ({} more unknown)", self.acknowledged, self.unknown)?;
        writeln!(f, "lost           {} acknowledged, bytes {:?}", self.lost, self.lost_bytes)?;
        writeln!(f, "reads          {}; {} saw what is gone", self.reads, self.withdrawn)?;
        let (count, silent) = (self.failovers, &self.silent);
        writeln!(f, "failovers      {count}; not in the history: timelines {silent:?}")?;
        let (all, most) = (s(self.not_writable), s(self.longest_pause));
        writeln!(f, "not writable   {all:.1} s in all, {most:.1} s at most")?;
        write!(f, "violations     {}", self.violations.len())?;
        self.violations.iter().try_for_each(|what| write!(f, "\n  {what}"))
    }
}

/// A node's time on a timeline.
#[derive(Clone, Copy, Debug)]
struct Reign {
    timeline: u32,
    node: usize,
    from: Micros,
    to: Micros,
}

/// Violations of one kind that are told in full.
const TOLD_MAX: usize = 5;

struct Checker<'a> {
    history: &'a [Entry],
    last: &'a Final,
    rules: Rules,
    set: BTreeMap<(usize, u64), Vec<u64>>,
    stamps: BTreeMap<u64, u64>,
    kinds: BTreeMap<&'static str, usize>,
    report: Report,
}

/// Judges a run.
pub fn check(history: &[Entry], last: &Final, rules: Rules) -> Report {
    let mut set: BTreeMap<(usize, u64), Vec<u64>> = BTreeMap::new();
    for (client, seq, place) in &last.set {
        set.entry((*client, *seq)).or_default().push(*place);
    }
    let stamps = last.steps.iter().map(|(version, stamp)| (*stamp, *version)).collect();
    let report = Report::default();
    let mut checker = Checker { history, last, rules, set, stamps, kinds: BTreeMap::new(), report };
    checker.count();
    checker.one_writer();
    checker.losses();
    checker.doubled();
    checker.order_of_the_set();
    checker.order_of_the_register();
    checker.reads_of_the_set();
    checker.reads_of_the_register();
    checker.losses_are_reported();
    checker.tell_how_many();
    checker.report
}

impl Checker<'_> {
    fn broken(&mut self, kind: &'static str, what: String) {
        let count = self.kinds.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD_MAX {
            self.report.violations.push(format!("{kind}: {what}"));
        }
    }

    fn tell_how_many(&mut self) {
        for (kind, count) in self.kinds.iter().filter(|(_, count)| **count > TOLD_MAX) {
            let more = count - TOLD_MAX;
            self.report.violations.push(format!("{kind}: and {more} more"));
        }
    }

    fn survives(&self, entry: &Entry) -> bool {
        match &entry.act {
            Act::Added { seq, .. } => self.set.contains_key(&(entry.client, *seq)),
            Act::Swapped { to, version, .. } => self.stamps.get(to) == Some(version),
            _ => true,
        }
    }

    fn acked(&self) -> Vec<(&Entry, Position)> {
        self.history.iter().filter_map(|e| Some((e, e.written_at()?))).collect()
    }

    fn count(&mut self) {
        let mut times: Vec<Micros> = self.acked().iter().map(|(e, _)| e.answered).collect();
        times.sort_unstable();
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        let pauses: Vec<Micros> = pauses.filter(|pause| *pause >= self.rules.pause).collect();
        let timelines: BTreeSet<u32> = self.acked().iter().map(|(_, at)| at.timeline).collect();
        let is = |wanted: fn(&Act) -> bool| self.history.iter().filter(|e| wanted(&e.act)).count();
        let report = Report {
            acknowledged: times.len(),
            unknown: is(|a| matches!(a, Act::MaybeAdded { .. } | Act::MaybeSwapped { .. })),
            reads: is(|a| matches!(a, Act::ReadRegister { .. } | Act::ReadSet { .. })),
            failovers: timelines.len().saturating_sub(1),
            not_writable: pauses.iter().sum(),
            longest_pause: pauses.into_iter().max().unwrap_or(0),
            ..Report::default()
        };
        self.report = report;
    }

    /// No write of an earlier reign begins after one of a later reign was acknowledged.
    fn one_writer(&mut self) {
        let mut first: BTreeMap<(u32, usize), Micros> = BTreeMap::new();
        for (entry, at) in self.acked() {
            let began = first.entry((at.timeline, entry.node)).or_insert(entry.answered);
            *began = (*began).min(entry.answered);
        }
        let mut reigns: Vec<_> = first.into_iter().collect();
        reigns.sort_by_key(|(_, began)| *began);
        let next = |reign: (u32, usize)| {
            let place = reigns.iter().position(|(r, _)| *r == reign)?;
            reigns.get(place + 1).copied()
        };
        let mut late = Vec::new();
        for (entry, at) in self.acked() {
            let Some(((timeline, node), began)) = next((at.timeline, entry.node)) else { continue };
            if entry.sent > began {
                let ms = (entry.sent - began) / 1000;
                let new = format!("n{} wrote on timeline {timeline}", node + 1);
                late.push(format!("{ms} ms after {new}, still: {entry}"));
            }
        }
        late.into_iter().for_each(|what| self.broken("two writers", what));
    }

    /// Where the history that survived leaves this timeline.
    fn end_of(&self, timeline: u32) -> u64 {
        let mut ends = self.last.ends.range(..=timeline);
        ends.next_back().map_or(u64::MAX, |(_, end)| *end)
    }

    fn losses(&mut self) {
        let lost: Vec<(Entry, Position)> = self
            .acked()
            .into_iter()
            .filter(|(entry, _)| !self.survives(entry))
            .map(|(e, at)| (e.clone(), at))
            .collect();
        self.report.lost = lost.len();
        for (entry, at) in &lost {
            let end = self.end_of(at.timeline);
            let behind = self.report.lost_bytes.entry(at.timeline).or_default();
            *behind = (*behind).max(at.lsn.saturating_sub(end));
            if self.rules.mode == Mode::Sync {
                self.broken("lost in synchronous mode", entry.to_string());
            }
        }
        self.holes(&lost);
        if let Mode::Async { lag_max } = self.rules.mode {
            self.losses_are_bounded(&lost, lag_max);
        }
    }

    /// A write is lost though one that was sent after its answer, in the same reign, survives.
    fn holes(&mut self, lost: &[(Entry, Position)]) {
        let mut latest: BTreeMap<(u32, usize), Micros> = BTreeMap::new();
        for (entry, at) in self.acked().into_iter().filter(|(e, _)| self.survives(e)) {
            let sent = latest.entry((at.timeline, entry.node)).or_default();
            *sent = (*sent).max(entry.sent);
        }
        for (entry, at) in lost {
            let reign = (at.timeline, entry.node);
            if latest.get(&reign).is_some_and(|sent| *sent > entry.answered) {
                self.broken("lost, though later writes survive", entry.to_string());
            }
        }
    }

    /// What the old leader wrote in its last ttl, nobody may have heard of; before that, the bound
    /// holds.
    fn losses_are_bounded(&mut self, lost: &[(Entry, Position)], lag_max: u64) {
        let mut last: BTreeMap<u32, Micros> = BTreeMap::new();
        for (entry, at) in self.acked() {
            let sent = last.entry(at.timeline).or_default();
            *sent = (*sent).max(entry.sent);
        }
        for (entry, at) in lost {
            let bytes = at.lsn.saturating_sub(self.end_of(at.timeline));
            let heard = entry.answered + self.rules.ttl < last[&at.timeline];
            if heard && bytes > lag_max {
                self.broken(
                    "lost beyond maximum_lag_on_failover",
                    format!("{bytes} bytes: {entry}"),
                );
            }
        }
    }

    fn doubled(&mut self) {
        let tried: BTreeSet<(usize, u64)> = self
            .history
            .iter()
            .filter_map(|e| match &e.act {
                Act::Added { seq, .. } | Act::MaybeAdded { seq } => Some((e.client, *seq)),
                _ => None,
            })
            .collect();
        for ((client, seq), places) in self.set.clone() {
            if places.len() > 1 {
                let times = places.len();
                self.broken("doubled", format!("element {seq} of client {client}, {times} times"));
            }
            if !tried.contains(&(client, seq)) {
                self.broken("invented", format!("element {seq} of client {client}"));
            }
        }
        let mut versions = BTreeSet::new();
        for (version, stamp) in &self.last.steps {
            if !versions.insert(*version) {
                self.broken("doubled", format!("version {version} of the register, now {stamp}"));
            }
        }
    }

    /// What one client was promised in an order lies there in this order.
    fn order_of_the_set(&mut self) {
        let mut before: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        let mut wrong = Vec::new();
        for entry in self.history {
            let Act::Added { seq, .. } = &entry.act else { continue };
            let Some(place) = self.set.get(&(entry.client, *seq)).map(|places| places[0]) else {
                continue;
            };
            if let Some((earlier, _)) = before.get(&entry.client).filter(|(_, p)| *p > place) {
                wrong.push(format!("client {}: {seq} lies before {earlier}", entry.client));
            }
            before.insert(entry.client, (*seq, place));
        }
        wrong.into_iter().for_each(|what| self.broken("reordered", what));
    }

    /// Versions follow each other, and acknowledged changes stand in the order of their answers.
    fn order_of_the_register(&mut self) {
        let gaps: Vec<(u64, u64)> = self
            .last
            .steps
            .windows(2)
            .map(|p| (p[0].0, p[1].0))
            .filter(|(one, next)| *next > one + 1)
            .collect();
        for (one, next) in gaps {
            self.broken(
                "reordered",
                format!("version {one} of the register is followed by {next}"),
            );
        }
        let mut swaps: Vec<(Micros, Micros, u64)> = self
            .acked()
            .into_iter()
            .filter_map(|(e, _)| match &e.act {
                Act::Swapped { to, .. } => Some((e.sent, e.answered, *self.stamps.get(to)?)),
                _ => None,
            })
            .collect();
        swaps.sort_unstable();
        self.grows(&swaps, "a change of the register");
    }

    /// Each number is above all of those that were known when its question was sent.
    fn grows(&mut self, numbers: &[(Micros, Micros, u64)], what: &str) {
        let mut known: Vec<(Micros, u64)> = numbers.iter().map(|(_, a, n)| (*a, *n)).collect();
        known.sort_unstable();
        let (mut highest, mut at) = (0, 0);
        let mut wrong = Vec::new();
        for (sent, _, number) in numbers {
            while at < known.len() && known[at].0 < *sent {
                highest = highest.max(known[at].1);
                at += 1;
            }
            if *number < highest {
                wrong.push(format!("{what}, {number} after {highest}"));
            }
        }
        wrong.into_iter().for_each(|what| self.broken("went backwards", what));
    }

    /// Whoever asks sees all that was promised before and survives. Asynchronously a leader may have
    /// been without what another's return brings back, so only its own promises count there.
    fn reads_of_the_set(&mut self) {
        let wanted = match self.rules.mode {
            Mode::Sync => vec![None],
            Mode::Async { .. } => self.reigns().into_iter().map(Some).collect(),
        };
        wanted.into_iter().for_each(|reign| self.reads_within(reign));
    }

    /// Every reign with the times of its first and its last acknowledged write.
    fn reigns(&self) -> Vec<Reign> {
        let mut reigns: BTreeMap<(u32, usize), (Micros, Micros)> = BTreeMap::new();
        for (entry, at) in self.acked() {
            let span = reigns.entry((at.timeline, entry.node)).or_insert((entry.answered, 0));
            *span = (span.0.min(entry.answered), span.1.max(entry.sent));
        }
        let reign = |((timeline, node), (from, to))| Reign { timeline, node, from, to };
        reigns.into_iter().map(reign).collect()
    }

    fn reads_within(&mut self, reign: Option<Reign>) {
        let wrote = |e: &&Entry| {
            reign.is_none_or(|r| {
                r.node == e.node && e.written_at().is_some_and(|at| at.timeline == r.timeline)
            })
        };
        let read = |e: &&Entry| {
            let during = |r: Reign| r.node == e.node && r.from < e.sent && e.answered < r.to;
            matches!(e.act, Act::ReadSet { .. }) && reign.is_none_or(during)
        };
        let mut promised: Vec<(Micros, usize, u64)> = self
            .history
            .iter()
            .filter(wrote)
            .filter_map(|e| {
                let Act::Added { seq, .. } = &e.act else { return None };
                self.survives(e).then_some((e.answered, e.client, *seq))
            })
            .collect();
        promised.sort_unstable();
        let mut reads: Vec<&Entry> = self.history.iter().filter(read).collect();
        reads.sort_by_key(|e| e.sent);
        let (mut known, mut at) = (BTreeMap::<usize, u64>::new(), 0);
        let mut wrong = Vec::new();
        for read in reads {
            let Act::ReadSet { highest } = &read.act else { continue };
            while at < promised.len() && promised[at].0 < read.sent {
                let (_, client, seq) = promised[at];
                let most = known.entry(client).or_default();
                *most = (*most).max(seq);
                at += 1;
            }
            for (client, seq) in &known {
                if highest.get(client).is_none_or(|seen| seen < seq) {
                    wrong.push(format!("{seq} of client {client} was promised before: {read}"));
                }
            }
        }
        wrong.into_iter().for_each(|what| self.broken("read without what was promised", what));
    }

    /// Reads and acknowledged changes that survive agree on one order; see `reads_of_the_set`.
    fn reads_of_the_register(&mut self) {
        let wanted = match self.rules.mode {
            Mode::Sync => vec![None],
            Mode::Async { .. } => self.reigns().into_iter().map(Some).collect(),
        };
        for reign in wanted {
            let numbers = self.versions_within(reign);
            self.grows(&numbers, "the register was read as or set to");
        }
        let of = |e: &Entry| match &e.act {
            Act::Swapped { to, .. } => Some(*to),
            _ => None,
        };
        let promised: BTreeSet<u64> = self.history.iter().filter_map(of).collect();
        let gone = |e: &&Entry| match &e.act {
            Act::ReadRegister { version, stamp } => {
                self.stamps.get(stamp) != Some(version) && !promised.contains(stamp)
            }
            _ => false,
        };
        self.report.withdrawn = self.history.iter().filter(gone).count();
    }

    /// Versions that survive, as they were set or read; by the order of the questions.
    fn versions_within(&self, reign: Option<Reign>) -> Vec<(Micros, Micros, u64)> {
        let during = |e: &Entry| {
            reign.is_none_or(|r| r.node == e.node && r.from < e.sent && e.answered < r.to)
        };
        let mut numbers: Vec<(Micros, Micros, u64)> = Vec::new();
        for entry in self.history.iter().filter(|e| during(e)) {
            let (stamp, version) = match &entry.act {
                Act::Swapped { to, version, .. } => (to, version),
                Act::ReadRegister { version, stamp } => (stamp, version),
                _ => continue,
            };
            if self.stamps.get(stamp) == Some(version) {
                numbers.push((entry.sent, entry.answered, *version));
            }
        }
        numbers.sort_unstable();
        numbers
    }

    /// Timelines whose end the cluster's own history does not show: told, and no violation, as a
    /// leader may die between its promotion and its row.
    fn losses_are_reported(&mut self) {
        let ends = self.last.ends.keys().copied();
        let silent = |timeline: &u32| !self.last.reported.contains(timeline);
        self.report.silent = ends.filter(silent).collect();
    }
}
