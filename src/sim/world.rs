//! The queue: what happens next, to whom; one seed decides everything that randomness decides.
//!
//! Real time is in milliseconds since the beginning. What belongs to a daemon carries its `life`:
//! an earlier incarnation's messages, timers and results are void. What reaches a frozen daemon
//! waits in front of it and is delivered, in order, when it goes on.
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::check::{Checks, Violation};
use super::client::Client;
use super::fault::Fault;
use super::network::Network;
use super::node::Node;
use super::plan::Plan;
use super::remote::RemoteSite;
use super::rng::Rng;
use crate::pure::cluster::Millis;
use crate::pure::cluster::facts::SqlFacts;
use crate::pure::consensus::core::Input;
use crate::pure::replay::history::Transition;

/// Something that happens at one instant.
#[derive(Clone, Debug)]
pub enum Event {
    StartDaemon {
        node: usize,
    },
    Tick {
        node: usize,
        life: u64,
    },
    Told {
        node: usize,
        life: u64,
        input: Box<Input>,
    },
    Observe {
        node: usize,
        life: u64,
    },
    Fresh {
        node: usize,
        life: u64,
        round: u64,
    },
    /// A look at PostgreSQL is over.
    Looked {
        node: usize,
        life: u64,
        round: u64,
        number: u64,
        sql: Box<Option<SqlFacts>>,
    },
    /// The flows is told the situation.
    Notify {
        node: usize,
        life: u64,
    },
    LoopWait {
        node: usize,
        life: u64,
    },
    Died {
        node: usize,
        life: u64,
    },
    Work {
        node: usize,
        life: u64,
        serial: u64,
        token: u64,
    },
    Wake {
        node: usize,
        life: u64,
        serial: u64,
        visit: u64,
        delay: usize,
    },
    /// A operation that was called off reports all the same.
    Late {
        node: usize,
        life: u64,
        serial: u64,
        visit: u64,
    },
    Flush {
        node: usize,
        boot: u64,
    },
    /// The daemon finds the guard that an earlier one left armed.
    GuardFound {
        node: usize,
        life: u64,
    },
    GuardWake {
        node: usize,
        guard: u64,
    },
    GuardKill {
        node: usize,
        guard: u64,
    },
    PgReady {
        node: usize,
        generation: u64,
    },
    PgPromoted {
        node: usize,
        generation: u64,
    },
    PgStopped {
        node: usize,
        generation: u64,
        clean: bool,
    },
    Stream {
        node: usize,
    },
    /// The checkpointer has read whether commits wait for anybody.
    NamesInForce {
        node: usize,
        generation: u64,
    },
    /// The primary has flushed its own WAL.
    WalFlush {
        node: usize,
        generation: u64,
    },
    Ack {
        primary: usize,
        generation: u64,
        from: usize,
        flushed: usize,
    },
    Connections,
    Client,
    Fault(Fault),
    RemoteWrites,
    /// The other site stopped writing, and this one takes over.
    HandOver,
    /// All faults end now.
    Heal,
    /// A person looks at what only a person can decide.
    PersonLooks,
}

impl Event {
    /// The daemon it is for, if it is for one.
    fn daemon(&self) -> Option<(usize, u64)> {
        match self {
            Event::Tick { node, life }
            | Event::Told { node, life, .. }
            | Event::Observe { node, life }
            | Event::Fresh { node, life, .. }
            | Event::Looked { node, life, .. }
            | Event::Notify { node, life }
            | Event::LoopWait { node, life }
            | Event::GuardFound { node, life }
            | Event::Died { node, life }
            | Event::Work { node, life, .. }
            | Event::Late { node, life, .. }
            | Event::Wake { node, life, .. } => Some((*node, *life)),
            Event::StartDaemon { .. }
            | Event::Flush { .. }
            | Event::GuardWake { .. }
            | Event::GuardKill { .. }
            | Event::PgReady { .. }
            | Event::PgPromoted { .. }
            | Event::PgStopped { .. }
            | Event::Stream { .. }
            | Event::NamesInForce { .. }
            | Event::WalFlush { .. }
            | Event::Ack { .. }
            | Event::Connections
            | Event::Client
            | Event::Fault(_)
            | Event::RemoteWrites
            | Event::HandOver
            | Event::PersonLooks
            | Event::Heal => None,
        }
    }

    /// The host on which it happens without any daemon.
    fn host(&self) -> Option<usize> {
        match self {
            Event::StartDaemon { node }
            | Event::Flush { node, .. }
            | Event::GuardWake { node, .. }
            | Event::GuardKill { node, .. }
            | Event::PgReady { node, .. }
            | Event::PgPromoted { node, .. }
            | Event::PgStopped { node, .. }
            | Event::NamesInForce { node, .. }
            | Event::WalFlush { node, .. }
            | Event::Stream { node }
            | Event::Ack { primary: node, .. } => Some(*node),
            _ => None,
        }
    }

