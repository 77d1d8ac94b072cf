//! One actor type hosts every flow.
//!
//! It hands inputs to the machine, writes the record down, and only then carries out the effects:
//! begins deeds, cancels them when their state is left, wakes itself, and ends. A deed that runs
//! another flow starts another actor of this very type.
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::actor::consensus::fence;
use crate::host::clock;
use crate::host::node::{World, perform};
use crate::pure::deed::{Brief, Deed, Report};
use crate::pure::machine::{Effect, Flow, Input, Journal, Machine, Record, Step};
use crate::pure::situation::{Hears, Situation};
use crate::pure::view::{MachineView, Recorded, TransitionView};

/// Transitions kept in memory for `dump`.
const TRANSITIONS_MAX: usize = 50;

/// The level, told again and again.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub struct Hear(pub Arc<Situation>);

/// The parent left the state that ran this flow.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Halt;

/// Something happened that is no level.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Happened<F: Flow>(pub F::Event);

/// How a flow ended: its final state, and the last cause.
pub type OnEnd = Box<dyn FnOnce(Result<Report, String>)>;

pub struct FlowActor<F: Hears> {
    machine: Machine<F>,
    run: Run,
    /// The machine's visit when its last record was written, or when it was resumed.
    visit: u64,
    first: Option<Vec<Effect<F>>>,
    resumed: bool,
    world: Rc<World>,
    work: Vec<SpawnHandle>,
    child: Option<(Recipient<Hear>, Recipient<Halt>)>,
    on_end: Option<OnEnd>,
    last_cause: String,
    view: MachineView,
}

/// Which run of which machine a record belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Drawn when the machine began, kept as long as it lives.
    born: String,
    /// The visit under which it arrived where it is; a resumed machine counts on, this stays.
    arrived: u64,
    /// The parent's own `born`, and its visit that runs this flow; empty for the node itself.
    by: String,
}

impl Run {
    fn new(by: &str) -> Run {
        let born = format!("{} {}", clock::wall(), clock::now());
        Run { born, arrived: 0, by: by.to_string() }
    }
}

/// Where a record goes, and the text that it became.
struct Ledger<'a> {
    world: &'a World,
    run: &'a Run,
    written: Recorded,
}

impl<F: Flow> Journal<F> for Ledger<'_> {
    fn append(&mut self, record: &Record<F>, input: &Input<F>) -> std::io::Result<()> {
        let mut value = serde_json::to_value(record)?;
        if let Value::Object(fields) = &mut value {
            fields.insert("at_wall".into(), Value::String(clock::wall()));
            fields.insert("run".into(), serde_json::to_value(self.run)?);
            fields.insert("input".into(), serde_json::to_value(input)?);
        }
        self.written = Recorded::of(&value);
        self.world.journal.borrow_mut().append(F::ID, record.seq, &value)
    }
}

impl<F: Hears> FlowActor<F> {
    /// Begins anew; the first record is written before this returns. `by` names who runs it.
    pub fn begin(world: Rc<World>, knowledge: F, by: &str, on_end: OnEnd) -> FlowActor<F> {
        let (machine, step) = Machine::start(knowledge);
        let mut actor = FlowActor::with(world, machine, Run::new(by), on_end);
        actor.first = Some(actor.persist(step));
        actor.show();
        actor
    }

