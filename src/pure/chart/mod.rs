//! Statecharts in general: the compiled table and its vocabulary; knows no flow.
//!
//! A chart is read from JSON by [`source`], walked by [`step`], drawn by [`draw`]. The same
//! [`Chart`] serves a chart compiled into the binary (`statecharts/build.rs` writes it out as a
//! `static`) and one read from a file at run time, so the walker can be tried on random charts.
//! `statecharts/build.rs` includes this directory by path: nothing here may use the rest of Surus.
//!
//! Invariant: a `Chart` that came from [`Chart::parse`] has no hole: every target exists, work has
//! an end, decisions have an answer. Absent on purpose: parallel regions (one machine per flow),
//! history (the journal), entry and exit actions (work belongs to states).
pub mod draw;
pub mod source;
pub mod step;

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use source::Fault;

/// Text that is part of the binary or was read from a file.
pub type Text = Cow<'static, str>;

/// A sequence that is part of the binary or was read from a file.
pub type Rows<T> = Cow<'static, [T]>;

/// One statechart as tables. States, events and so on are known by their place in these tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chart {
    pub id: Text,
    pub description: Text,
    /// Changes whenever the chart does (its layout in the file aside); written into every record.
    pub fingerprint: u64,
    /// The state entered first; it may be a compound state.
    pub initial: usize,
    /// In document order, parents before their children.
    pub states: Rows<StateRow>,
    /// In document order within one state.
    pub edges: Rows<Edge>,
    pub events: Rows<Text>,
    pub guards: Rows<Text>,
    pub actions: Rows<Text>,
    pub activities: Rows<Text>,
    pub delays: Rows<Text>,
    /// A sentence for every name of the five rows above; see [`Chart::vocabulary_faults`].
    pub vocabulary: Rows<(Text, Text)>,
}

/// One state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRow {
    pub name: Text,
    pub description: Text,
    pub parent: Option<usize>,
    /// The child entered first; only a compound state has one.
    pub initial: Option<usize>,
    pub is_final: bool,
    /// A final state that is tagged `failure`.
    pub is_failure: bool,
    /// The activity that runs while we are here.
    pub activity: Option<usize>,
}

/// One edge. Without a target it changes what is known and leaves the state's work alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    pub source: usize,
    pub trigger: Trigger,
    pub guard: Option<usize>,
    pub target: Option<usize>,
    pub actions: Rows<usize>,
    pub description: Option<Text>,
}

/// What makes an edge eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// Something happened.
    Event(usize),
    /// The state's work ended well.
    Done,
    /// The state's work failed.
    Error,
    /// We have been here this long.
    After(usize),
    /// At once: the state is a decision.
    Always,
}

impl Chart {
    /// Reads a chart from its JSON; every reason to refuse it comes back at once.
    ///
    /// # Errors
    /// All faults found, each a sentence that names the state it is about.
    pub fn parse(json: &str) -> Result<Chart, Vec<Fault>> {
        source::parse(json)
    }

    /// The place of the state of this name.
    pub fn state(&self, name: &str) -> Option<usize> {
        self.states.iter().position(|row| row.name == name)
    }

