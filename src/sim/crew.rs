//! A node's machines: the node's own at the bottom, above it the child that its work runs.
//!
//! The crew obeys the contract of [`crate::pure::machine`]: a record first, then its effects; a
//! child that ends is its parent's report; a parent that moves on takes its children with it.
use super::disk::{JournalFate, Pen};
use super::machine::{self, Act, Begun, Body, BornBy, News, Tell};
use super::world::{Event, World};
use crate::pure::cluster::Millis;
use crate::pure::deed::{Brief, Deed, Report};
use crate::pure::flow::node::Node as NodeFlow;
use crate::pure::flow::restart::Restart;
use crate::pure::machine::Flow;

/// One in so many of the deeds that were cancelled answers all the same.
const LATE_ANSWERS: u64 = 3;
/// After how long.
const LATE_MS: [u64; 4] = [3, 60, 400, 2500];

/// A deed that is being done.
#[derive(Clone, Debug)]
pub struct Work {
    /// Tells this deed's timers from those of an earlier one.
    pub token: u64,
    pub visit: u64,
    pub deed: Deed,
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
    pub body: Box<dyn Body>,
    /// The parent's visit for which it was begun.
    pub asked_by: u64,
    pub work: Option<Work>,
}

#[derive(Default)]
pub struct Crew {
    pub slots: Vec<Slot>,
}

impl World {
    /// The daemon has just started: the node's machine goes on, or begins.
    pub fn crew_begins(&mut self, at: usize) {
        let disk = &mut self.nodes[at].disk;
        let kept = disk.journal.get(NodeFlow::ID).filter(|kept| !kept.ended).cloned();
        match kept {
            Some(kept) => {
                let (body, acts) = machine::resume(NodeFlow::ID, &kept);
                self.man(at, 0, body, acts, true, kept.visit);
            }
            None => {
                disk.journal.clear();
                let begun = machine::begin_node(&mut Pen { disk, asked_by: 0 });
                self.manned(at, 0, begun);
            }
        }
    }

    fn manned(&mut self, at: usize, asked_by: u64, begun: Begun) {
        match begun {
            Ok((body, acts)) => self.man(at, asked_by, body, acts, false, 0),
            Err(problem) => self.journal_failed(at, &problem.to_string()),
        }
    }

    fn man(
        &mut self,
        at: usize,
        asked_by: u64,
        body: Box<dyn Body>,
        acts: Vec<Act>,
        resumed: bool,
        old_visit: u64,
    ) {
        let serial = self.fresh();
        let what = if resumed { "resumes" } else { "begins" };
        self.say(at, &format!("{} {what} in {}", body.flow(), body.state()));
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        daemon.crew.slots.push(Slot { serial, body, asked_by, work: None });
        self.perform(at, serial, acts, resumed.then_some(old_visit));
    }

    fn level(&self, at: usize, serial: u64) -> Option<usize> {
        let crew = &self.nodes[at].daemon.as_ref()?.crew;
        crew.slots.iter().position(|slot| slot.serial == serial)
    }

    pub fn slot(&mut self, at: usize, serial: u64) -> Option<&mut Slot> {
        let level = self.level(at, serial)?;
        self.nodes[at].daemon.as_mut()?.crew.slots.get_mut(level)
    }

    /// Tells one machine about its own work.
    pub fn tell(&mut self, at: usize, serial: u64, tell: Tell) {
        let Some(level) = self.level(at, serial) else { return };
        let node = &mut self.nodes[at];
        let Some(daemon) = &mut node.daemon else { return };
        let slot = &mut daemon.crew.slots[level];
        let (asked, now) = (tell.visit(), slot.body.visit());
        let answers = !matches!(tell, Tell::Elapsed { .. });
        if answers && asked == now {
            slot.work = None;
        }
        let (from, flow) = (slot.body.state(), slot.body.flow());
        let mut pen = Pen { disk: &mut node.disk, asked_by: slot.asked_by };
        let acts = slot.body.tell(tell, &mut pen);
        if matches!(acts, Ok(Some(_))) {
            self.check_not_stale(at, flow, (asked, now));
        }
        self.moved(at, serial, from, acts);
    }

    fn hear(&mut self, at: usize, serial: u64, news: News) {
        let Some(level) = self.level(at, serial) else { return };
        let node = &mut self.nodes[at];
        let Some(daemon) = &mut node.daemon else { return };
        let slot = &mut daemon.crew.slots[level];
        let from = slot.body.state();
        let mut pen = Pen { disk: &mut node.disk, asked_by: slot.asked_by };
        let acts = slot.body.hear(news, &mut pen);
        self.moved(at, serial, from, acts);
    }

