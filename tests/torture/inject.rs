//! Carries faults out on real processes, networks and disks, and takes them back.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::cluster::Cluster;
use super::disk::Loop;
use super::faults::{Fault, Step, Target, timings_s};
use super::network::Network;
use super::run::USUAL_S;
use super::wall_clock::{WallClocks, wrong_s};
use super::{http, process};

/// Where a moved data directory lies meanwhile, in its node's directory.
const ASIDE: &str = "moved-aside";

/// What is taken back later.
#[derive(Clone, Debug)]
enum Undo {
    Start(usize),
    Continue(Vec<i32>),
    Mend(Vec<(usize, usize)>),
    Thaw(usize),
    SetClock(usize),
    PutBack(usize),
    /// The usual timings, asked for at this node.
    UsualTimings(usize),
}

/// What can be broken besides processes.
pub struct Means {
    pub network: Network,
    /// Empty where no disk can be frozen.
    pub disks: Vec<Loop>,
    /// `None` where they cannot be made.
    pub clocks: Option<WallClocks>,
}

pub struct Torturer<'a> {
    pub cluster: &'a mut Cluster,
    means: &'a Means,
    log: fs::File,
    began: Instant,
    due: BTreeMap<(Instant, u64), Undo>,
    ticket: u64,
    /// Directions that are cut, and by how many faults.
    cuts: BTreeMap<(usize, usize), usize>,
    stalled: BTreeSet<usize>,
    /// Nodes whose daemon is wanted down.
    down: BTreeSet<usize>,
    /// Daemons that ended without having been asked to.
    pub ended: usize,
}