    /// The edges that leave this state itself (not those of the states around it).
    pub fn edges_of(&self, state: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.source == state)
    }

    /// The state and all states around it, the innermost first.
    pub fn ancestry(&self, state: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(state), |&at| self.states[at].parent)
    }

    /// Where we come to be when we enter this state: its first child, and so on down.
    pub fn leaf(&self, state: usize) -> usize {
        std::iter::successors(Some(state), |&at| self.states[at].initial).last().unwrap_or(state)
    }

    /// The delays that run while we are here; those of surrounding states do not exist.
    pub fn delays_of(&self, state: usize) -> impl Iterator<Item = usize> + '_ {
        let mut seen = Vec::new();
        self.edges_of(state).filter_map(move |edge| match edge.trigger {
            Trigger::After(delay) if !seen.contains(&delay) => {
                seen.push(delay);
                Some(delay)
            }
            _ => None,
        })
    }

    /// The events that could move us from here, those of surrounding states included.
    pub fn events_of(&self, state: usize) -> Vec<usize> {
        let mut events = Vec::new();
        for edge in self.ancestry(state).flat_map(|at| self.edges_of(at)) {
            if let Trigger::Event(event) = edge.trigger
                && !events.contains(&event)
            {
                events.push(event);
            }
        }
        events
    }

    /// What this name of an event, a guard, an action, an activity or a delay means.
    pub fn sentence(&self, name: &str) -> Option<&str> {
        self.vocabulary.iter().find(|(known, _)| known == name).map(|(_, sentence)| &**sentence)
    }

    /// Names without a sentence and sentences without a name. The charts of the binary have none:
    /// their build fails on the first.
    pub fn vocabulary_faults(&self) -> Vec<Fault> {
        let kinds = [
            ("event", &self.events),
            ("guard", &self.guards),
            ("action", &self.actions),
            ("activity", &self.activities),
            ("delay", &self.delays),
        ];
        let names = || kinds.iter().flat_map(|(kind, names)| names.iter().map(move |n| (kind, n)));
        let missing = names().filter(|(_, name)| {
            self.sentence(name).is_none_or(|sentence| sentence.trim().is_empty())
        });
        let missing = missing.map(|(kind, name)| {
            format!("the {kind} `{name}` has no sentence in `meta.vocabulary`: say what it means")
        });
        let unused =
            self.vocabulary.iter().filter(|(word, _)| names().all(|(_, name)| name != word));
        let unused = unused.map(|(word, _)| {
            format!("`meta.vocabulary` explains `{word}`, which the chart does not use: remove it")
        });
        missing.chain(unused).map(|problem| Fault { state: None, problem }).collect()
    }

    /// The trigger as people read it: `leader_lost`, `done`, `error`, `after copy_timeout`.
    pub fn trigger_text(&self, trigger: Trigger) -> String {
        match trigger {
            Trigger::Event(event) => self.events[event].to_string(),
            Trigger::Done => "done".to_owned(),
            Trigger::Error => "error".to_owned(),
            Trigger::After(delay) => format!("after {}", self.delays[delay]),
            Trigger::Always => String::new(),
        }
    }
}

/// A name of a chart's vocabulary, as the enums that `statecharts/build.rs` writes have it.
pub trait Name:
    Copy + Debug + Display + Eq + Ord + Hash + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Every name with its text, in the chart's order.
    const ALL: &'static [(Self, &'static str)];

    /// The place in the chart's table.
    fn index(self) -> usize {
        Self::ALL.iter().position(|&(name, _)| name == self).expect("ALL lists every name")
    }

    /// The name as the chart writes it.
    fn text(self) -> &'static str {
        Self::ALL[self.index()].1
    }

    /// The name at this place in the chart's table.
    ///
    /// # Panics
    /// When the chart has no such place: the table and the enums come from one file.
    fn at(index: usize) -> Self {
        Self::ALL[index].0
    }

    /// The name written like this, if the chart has it.
    fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, written)| *written == text).map(|&(name, _)| name)
    }
}

/// The vocabulary of one compiled chart.
pub trait Names: Copy + Debug + Send + Sync + 'static {
    type State: Name;
    type EventName: Name;
    type Guard: Name;
    type Action: Name;
    type Activity: Name;
    type Delay: Name;
    /// The table the names point into.
    const CHART: &'static Chart;
}

/// What a chart's guards and actions mean to a value that knows something.
pub trait Implementation<N: Names, I> {
    /// Is the claim true, given what is known and what just happened?
    fn allows(&self, guard: N::Guard, input: &I) -> bool;

    /// Change what is known, and nothing else.
    fn apply(&mut self, action: N::Action, input: &I);
}
