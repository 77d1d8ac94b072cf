//! A node's flows as the simulator drives them: it carries out what each
//! [`Frame`](crate::pure::machine::stack::Frame) orders, and decides nothing.
use std::io;

use super::disk::JournalFate;
use super::world::{Event, World};
use crate::pure::chart::Name;
use crate::pure::cluster::Millis;
use crate::pure::flow::any::{self as flows, Local};
use crate::pure::flow::node::{Node as NodeFlow, State};
use crate::pure::flow::restart::Restart;
use crate::pure::machine::Flow;
use crate::pure::machine::any::{Answer, Occurrence};
use crate::pure::machine::stack::{ChildOf, Frame, Moved, Order, Outcome};
use crate::pure::node::requests;
use crate::pure::operation::{FlowInput, Operation, Report};

/// One in so many of the operations that were cancelled answers all the same.
const LATE_ANSWERS: u64 = 3;
/// After how long.
const LATE_MS: [u64; 4] = [3, 60, 400, 2500];

/// A operation that is being done.
#[derive(Clone, Debug)]
pub struct Work {
    /// Tells this operation's timers from those of an earlier one.
    pub token: u64,
    pub visit: u64,
    /// `None` while a child is run.
    pub operation: Option<Operation>,
    /// How often it was looked at.
    pub looks: u32,
    /// Nothing comes of it until then.
    pub hangs_until: Millis,
    /// The proposal that it waits for.
    pub ticket: Option<u64>,
    /// The postmaster that it acts on.
    pub generation: Option<u64>,
}

pub struct Slot {
    /// Never used twice.
    pub serial: u64,
    pub frame: Frame,
    pub work: Option<Work>,
}

#[derive(Default)]
pub struct Flows {
    pub slots: Vec<Slot>,
}

impl World {
    /// The daemon has just started: the node's flow goes on, or begins.
    pub fn flows_begin(&mut self, at: usize) {
        let serial = self.fresh();
        let disk = &mut self.nodes[at].disk;
        let last = disk.journal.get(NodeFlow::ID).map(|entry| entry.value.clone());
        let begun = Frame::node(last, serial.to_string(), disk);
        self.man(at, serial, begun);
    }

    fn man(&mut self, at: usize, serial: u64, begun: io::Result<(Frame, Vec<Order>)>) {
        let (frame, orders) = match begun {
            Ok(begun) => begun,
            Err(problem) => return self.journal_failed(at, &problem),
        };
        let (machine, resumed) = (frame.machine(), frame.is_resumed());
        let what = if resumed { "resumes" } else { "begins" };
        self.say(at, &format!("{} {what} in {}", machine.flow(), machine.state()));
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        daemon.flows.slots.push(Slot { serial, frame, work: None });
        self.perform(at, serial, orders, resumed);
    }

    fn level(&self, at: usize, serial: u64) -> Option<usize> {
        let flows = &self.nodes[at].daemon.as_ref()?.flows;
        flows.slots.iter().position(|slot| slot.serial == serial)
    }

    pub fn slot(&mut self, at: usize, serial: u64) -> Option<&mut Slot> {
        let level = self.level(at, serial)?;
        self.nodes[at].daemon.as_mut()?.flows.slots.get_mut(level)
    }

    /// Gives one flow the result of its own work.
    pub fn tell(&mut self, at: usize, serial: u64, answer: Answer) {
        let Some(level) = self.level(at, serial) else { return };
        let node = &mut self.nodes[at];
        let Some(daemon) = &mut node.daemon else { return };
        let slot = &mut daemon.flows.slots[level];
        let (asked, now) = (answer.visit(), slot.frame.machine().visit());
        let answers = !matches!(answer, Answer::Elapsed { .. });
        if answers && asked == now {
            slot.work = None;
        }
        let flow = slot.frame.machine().flow();
        let outcome = slot.frame.answer(answer, &mut node.disk);
        if matches!(outcome, Ok(Some(_))) {
            self.check_not_stale(at, flow, (asked, now));
        }
        self.moved(at, serial, outcome);
    }

