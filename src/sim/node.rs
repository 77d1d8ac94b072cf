//! A host: clock, disk, PostgreSQL, guard, and perhaps a daemon with its consensus and its flows.
use std::collections::{BTreeSet, VecDeque};

use super::disk::Disk;
use super::flows::Flows;
use super::guard::Guard;
use super::plan::Plan;
use super::postgres::Postgres;
use super::rng::{Clock, Rng};
use super::world::{Event, World};
use crate::pure::cluster::Millis;
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::poll_sequence::PollSequence;
use crate::pure::cluster::state::Member;
use crate::pure::consensus::core::{Core, Input, Options, Output};
use crate::pure::consensus::message::{FoundingStatus, Greeting, PeerMessage};
use crate::pure::node::situation::OperatorRequests;
use crate::pure::postgres::lsn::Lsn;

/// The daemon: what a kill -9 ends.
pub struct Daemon {
    pub core: Core,
    pub flows: Flows,
    pub facts: Facts,
    pub requests: OperatorRequests,
    pub targets: Vec<String>,
    /// After a restart under an armed guard: no cycle before our own lease is heard of again, or
    /// the guard's deadline has passed. What is not known yet is not lost.
    pub settles_until: Option<Millis>,
    pub notify_is_due: bool,
    /// The PostgreSQL that this daemon knows to run.
    pub knows_generation: Option<u64>,
}

pub struct Node {
    pub at: usize,
    /// Drawn once for each state directory.
    pub raft_id: u64,
    pub name: String,
    pub member: Member,
    pub clock: Clock,
    pub disk: Disk,
    pub postgres: Postgres,
    pub guard: Option<Guard>,
    pub daemon: Option<Daemon>,
    /// Counts daemons, dead ones included.
    pub life: u64,
    /// Counts boots of the host.
    pub boot: u64,
    pub powered: bool,
    pub frozen: bool,
    /// What should happen there while the whole host is suspended.
    pub sleeping: VecDeque<Event>,
    /// It was suspended past its guard's deadline, and the guard is not scheduled yet.
    pub waking_until: Millis,
    pub stalled: VecDeque<Event>,
    /// A stopped daemon that the operator wants to stay stopped.
    pub is_away: bool,
    pub facts_serial: u64,
    /// A look at PostgreSQL is under way; these rounds want one afterwards.
    pub looking: bool,
    pub looks: PollSequence,
    pub wanted_looks: BTreeSet<u64>,
    /// Of the operations that begin here, so many fail at once.
    pub operations_to_fail: u64,
    /// So many of those after them hang.
    pub operations_to_hang: u64,
    /// So many records its copy stays behind, for as long as faults last.
    pub held_back: usize,
    /// Until when (real time) a guard of this epoch might have let its PostgreSQL write.
    pub right_until: Option<(u64, Millis)>,
    /// From then on (real time) the daemon knows the guard that an earlier one left armed.
    pub guard_found_at: Millis,
    /// The epoch of the last leader that was heard here in this life, and its furthest position.
    pub heard_leader_at: (u64, Lsn),
}

/// So long after its start a daemon finds the guard of an earlier one.
const FINDS_GUARD_MS: [Millis; 4] = [5, 20, 150, 1_000];

pub fn addr_of(node: usize) -> String {
    format!("10.0.0.{}:2380", node + 1)
}

pub fn node_of(addr: &str) -> usize {
    let host = addr.split(':').next().and_then(|host| host.rsplit('.').next());
    host.and_then(|last| last.parse::<usize>().ok()).expect("addresses are made by addr_of") - 1
}

/// The identity in Raft of a node's first state directory.
pub fn raft_id(node: usize) -> u64 {
    100 + node as u64
}

