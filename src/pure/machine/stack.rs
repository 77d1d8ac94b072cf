//! The flows of one node: the node's own at the bottom, above it the child that its state runs, and
//! so on. Every rule among them stands here, and their drivers (one actor for each in the
//! daemon, the simulator) only carry out what a [`Frame`] orders.
//!
//! 1. A record is written before its orders are given out ([`any`]).
//! 2. A child belongs to one arrival of one run of its parent: [`Run::child`]. It goes on from its
//!    last record only where that names the very run, and only if its parent was itself resumed and
//!    has not moved since; everywhere else it begins anew.
//! 3. A child whose result was not taken when it ended gives it again when it is resumed: what it
//!    did is not done twice. The node's own flow begins anew after its end.
//! 4. A result counts in the visit that ordered it and in no other.
//! 5. A frame that leaves its state ends the work, the delays and the child of that state
//!    ([`Order::Cancel`]), before it begins anything else.
//! 6. What happens is given to the parent first, and then to the child that it has by then.
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::any::{self, Answer, AnyEffect, AnyJournal, AnyMachine, JournalEntry, Occurrence};
use crate::pure::cluster::Millis;
use crate::pure::flow::any as flows;
use crate::pure::flow::any::Local;
use crate::pure::operation::{FlowInput, Operation, Report};

/// Which run of which machine a record belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Given when the machine began, kept as long as it lives; never the same twice on one node.
    id: String,
    /// The visit under which it arrived where it is; a resumed machine counts on, this stays.
    arrived: u64,
    /// Whose child it is: see [`Run::child`]; empty for the node's own flow.
    parent: String,
}

impl Run {
    /// The name under which a child of this arrival runs.
    fn child(&self) -> String {
        format!("{} {}", self.id, self.arrived)
    }
}

/// A child to be run: by whom, and whether an earlier life of it may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildOf {
    run: String,
    resumes: bool,
}

/// What the driver of a frame has to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// End the work, the delays and the child of the state that was left.
    Cancel,
    /// Begin this work and give its result to [`Frame::answer`] under this visit.
    Begin { visit: u64, operation: Operation },
    /// Run the flow of this input as a child; its result is an answer under this visit.
    RunFlow { visit: u64, input: FlowInput, child_of: ChildOf },
    /// After so many milliseconds: [`Answer::Elapsed`].
    Wake { visit: u64, delay: usize, after: Millis },
    /// The flow ended: to its parent as an answer, or, of the node's own, the daemon may exit.
    End(Result<Report, String>),
}

/// What came of an input: a transition that is written down.
#[derive(Clone, Debug)]
pub struct Moved {
    /// The state before it.
    pub from: &'static str,
    pub to: &'static str,
    pub cause: String,
    pub orders: Vec<Order>,
}

/// `None`: nothing followed from the input.
pub type Outcome = io::Result<Option<Moved>>;

/// One running flow: its machine and which run of it this is.
pub struct Frame {
    machine: Box<dyn AnyMachine>,
    run: Run,
    /// The machine's visit when its last record was written, or when it was resumed.
    visit: u64,
    resumed: bool,
    cause: String,
}

/// The driver's journal, to which a frame adds whose record it is.
struct Owned<'a> {
    run: &'a mut Run,
    visit: &'a mut u64,
    cause: &'a mut String,
    journal: &'a mut dyn AnyJournal,
}

impl AnyJournal for Owned<'_> {
    fn append(&mut self, mut entry: JournalEntry) -> io::Result<()> {
        if entry.visit != *self.visit {
            (*self.visit, self.run.arrived) = (entry.visit, entry.visit);
        }
        self.cause.clone_from(&entry.cause);
        entry.value["run"] = serde_json::to_value(&*self.run)?;
        self.journal.append(entry)
    }
}

impl Frame {
    /// The node's own flow: goes on from its last record, if there is one to go on from.
    ///
    /// # Errors
    /// The journal's.
    pub fn node(
        last: Option<Value>,
        id: String,
        journal: &mut dyn AnyJournal,
    ) -> io::Result<(Frame, Vec<Order>)> {
        let flow = flows::NODE;
        match Frame::resumed(flow, last, "").filter(|(frame, _)| !frame.machine.is_ended()) {
            Some(resumed) => Ok(resumed),
            None => Frame::begun(Run { id, ..Run::default() }, journal, flows::start_node),
        }
    }

