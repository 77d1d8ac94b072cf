//! Chart + place + knowledge: what happened goes in, a record to write and things to do come out.
//!
//! The contract between every flow and its homes (the actor in production, the simulator in
//! tests): edges decide, states work. A [`Step`]'s effects are private; [`Step::persist`] is the
//! only way to them, so whatever is done was written down first.
//!
//! Invariant: a report or a timer moves the machine only out of the visit that asked for it.
//! `visit` counts arrivals, `seq` counts records: an edge without target changes knowledge, writes
//! a record and leaves the state's work running. Absent on purpose: time, errors, logging.
use std::fmt::Debug;
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::any::Occurrence;

use crate::pure::chart::step::{self, Interpreter, Walk};
use crate::pure::chart::{Implementation, Name, Names, StateRow, Trigger};
use crate::pure::cluster::Millis;
use crate::pure::operation::{Operation, Report};

pub mod any;
pub mod stack;

/// The most of a problem's text that goes into a record's cause; the host keeps the rest.
const CAUSE_CHARS_MAX: usize = 500;

/// Where a flow can be.
pub type State<F> = <<F as Flow>::Names as Names>::State;
/// The chart's name for what can happen to a flow.
pub type EventName<F> = <<F as Flow>::Names as Names>::EventName;
/// The chart's name for a state's work.
pub type Activity<F> = <<F as Flow>::Names as Names>::Activity;
/// The chart's name for a time to wait.
pub type Delay<F> = <<F as Flow>::Names as Names>::Delay;

/// A flow: the value that knows something, and what its chart's names mean to it.
pub trait Flow:
    Implementation<Self::Names, Input<Self>>
    + Serialize
    + DeserializeOwned
    + Clone
    + PartialEq
    + Debug
    + Send
    + 'static
{
    /// The generated vocabulary of the flow's chart.
    type Names: Names;
    /// What can happen to it, with what comes along.
    type Event: Clone + Debug + Send + Serialize + DeserializeOwned + 'static;
    /// The chart's id: also the file's name, the journal's tree and the log's field.
    const ID: &'static str;

    /// The chart's name for this event.
    fn name(event: &Self::Event) -> EventName<Self>;

    /// What to do in the world for this activity, given what is known on arrival.
    fn operation(&self, activity: Activity<Self>) -> Operation;

    /// How long this delay is, in milliseconds, given what is known on arrival.
    fn delay(&self, delay: Delay<Self>) -> Millis;

    /// Why it failed, where it knows that better than its last record's cause.
    fn problem(&self) -> Option<&str> {
        None
    }
}

/// A flow that may take events from what happens around it.
pub trait FollowsSituation: Flow {
    /// The event that this is to the flow; none for flows that only their own work moves.
    fn event_of(&self, _what: Occurrence<'_>) -> Option<Self::Event> {
        None
    }
}

/// Everything that can happen to a flow; journals keep it beside the record that it led to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "F: Flow")]
pub enum Input<F: Flow> {
    /// The beginning; only ever seen by the guards and actions of a chart that starts by deciding.
    Start,
    /// Something happened.
    Event(F::Event),
    /// The operation begun under this visit ended well.
    Done { visit: u64, report: Report },
    /// The operation begun under this visit failed, for a reason that a person can read.
    Failed { visit: u64, problem: String },
    /// The delay that was asked for under this visit is over.
    Elapsed { visit: u64, delay: Delay<F> },
}

impl<F: Flow> Input<F> {
    /// A short text for people: `leader_lost`, `done run_method`, `after copy_timeout`.
    fn cause(&self, activity: Option<Activity<F>>) -> String {
        let work = activity.map_or("", Name::text);
        match self {
            Input::Start => "start".to_owned(),
            Input::Event(event) => F::name(event).text().to_owned(),
            Input::Done { .. } => format!("done {work}"),
            Input::Failed { problem, .. } => {
                format!("failed {work}: {}", shortened(problem, CAUSE_CHARS_MAX))
            }
            Input::Elapsed { delay, .. } => format!("after {delay}"),
        }
    }

