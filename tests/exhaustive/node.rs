//! Every place of the node's machine, under every decision of the arbiter, with everything that may lie and run
//! on its host.
use serde_json::json;
use surus::pure::cluster::facts::DataDirectory;
use surus::pure::cluster::state::{ClusterState, Initialize, Lease, Member, Purpose, Sync};
use surus::pure::consensus::founding::FoundingRecord;
use surus::pure::flow::node::Node as NodeFlow;
use surus::pure::machine::any::JournalEntry;
use surus::pure::machine::stack::Run;
use surus::pure::machine::{Flow, Machine, Record};
use surus::pure::operation::{Inspection, Source};
use surus::pure::postgres::sync_names::first_names;
use surus::sim::disk::DurableLog;
use surus::sim::fault::{Fault, Target};
use surus::sim::guard::Guard;
use surus::sim::node::{addr_of, raft_id};
use surus::sim::observer::data_directory;
use surus::sim::plan::Plan;
use surus::sim::postgres::{Cluster, Data, Wal};
use surus::sim::world::{Event, World};

use super::{Walked, comes_back, every, missing, places};

const IDENTITY: u64 = 7_000_001;
const STRANGER: u64 = 5_000_001;
const EPOCH: u64 = 5;
const TTL_MS: u64 = 3000;
const RECORDS: u64 = 60;

/// What the log says of the lease.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Decided {
    Mine,
    Theirs,
    Nobody,
}

/// What lies on n0.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lies {
    Empty,
    Incomplete,
    Standby,
    /// With a tail that nobody else has.
    StandbyAhead,
    Primary,
    PrimaryAhead,
    Stranger,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Runs {
    Nothing,
    Standby,
    Primary,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Armed {
    No,
    /// For the lease in force, which is ours.
    Now,
    /// For one that is over.
    Before,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    decided: Decided,
    lies: Lies,
    runs: Runs,
    armed: Armed,
    synchronous: bool,
    /// It remembers its lease, its upstream and what lies there; else what was before.
    knows: bool,
    /// What runs was not started by Surus.
    unmanaged: bool,
}

impl Case {
    /// Nothing that the promises exclude from the start.
    fn can_be(self) -> bool {
        let has_data = !matches!(self.lies, Lies::Empty | Lies::Incomplete);
        let primary = matches!(self.lies, Lies::Primary | Lies::PrimaryAhead);
        let leads = self.decided == Decided::Mine && self.armed == Armed::Now;
        match self.runs {
            Runs::Nothing => self.armed != Armed::Now || self.decided == Decided::Mine,
            // Whose server runs under our own lease is a matter for a person.
            Runs::Standby if self.lies == Lies::Stranger && self.decided == Decided::Mine => false,
            Runs::Standby => has_data && !primary && self.armed == Armed::No,
            Runs::Primary => primary && leads,
        }
    }

    fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for decided in [Decided::Mine, Decided::Theirs, Decided::Nobody] {
            for lies in [
                Lies::Empty,
                Lies::Incomplete,
                Lies::Standby,
                Lies::StandbyAhead,
                Lies::Primary,
                Lies::PrimaryAhead,
                Lies::Stranger,
            ] {
                for runs in [Runs::Nothing, Runs::Standby, Runs::Primary] {
                    for armed in [Armed::No, Armed::Now, Armed::Before] {
                        for more in 0..4 {
                            let (synchronous, knows) = (more & 1 == 1, more & 2 == 2);
                            let unmanaged = false;
                            let case =
                                Case { decided, lies, runs, armed, synchronous, knows, unmanaged };
                            cases.extend(case.can_be().then_some(case));
                        }
                    }
                }
            }
        }
        cases
    }
}

fn source(at: usize) -> Source {
    let host = format!("10.0.0.{}", at + 1);
    Source { member: format!("n{at}"), host, port: 5432, slot: Some("n0".into()) }
}

fn holder(case: Case) -> Option<usize> {
    match case.decided {
        Decided::Mine => Some(0),
        Decided::Theirs => Some(1),
        Decided::Nobody => None,
    }
}

fn led_last(case: Case) -> usize {
    holder(case).unwrap_or(1)
}

/// Whom commits have waited for, where they did.
fn standby(case: Case) -> String {
    format!("n{}", if led_last(case) == 1 { 2 } else { 1 })
}