    /// A child: goes on from the last record of its flow if rule 2 lets it, or else begins with
    /// this input under the fresh `id`.
    ///
    /// # Errors
    /// The journal's.
    pub fn child(
        (input, child_of): (FlowInput, ChildOf),
        last: Option<Value>,
        (id, local): (String, Local),
        journal: &mut dyn AnyJournal,
    ) -> io::Result<(Frame, Vec<Order>)> {
        let last = last.filter(|_| child_of.resumes);
        if let Some(resumed) = Frame::resumed(flows::id_of(&input), last, &child_of.run) {
            return Ok(resumed);
        }
        let run = Run { id, arrived: 0, parent: child_of.run };
        Frame::begun(run, journal, |journal| flows::start(input, local, journal))
    }

    fn begun(
        mut run: Run,
        journal: &mut dyn AnyJournal,
        start: impl FnOnce(&mut dyn AnyJournal) -> io::Result<flows::Begun>,
    ) -> io::Result<(Frame, Vec<Order>)> {
        let (mut visit, mut cause) = (0, String::new());
        let mut journal = Owned { run: &mut run, visit: &mut visit, cause: &mut cause, journal };
        let (machine, effects) = start(&mut journal)?;
        let frame = Frame { machine, run, visit, resumed: false, cause };
        let orders = frame.orders(effects);
        Ok((frame, orders))
    }

    fn resumed(flow: &str, last: Option<Value>, parent: &str) -> Option<(Frame, Vec<Order>)> {
        let last = last?;
        let run = Run::deserialize(last.get("run")?).ok().filter(|run| run.parent == parent)?;
        let cause = last.get("cause").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (machine, effects) = flows::resume(flow, last)?;
        let visit = machine.visit();
        let frame = Frame { machine, run, visit, resumed: true, cause };
        let orders = frame.orders(effects);
        Some((frame, orders))
    }

    /// The machine, for those who show it.
    pub fn machine(&self) -> &dyn AnyMachine {
        self.machine.as_ref()
    }

    /// It goes on from an earlier life and has not moved since.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Why it is where it is: the cause in its last record.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Takes the result of work, of a child or of a delay.
    ///
    /// # Errors
    /// The journal's.
    pub fn answer(&mut self, answer: Answer, journal: &mut dyn AnyJournal) -> Outcome {
        self.step(journal, |machine, journal| machine.answer(answer, journal))
    }

    /// Takes what happened around it. The driver gives it to the child afterwards (rule 6).
    ///
    /// # Errors
    /// The journal's.
    pub fn occurred(&mut self, what: Occurrence<'_>, journal: &mut dyn AnyJournal) -> Outcome {
        self.step(journal, |machine, journal| machine.occurred(what, journal))
    }

    fn step(
        &mut self,
        journal: &mut dyn AnyJournal,
        take: impl FnOnce(&mut dyn AnyMachine, &mut dyn AnyJournal) -> any::Written,
    ) -> Outcome {
        let from = self.machine.state();
        let (run, visit, cause) = (&mut self.run, &mut self.visit, &mut self.cause);
        let mut journal = Owned { run, visit, cause, journal };
        let Some(effects) = take(self.machine.as_mut(), &mut journal)? else { return Ok(None) };
        self.resumed = false;
        let (to, cause) = (self.machine.state(), self.cause.clone());
        Ok(Some(Moved { from, to, cause, orders: self.orders(effects) }))
    }

    fn orders(&self, effects: Vec<AnyEffect>) -> Vec<Order> {
        effects.into_iter().map(|effect| self.order(effect)).collect()
    }

    fn order(&self, effect: AnyEffect) -> Order {
        match effect {
            AnyEffect::Cancel => Order::Cancel,
            AnyEffect::Begin { visit, operation: Operation::Run(input) } => {
                let child_of = ChildOf { run: self.run.child(), resumes: self.resumed };
                Order::RunFlow { visit, input, child_of }
            }
            AnyEffect::Begin { visit, operation } => Order::Begin { visit, operation },
            AnyEffect::Wake { visit, delay, after } => Order::Wake { visit, delay, after },
            AnyEffect::End { state } => Order::End(self.result(state)),
        }
    }

    /// What the parent is given at the end.
    fn result(&self, state: &str) -> Result<Report, String> {
        let flow = self.machine.flow();
        if self.machine.has_failed() {
            let why = self.machine.problem().unwrap_or(&self.cause);
            return Err(format!("{flow} {state}: {why}"));
        }
        Ok(Report::Ended { flow: flow.to_owned(), state: state.to_owned() })
    }
}

#[cfg(test)]
mod tests;