    /// The visit an answer belongs to; events belong to none.
    fn visit(&self) -> Option<u64> {
        match self {
            Input::Start | Input::Event(_) => None,
            Input::Done { visit, .. }
            | Input::Failed { visit, .. }
            | Input::Elapsed { visit, .. } => Some(*visit),
        }
    }

    /// The same answer, to this visit.
    pub(in crate::pure) fn answering(self, to: u64) -> Input<F> {
        match self {
            Input::Done { report, .. } => Input::Done { visit: to, report },
            Input::Failed { problem, .. } => Input::Failed { visit: to, problem },
            Input::Elapsed { delay, .. } => Input::Elapsed { visit: to, delay },
            other => other,
        }
    }

    /// The trigger in the chart's table; `None` for the beginning, which no edge is for.
    fn trigger(&self) -> Option<Trigger> {
        match self {
            Input::Start => None,
            Input::Event(event) => Some(Trigger::Event(F::name(event).index())),
            Input::Done { .. } => Some(Trigger::Done),
            Input::Failed { .. } => Some(Trigger::Error),
            Input::Elapsed { delay, .. } => Some(Trigger::After(delay.index())),
        }
    }
}

/// What a host must do, in order, after the record is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<F: Flow> {
    /// Stop whatever the state we left was doing and waiting for.
    Cancel,
    /// Do this and report back under this visit.
    Begin { visit: u64, operation: Operation },
    /// Say so when this time (milliseconds) has passed.
    Wake { visit: u64, delay: Delay<F>, after: Millis },
    /// The flow came to rest in this final state; nothing moves it any more.
    End(State<F>),
}

/// One transition as a fact: enough to resume from, and to tell a person what happened.
///
/// States are text, so that a record of an older binary can still be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "F: Flow")]
pub struct Record<F> {
    /// Counts records of this machine, from 1.
    pub seq: u64,
    /// Counts arrivals; the state's work runs under this number.
    pub visit: u64,
    /// `None` in the first record.
    pub from: Option<String>,
    pub to: String,
    /// Why, in a few words: `situation_changed`, `done run_method`, `failed run_method: …`, `after copy_timeout`.
    pub cause: String,
    /// What the flow knows after the transition.
    pub knowledge: F,
    /// The fingerprint of the chart that was walked, in hexadecimal.
    pub chart: String,
}

impl<F: Flow> Record<F> {
    /// The state it leads to, if the chart still has it and one can be in it.
    pub fn state(&self) -> Option<State<F>> {
        let chart = F::Names::CHART;
        State::<F>::from_text(&self.to).filter(|state| {
            let place = state.index();
            let decides = chart.edges_of(place).any(|edge| edge.trigger == Trigger::Always);
            chart.states[place].initial.is_none() && !decides
        })
    }

    /// The transition in words, for people: `waiting → copying, because topology_changed`.
    pub fn sentence(&self) -> String {
        let from = self.from.as_deref().unwrap_or("nowhere");
        format!("{from} → {}, because {}", self.to, self.cause)
    }
}

/// Where records become durable. `append` returns only when the record survives a power cut.
pub trait Journal<F: Flow> {
    /// Writes one record down, perhaps with what led to it.
    ///
    /// # Errors
    /// The record may not be durable: the caller must not act, and fences itself.
    fn append(&mut self, record: &Record<F>, input: &Input<F>) -> io::Result<()>;
}

/// What a transition asks for: a record to write, and effects that are to be had only by writing it.
#[derive(Debug)]
#[must_use = "a step that is not persisted did not happen"]
pub struct Step<F: Flow> {
    pub record: Record<F>,
    input: Input<F>,
    effects: Vec<Effect<F>>,
}

impl<F: Flow> Step<F> {
    /// Writes the record down and hands out the effects, in that order and no other.
    ///
    /// # Errors
    /// Those of the journal; then there are no effects.
    pub fn persist(self, journal: &mut impl Journal<F>) -> io::Result<Vec<Effect<F>>> {
        journal.append(&self.record, &self.input)?;
        Ok(self.effects)
    }
}

