//! A machine of any flow behind one face: inputs, effects and records without the flow's types.
//!
//! Whoever runs several flows (the actors, the simulator) holds machines of different types; what
//! differs between the types ends here. Invariant, as in [`super`]: effects come only out of a
//! record that the journal took.
use std::any::Any;
use std::io;

use serde_json::Value;

use super::{Effect, FollowsSituation, Input, Journal, Machine, Record};
use crate::pure::chart::{Name, Names};
use crate::pure::cluster::Millis;
use crate::pure::node::situation::Situation;
use crate::pure::operation::{Operation, Report};

/// What became of the work or the delay that a machine ordered under a visit.
#[derive(Clone, Debug)]
pub enum Answer {
    Done {
        visit: u64,
        report: Report,
    },
    Failed {
        visit: u64,
        problem: String,
    },
    /// The delay at this index of the chart's table is over.
    Elapsed {
        visit: u64,
        delay: usize,
    },
}

impl Answer {
    /// The answer of work that ended so.
    pub fn of(visit: u64, result: Result<Report, String>) -> Answer {
        match result {
            Ok(report) => Answer::Done { visit, report },
            Err(problem) => Answer::Failed { visit, problem },
        }
    }

    /// The visit that it answers to.
    pub fn visit(&self) -> u64 {
        let (Answer::Done { visit, .. }
        | Answer::Failed { visit, .. }
        | Answer::Elapsed { visit, .. }) = self;
        *visit
    }
}

/// What every running flow of a node is informed of.
#[derive(Clone, Copy, Debug)]
pub enum Occurrence<'a> {
    /// The level, again and again.
    Situation(&'a Situation),
    /// The postmaster ended.
    PostgresDied,
}

/// An effect without the flow's types; see [`Effect`].
#[derive(Clone, Debug, PartialEq)]
pub enum AnyEffect {
    Cancel,
    Begin { visit: u64, operation: Operation },
    Wake { visit: u64, delay: usize, after: Millis },
    End { state: &'static str },
}

/// A record on its way to the disk.
#[derive(Clone, Debug)]
pub struct JournalEntry {
    pub flow: &'static str,
    pub seq: u64,
    pub visit: u64,
    /// `None` in a machine's first record.
    pub from: Option<String>,
    pub to: String,
    pub cause: String,
    /// The record as JSON, with the input that led to it under `input`.
    pub value: Value,
}

/// Where records of all flows become durable.
pub trait AnyJournal {
    /// Returns only when the entry survives a power cut.
    ///
    /// # Errors
    /// It may not be durable: nothing that follows from it may be done.
    fn append(&mut self, entry: JournalEntry) -> io::Result<()>;
}

/// One flow's view of a journal for all.
struct Typed<'a>(&'a mut dyn AnyJournal);

impl<F: FollowsSituation> Journal<F> for Typed<'_> {
    fn append(&mut self, record: &Record<F>, input: &Input<F>) -> io::Result<()> {
        let mut value = serde_json::to_value(record)?;
        value["input"] = serde_json::to_value(input)?;
        self.0.append(JournalEntry {
            flow: F::ID,
            seq: record.seq,
            visit: record.visit,
            from: record.from.clone(),
            to: record.to.clone(),
            cause: record.cause.clone(),
            value,
        })
    }
}

/// The effects of a step whose record is written; `None` where nothing followed from the input.
pub type Written = io::Result<Option<Vec<AnyEffect>>>;