impl Node {
    pub fn new(at: usize, plan: &Plan, rng: &mut Rng) -> Node {
        let name = plan.names.get(at).cloned().unwrap_or_else(|| format!("n{at}"));
        let member = Member {
            name: name.clone(),
            raft_addr: addr_of(at),
            conn_url: format!("postgres://10.0.0.{}:5432/postgres", at + 1),
            ..Member::default()
        };
        let clock = Clock { offset: rng.between(1_000_000, 9_000_000), ppm: plan.ppm[at] };
        Node {
            at,
            raft_id: raft_id(at),
            name,
            member,
            clock,
            disk: Disk::new(),
            postgres: Postgres::new(),
            guard: None,
            daemon: None,
            life: 0,
            boot: 0,
            powered: true,
            frozen: false,
            sleeping: VecDeque::new(),
            waking_until: 0,
            stalled: VecDeque::new(),
            is_away: false,
            facts_serial: 0,
            looking: false,
            looks: PollSequence::default(),
            wanted_looks: BTreeSet::new(),
            operations_to_fail: 0,
            operations_to_hang: 0,
            held_back: 0,
            right_until: None,
            guard_found_at: 0,
            heard_leader_at: (0, Lsn(0)),
        }
    }

    /// Is this the daemon that runs now?
    pub fn lives(&self, life: u64) -> bool {
        self.daemon.is_some() && self.life == life
    }
}

/// Where the holder is, if this input is its word.
fn leader_position(core: &Core, input: &Input) -> Option<(u64, Lsn)> {
    let facts = match input {
        Input::Peer { message: PeerMessage::Facts(facts), .. } => facts,
        Input::Local(facts) => facts,
        _ => return None,
    };
    let lease = core.cluster().lease.as_ref()?;
    let sql = facts.sql.as_ref().filter(|sql| !sql.in_recovery);
    let from = if matches!(input, Input::Local(_)) { core.id() } else { facts.raft_id };
    sql.filter(|_| lease.holder == from).map(|sql| (lease.epoch, sql.flush_lsn))
}

impl World {
    pub fn start_daemon(&mut self, at: usize) {
        let (local, now) = (self.local(at), self.now);
        let node = &mut self.nodes[at];
        if node.daemon.is_some() || !node.powered || node.is_away {
            return;
        }
        node.life += 1;
        node.guard_found_at = now + FINDS_GUARD_MS[node.life as usize % FINDS_GUARD_MS.len()];
        node.frozen = false;
        node.heard_leader_at = (0, Lsn(0));
        node.stalled.clear();
        node.looking = false;
        node.wanted_looks.clear();
        let life = node.life;
        let partners = (0..self.plan.nodes).filter(|other| *other != at).map(addr_of).collect();
        let core = Core::new(Options {
            id: node.raft_id,
            member: node.member.clone(),
            partners,
            voters_max: self.plan.voters_max,
            ttl_ms: self.plan.ttl_ms,
            seed: self.plan.seed.wrapping_mul(31).wrapping_add((at as u64) << 8),
            founding_record: node.disk.founding_record.clone(),
            log: node.disk.read_log(),
            now: local,
        });
        let guarded = node.guard.as_ref().filter(|g| !g.fires).map(|g| g.deadline());
        node.daemon = Some(Daemon {
            core,
            flows: Flows::default(),
            facts: Facts::default(),
            requests: OperatorRequests::default(),
            targets: (0..self.plan.nodes).filter(|o| *o != at).map(addr_of).collect(),
            settles_until: guarded.filter(|_| node.postgres.server.is_some()),
            notify_is_due: false,
            knows_generation: node.postgres.server.as_ref().map(|s| s.generation),
        });
        self.say(at, "the daemon starts");
        self.connections_are_new(at);
        self.after(0, Event::Tick { node: at, life });
        self.observe(at, 0);
        self.after(200, Event::Observe { node: at, life });
        self.after(10, Event::LoopWait { node: at, life });
        let found_in = self.nodes[at].guard_found_at - now;
        self.after(found_in, Event::GuardFound { node: at, life });
        self.flows_begin(at);
    }

    /// kill -9: of the writes under way some may have reached the disk.
    pub fn kill_daemon(&mut self, at: usize, why: &str) {
        if self.nodes[at].daemon.is_none() {
            return;
        }
        self.say(at, &format!("the daemon is gone: {why}"));
        let survive = self.rng.below(4);
        let node = &mut self.nodes[at];
        node.disk.crash(survive);
        node.daemon = None;
        node.frozen = false;
        node.stalled.clear();
        node.life += 1;
        self.connections_end(at);
    }