    fn hear(&mut self, at: usize, serial: u64, what: Occurrence<'_>) {
        let Some(level) = self.level(at, serial) else { return };
        let node = &mut self.nodes[at];
        let Some(daemon) = &mut node.daemon else { return };
        let outcome = daemon.flows.slots[level].frame.occurred(what, &mut node.disk);
        self.moved(at, serial, outcome);
    }

    fn moved(&mut self, at: usize, serial: u64, outcome: Outcome) {
        let Moved { from, to, cause, orders } = match outcome {
            Err(problem) => return self.journal_failed(at, &problem),
            Ok(None) => return,
            Ok(Some(moved)) => moved,
        };
        let Some(slot) = self.slot(at, serial) else { return };
        let flow = slot.frame.machine().flow();
        let timed = cause.starts_with("after") || cause == "situation_changed";
        let gives_way = (flow, from, to) == (Restart::ID, "starting", "failed") && timed;
        self.say(at, &format!("{flow} {from} → {to}, because {cause}"));
        if gives_way {
            self.check_another_can_lead(at);
        }
        self.checks.walked(flow, from, to);
        self.requests_are_fulfilled(at, flow, (from, to));
        self.perform(at, serial, orders, false);
        self.notify_soon(at);
    }

    /// What the operator asked for has begun: it is not asked for again.
    fn requests_are_fulfilled(&mut self, at: usize, flow: &str, (from, to): (&str, &str)) {
        let Some(daemon) = self.nodes[at].daemon.as_mut().filter(|_| flow == NodeFlow::ID) else {
            return;
        };
        if let (Some(from), Some(to)) = (State::from_text(from), State::from_text(to)) {
            requests::moved(&mut daemon.requests, from, to);
        }
    }

    /// Carries out what a record has ordered.
    fn perform(&mut self, at: usize, serial: u64, orders: Vec<Order>, resumed: bool) {
        let life = self.nodes[at].life;
        for order in orders {
            if !self.nodes[at].lives(life) || self.level(at, serial).is_none() {
                return;
            }
            match order {
                Order::Cancel => self.cancel(at, serial),
                Order::RunFlow { visit, input, child_of } => {
                    self.note_work(at, serial, visit, None);
                    self.run_child(at, input, child_of);
                }
                Order::Begin { visit, operation } => {
                    let token = self.note_work(at, serial, visit, Some(operation));
                    self.check_begins_after_record(at, serial, visit, resumed);
                    self.begin_work(at, serial, token);
                }
                Order::Wake { visit, delay, after } => {
                    let event = Event::Wake { node: at, life, serial, visit, delay };
                    self.after_local(at, after, event);
                }
                Order::End(result) => self.ended(at, serial, result),
            }
        }
    }

    fn note_work(
        &mut self,
        at: usize,
        serial: u64,
        visit: u64,
        operation: Option<Operation>,
    ) -> u64 {
        let token = self.fresh();
        if let Some(slot) = self.slot(at, serial) {
            let (looks, ticket, generation) = (0, None, None);
            let hangs_until = 0;
            slot.work =
                Some(Work { token, visit, operation, looks, hangs_until, ticket, generation });
        }
        token
    }

    /// The state's work stops; children go with it.
    fn cancel(&mut self, at: usize, serial: u64) {
        let Some(level) = self.level(at, serial) else { return };
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        daemon.flows.slots.truncate(level + 1);
        let left = daemon.flows.slots[level].work.take();
        if let Some(work) = left.filter(|work| work.token % LATE_ANSWERS == 0) {
            let (life, visit) = (self.nodes[at].life, work.visit);
            let event = Event::Late { node: at, life, serial, visit };
            self.after(LATE_MS[work.token as usize / 7 % LATE_MS.len()], event);
        }
    }

