//! The replicated state is linearizable: whatever several clients ask of several nodes under
//! faults, there is one order of all that explains every answer, and nothing in it happened before it was
//! asked for or after it was answered.
//!
//! The register is the dynamic configuration: replaced outright, replaced only if it has the version
//! that was seen (as `edit-config` does), and read through the log. The search for an order is that
//! of Wing and Gong, with the memory of Lowe: an order of the same operations that ended in the same
//! value is looked at once.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use surus::pure::cluster::command::{Command, Outcome};
use surus::pure::consensus::core::Input;
use surus::sim::fault::Fault;
use surus::sim::plan::Plan;
use surus::sim::rng::Rng;
use surus::sim::world::World;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// It was `from`, and is `to` from now on.
    Swapped {
        from: u64,
        to: u64,
    },
    /// It was not `from`.
    NotSwapped {
        from: u64,
    },
    Set {
        to: u64,
    },
    Read {
        value: u64,
    },
}

/// What was asked at `sent` and answered at `answered`; if never, it may have happened or not.
#[derive(Clone, Copy, Debug)]
struct Operation {
    node: usize,
    sent: u64,
    answered: Option<u64>,
    act: Act,
}

impl Operation {
    /// The value afterwards, if it can happen now.
    fn after(&self, value: u64) -> Option<u64> {
        match self.act {
            Act::Swapped { from, to } => (value == from).then_some(to),
            Act::NotSwapped { from } => (value != from).then_some(value),
            Act::Set { to } => Some(to),
            Act::Read { value: read } => (value == read).then_some(value),
        }
    }
}

/// Is there an order that explains everything? At most 128 operations.
fn is_linearizable(operations: &[Operation]) -> bool {
    assert!(operations.len() <= 128, "{} operations", operations.len());
    search(operations, 0, 0, &mut BTreeSet::new())
}

fn search(all: &[Operation], done: u128, value: u64, seen: &mut BTreeSet<(u128, u64)>) -> bool {
    let waiting = || all.iter().enumerate().filter(|(k, _)| done & (1 << k) == 0);
    let Some(bound) = waiting().filter_map(|(_, operation)| operation.answered).min() else {
        return true; // what is left was never answered, and need not have happened
    };
    if !seen.insert((done, value)) {
        return false;
    }
    waiting().filter(|(_, operation)| operation.sent <= bound).any(|(k, operation)| {
        operation.after(value).is_some_and(|next| search(all, done | (1 << k), next, seen))
    })
}

const OPERATIONS: usize = 70;
const CLIENTS: usize = 4;
/// After so long without an answer a client goes on to something else.
const PATIENCE_MS: u64 = 4000;

/// How reads are served.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    ThroughTheLog,
    /// The fault that must be seen: by whatever the node has applied, without asking anybody.
    FromWhatIsHere,
}

struct Asked {
    ticket: u64,
    operation: Operation,
}

struct Run {
    world: World,
    rng: Rng,
    reads: Reads,
    next: u64,
    asked: BTreeMap<usize, Asked>,
    history: Vec<Operation>,
}

/// Clients against a cluster under this seed's faults; what they remember.
fn history(seed: u64, reads: Reads) -> Vec<Operation> {
    let mut plan = Plan::drawn(seed);
    plan.link_profile.doubled = 0; // a connection delivers once
    // A client's swap goes by the configuration's version, which an operator's change raises, too.
    plan.faults.retain(|(_, fault)| !matches!(fault, Fault::Patch(_)));
    plan.heal_at = plan.heal_at.max(60_000);
    let mut run = Run {
        world: World::new(plan),
        rng: Rng::new(seed + 77),
        reads,
        next: 0,
        asked: BTreeMap::new(),
        history: Vec::new(),
    };
    while run.history.len() + run.asked.len() < OPERATIONS && run.world.now < 90_000 {
        run.pass();
        if run.world.checks.identity.is_some() {
            (0..CLIENTS).for_each(|client| run.ask(client));
        }
    }
    let rest = std::mem::take(&mut run.asked);
    run.history.extend(rest.into_values().map(|asked| asked.operation));
    run.history
}

impl Run {
    fn pass(&mut self) {
        let until = self.world.now + self.rng.between(5, 250);
        while self.world.now < until {
            self.world.step().unwrap_or_else(|broken| panic!("{broken}"));
            for (ticket, outcome) in std::mem::take(&mut self.world.client.told) {
                self.answered(ticket, outcome);
            }
        }
    }

    /// Value and version, as this node has applied them.
    fn here(&self, node: usize) -> Option<(u64, u64)> {
        let cluster = self.world.nodes[node].daemon.as_ref()?.core.cluster();
        let value = cluster.config.as_ref()?["register"].as_u64().unwrap_or(0);
        Some((value, cluster.config_version))
    }

