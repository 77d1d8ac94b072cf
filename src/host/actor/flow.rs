//! One actor for each running flow: the node's own, its child, and so on.
//!
//! It owns the flow's [`Frame`], hands inputs to it, and carries out what comes back: begins
//! operations, cancels them when their state is left, wakes itself, and ends. What the flows may
//! decide among themselves stands in [`crate::pure::machine::stack`], which the simulator runs too.
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use serde_json::Value;

use crate::host::actor::consensus::fence;
use crate::host::clock;
use crate::host::node::{NodeContext, execute};
use crate::host::rng::random_id;
use crate::pure::flow::any as flows;
use crate::pure::machine::any::{Answer, AnyJournal, JournalEntry, Occurrence};
use crate::pure::machine::stack::{ChildOf, Frame, Order, Outcome};
use crate::pure::node::situation::Situation;
use crate::pure::operation::{FlowInput, Operation, Report};
use crate::pure::view::{MachineView, Recorded, TransitionView};

/// Transitions kept in memory for `dump`.
const TRANSITIONS_MAX: usize = 50;

/// The level, told again and again.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub struct SituationChanged(pub Arc<Situation>);

/// The postmaster ended.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct PostgresDied;

/// The parent left the state that ran this flow.
#[derive(Message)]
#[rtype(result = "()")]
struct Halt;

/// What a child gives its parent.
#[derive(Message)]
#[rtype(result = "()")]
struct ChildEnded(Answer);

/// Is given how a flow ended.
pub type OnEnd = Box<dyn FnOnce(Result<Report, String>)>;

pub struct FlowActor {
    frame: Frame,
    first: Vec<Order>,
    context: Rc<NodeContext>,
    work: Vec<SpawnHandle>,
    child: Option<Addr<FlowActor>>,
    on_end: Option<OnEnd>,
    view: MachineView,
}

/// The journal of all flows, and what was written there last.
struct Ledger<'a> {
    context: &'a NodeContext,
    written: Vec<(JournalEntry, Recorded)>,
}

impl AnyJournal for Ledger<'_> {
    fn append(&mut self, mut entry: JournalEntry) -> io::Result<()> {
        entry.value["at_wall"] = Value::String(clock::wall());
        self.context.journal.borrow_mut().append(entry.flow, entry.seq, &entry.value)?;
        crash_if_asked(entry.flow, &entry.to);
        let recorded = Recorded::of(&entry.value);
        self.written.push((entry, recorded));
        Ok(())
    }
}

impl FlowActor {
    /// The node's own flow; its first record is written, or was in an earlier life.
    pub fn node(context: Rc<NodeContext>, on_end: OnEnd) -> FlowActor {
        let last = last_record(&context, flows::NODE);
        let known = last.is_some();
        let begin = |journal: &mut Ledger<'_>| Frame::node(last, fresh_id(), journal);
        let actor = FlowActor::with(context, on_end, begin);
        if known && !actor.frame.is_resumed() {
            tracing::info!(
                "the journal ends with a shutdown or is of another version: begins anew"
            );
        }
        actor
    }

    fn child(
        context: Rc<NodeContext>,
        input: FlowInput,
        child_of: ChildOf,
        on_end: OnEnd,
    ) -> FlowActor {
        let last = last_record(&context, flows::id_of(&input));
        let own = (fresh_id(), execute::flow_local(&context, &input));
        FlowActor::with(context, on_end, |journal| {
            Frame::child((input, child_of), last, own, journal)
        })
    }