/// A machine of any flow.
pub trait AnyMachine {
    fn flow(&self) -> &'static str;
    fn state(&self) -> &'static str;
    fn visit(&self) -> u64;
    fn is_working(&self) -> bool;
    fn is_ended(&self) -> bool;
    /// It ended in a state that is a failure.
    fn has_failed(&self) -> bool;
    /// See [`Machine::waiting_for`].
    fn waiting_for(&self) -> String;
    /// What the flow knows, as JSON, for people.
    fn knowledge(&self) -> Value;
    /// For those who know the flow's type.
    fn as_any(&self) -> &dyn Any;
    /// See [`super::Flow::problem`].
    fn problem(&self) -> Option<&str>;
    /// Takes what became of its own work or delay.
    ///
    /// # Errors
    /// The journal's.
    fn answer(&mut self, answer: Answer, journal: &mut dyn AnyJournal) -> Written;
    /// Takes what happened; a flow may make several events of it, one after the other.
    ///
    /// # Errors
    /// The journal's.
    fn occurred(&mut self, what: Occurrence<'_>, journal: &mut dyn AnyJournal) -> Written;
}

impl<F: FollowsSituation> AnyMachine for Machine<F> {
    fn flow(&self) -> &'static str {
        F::ID
    }

    fn state(&self) -> &'static str {
        Machine::state(self).text()
    }

    fn visit(&self) -> u64 {
        Machine::visit(self)
    }

    fn is_working(&self) -> bool {
        Machine::is_working(self)
    }

    fn is_ended(&self) -> bool {
        Machine::is_ended(self)
    }

    fn has_failed(&self) -> bool {
        F::Names::CHART.states[Machine::state(self).index()].is_failure
    }

    fn waiting_for(&self) -> String {
        Machine::waiting_for(self)
    }

    fn knowledge(&self) -> Value {
        serde_json::to_value(Machine::knowledge(self)).unwrap_or_default()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn problem(&self) -> Option<&str> {
        Machine::knowledge(self).problem()
    }

    fn answer(&mut self, answer: Answer, journal: &mut dyn AnyJournal) -> Written {
        let input = match answer {
            Answer::Done { visit, report } => Input::Done { visit, report },
            Answer::Failed { visit, problem } => Input::Failed { visit, problem },
            Answer::Elapsed { visit, delay } => Input::Elapsed { visit, delay: Name::at(delay) },
        };
        handled(self, input, journal)
    }

    fn occurred(&mut self, what: Occurrence<'_>, journal: &mut dyn AnyJournal) -> Written {
        match Machine::knowledge(self).event_of(what) {
            Some(event) => handled(self, Input::Event(event), journal),
            None => Ok(None),
        }
    }
}

fn handled<F: FollowsSituation>(
    machine: &mut Machine<F>,
    input: Input<F>,
    journal: &mut dyn AnyJournal,
) -> Written {
    match machine.handle(input) {
        Some(step) => Ok(Some(untyped(step.persist(&mut Typed(journal))?))),
        None => Ok(None),
    }
}

fn untyped<F: FollowsSituation>(effects: Vec<Effect<F>>) -> Vec<AnyEffect> {
    let one = |effect: Effect<F>| match effect {
        Effect::Cancel => AnyEffect::Cancel,
        Effect::Begin { visit, operation } => AnyEffect::Begin { visit, operation },
        Effect::Wake { visit, delay, after } => {
            AnyEffect::Wake { visit, delay: delay.index(), after }
        }
        Effect::End(state) => AnyEffect::End { state: state.text() },
    };
    effects.into_iter().map(one).collect()
}

/// A new machine that knows this, with its first record written.
///
/// # Errors
/// The journal's.
pub fn start<F: FollowsSituation>(
    knowledge: F,
    journal: &mut dyn AnyJournal,
) -> io::Result<(Box<dyn AnyMachine>, Vec<AnyEffect>)> {
    let (machine, step) = Machine::start(knowledge);
    let effects = untyped(step.persist(&mut Typed(journal))?);
    Ok((Box::new(machine), effects))
}

/// The machine that a record describes; `None` where today's flow and chart do not know it.
pub fn resume<F: FollowsSituation>(record: Value) -> Option<(Box<dyn AnyMachine>, Vec<AnyEffect>)> {
    let record: Record<F> = serde_json::from_value(record).ok()?;
    record.state()?;
    let (machine, effects) = Machine::resume(record);
    Some((Box::new(machine), untyped(effects)))
}