    fn moved(&mut self, at: usize, serial: u64, from: &str, acts: machine::Acts) {
        let acts = match acts {
            Err(problem) => return self.journal_failed(at, &problem.to_string()),
            Ok(None) => return,
            Ok(Some(acts)) => acts,
        };
        let Some(slot) = self.slot(at, serial) else { return };
        let (flow, to) = (slot.body.flow(), slot.body.state());
        let cause = self.nodes[at].disk.journal.get(flow).map_or("", |kept| &kept.cause);
        let timed = cause.starts_with("after") || cause == "situation_changed";
        let gives_way = (flow, from, to) == (Restart::ID, "starting", "failed") && timed;
        self.say(at, &format!("{flow} {from} → {to}, because {cause}"));
        if gives_way {
            self.check_another_can_lead(at);
        }
        self.checks.walked(flow, from, to);
        self.wishes_are_granted(at, flow, to);
        self.perform(at, serial, acts, None);
        self.pump_soon(at);
    }

    /// What the operator asked for has begun: it is not asked for again.
    fn wishes_are_granted(&mut self, at: usize, flow: &str, to: &str) {
        let Some(daemon) = self.nodes[at].daemon.as_mut().filter(|_| flow == NodeFlow::ID) else {
            return;
        };
        daemon.wishes.cancel_build &= to == "building";
        match to {
            "rebuilding" => daemon.wishes.reinitialize = false,
            "restarting" => daemon.wishes.restart = false,
            _ => {}
        }
    }

    /// Does what a record has ordered. `resumed`: the visit under which children were begun.
    fn perform(&mut self, at: usize, serial: u64, acts: Vec<Act>, resumed: Option<u64>) {
        let life = self.nodes[at].life;
        for act in acts {
            if !self.nodes[at].lives(life) || self.level(at, serial).is_none() {
                return;
            }
            match act {
                Act::Cancel => self.cancel(at, serial),
                Act::Begin { visit, deed: Deed::Run(brief) } => {
                    self.note_work(at, serial, visit, Deed::Run(brief.clone()));
                    self.run_child(at, serial, visit, &brief, resumed);
                }
                Act::Begin { visit, deed } => {
                    let token = self.note_work(at, serial, visit, deed);
                    self.check_begins_after_record(at, serial, visit, resumed.is_some());
                    self.begin_work(at, serial, token);
                }
                Act::Wake { visit, delay, after } => {
                    let event = Event::Wake { node: at, life, serial, visit, delay };
                    self.after_local(at, after, event);
                }
                Act::End { state } => self.ended(at, serial, state),
            }
        }
    }

    fn note_work(&mut self, at: usize, serial: u64, visit: u64, deed: Deed) -> u64 {
        let token = self.fresh();
        if let Some(slot) = self.slot(at, serial) {
            let (looks, ticket, generation) = (0, None, None);
            let hangs_until = 0;
            slot.work = Some(Work { token, visit, deed, looks, hangs_until, ticket, generation });
        }
        token
    }

    /// The state's work stops; children go with it.
    fn cancel(&mut self, at: usize, serial: u64) {
        let Some(level) = self.level(at, serial) else { return };
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        daemon.crew.slots.truncate(level + 1);
        let left = daemon.crew.slots[level].work.take();
        if let Some(work) = left.filter(|work| work.token % LATE_ANSWERS == 0) {
            let (life, visit) = (self.nodes[at].life, work.visit);
            let event = Event::Late { node: at, life, serial, visit };
            self.after(LATE_MS[work.token as usize / 7 % LATE_MS.len()], event);
        }
    }