    /// The power is cut: nothing that was not flushed remains, nothing runs.
    pub fn cut_power(&mut self, at: usize) {
        self.say(at, "the power is cut");
        self.network.wakes(at);
        let sleeping = std::mem::take(&mut self.nodes[at].sleeping);
        sleeping.into_iter().for_each(|event| self.after(0, event));
        self.kill_daemon(at, "no power");
        let node = &mut self.nodes[at];
        node.disk.crash(0);
        node.powered = false;
        node.boot += 1;
        node.guard = None;
        node.right_until = None;
        node.postgres.forget_unflushed();
        node.postgres.gone(false);
    }

    pub fn give_power(&mut self, at: usize) {
        self.nodes[at].powered = true;
        let wait = self.rng.between(50, 800);
        self.after(wait, Event::StartDaemon { node: at });
    }

    pub fn tick(&mut self, at: usize, life: u64) {
        self.feed(at, Input::Tick);
        let Some(daemon) = &self.nodes[at].daemon else { return };
        let every = daemon.core.tick_every();
        self.after_local(at, every, Event::Tick { node: at, life });
    }

    /// Tells the consensus one thing and does what it asks for.
    pub fn feed(&mut self, at: usize, input: Input) {
        let local = self.local(at);
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        let heard = leader_position(&daemon.core, &input);
        let led = super::orders::led(daemon.core.cluster());
        let outputs = daemon.core.handle(local, input);
        self.note_orders(led, &outputs);
        let known = self.nodes[at].heard_leader_at;
        if let Some((epoch, position)) = heard {
            let before = if known.0 == epoch { known.1 } else { Lsn(0) };
            self.nodes[at].heard_leader_at = (epoch, before.max(position));
        }
        self.carry_out(at, outputs);
    }