    fn with(
        context: Rc<NodeContext>,
        on_end: OnEnd,
        begin: impl FnOnce(&mut Ledger<'_>) -> io::Result<(Frame, Vec<Order>)>,
    ) -> FlowActor {
        let mut ledger = Ledger { context: &context, written: Vec::new() };
        let (frame, first) = begin(&mut ledger).unwrap_or_else(|error| refused(&error));
        let written = ledger.written;
        let flow = frame.machine().flow().to_string();
        if frame.is_resumed() {
            tracing::info!(flow, state = frame.machine().state(), "resumes");
        }
        let view = MachineView { flow, ..MachineView::default() };
        let (work, child, on_end) = (Vec::new(), None, Some(on_end));
        let mut actor = FlowActor { frame, first, context, work, child, on_end, view };
        written.into_iter().for_each(|(entry, recorded)| actor.note(entry, recorded));
        actor.show();
        actor
    }

    /// The transition as people see it: one line in the log, one row in `dump`.
    fn note(&mut self, entry: JournalEntry, record: Recorded) {
        let JournalEntry { flow, seq, from, to, cause, .. } = entry;
        let from = from.unwrap_or_default();
        if from != to {
            tracing::info!(flow, seq, from, to, because = cause, "moved");
        }
        self.context.moved(flow, &from, &to, &cause);
        let (at, at_wall) = (clock::now(), clock::wall());
        let shown = TransitionView { seq, at, at_wall, from, to, cause, record };
        self.view.transitions.push(shown);
        let excess = self.view.transitions.len().saturating_sub(TRANSITIONS_MAX);
        self.view.transitions.drain(..excess);
    }

    fn show(&mut self) {
        let machine = self.frame.machine();
        self.context.flows.borrow_mut().note(machine);
        self.view.state = machine.state().to_string();
        self.view.since = clock::now();
        self.view.since_wall = clock::wall();
        self.view.waiting_for = machine.waiting_for();
        self.view.knowledge = machine.knowledge();
        self.context.show(self.view.clone());
    }

    fn take(
        &mut self,
        ctx: &mut Context<Self>,
        input: impl FnOnce(&mut Frame, &mut Ledger<'_>) -> Outcome,
    ) {
        let context = self.context.clone();
        let mut ledger = Ledger { context: &context, written: Vec::new() };
        let moved = match input(&mut self.frame, &mut ledger) {
            Ok(Some(moved)) => moved,
            Ok(None) => return,
            Err(error) => refused(&error),
        };
        ledger.written.into_iter().for_each(|(entry, recorded)| self.note(entry, recorded));
        self.view.until = None;
        self.carry_out(moved.orders, ctx);
        self.show();
        self.context.changed.notify_one();
    }

    fn answer(&mut self, answer: Answer, ctx: &mut Context<Self>) {
        self.take(ctx, |frame, journal| frame.answer(answer, journal));
    }

    fn carry_out(&mut self, orders: Vec<Order>, ctx: &mut Context<Self>) {
        for order in orders {
            match order {
                Order::Cancel => self.cancel(ctx),
                Order::RunFlow { visit, input, child_of } => {
                    self.run(visit, input, child_of, ctx);
                }
                Order::Begin { visit, operation } => self.begin(visit, operation, ctx),
                Order::Wake { visit, delay, after } => self.wake((visit, delay), after, ctx),
                Order::End(result) => self.end(result, ctx),
            }
        }
    }

    fn cancel(&mut self, ctx: &mut Context<Self>) {
        for work in self.work.drain(..) {
            ctx.cancel_future(work);
        }
        if let Some(child) = self.child.take() {
            child.do_send(Halt);
        }
    }

    fn begin(&mut self, visit: u64, operation: Operation, ctx: &mut Context<Self>) {
        let context = self.context.clone();
        let doing = async move { execute::execute(context, operation).await };
        let work = ctx.spawn(doing.into_actor(self).map(move |result, actor, ctx| {
            actor.answer(Answer::of(visit, result), ctx);
        }));
        self.work.push(work);
    }

    fn wake(&mut self, (visit, delay): (u64, usize), after: u64, ctx: &mut Context<Self>) {
        self.view.until = Some(clock::now() + after);
        let wake = ctx.run_later(Duration::from_millis(after), move |actor, ctx| {
            actor.answer(Answer::Elapsed { visit, delay }, ctx);
        });
        self.work.push(wake);
    }

    fn run(&mut self, visit: u64, input: FlowInput, child_of: ChildOf, ctx: &mut Context<Self>) {
        let parent = ctx.address();
        let on_end: OnEnd =
            Box::new(move |result| parent.do_send(ChildEnded(Answer::of(visit, result))));
        let child = FlowActor::child(self.context.clone(), input, child_of, on_end);
        self.child = Some(child.start());
        self.context.changed.notify_one();
    }

    fn end(&mut self, result: Result<Report, String>, ctx: &mut Context<Self>) {
        if let Some(on_end) = self.on_end.take() {
            on_end(result);
        }
        ctx.stop();
    }
}

/// Tells one life of one flow from every other.
fn fresh_id() -> String {
    random_id().to_string()
}

/// A journal that cannot be read is not one without a record: what the flow did would be done twice.
fn last_record(context: &NodeContext, flow: &str) -> Option<Value> {
    match context.journal.borrow().last(flow) {
        Ok(last) => last.map(|(_, value)| value),
        Err(error) => fence("the journal could not be read", &error.to_string()),
    }
}

fn refused(error: &io::Error) -> ! {
    fence("the journal could not be written", &error.to_string())
}

/// For tests of debug builds: `SURUS_CRASH_AT=flow:state` ends the process the hard way right after
/// that record was written, before anything it orders is begun.
fn crash_if_asked(flow: &str, state: &str) {
    if cfg!(debug_assertions)
        && std::env::var("SURUS_CRASH_AT").is_ok_and(|at| at == format!("{flow}:{state}"))
    {
        std::process::abort();
    }
}

/// Nothing in it is ever pinned.
impl Unpin for FlowActor {}

impl Actor for FlowActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let orders = std::mem::take(&mut self.first);
        self.carry_out(orders, ctx);
        self.show();
        self.context.changed.notify_one();
    }
}

impl Handler<ChildEnded> for FlowActor {
    type Result = ();
    fn handle(&mut self, ChildEnded(answer): ChildEnded, ctx: &mut Self::Context) {
        if answer.visit() == self.frame.machine().visit() {
            self.child = None;
        }
        self.answer(answer, ctx);
    }
}

impl Handler<SituationChanged> for FlowActor {
    type Result = ();
    fn handle(&mut self, SituationChanged(situation): SituationChanged, ctx: &mut Self::Context) {
        let what = Occurrence::Situation(&situation);
        self.take(ctx, |frame, journal| frame.occurred(what, journal));
        if let Some(child) = &self.child {
            child.do_send(SituationChanged(situation));
        }
    }
}

impl Handler<PostgresDied> for FlowActor {
    type Result = ();
    fn handle(&mut self, died: PostgresDied, ctx: &mut Self::Context) {
        self.take(ctx, |frame, journal| frame.occurred(Occurrence::PostgresDied, journal));
        if let Some(child) = &self.child {
            child.do_send(died);
        }
    }
}

impl Handler<Halt> for FlowActor {
    type Result = ();
    fn handle(&mut self, _: Halt, ctx: &mut Self::Context) {
        self.cancel(ctx);
        self.context.hide(self.frame.machine().flow());
        ctx.stop();
    }
}