    fn run_child(
        &mut self,
        at: usize,
        parent: u64,
        visit: u64,
        brief: &Brief,
        resumed: Option<u64>,
    ) {
        let flow = machine::flow_of(brief);
        let plan = &self.plan;
        let (config, methods) = (plan.config.clone(), plan.methods.clone());
        let born_by = BornBy { config, methods, has_script: plan.has_script };
        let node = &mut self.nodes[at];
        let kept = node.disk.journal.get(flow).cloned();
        let kept = kept.filter(|kept| resumed == Some(kept.asked_by));
        match kept {
            Some(kept) if kept.ended => {
                let tell = child_report(flow, &kept.to, &kept.cause, visit);
                self.tell(at, parent, tell);
            }
            Some(kept) => {
                let (body, acts) = machine::resume(flow, &kept);
                self.man(at, kept.asked_by, body, acts, true, kept.visit);
            }
            None => {
                let name = node.name.clone();
                let start_ms =
                    node.daemon.as_ref().map_or(0, |d| d.core.dynamic().primary_start_timeout_ms);
                let mut pen = Pen { disk: &mut node.disk, asked_by: visit };
                let runs = node.postgres.server.is_some();
                let begun = machine::begin(brief, &name, runs, (born_by, start_ms), &mut pen);
                self.manned(at, visit, begun);
            }
        }
    }

    /// A machine came to rest: its parent hears of it; without a parent the daemon ends.
    fn ended(&mut self, at: usize, serial: u64, state: &'static str) {
        let Some(level) = self.level(at, serial) else { return };
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        let slot = &daemon.crew.slots[level];
        let flow = slot.body.flow();
        if level == 0 {
            self.kill_daemon(at, "it was told to stop");
            return self.after(100, Event::StartDaemon { node: at }); // unless it shall stay away
        }
        daemon.crew.slots.truncate(level);
        let parent = &daemon.crew.slots[level - 1];
        let (parent, visit) = (parent.serial, parent.body.visit());
        let cause = self.nodes[at].disk.journal.get(flow).map_or("", |kept| &kept.cause);
        let tell = child_report(flow, state, cause, visit);
        self.tell(at, parent, tell);
    }

    /// What was called off had ended already, and its report was on its way.
    pub fn answers_late(&mut self, at: usize, serial: u64, visit: u64) {
        let tell = match visit % 2 {
            0 => Tell::Done { visit, report: Report::Done },
            _ => Tell::Failed { visit, problem: String::from("it was called off") },
        };
        self.tell(at, serial, tell);
    }

    pub fn wake(&mut self, at: usize, serial: u64, visit: u64, delay: usize) {
        self.tell(at, serial, Tell::Elapsed { visit, delay });
    }

    // ---- the situation

    pub fn loop_wait(&mut self, at: usize, life: u64) {
        self.pump(at);
        let wait = self.loop_wait_ms(at);
        self.after_local(at, wait, Event::LoopWait { node: at, life });
    }

    /// Something changed: the crew hears of it in a moment, once for several changes.
    pub fn pump_soon(&mut self, at: usize) {
        let wait = self.luck.between(1, 12);
        let life = self.nodes[at].life;
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        if !daemon.pump_is_due {
            daemon.pump_is_due = true;
            self.after(wait, Event::Pump { node: at, life });
        }
    }

    pub fn pump(&mut self, at: usize) {
        if let Some(daemon) = &mut self.nodes[at].daemon {
            daemon.pump_is_due = false;
        }
        let Some(situation) = self.situation(at) else { return };
        self.tell_all(at, News::Beat(&situation));
    }

    fn tell_all(&mut self, at: usize, news: News) {
        let life = self.nodes[at].life;
        let Some(daemon) = &self.nodes[at].daemon else { return };
        let serials: Vec<u64> = daemon.crew.slots.iter().map(|slot| slot.serial).collect();
        for serial in serials {
            if self.nodes[at].lives(life) {
                self.hear(at, serial, news);
            }
        }
    }

    /// The postmaster's end was seen.
    pub fn postgres_died(&mut self, at: usize) {
        let number = self.nodes[at].looks.begin();
        self.looked(at, (0, number), None);
        self.tell_all(at, News::PostgresDied);
    }

    /// The record could not be written (or the daemon died over it): nothing was done.
    fn journal_failed(&mut self, at: usize, problem: &str) {
        if problem == format!("{:?}", JournalFate::Refuses) {
            self.say(at, "the journal cannot be written: fences itself");
            self.postgres_ends(at, false);
        }
        self.kill_daemon(at, problem);
        let wait = self.luck.between(200, 3000);
        self.after(wait, Event::StartDaemon { node: at });
    }
}

fn child_report(flow: &str, state: &str, cause: &str, visit: u64) -> Tell {
    if ["failed", "cancelled", "abandoned"].contains(&state) {
        return Tell::Failed { visit, problem: cause.to_string() };
    }
    let report = Report::Ended { flow: flow.to_string(), state: state.to_string() };
    Tell::Done { visit, report }
}