    /// Goes on where the last record says, or begins anew where there is none to go on from: none
    /// of this very run. One that ended unheard, because the daemon died between its last record
    /// and its parent's next, says again how it ended: what it did is not done twice.
    pub fn resume(world: Rc<World>, knowledge: F, by: &str, on_end: OnEnd) -> FlowActor<F> {
        let last = world.journal.borrow().last(F::ID).ok().flatten().map(|(_, value)| value);
        let run = last.as_ref().and_then(|value| value.get("run").cloned());
        let run = run.and_then(|run| serde_json::from_value::<Run>(run).ok());
        let record = last.and_then(|value| serde_json::from_value::<Record<F>>(value).ok());
        match (record, run.filter(|run| run.by == by)) {
            (Some(record), Some(run)) if record.state().is_some() => {
                let cause = record.cause.clone();
                let (machine, effects) = Machine::resume(record);
                if machine.is_ended() && by.is_empty() {
                    return FlowActor::begin(world, knowledge, by, on_end);
                }
                tracing::info!(flow = F::ID, state = %machine.state(), "resumes");
                let mut actor = FlowActor::with(world, machine, run, on_end);
                actor.visit = actor.machine.visit();
                (actor.first, actor.resumed, actor.last_cause) = (Some(effects), true, cause);
                actor.show();
                actor
            }
            _ => FlowActor::begin(world, knowledge, by, on_end),
        }
    }

    fn with(world: Rc<World>, machine: Machine<F>, run: Run, on_end: OnEnd) -> FlowActor<F> {
        FlowActor {
            machine,
            run,
            visit: 0,
            first: None,
            resumed: false,
            world,
            work: Vec::new(),
            child: None,
            on_end: Some(on_end),
            last_cause: String::new(),
            view: MachineView { flow: F::ID.to_string(), ..MachineView::default() },
        }
    }

    fn persist(&mut self, step: Step<F>) -> Vec<Effect<F>> {
        self.note(&step.record);
        let state = step.record.to.clone();
        if step.record.visit != self.visit {
            self.visit = step.record.visit;
            self.run.arrived = self.visit;
        }
        let (world, run) = (&self.world, &self.run);
        let mut ledger = Ledger { world, run, written: Recorded::default() };
        match step.persist(&mut ledger) {
            Ok(effects) => {
                if let Some(shown) = self.view.transitions.last_mut() {
                    shown.record = ledger.written;
                }
                crash_if_asked(F::ID, &state);
                effects
            }
            Err(error) => fence("the journal could not be written", &error.to_string()),
        }
    }

    /// The transition as people see it: one line in the log, one row in `dump`.
    fn note(&mut self, record: &Record<F>) {
        let from = record.from.clone().unwrap_or_default();
        if from != record.to {
            tracing::info!(
                flow = F::ID,
                seq = record.seq,
                from,
                to = record.to,
                because = record.cause,
                "moved"
            );
        }
        self.last_cause = record.cause.clone();
        self.view.transitions.push(TransitionView {
            seq: record.seq,
            at: clock::now(),
            at_wall: clock::wall(),
            from: from.clone(),
            to: record.to.clone(),
            cause: record.cause.clone(),
            record: Recorded::default(),
        });
        let excess = self.view.transitions.len().saturating_sub(TRANSITIONS_MAX);
        self.view.transitions.drain(..excess);
        self.world.moved(F::ID, &from, &record.to, &record.cause);
    }

    fn show(&mut self) {
        self.view.state = self.machine.state().to_string();
        self.view.since = clock::now();
        self.view.since_wall = clock::wall();
        self.view.waiting_for = self.machine.waiting_for();
        self.view.knowledge = serde_json::to_value(self.machine.knowledge()).unwrap_or_default();
        self.world.show(self.view.clone());
    }

    fn tell(&mut self, input: Input<F>, ctx: &mut Context<Self>) {
        let Some(step) = self.machine.handle(input) else { return };
        let effects = self.persist(step);
        self.resumed = false;
        self.view.until = None;
        self.carry_out(effects, ctx);
        self.show();
        self.world.changed.notify_one();
    }