/// One running flow.
#[derive(Clone, Debug)]
pub struct Machine<F: Flow> {
    state: State<F>,
    visit: u64,
    seq: u64,
    knowledge: F,
}

impl<F: Flow> Machine<F> {
    /// A new machine in its chart's initial state, with its first record: it exists from then on.
    pub fn start(knowledge: F) -> (Machine<F>, Step<F>) {
        let mut machine = Machine::initial(knowledge);
        (machine.visit, machine.seq) = (1, 1);
        let effects = machine.arrival();
        let record = machine.record(None, "start".to_owned());
        (machine, Step { record, input: Input::Start, effects })
    }

    /// Where we were, or the initial state when the chart no longer has that place; its work is
    /// begun again. The visit is a new one: reports that the old life asked for are dropped.
    /// `seq` goes on from the record's. Nothing is written: two resumes from one record have the same
    /// visit, so a host lets no report outlive the process (or the life) that began the operation.
    pub fn resume(record: Record<F>) -> (Machine<F>, Vec<Effect<F>>) {
        let state = record.state();
        let mut machine = match state {
            Some(state) => Machine { state, visit: 0, seq: 0, knowledge: record.knowledge },
            None => Machine::initial(record.knowledge),
        };
        (machine.visit, machine.seq) = (record.visit + 1, record.seq);
        let effects = machine.arrival();
        (machine, effects)
    }

    fn initial(mut knowledge: F) -> Machine<F> {
        let mut mind = Bound { knowledge: &mut knowledge, input: &Input::Start };
        let walk = step::enter(F::Names::CHART, &mut mind);
        Machine { state: State::<F>::at(walk.state), visit: 0, seq: 0, knowledge }
    }

    /// Where we are.
    pub fn state(&self) -> State<F> {
        self.state
    }

    /// What is known.
    pub fn knowledge(&self) -> &F {
        &self.knowledge
    }

    /// How often we have arrived somewhere; work runs and answers under this number.
    pub fn visit(&self) -> u64 {
        self.visit
    }

    /// The number of the last record.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The work of the state we are in.
    pub fn activity(&self) -> Option<Activity<F>> {
        self.row().activity.map(Activity::<F>::at)
    }

    /// Does the state we are in work?
    pub fn is_working(&self) -> bool {
        self.activity().is_some()
    }

    /// Has the flow come to rest for good?
    pub fn is_ended(&self) -> bool {
        self.row().is_final
    }

    /// Is this where we are, or a state around it?
    pub fn is_in(&self, state: State<F>) -> bool {
        F::Names::CHART.ancestry(self.state.index()).any(|at| at == state.index())
    }