impl<'a> Torturer<'a> {
    pub fn new(cluster: &'a mut Cluster, means: &'a Means, began: Instant) -> Torturer<'a> {
        let log = fs::File::create(cluster.root().join("torture.log")).expect("a log");
        Torturer {
            cluster,
            means,
            log,
            began,
            due: BTreeMap::new(),
            ticket: 0,
            cuts: BTreeMap::new(),
            stalled: BTreeSet::new(),
            down: BTreeSet::new(),
            ended: 0,
        }
    }

    pub fn say(&mut self, what: &str) {
        let line = format!("{:8.3} {what}", self.began.elapsed().as_secs_f64());
        println!("{line}");
        writeln!(self.log, "{line}").expect("the log can be written");
    }

    /// Goes on until then: takes back what is due, and starts daemons that ended by themselves.
    pub fn run_until(&mut self, then: Instant) {
        while Instant::now() < then {
            self.take_back(Instant::now());
            self.restart_the_ended();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn take_back(&mut self, now: Instant) {
        while let Some(((at, ticket), undo)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, ticket), undo);
                return;
            }
            self.undo(undo);
        }
    }

    fn undo(&mut self, undo: Undo) {
        self.say(&format!("  over: {}", shown(&undo)));
        match undo {
            Undo::Start(k) => self.start(k),
            Undo::Continue(pids) => pids.iter().for_each(|p| process::signal(*p, Signal::CONT)),
            Undo::Mend(pairs) => pairs.into_iter().for_each(|pair| self.mend(pair)),
            Undo::Thaw(k) => {
                self.stalled.remove(&k);
                self.means.disks[k].thaw().expect("a frozen disk can be thawed");
            }
            Undo::PutBack(k) => self.put_back(k),
            Undo::UsualTimings(k) => self.patch_timings(k, USUAL_S),
            Undo::SetClock(k) => self.means.clocks.iter().for_each(|clocks| clocks.set(k, 0)),
        }
    }

    fn later(&mut self, ms: u64, undo: Undo) {
        self.ticket += 1;
        self.due.insert((Instant::now() + Duration::from_millis(ms), self.ticket), undo);
    }

    fn start(&mut self, k: usize) {
        self.down.remove(&k);
        if !self.cluster.nodes[k].is_running() {
            self.cluster.nodes[k].reap();
            self.cluster.start(k);
        }
    }

    fn restart_the_ended(&mut self) {
        for k in self.cluster.numbers() {
            if !self.down.contains(&k) && !self.cluster.nodes[k].is_running() {
                let child = self.cluster.nodes[k].child.take();
                let status = child.and_then(|mut child| child.wait().ok());
                self.ended += 1;
                self.say(&format!("  n{} has ended by itself: {status:?}", k + 1));
                self.down.insert(k);
                self.later(1000, Undo::Start(k));
            }
        }
    }

    pub fn inject(&mut self, step: &Step, leader: usize) {
        let k = match step.target {
            Target::Leader => leader,
            Target::Node(k) => k,
        };
        let shown = Step { target: Target::Node(k), ..step.clone() };
        let leads = if k == leader { " (leads)" } else { "" };
        self.say(&format!("{shown}{leads}"));
        match step.fault {
            Fault::KillDaemon
            | Fault::KillPostmaster
            | Fault::KillGuard
            | Fault::KillNode
            | Fault::KillAll
            | Fault::Stop => self.kill(step.fault, k, step.ms),
            Fault::FreezeDaemon
            | Fault::FreezeGuard
            | Fault::FreezePostgres
            | Fault::FreezeNode => self.freeze(step.fault, k, step.ms),
            Fault::Isolate | Fault::Mute | Fault::Deaf | Fault::CutOneWay | Fault::Halves => {
                self.cut(step.fault, k, step.ms);
            }
            Fault::StallDisk => self.stall(k, step.ms),
            Fault::MoveData => self.move_data(k, step.ms),
            Fault::JumpClock => self.set_clock(k, step.ms),
            Fault::ChangeTimings => {
                self.patch_timings(k, timings_s(step.ms));
                self.later(step.ms, Undo::UsualTimings(k));
            }
            Fault::Reload => self.reload(k, step.ms),
            Fault::Switchover | Fault::RestartPostgres | Fault::Reinitialize => {
                self.ask(step.fault, k, leader);
            }
        }
    }

    fn kill(&mut self, fault: Fault, k: usize, ms: u64) {
        match fault {
            Fault::KillPostmaster => {
                if let Some(pid) = self.cluster.nodes[k].postmaster() {
                    process::signal(pid, Signal::KILL);
                }
            }
            Fault::KillGuard => {
                self.guard(k).into_iter().for_each(|pid| process::signal(pid, Signal::KILL));
            }
            Fault::KillAll => {
                for k in self.cluster.numbers() {
                    self.end(k, true, ms + 300 * k as u64);
                }
            }
            Fault::Stop if !self.down.contains(&k) => {
                self.cluster.nodes[k].signal(Signal::TERM);
                self.down.insert(k);
                self.later(ms + 1000, Undo::Start(k));
            }
            Fault::Stop => {}
            fault => self.end(k, fault == Fault::KillNode, ms),
        }
    }

    /// kill -9 of the daemon, or of all that the node runs; it starts again later.
    fn end(&mut self, k: usize, everything: bool, ms: u64) {
        if self.stalled.contains(&k) {
            return self.say("  not while its disk hangs: nothing there can be killed");
        }
        if everything {
            let all = process::of(&self.cluster.nodes[k].dir);
            all.iter().for_each(|pid| process::signal(*pid, Signal::STOP));
            self.cluster.nodes[k].kill();
        } else if self.cluster.nodes[k].is_running() {
            self.cluster.nodes[k].kill_daemon();
        }
        self.down.insert(k);
        self.later(ms, Undo::Start(k));
    }

    fn guard(&self, k: usize) -> Option<i32> {
        let all = process::of(&self.cluster.nodes[k].dir);
        let is_guard = |pid: &i32| process::title(*pid).starts_with("surus guard");
        all.into_iter().find(is_guard)
    }

    fn freeze(&mut self, fault: Fault, k: usize, ms: u64) {
        let node = &self.cluster.nodes[k];
        let all = process::of(&node.dir);
        let daemon = node.child.as_ref().map(|child| child.id() as i32);
        let guard = self.guard(k);
        let wanted = |pid: &i32| match fault {
            Fault::FreezeDaemon => Some(*pid) == daemon,
            Fault::FreezeGuard => Some(*pid) == guard,
            Fault::FreezePostgres => Some(*pid) != daemon && Some(*pid) != guard,
            _ => true,
        };
        let pids: Vec<i32> = all.into_iter().filter(wanted).collect();
        pids.iter().for_each(|pid| process::signal(*pid, Signal::STOP));
        self.later(ms, Undo::Continue(pids));
    }

    fn cut(&mut self, fault: Fault, k: usize, ms: u64) {
        let nodes = self.cluster.nodes.len();
        let others = self.cluster.others(k);
        let out = |to: &usize| (k, *to);
        let into = |from: &usize| (*from, k);
        let pairs: Vec<(usize, usize)> = match fault {
            Fault::Mute => others.iter().map(out).collect(),
            Fault::Deaf => others.iter().map(into).collect(),
            Fault::CutOneWay => vec![(k, (k + 1) % nodes)],
            Fault::Halves => {
                let few: BTreeSet<usize> = (0..nodes / 2).map(|n| (k + n) % nodes).collect();
                let apart = |a: usize, b: usize| few.contains(&a) != few.contains(&b);
                let all = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
                all.filter(|(a, b)| apart(*a, *b)).collect()
            }
            _ => others.iter().map(out).chain(others.iter().map(into)).collect(),
        };
        for (from, to) in &pairs {
            *self.cuts.entry((*from, *to)).or_default() += 1;
            self.means.network.cut(*from, *to);
        }
        self.later(ms, Undo::Mend(pairs));
    }

    fn mend(&mut self, pair: (usize, usize)) {
        let count = self.cuts.entry(pair).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.means.network.mend(pair.0, pair.1);
        }
    }

    fn stall(&mut self, k: usize, ms: u64) {
        if self.means.disks.is_empty() || !self.stalled.insert(k) {
            return self.say("  no disk to stall");
        }
        self.means.disks[k].stall().expect("a disk can be frozen");
        self.later(ms, Undo::Thaw(k));
    }

    /// Whoever writes there goes on writing until it is stopped; the checker looks for two at once.
    fn move_data(&mut self, k: usize, ms: u64) {
        let node = &self.cluster.nodes[k];
        let (data, aside) = (node.data(), node.dir.join(ASIDE));
        if aside.exists() || !data.join("PG_VERSION").exists() || fs::rename(data, aside).is_err() {
            return self.say("  nothing to move");
        }
        self.later(ms, Undo::PutBack(k));
    }

    fn put_back(&mut self, k: usize) {
        let node = &self.cluster.nodes[k];
        let (data, aside) = (node.data(), node.dir.join(ASIDE));
        // An empty directory makes way; a new copy does not.
        let made = fs::read_dir(&data).is_ok_and(|mut all| all.next().is_some());
        if !made && fs::rename(&aside, &data).is_ok() {
            return;
        }
        fs::remove_dir_all(aside).expect("nobody writes there any more");
    }

    fn set_clock(&mut self, k: usize, ms: u64) {
        let Some(clocks) = &self.means.clocks else { return self.say("  no clock to set") };
        self.say(&format!("  by {} s", wrong_s(ms)));
        clocks.set(k, wrong_s(ms));
        self.later(ms, Undo::SetClock(k));
    }

    /// Without waiting for the answer; nobody may be there to give one.
    fn patch_timings(&mut self, k: usize, (ttl, loop_wait): (u32, u32)) {
        self.say(&format!("  ttl {ttl} s, loop_wait {loop_wait} s"));
        let body = json!({ "ttl": ttl, "loop_wait": loop_wait }).to_string();
        let at = self.cluster.nodes[k].rest();
        std::thread::spawn(move || {
            let status = http::patch(&at, "/config", &body).map(|answer| answer.0);
            println!("           PATCH /config {body}: {status:?}");
        });
    }

    /// PostgreSQL has something to take over, too.
    fn reload(&mut self, k: usize, ms: u64) {
        let work_mem = format!("{}MB", 4 + ms % 4);
        self.cluster.edit(k, &json!({"postgresql": {"parameters": {"work_mem": work_mem}}}));
        if !self.down.contains(&k) {
            self.cluster.nodes[k].signal(Signal::HUP);
        }
    }

    /// What an operator asks for, without waiting for the answer.
    fn ask(&mut self, fault: Fault, k: usize, leader: usize) {
        let name = &self.cluster.nodes[leader].name;
        let (path, body) = match fault {
            Fault::Switchover => ("/switchover", format!("{{\"leader\": \"{name}\"}}")),
            Fault::RestartPostgres => ("/restart", String::from("{}")),
            _ => ("/reinitialize", String::from("{\"force\": true}")),
        };
        let at = self.cluster.nodes[if path == "/switchover" { leader } else { k }].rest();
        std::thread::spawn(move || {
            let answer = http::post(&at, path, &body);
            println!("           {path}: {answer:?}");
        });
    }

    /// All faults end now.
    pub fn heal(&mut self) {
        self.say("ALL FAULTS END");
        for undo in std::mem::take(&mut self.due).into_values() {
            self.undo(undo);
        }
        self.means.network.heal();
        self.cuts.clear();
    }
}

fn shown(undo: &Undo) -> String {
    match undo {
        Undo::Start(k) => format!("n{} starts", k + 1),
        Undo::Continue(pids) => format!("SIGCONT to {} processes", pids.len()),
        Undo::Mend(pairs) => format!("{} directions work again", pairs.len()),
        Undo::Thaw(k) => format!("the disk of n{} works again", k + 1),
        Undo::PutBack(k) => format!("the data of n{} comes back", k + 1),
        Undo::UsualTimings(k) => format!("the usual timings, asked for at n{}", k + 1),
        Undo::SetClock(k) => format!("the clock of n{} is right again", k + 1),
    }
}

/// Also when the run fails: nothing may be left that cannot be killed.
impl Drop for Torturer<'_> {
    fn drop(&mut self) {
        for k in std::mem::take(&mut self.stalled) {
            self.means.disks[k].thaw().ok();
        }
        for undo in std::mem::take(&mut self.due).into_values() {
            if let Undo::Continue(pids) = undo {
                pids.into_iter().for_each(|pid| process::signal(pid, Signal::CONT));
            }
        }
    }
}