fn state(case: Case) -> ClusterState {
    let lease = holder(case).map(|at| Lease::new(raft_id(at), EPOCH, TTL_MS, Purpose::Lead));
    let sync = Sync {
        leader: format!("n{}", led_last(case)),
        sync_standby: vec![standby(case)],
        ..Sync::default()
    };
    let member = |at: usize| Member {
        name: format!("n{at}"),
        raft_addr: addr_of(at),
        conn_url: format!("postgres://10.0.0.{}:5432/postgres", at + 1),
        ..Member::default()
    };
    ClusterState {
        applied: 40,
        epoch: EPOCH,
        timeline: 3,
        initialize: Initialize::Done { system_identifier: IDENTITY.to_string() },
        config: Some(config(case)),
        config_version: 7,
        members: (0..3).map(|at| (raft_id(at), member(at))).collect(),
        lease,
        sync: case.synchronous.then_some(sync),
        ..ClusterState::default()
    }
}

fn config(case: Case) -> serde_json::Value {
    json!({"ttl": TTL_MS / 1000, "loop_wait": 1, "retry_timeout": 1,
           "synchronous_mode": case.synchronous})
}

fn copy(identity: u64, standby: bool, tail: u64) -> Cluster {
    let mut wal = Wal::default();
    (0..RECORDS).for_each(|at| wal.push(2, identity + at));
    (0..tail).for_each(|at| wal.push(2, 900_000_000 + at));
    Cluster { clean: false, ..Cluster::whole(identity, wal, standby) }
}

/// As the leader's settings have it, and every copy of them.
fn names(case: Case) -> String {
    if case.synchronous { first_names(1, &[standby(case)].into()) } else { String::new() }
}

/// A running member that is where the decision says.
fn place_other(world: &mut World, at: usize, case: Case) {
    let leads = holder(case) == Some(at);
    let upstream = holder(case).filter(|holder| *holder != at);
    let mut copy = copy(IDENTITY, !leads, 0);
    if case.decided == Decided::Theirs {
        copy.wal.push(3, 800_000_000); // n1 was promoted, n0 has not seen it
    }
    copy.synchronous_standby_names = names(case);
    world.nodes[at].postgres.data = Data::Present(copy);
    world.nodes[at].postgres.start(!leads, upstream);
    accepts(world, at);
    let known = NodeFlow { epoch: EPOCH, upstream: upstream.map(source), ..NodeFlow::default() };
    remember(world, at, if leads { "leading" } else { "following" }, known);
    if leads {
        arm(world, at, EPOCH, TTL_MS - 700);
    }
}

fn accepts(world: &mut World, at: usize) {
    let now = world.now;
    if let Some(server) = &mut world.nodes[at].postgres.server {
        (server.accepts, server.streamed_at) = (true, Some(now));
    }
}

fn arm(world: &mut World, at: usize, epoch: u64, ahead_ms: u64) {
    let (deadline, life) = (world.local(at) + ahead_ms, world.fresh());
    world.nodes[at].guard = Some(Guard::new(epoch, deadline, life));
    world.guard_sleeps(at);
}

/// The journal says that it was here.
fn remember(world: &mut World, at: usize, place: &str, known: NodeFlow) {
    let (_, step) = Machine::start(known);
    let record = Record { to: place.to_owned(), ..step.record };
    let mut value = serde_json::to_value(&record).expect("plain data");
    value["run"] = serde_json::to_value(Run::default()).expect("plain data");
    let Record { seq, visit, from, to, cause, .. } = record;
    let entry = JournalEntry { flow: NodeFlow::ID, seq, visit, from, to, cause, value };
    world.nodes[at].disk.journal.insert(NodeFlow::ID, entry);
}

fn place_own(world: &mut World, case: Case, place: &str) {
    let tail = if matches!(case.lies, Lies::StandbyAhead | Lies::PrimaryAhead) { 9 } else { 0 };
    let own = |standby| {
        let names = names(case);
        Data::Present(Cluster { synchronous_standby_names: names, ..copy(IDENTITY, standby, tail) })
    };
    world.nodes[0].postgres.data = match case.lies {
        Lies::Empty => Data::Empty,
        Lies::Incomplete => Data::Incomplete,
        Lies::Standby | Lies::StandbyAhead => own(true),
        Lies::Primary | Lies::PrimaryAhead => own(false),
        Lies::Stranger => Data::Present(copy(STRANGER, false, 0)),
    };
    let upstream = holder(case).filter(|holder| *holder != 0);
    if case.runs != Runs::Nothing {
        world.nodes[0].postgres.start(case.runs == Runs::Standby, upstream);
        accepts(world, 0);
        let server = world.nodes[0].postgres.server.as_mut().expect("it was started");
        server.unmanaged = case.unmanaged;
    }
    match case.armed {
        Armed::No => {}
        Armed::Now => arm(world, 0, EPOCH, TTL_MS - 700),
        Armed::Before => arm(world, 0, EPOCH - 1, 0),
    }
    remember(world, 0, place, memory(world, case, upstream));
}