    /// What is going on, in the chart's words.
    pub fn description(&self) -> &'static str {
        &self.row().description
    }

    /// The running work, or else the events and delays that could move us; empty at the end.
    pub fn waiting_for(&self) -> String {
        if let Some(activity) = self.activity() {
            return activity.text().to_owned();
        }
        let chart = F::Names::CHART;
        let place = self.state.index();
        let events =
            chart.events_of(place).into_iter().map(|event| chart.events[event].to_string());
        let delays = chart.delays_of(place).map(|delay| format!("after {}", chart.delays[delay]));
        events.chain(delays).collect::<Vec<_>>().join(", ")
    }

    /// Tells the machine what happened.
    ///
    /// `None`: an answer to an earlier visit, nothing that concerns the state we are in, or an edge
    /// without target after which we know what we knew. Then there is nothing to write or to do.
    pub fn handle(&mut self, input: Input<F>) -> Option<Step<F>> {
        if input.visit().is_some_and(|visit| visit != self.visit) {
            return None;
        }
        let (chart, from) = (F::Names::CHART, self.state);
        let cause = input.cause(self.activity());
        let mut knowledge = self.knowledge.clone();
        let mut mind = Bound { knowledge: &mut knowledge, input: &input };
        let walk = step::step(chart, from.index(), input.trigger()?, &mut mind)?;
        // Levels are repeated every cycle; most repeat what is known, and are not written down.
        if !walk.arrived && self.knowledge == knowledge {
            return None;
        }
        self.knowledge = knowledge;
        self.seq += 1;
        let effects = if walk.arrived { self.arrive(&walk) } else { vec![] };
        let record = self.record(Some(from), cause);
        Some(Step { record, input, effects })
    }

    /// The guards that this input asks, in order, and their answers; nothing is changed.
    pub fn explain(&self, input: &Input<F>) -> Vec<(&'static str, bool)> {
        let Some(trigger) = input.trigger() else { return vec![] };
        let mut knowledge = self.knowledge.clone();
        let mind = Bound { knowledge: &mut knowledge, input };
        let mut asked = Recorder { mind, answers: vec![] };
        let _ = step::step(F::Names::CHART, self.state.index(), trigger, &mut asked);
        let guards = &F::Names::CHART.guards;
        asked.answers.into_iter().map(|(guard, yes)| (&*guards[guard], yes)).collect()
    }

    fn arrive(&mut self, walk: &Walk) -> Vec<Effect<F>> {
        let busy = self.is_working() || F::Names::CHART.delays_of(self.state.index()).count() > 0;
        self.state = State::<F>::at(walk.state);
        self.visit += 1;
        let mut effects = if busy { vec![Effect::Cancel] } else { vec![] };
        effects.extend(self.arrival());
        effects
    }

    /// What being here asks for.
    fn arrival(&self) -> Vec<Effect<F>> {
        let visit = self.visit;
        if self.is_ended() {
            return vec![Effect::End(self.state)];
        }
        let work = self.activity().map(|activity| self.knowledge.operation(activity));
        let delays = F::Names::CHART.delays_of(self.state.index()).map(Delay::<F>::at);
        let wakes =
            delays.map(|delay| Effect::Wake { visit, delay, after: self.knowledge.delay(delay) });
        work.map(|operation| Effect::Begin { visit, operation }).into_iter().chain(wakes).collect()
    }

    fn record(&self, from: Option<State<F>>, cause: String) -> Record<F> {
        Record {
            seq: self.seq,
            visit: self.visit,
            from: from.map(|state| state.text().to_owned()),
            to: self.state.text().to_owned(),
            cause,
            knowledge: self.knowledge.clone(),
            chart: format!("{:016x}", F::Names::CHART.fingerprint),
        }
    }

    fn row(&self) -> &'static StateRow {
        &F::Names::CHART.states[self.state.index()]
    }
}

/// At most about `chars_max`: the head says what was tried, the end what became of it.
fn shortened(text: &str, chars_max: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= chars_max {
        return text.to_owned();
    }
    let head: String = chars[..chars_max / 3].iter().collect();
    let tail: String = chars[chars.len() - (chars_max - chars_max / 3)..].iter().collect();
    format!("{head} … {tail}")
}

/// Lets the walker ask a flow by place where the flow answers by name.
struct Bound<'a, F: Flow> {
    knowledge: &'a mut F,
    input: &'a Input<F>,
}

impl<F: Flow> Interpreter for Bound<'_, F> {
    fn allows(&mut self, guard: usize) -> bool {
        self.knowledge.allows(Name::at(guard), self.input)
    }

    fn apply(&mut self, action: usize) {
        self.knowledge.apply(Name::at(action), self.input);
    }
}

/// Remembers what the walker asked.
struct Recorder<'a, F: Flow> {
    mind: Bound<'a, F>,
    answers: Vec<(usize, bool)>,
}

impl<F: Flow> Interpreter for Recorder<'_, F> {
    fn allows(&mut self, guard: usize) -> bool {
        let yes = self.mind.allows(guard);
        self.answers.push((guard, yes));
        yes
    }

    fn apply(&mut self, action: usize) {
        self.mind.apply(action);
    }
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_long_problem_keeps_its_head_and_its_end() {
        let long = format!("initdb failed: {} | FATAL: disk full", "é".repeat(900));
        let short = shortened(&long, 500);
        assert!(short.starts_with("initdb failed: é") && short.ends_with("| FATAL: disk full"));
        assert_eq!(short.chars().count(), 503);
        assert_eq!(shortened("short", 500), "short");
    }
}