    fn ask(&mut self, client: usize) {
        let now = self.world.now;
        if let Some(asked) = self.asked.get(&client) {
            if now < asked.operation.sent + PATIENCE_MS {
                return;
            }
            self.history.extend(self.asked.remove(&client).map(|asked| asked.operation));
        }
        let node = self.rng.below(self.world.nodes.len());
        let Some((from, version)) = self.here(node).filter(|_| !self.world.nodes[node].frozen)
        else {
            return;
        };
        self.next += 1;
        let to = self.next;
        let (act, expected) = match self.rng.below(5) {
            0 => (Act::Set { to }, None),
            1 | 2 => (Act::Swapped { from, to }, Some(version)),
            _ if self.reads == Reads::FromWhatIsHere => {
                let act = Act::Read { value: from };
                return self.history.push(Operation { node, sent: now, answered: Some(now), act });
            }
            _ => (Act::Read { value: 0 }, Some(u64::MAX)),
        };
        self.propose(client, Operation { node, sent: now, answered: None, act }, to, expected);
    }

    fn propose(&mut self, client: usize, operation: Operation, to: u64, expected: Option<u64>) {
        let mut value = self.world.plan.config.clone();
        value["register"] = json!(to);
        let ticket = 1_000_000_000 + self.next;
        self.asked.insert(client, Asked { ticket, operation });
        let command = Command::SetConfig { value, expected };
        self.world.feed(operation.node, Input::Propose { ticket, command });
    }

    fn answered(&mut self, ticket: u64, outcome: Result<Outcome, String>) {
        let Some(client) = self.asked.iter().find(|(_, a)| a.ticket == ticket).map(|(c, _)| *c)
        else {
            return;
        };
        let Some(Asked { mut operation, .. }) = self.asked.remove(&client) else { return };
        operation.answered = Some(self.world.now);
        operation.act = match (operation.act, outcome) {
            (_, Err(_)) => return, // nothing was proposed
            (Act::Read { .. }, Ok(_)) => match self.here(operation.node) {
                Some((value, _)) => Act::Read { value },
                None => return,
            },
            (Act::Swapped { from, .. }, Ok(Outcome::Refused(_))) => Act::NotSwapped { from },
            (act, Ok(_)) => act,
        };
        self.history.push(operation);
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    (0..60).filter(|seed| !Plan::drawn(*seed).standby)
}

#[test]
fn the_replicated_state_is_linearizable_under_faults() {
    let (mut operations, mut unanswered, mut runs) = (0, 0, 0);
    for seed in seeds() {
        let history = history(seed, Reads::ThroughTheLog);
        assert!(is_linearizable(&history), "seed {seed}: {history:#?}");
        operations += history.len();
        unanswered += history.iter().filter(|o| o.answered.is_none()).count();
        runs += 1;
    }
    eprintln!("{runs} histories, {operations} operations, {unanswered} of them never answered");
    assert!(operations > 2000 && unanswered > 20, "{operations} {unanswered}");
}

/// A check that nobody has seen fail is no check.
#[test]
fn reads_that_ask_nobody_are_noticed() {
    let caught =
        seeds().take(40).filter(|seed| !is_linearizable(&history(*seed, Reads::FromWhatIsHere)));
    let caught: Vec<u64> = caught.collect();
    eprintln!("stale reads noticed under seeds {caught:?}");
    assert!(caught.len() > 5, "{caught:?}");
}

#[test]
fn the_search_finds_an_order_only_where_there_is_one() {
    let operation = |sent, answered, act| Operation { node: 0, sent, answered, act };
    let done = |sent, act| operation(sent, Some(sent + 10), act);
    let swap = |from, to| Act::Swapped { from, to };
    let read = |value| Act::Read { value };
    assert!(is_linearizable(&[done(0, swap(0, 1)), done(20, read(1)), done(40, swap(1, 2))]));
    // At the same time, either may be first.
    assert!(is_linearizable(&[done(0, swap(0, 1)), done(5, read(0))]));
    assert!(!is_linearizable(&[done(0, swap(0, 1)), done(20, read(0))]), "a stale read");
    assert!(!is_linearizable(&[done(0, swap(0, 1)), done(20, swap(0, 2))]), "a lost update");
    assert!(!is_linearizable(&[done(0, read(3))]), "out of nowhere");
    let refused = Act::NotSwapped { from: 0 };
    assert!(!is_linearizable(&[done(0, refused)]), "refused without a reason");
    let unknown = operation(0, None, Act::Set { to: 7 });
    assert!(is_linearizable(&[unknown, done(20, read(0)), done(40, read(7)), done(60, refused)]));
    assert!(!is_linearizable(&[unknown, done(20, read(7)), done(40, read(0))]), "taken back");
}