    fn run_child(&mut self, at: usize, input: FlowInput, child_of: ChildOf) {
        let local = self.flow_local(at);
        let serial = self.fresh();
        let disk = &mut self.nodes[at].disk;
        let last = disk.journal.get(flows::id_of(&input)).map(|entry| entry.value.clone());
        let own = (serial.to_string(), local);
        let begun = Frame::child((input, child_of), last, own, disk);
        self.man(at, serial, begun);
    }

    fn flow_local(&self, at: usize) -> Local {
        let node = &self.nodes[at];
        let dynamic = node.daemon.as_ref().map(|daemon| daemon.core.dynamic());
        Local {
            node: node.name.clone(),
            postgres_runs: node.postgres.server.is_some(),
            creation: self.plan.creation(),
            primary_start_timeout_ms: dynamic.map_or(0, |d| d.primary_start_timeout_ms),
            restart_timeout_ms: None,
        }
    }

    /// A flow came to rest: its parent is given the result; without a parent the daemon ends.
    fn ended(&mut self, at: usize, serial: u64, result: Result<Report, String>) {
        let Some(level) = self.level(at, serial) else { return };
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        if level == 0 {
            self.kill_daemon(at, "it was told to stop");
            return self.after(100, Event::StartDaemon { node: at }); // unless it shall stay away
        }
        daemon.flows.slots.truncate(level);
        let parent = &daemon.flows.slots[level - 1];
        let (parent, visit) = (parent.serial, parent.frame.machine().visit());
        self.tell(at, parent, Answer::of(visit, result));
    }

    /// What was called off had ended already, and its report was on its way.
    pub fn answers_late(&mut self, at: usize, serial: u64, visit: u64) {
        let result = match visit % 2 {
            0 => Ok(Report::Done),
            _ => Err(String::from("it was called off")),
        };
        self.tell(at, serial, Answer::of(visit, result));
    }

    pub fn wake(&mut self, at: usize, serial: u64, visit: u64, delay: usize) {
        self.tell(at, serial, Answer::Elapsed { visit, delay });
    }

    // ---- the situation

    pub fn loop_wait(&mut self, at: usize, life: u64) {
        self.notify(at);
        let wait = self.loop_wait_ms(at);
        self.after_local(at, wait, Event::LoopWait { node: at, life });
    }

    /// Something changed: the flows hears of it in a moment, once for several changes.
    pub fn notify_soon(&mut self, at: usize) {
        let wait = self.rng.between(1, 12);
        let life = self.nodes[at].life;
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        if !daemon.notify_is_due {
            daemon.notify_is_due = true;
            self.after(wait, Event::Notify { node: at, life });
        }
    }

    pub fn notify(&mut self, at: usize) {
        if let Some(daemon) = &mut self.nodes[at].daemon {
            daemon.notify_is_due = false;
        }
        let Some(situation) = self.situation(at) else { return };
        self.tell_all(at, Occurrence::Situation(&situation));
    }

    /// The parent first, then the child that it has by then.
    fn tell_all(&mut self, at: usize, what: Occurrence<'_>) {
        let life = self.nodes[at].life;
        let mut level = 0;
        while self.nodes[at].lives(life) {
            let Some(daemon) = &self.nodes[at].daemon else { return };
            let Some(slot) = daemon.flows.slots.get(level) else { return };
            let serial = slot.serial;
            self.hear(at, serial, what);
            level += 1;
        }
    }

    /// The postmaster's end was seen.
    pub fn postgres_died(&mut self, at: usize) {
        let number = self.nodes[at].looks.begin();
        self.looked(at, (0, number), None);
        self.tell_all(at, Occurrence::PostgresDied);
    }

    /// The record could not be written (or the daemon died over it): nothing was done.
    fn journal_failed(&mut self, at: usize, problem: &io::Error) {
        if JournalFate::of(problem) == Some(JournalFate::Refuses) {
            self.say(at, "the journal cannot be written: fences itself");
            self.postgres_ends(at, false);
        }
        self.kill_daemon(at, &problem.to_string());
        let wait = self.rng.between(200, 3000);
        self.after(wait, Event::StartDaemon { node: at });
    }
}