/// What it knew when it went: how things are, or how they were before.
fn memory(world: &World, case: Case, upstream: Option<usize>) -> NodeFlow {
    // An epoch has one holder: that of another's lease is never remembered as one's own.
    let epoch = EPOCH - u64::from(!(case.knows && case.decided == Decided::Mine));
    let known = if case.knows { upstream } else { Some(2) };
    let data = match case.knows {
        true => data_directory(&world.nodes[0].postgres),
        false => DataDirectory::Empty,
    };
    let inspection = Inspection {
        data,
        postmaster_alive: case.knows && case.runs != Runs::Nothing,
        running_as_primary: case.knows && case.runs == Runs::Primary,
        unmanaged: case.unmanaged && case.runs != Runs::Nothing,
        numbered: true,
    };
    let upstream = known.map(source);
    NodeFlow { epoch, upstream, inspection, ..NodeFlow::default() }
}

fn world(case: Case, place: &str, seed: u64) -> World {
    let mut plan = Plan::quiet(seed, 3);
    (plan.config, plan.heal_at, plan.synchronous) = (config(case), 1, case.synchronous);
    let mut world = World::new(plan);
    let state = state(case);
    for at in 0..3 {
        let votes = ((0..3).map(raft_id).collect(), Vec::new());
        world.nodes[at].disk.log = DurableLog::standing(&state, 4, votes);
        let cluster_id = Some(String::from("c"));
        world.nodes[at].disk.founding_record =
            FoundingRecord { cluster_id, ..FoundingRecord::default() };
        world.nodes[at].member = state.members[&raft_id(at)].clone();
    }
    (1..3).for_each(|at| place_other(&mut world, at, case));
    place_own(&mut world, case, place);
    if place == "rebuilding" {
        world.checks.reinitialized.insert(0); // or it would not be there
    }
    world.checks.cluster_id = Some(String::from("c"));
    world.checks.identity = Some(IDENTITY.to_string());
    (world.checks.applied, world.checks.epoch) = (state.applied, state.epoch);
    world
}

/// What happens as soon as the daemon is back.
const NOTHING: Option<Fault> = None;
const STOP: Option<Fault> = Some(Fault::Stop { target: Target::Node(0), ms: 2 * TTL_MS });
const POSTGRES_DIES: Option<Fault> = Some(Fault::KillPostgres { target: Target::Node(0) });

/// Every case at every place; the steps that were walked.
fn everywhere(happens: Option<Fault>, unmanaged: bool) -> Walked {
    let (cases, places) = (Case::all(), places(NodeFlow::ID));
    assert!(places.len() > 25 && cases.len() > 50, "{} {}", places.len(), cases.len());
    every((cases.len() * places.len()) as u64, |number| {
        let case = Case { unmanaged, ..cases[number as usize % cases.len()] };
        let place = &places[number as usize / cases.len()];
        let mut world = world(case, place, number);
        if let Some(fault) = happens {
            world.start_daemon(0);
            world.after(2, Event::Fault(fault));
        }
        comes_back(world, 6 * TTL_MS).map_err(|why| format!("{place}, {case:?}: {why}"))
    })
}

#[test]
fn from_every_place_under_every_decision_the_cluster_comes_back() {
    everywhere(NOTHING, false);
}

/// PostgreSQL dies at once, if it runs.
#[test]
fn at_every_place_under_every_decision_postgresql_may_die() {
    let walked = everywhere(POSTGRES_DIES, false);
    let dies = |step: &String| step.contains("(postgres_died)");
    let missing: Vec<String> = missing(NodeFlow::ID, &walked).into_iter().filter(dies).collect();
    assert_eq!(missing, [""; 0]);
}

/// The daemon is told to stop as soon as it is back there, and started again later; there is no place
/// from which it does not get out.
#[test]
fn at_every_place_under_every_decision_the_daemon_can_be_told_to_stop() {
    let mut walked = everywhere(STOP, false);
    walked.extend(everywhere(STOP, true));
    let stops =
        |step: &String| step.contains("→ shutting_down") || step.contains("→ giving_up_vote");
    let missing: Vec<String> = missing(NodeFlow::ID, &walked).into_iter().filter(stops).collect();
    // Whatever lies there, something is decided first.
    assert_eq!(missing, ["deciding → shutting_down (situation_changed)"]);
}