    /// The flows waits for the journal; the consensus does not.
    fn is_for_flows(&self) -> bool {
        matches!(
            self,
            Event::Notify { .. }
                | Event::Work { .. }
                | Event::Late { .. }
                | Event::Wake { .. }
                | Event::Died { .. }
        )
    }

    /// What of it goes into the run's fingerprint.
    fn mark(&self) -> (u8, u64, u64) {
        match self {
            Event::StartDaemon { node } => (1, *node as u64, 0),
            Event::Tick { node, .. } => (2, *node as u64, 0),
            Event::Told { node, life, .. } => (3, *node as u64, *life),
            Event::Observe { node, .. } => (4, *node as u64, 0),
            Event::Fresh { node, round, .. } => (5, *node as u64, *round),
            Event::Notify { node, .. } => (6, *node as u64, 0),
            Event::LoopWait { node, .. } => (7, *node as u64, 0),
            Event::GuardFound { node, .. } => (7, *node as u64, 1),
            Event::Died { node, .. } => (8, *node as u64, 0),
            Event::Work { node, token, .. } => (9, *node as u64, *token),
            Event::Wake { node, visit, .. } => (10, *node as u64, *visit),
            Event::Flush { node, .. } => (11, *node as u64, 0),
            Event::GuardWake { node, guard } => (12, *node as u64, *guard),
            Event::GuardKill { node, guard } => (13, *node as u64, *guard),
            Event::PgReady { node, generation } => (14, *node as u64, *generation),
            Event::PgPromoted { node, generation } => (15, *node as u64, *generation),
            Event::PgStopped { node, generation, .. } => (16, *node as u64, *generation),
            Event::Stream { node } => (17, *node as u64, 0),
            Event::Ack { primary, flushed, .. } => (18, *primary as u64, *flushed as u64),
            Event::Connections => (19, 0, 0),
            Event::Client => (20, 0, 0),
            Event::Fault(_) => (21, 0, 0),
            Event::Heal => (22, 0, 0),
            Event::RemoteWrites => (23, 0, 0),
            Event::HandOver => (24, 0, 0),
            Event::PersonLooks => (26, 0, 0),
            Event::Looked { node, round, .. } => (27, *node as u64, *round),
            Event::NamesInForce { node, generation } => (28, *node as u64, *generation),
            Event::WalFlush { node, generation } => (29, *node as u64, *generation),
            Event::Late { node, visit, .. } => (25, *node as u64, *visit),
        }
    }
}

/// Lines of the log that are kept for a failure's report.
const LINES_MAX: usize = 400;

pub struct World {
    pub now: Millis,
    pub rng: Rng,
    pub plan: Plan,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub client: Client,
    pub checks: Checks,
    pub remote: RemoteSite,
    pub healed: bool,
    /// Replicas receive nothing until then.
    pub streams_stall_until: Millis,
    queue: BTreeMap<(Millis, u64), Event>,
    ticket: u64,
    serial: u64,
    fingerprint: DefaultHasher,
    pub lines: VecDeque<String>,
    /// Print every line as it comes.
    pub verbose: bool,
    pub events: u64,
    /// Every transition of every machine, where it is wanted ([`World::keep_history`]).
    pub history: Vec<Transition>,
}

impl World {
    pub fn new(plan: Plan) -> World {
        let mut rng = Rng::new(plan.seed);
        let nodes = (0..plan.nodes).map(|at| Node::new(at, &plan, &mut rng)).collect();
        let network = Network::new(plan.link_profile);
        let mut world = World {
            now: 0,
            rng,
            nodes,
            network,
            client: Client::default(),
            checks: Checks::default(),
            remote: RemoteSite::default(),
            healed: false,
            streams_stall_until: 0,
            queue: BTreeMap::new(),
            ticket: 0,
            serial: 0,
            fingerprint: DefaultHasher::new(),
            lines: VecDeque::new(),
            verbose: false,
            events: 0,
            history: Vec::new(),
            plan,
        };
        world.lay_down();
        for node in 0..world.nodes.len() {
            let at = world.rng.between(1, 2500);
            world.after(at, Event::StartDaemon { node });
            world.after(at, Event::Stream { node });
        }
        world.after(50, Event::Connections);
        world.after(100, Event::Client);
        if world.plan.standby {
            world.remote_writes();
        }
        let faults = world.plan.faults.clone();
        for (at, fault) in faults {
            world.after(at, Event::Fault(fault));
        }
        let heal_at = world.plan.heal_at;
        world.after(heal_at, Event::Heal);
        world
    }

    /// It happens this many ms of real time from now.
    pub fn after(&mut self, ms: Millis, event: Event) {
        self.ticket += 1;
        self.queue.insert((self.now + ms, self.ticket), event);
    }