    fn carry_out(&mut self, at: usize, outputs: Vec<Output>) {
        let (life, own) = (self.nodes[at].life, self.nodes[at].raft_id);
        for output in outputs {
            if !self.nodes[at].lives(life) {
                return;
            }
            match output {
                Output::SendRaft { addr, message } => {
                    self.check_founding_vote_is_durable(at, &message);
                    self.send(at, node_of(&addr), Input::Raft { from: own, message });
                }
                Output::SendPeer { addr, message } => {
                    self.send(at, node_of(&addr), Input::Peer { from: own, message });
                }
                Output::Keep(founding_record) => {
                    self.check_one_founding_vote(at, &founding_record);
                    self.check_one_founding(at, &founding_record);
                    self.nodes[at].disk.founding_record = founding_record;
                }
                Output::Write(write) => {
                    self.nodes[at].disk.unflushed.push_back(write);
                    let boot = self.nodes[at].boot;
                    let took = self.rng.between(1, self.plan.flush_ms_max);
                    self.after(took, Event::Flush { node: at, boot });
                }
                Output::Deadline { epoch, deadline } => {
                    self.deadline_moved(at, epoch, deadline);
                    self.tell_bound(at, epoch, deadline);
                }
                Output::Receipt { ticket, outcome } => self.receipt(at, ticket, outcome),
                Output::AskFresh { round } => {
                    let wait = self.rng.between(2, 40);
                    self.after(wait, Event::Fresh { node: at, life, round });
                }
                Output::Greeting(standing) => self.greet_all(at, &standing),
                Output::Targets(targets) => {
                    if let Some(daemon) = &mut self.nodes[at].daemon {
                        daemon.targets = targets;
                    }
                }
                Output::Changed => self.notify_soon(at),
                Output::Halt(sentence) => self.kill_daemon(at, &sentence),
                Output::Told(sentence) => {
                    self.say(at, &sentence);
                    self.check_lease_over(&sentence);
                    self.note_holders_word(&sentence);
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, input: Input) {
        if to >= self.nodes.len() || !self.network.is_connected(from, to) {
            return;
        }
        let life = self.nodes[to].life;
        for delay in self.network.arrivals(from, to, &mut self.rng) {
            let input = Box::new(input.clone());
            self.after(delay, Event::Told { node: to, life, input });
        }
    }

    pub fn flush(&mut self, at: usize, boot: u64) {
        let node = &mut self.nodes[at];
        if node.boot != boot || node.disk.stuck {
            return; // a stuck write is finished when the disk goes on
        }
        let Some(number) = node.disk.flush_one() else { return };
        let life = node.life;
        if number != 0 {
            let input = Box::new(Input::Persisted { number });
            self.after(0, Event::Told { node: at, life, input });
        }
    }

    /// The disk goes on: what waited for it becomes durable, one write after the other.
    pub fn unstick(&mut self, at: usize) {
        self.nodes[at].disk.stuck = false;
        let (boot, waiting) = (self.nodes[at].boot, self.nodes[at].disk.unflushed.len());
        for turn in 0..waiting as u64 {
            self.after(1 + turn, Event::Flush { node: at, boot });
        }
        if !self.nodes[at].frozen {
            self.deliver_stalled(at);
        }
    }

    // ---- connections

    fn greeting(&self, at: usize) -> Option<Greeting> {
        let founding_record = self.nodes[at].daemon.as_ref()?.core.founding_record();
        Some(Greeting {
            id: self.nodes[at].raft_id,
            name: self.nodes[at].name.clone(),
            addr: addr_of(at),
            standing: FoundingStatus {
                cluster_epoch: 0,
                cluster_id: founding_record.cluster_id.clone(),
                voted_for: founding_record.voted_for,
                heard_of: founding_record
                    .heard_of
                    .clone()
                    .filter(|_| founding_record.cluster_id.is_none()),
            },
        })
    }

    /// A connection keeps the order of what is said on it, and says all of it or ends.
    fn greet_all(&mut self, at: usize, _standing: &FoundingStatus) {
        let Some(greeting) = self.greeting(at) else { return };
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            if self.network.is_connected(at, other) {
                let life = self.nodes[other].life;
                let input = Box::new(Input::Greeted(greeting.clone()));
                self.after(2, Event::Told { node: other, life, input });
            }
        }
    }

    /// Connections that can stand are made, those that cannot are noticed after a while.
    pub fn look_at_connections(&mut self) {
        self.after(100, Event::Connections);
        let count = self.nodes.len();
        for a in 0..count {
            for b in a + 1..count {
                let both = self.nodes[a].daemon.is_some() && self.nodes[b].daemon.is_some();
                let stands = both && self.network.reaches(a, b);
                match (self.network.is_connected(a, b), stands) {
                    (false, true) if self.rng.in_thousand(600) => self.connect(a, b),
                    (true, false) if self.rng.in_thousand(120) => self.disconnect(a, b),
                    _ => {}
                }
            }
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.nodes[a].frozen || self.nodes[b].frozen {
            return;
        }
        let ids = (self.nodes[a].raft_id, self.nodes[b].raft_id);
        self.network.connected.insert((a, b), ids);
        for (from, to) in [(a, b), (b, a)] {
            if let Some(greeting) = self.greeting(from) {
                let life = self.nodes[to].life;
                let input = Box::new(Input::Greeted(greeting));
                self.after(2, Event::Told { node: to, life, input });
            }
        }
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        let Some(ids) = self.network.connected.remove(&(a, b)) else { return };
        for (of, id, to) in [(a, ids.0, b), (b, ids.1, a)] {
            let life = self.nodes[to].life;
            let input = Box::new(Input::Gone { addr: addr_of(of), id });
            self.after(0, Event::Told { node: to, life, input });
        }
    }

    /// A new process knows nothing of its predecessor's connections: whoever still holds one hears so.
    fn connections_are_new(&mut self, at: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let pair = (at.min(other), at.max(other));
            if self.network.connected.contains_key(&pair) {
                self.disconnect(pair.0, pair.1);
            }
        }
    }

    /// A dead process's connections are closed by its kernel; the others hear of it if they can.
    fn connections_end(&mut self, at: usize) {
        for other in 0..self.nodes.len() {
            let pair = (at.min(other), at.max(other));
            if self.network.connected.contains_key(&pair) && self.network.reaches(at, other) {
                self.disconnect(pair.0, pair.1);
            }
        }
    }
}