    fn carry_out(&mut self, effects: Vec<Effect<F>>, ctx: &mut Context<Self>) {
        for effect in effects {
            match effect {
                Effect::Cancel => self.cancel(ctx),
                Effect::Begin { visit, deed: Deed::Run(brief) } => self.run(visit, brief, ctx),
                Effect::Begin { visit, deed } => self.begin_deed(visit, deed, ctx),
                Effect::Wake { visit, delay, after } => {
                    self.view.until = Some(clock::now() + after);
                    let wake = ctx.run_later(Duration::from_millis(after), move |actor, ctx| {
                        actor.tell(Input::Elapsed { visit, delay }, ctx);
                    });
                    self.work.push(wake);
                }
                Effect::End(state) => self.end(&state.to_string(), ctx),
            }
        }
    }

    fn cancel(&mut self, ctx: &mut Context<Self>) {
        for work in self.work.drain(..) {
            ctx.cancel_future(work);
        }
        if let Some((_, halt)) = self.child.take() {
            halt.do_send(Halt);
        }
    }

    fn begin_deed(&mut self, visit: u64, deed: Deed, ctx: &mut Context<Self>) {
        let world = self.world.clone();
        let doing = async move { perform::perform(world, deed).await };
        let work = ctx.spawn(doing.into_actor(self).map(move |result, actor, ctx| {
            actor.tell(answer(visit, result), ctx);
        }));
        self.work.push(work);
    }

    fn run(&mut self, visit: u64, brief: Brief, ctx: &mut Context<Self>) {
        let parent = ctx.address();
        let on_end: OnEnd = Box::new(move |result| parent.do_send(ChildEnded { visit, result }));
        let by = format!("{} {}", self.run.born, self.run.arrived);
        self.child =
            Some(perform::start_flow(self.world.clone(), brief, (self.resumed, &by), on_end));
        self.world.changed.notify_one();
    }

    fn end(&mut self, state: &str, ctx: &mut Context<Self>) {
        let failed = matches!(state, "failed" | "cancelled" | "abandoned");
        let result = if failed {
            let why = self.machine.knowledge().problem().unwrap_or(&self.last_cause);
            Err(format!("{} {state}: {why}", F::ID))
        } else {
            Ok(Report::Ended { flow: F::ID.to_string(), state: state.to_string() })
        };
        if let Some(on_end) = self.on_end.take() {
            on_end(result);
        }
        ctx.stop();
    }
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

fn answer<F: Flow>(visit: u64, result: Result<Report, String>) -> Input<F> {
    match result {
        Ok(report) => Input::Done { visit, report },
        Err(problem) => Input::Failed { visit, problem },
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct ChildEnded {
    visit: u64,
    result: Result<Report, String>,
}

/// Nothing in it is ever pinned.
impl<F: Hears> Unpin for FlowActor<F> {}

impl<F: Hears> Actor for FlowActor<F> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let effects = self.first.take().unwrap_or_default();
        self.carry_out(effects, ctx);
        self.show();
        self.world.changed.notify_one();
    }
}

impl<F: Hears> Handler<ChildEnded> for FlowActor<F> {
    type Result = ();
    fn handle(&mut self, message: ChildEnded, ctx: &mut Self::Context) {
        if message.visit == self.machine.visit() {
            self.child = None;
            self.tell(answer(message.visit, message.result), ctx);
        }
    }
}

impl<F: Hears> Handler<Hear> for FlowActor<F> {
    type Result = ();
    fn handle(&mut self, Hear(situation): Hear, ctx: &mut Self::Context) {
        for event in self.machine.knowledge().hear(&situation) {
            self.tell(Input::Event(event), ctx);
        }
        if let Some((child, _)) = &self.child {
            child.do_send(Hear(situation));
        }
    }
}

impl<F: Hears> Handler<Happened<F>> for FlowActor<F> {
    type Result = ();
    fn handle(&mut self, Happened(event): Happened<F>, ctx: &mut Self::Context) {
        self.tell(Input::Event(event), ctx);
    }
}

impl<F: Hears> Handler<Halt> for FlowActor<F> {
    type Result = ();
    fn handle(&mut self, _: Halt, ctx: &mut Self::Context) {
        self.cancel(ctx);
        self.world.hide(F::ID);
        ctx.stop();
    }
}