    /// It happens when this node's clock has gone on by this much.
    pub fn after_local(&mut self, node: usize, ms: Millis, event: Event) {
        let clock = self.nodes[node].clock;
        let at = clock.when(clock.at(self.now) + ms).max(self.now);
        self.after(at - self.now, event);
    }

    pub fn local(&self, node: usize) -> Millis {
        self.nodes[node].clock.at(self.now)
    }

    /// A number that is never used twice.
    pub fn fresh(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// When the next event comes.
    pub fn next_at(&self) -> Millis {
        self.queue.first_key_value().map_or(Millis::MAX, |((at, _), _)| *at)
    }

    /// The next event, and all that follows from it at once; then every promise is checked.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn step(&mut self) -> Result<(), Violation> {
        let Some(((at, _), event)) = self.queue.pop_first() else { return Ok(()) };
        self.now = at;
        self.events += 1;
        (at, event.mark()).hash(&mut self.fingerprint);
        if let Some(node) = event.host().filter(|node| self.network.is_asleep(*node)) {
            self.nodes[node].sleeping.push_back(event);
            return Ok(());
        }
        if let Some((node, life)) = event.daemon() {
            if !self.nodes[node].lives(life) {
                return Ok(());
            }
            let host = &self.nodes[node];
            let stands = host.frozen || self.network.is_asleep(host.at);
            if stands || (host.disk.stuck && event.is_for_flows()) {
                self.nodes[node].stalled.push_back(event);
                return Ok(());
            }
        }
        self.happen(event);
        self.note_transitions();
        self.check()
    }

    /// From now on every transition is kept.
    pub fn keep_history(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.disk.recorded = Some(Vec::new()));
    }

    fn note_transitions(&mut self) {
        for node in &mut self.nodes {
            let Some(recorded) = &mut node.disk.recorded else { return };
            let at = self.now.to_string();
            self.history.extend(recorded.drain(..).map(|(flow, record)| Transition {
                node: node.name.clone(),
                flow: flow.to_owned(),
                at: at.clone(),
                record,
            }));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::StartDaemon { node } => self.start_daemon(node),
            Event::Tick { node, life } => self.tick(node, life),
            Event::Told { node, input, .. } => self.feed(node, *input),
            Event::Observe { node, life } => self.observe_again(node, life),
            Event::Fresh { node, round, .. } => self.observe(node, round),
            Event::Looked { node, round, number, sql, .. } => {
                self.look_is_over(node, (round, number), *sql);
            }
            Event::NamesInForce { node, generation } => self.names_in_force(node, generation),
            Event::WalFlush { node, generation } => self.flush_wal(node, generation),
            Event::Notify { node, .. } => self.notify(node),
            Event::LoopWait { node, life } => self.loop_wait(node, life),
            Event::GuardFound { node, .. } => self.guard_is_found(node),
            Event::Died { node, .. } => self.postgres_died(node),
            Event::Work { node, serial, token, .. } => self.work_goes_on(node, serial, token),
            Event::Wake { node, serial, visit, delay, .. } => {
                self.wake(node, serial, visit, delay);
            }
            Event::Late { node, serial, visit, .. } => self.answers_late(node, serial, visit),
            Event::Flush { node, boot } => self.flush(node, boot),
            Event::GuardWake { node, guard } => self.guard_wakes(node, guard),
            Event::GuardKill { node, guard } => self.guard_kills(node, guard),
            Event::PgReady { node, generation } => self.postgres_ready(node, generation),
            Event::PgPromoted { node, generation } => self.postgres_promoted(node, generation),
            Event::PgStopped { node, generation, clean } => {
                self.postgres_stopped(node, generation, clean);
            }
            Event::Stream { node } => self.stream(node),
            Event::Ack { primary, generation, from, flushed } => {
                self.acknowledge(primary, generation, from, flushed);
            }
            Event::Connections => self.look_at_connections(),
            Event::Client => self.client_writes(),
            Event::Fault(fault) => self.inject(fault),
            Event::RemoteWrites => self.remote_writes(),
            Event::HandOver => self.hand_over_here(),
            Event::Heal => self.heal(),
            Event::PersonLooks => self.person_looks(),
        }
    }

    /// What waited in front of a daemon reaches it now.
    pub fn deliver_stalled(&mut self, node: usize) {
        let stalled = std::mem::take(&mut self.nodes[node].stalled);
        for event in stalled {
            self.after(0, event);
        }
    }

    /// One line for people; part of the fingerprint.
    pub fn say(&mut self, node: usize, text: &str) {
        text.hash(&mut self.fingerprint);
        let line = format!("{:>7} n{node} {text}", self.now);
        if self.verbose {
            eprintln!("{line}");
        }
        self.lines.push_back(line);
        if self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }

    /// The run so far, as one number.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }
}
