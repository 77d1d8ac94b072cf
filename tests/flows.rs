//! Each flow alone in a hostile world: whatever fails and wherever it crashes, it ends.
//!
//! The world is less obedient than the real one on purpose: it never cancels anything, answers may
//! come later than the timeouts, and answers survive a crash. It keeps its own books of who asked
//! what, so that it does not have to believe the machine's visit numbers.
use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;
use surus::pure::chart::{Name, Names};
use surus::pure::cluster::Millis;
use surus::pure::flow::replica_build::{self, ReplicaBuild, State};
use surus::pure::machine::{Effect, Flow, Input, Journal, Machine, Record, Step};
use surus::pure::operation::{
    Method, Offer, OfferKind, Operation, ReinitOptions, Report, Source, WipePermission,
};

/// More inputs than any flow needs in a world that is fair some of the time.
const INPUTS_MAX: usize = 50_000;
const RENEW_MS: Millis = 10_000;

/// Rng as a value: splitmix64.
struct Rng(u64);

impl Rng {
    fn draw(&mut self) -> u64 {
        surus::pure::random::next(&mut self.0)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    fn percent(&mut self, rate: u8) -> bool {
        self.below(100) < u64::from(rate)
    }
}

/// How unkind the world is, in percent.
#[derive(Clone, Copy, Debug)]
struct LinkProfile {
    seed: u64,
    failures: u8,
    crashes: u8,
    lateness: u8,
}

fn link_profile() -> impl Strategy<Value = LinkProfile> {
    (any::<u64>(), 0..=100u8, 0..=40u8, 0..=50u8).prop_map(|(seed, failures, crashes, lateness)| {
        LinkProfile { seed, failures, crashes, lateness }
    })
}

/// Records in memory; may refuse.
struct Memory<F> {
    records: Vec<Record<F>>,
    refuse: bool,
}

impl<F: Flow> Journal<F> for Memory<F> {
    fn append(&mut self, record: &Record<F>, _: &Input<F>) -> io::Result<()> {
        if self.refuse {
            return Err(io::Error::other("the disk is full"));
        }
        let text = serde_json::to_string(record)?;
        self.records.push(serde_json::from_str(&text)?);
        Ok(())
    }
}

/// An input on its way, with the arrival (the world's own count) that asked for it.
struct Letter<F: Flow> {
    input: Input<F>,
    asked_by: Option<u64>,
}

/// One machine and everything that is on its way to it.
struct World<F: Flow> {
    link_profile: LinkProfile,
    rng: Rng,
    now: Millis,
    ticket: u64,
    queue: BTreeMap<(Millis, u64), Letter<F>>,
    machine: Machine<F>,
    journal: Memory<F>,
    /// Arrivals by the world's own count.
    arrivals: u64,
    ended: Option<String>,
    operations: Vec<Operation>,
    /// Operations that fail whatever the link profile.
    hopeless: fn(&Operation) -> bool,
    /// What the flow hears at every cycle.
    situation_changed: fn(&mut Rng) -> Vec<F::Event>,
}

impl<F: Flow> World<F> {
    fn new(
        link_profile: LinkProfile,
        knowledge: F,
        situation_changed: fn(&mut Rng) -> Vec<F::Event>,
    ) -> Self {
        let (machine, step) = Machine::start(knowledge);
        let mut world = World {
            link_profile,
            rng: Rng(link_profile.seed),
            now: 0,
            ticket: 0,
            queue: BTreeMap::new(),
            machine,
            journal: Memory { records: vec![], refuse: false },
            arrivals: 0,
            ended: None,
            operations: vec![],
            hopeless: |_| false,
            situation_changed,
        };
        let effects = step.persist(&mut world.journal).expect("memory does not fail");
        world.carry_out(effects);
        world
    }

    fn post(&mut self, after: Millis, input: Input<F>, asked_by: Option<u64>) {
        self.ticket += 1;
        self.queue.insert((self.now + after, self.ticket), Letter { input, asked_by });
    }

    /// One input; `false` when there is nothing more to come.
    fn tick(&mut self) -> Result<bool, TestCaseError> {
        let next_renewal = (self.now / RENEW_MS + 1) * RENEW_MS;
        match self.queue.first_key_value() {
            Some((&(when, _), _)) if when <= next_renewal => {
                let ((when, _), letter) = self.queue.pop_first().expect("it was there");
                self.now = self.now.max(when);
                self.tell(letter)?;
            }
            Some(_) | None => {
                self.now = next_renewal;
                for event in (self.situation_changed)(&mut self.rng) {
                    self.tell(Letter { input: Input::Event(event), asked_by: None })?;
                }
            }
        }
        if self.rng.percent(self.link_profile.crashes / 8) {
            self.crash();
        }
        Ok(self.ended.is_none())
    }

    fn tell(&mut self, letter: Letter<F>) -> Result<(), TestCaseError> {
        let before = self.machine.clone();
        let Some(step) = self.machine.handle(letter.input.clone()) else { return Ok(()) };
        if let Some(asked_by) = letter.asked_by {
            let (from, input) = (before.state(), &letter.input);
            prop_assert_eq!(asked_by, self.arrivals, "{} moved on another's {:?}", from, input);
        }
        self.record_follows(&before, &step)?;
        if self.rng.percent(self.link_profile.crashes / 2) {
            self.journal.refuse = true;
            let refused = step.persist(&mut self.journal);
            self.journal.refuse = false;
            prop_assert!(refused.is_err(), "no effects without a record");
            self.crash();
            return Ok(());
        }
        let effects = step.persist(&mut self.journal).expect("memory does not fail");
        if self.rng.percent(self.link_profile.crashes / 2) {
            self.crash();
        } else {
            self.carry_out(effects);
        }
        Ok(())
    }

    fn record_follows(&self, before: &Machine<F>, step: &Step<F>) -> Result<(), TestCaseError> {
        let last = self.journal.records.last().expect("a record was written at the beginning");
        prop_assert_eq!(step.record.seq, last.seq + 1);
        prop_assert!(step.record.visit >= last.visit);
        prop_assert_eq!(step.record.from.as_deref(), Some(before.state().text()));
        prop_assert_eq!(step.record.from.as_deref(), Some(last.to.as_str()));
        prop_assert_eq!(self.machine.state().text(), &step.record.to);
        Ok(())
    }

    /// The process dies and comes back. Answers to visits on record are still on their way; those
    /// asked for by a life that left no record died with it, as they do in reality.
    fn crash(&mut self) {
        if self.ended.is_some() {
            return;
        }
        let record = self.journal.records.last().expect("the first record").clone();
        let kept = record.visit;
        self.queue.retain(|_, letter| visit_of(&letter.input).is_none_or(|visit| visit <= kept));
        let (machine, effects) = Machine::resume(record);
        self.machine = machine;
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect<F>>) {
        let arrived = |effect: &Effect<F>| !matches!(effect, Effect::Cancel);
        self.arrivals += u64::from(effects.iter().any(arrived));
        for effect in effects {
            let asked_by = Some(self.arrivals);
            match effect {
                Effect::Cancel => {}
                Effect::Begin { visit, operation } => {
                    let late = self.rng.percent(self.link_profile.lateness);
                    let after = self.rng.below(if late { 2_000_000 } else { 20_000 });
                    let unlucky = self.rng.percent(self.link_profile.failures);
                    let failed = unlucky || (self.hopeless)(&operation);
                    let input = if failed {
                        Input::Failed { visit, problem: "the world refused".into() }
                    } else {
                        Input::Done { visit, report: Report::Done }
                    };
                    self.operations.push(operation);
                    self.post(after, input, asked_by);
                }
                Effect::Wake { visit, delay, after } => {
                    self.post(after, Input::Elapsed { visit, delay }, asked_by);
                }
                Effect::End(state) => self.ended = Some(state.text().to_owned()),
            }
        }
    }

    fn run(&mut self) -> Result<String, TestCaseError> {
        for _ in 0..INPUTS_MAX {
            self.never_idle()?;
            if !self.tick()? {
                return Ok(self.ended.clone().unwrap_or_default());
            }
        }
        let (state, waiting) = (self.machine.state(), self.machine.waiting_for());
        Err(TestCaseError::fail(format!("no end: in {state}, waiting for {waiting}")))
    }

    /// A working state has its operation running; a resting one says what it waits for.
    fn never_idle(&self) -> Result<(), TestCaseError> {
        if self.machine.is_working() {
            let now = Some(self.arrivals);
            let running = self.queue.values().any(|letter| letter.asked_by == now);
            prop_assert!(running, "{} works, but nothing is running", self.machine.state());
        }
        let silent = self.machine.waiting_for().is_empty() && !self.machine.is_ended();
        prop_assert!(!silent, "{} does not say what it waits for", self.machine.state());
        Ok(())
    }
}

fn visit_of<F: Flow>(input: &Input<F>) -> Option<u64> {
    match input {
        Input::Start | Input::Event(_) => None,
        Input::Done { visit, .. } | Input::Failed { visit, .. } | Input::Elapsed { visit, .. } => {
            Some(*visit)
        }
    }
}

// ---------------------------------------------------------------------------------------------
// replica_build

fn build(methods: u8, permission: WipePermission) -> ReplicaBuild {
    let method = |at: u8| Method {
        name: if at == 3 { String::from("basebackup") } else { format!("method_{at}") },
        keep_data: at % 3 == 1,
        no_leader: at % 3 == 2,
    };
    let methods = (0..methods).map(method).collect();
    ReplicaBuild::new("n1", permission, methods, ReinitOptions::default())
}

fn replica_build_situation(rng: &mut Rng) -> Vec<replica_build::Event> {
    let source = |member: &str| Source {
        member: member.into(),
        host: "127.0.0.1".into(),
        port: 5432,
        slot: None,
    };
    let leads = rng.below(10) > 1;
    let offer = |member: &str, kind| Offer { source: source(member), kind };
    let mut offers = vec![offer("beta", OfferKind::CloneFrom), offer("gamma", OfferKind::Member)];
    if leads {
        offers.push(offer("alpha", OfferKind::Leader));
    }
    let leader = leads.then(|| String::from("alpha"));
    let upstream = leads.then(|| source("alpha"));
    vec![replica_build::Event::TopologyChanged { leader, upstream, offers, epoch: 1 }]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replica_build_ends(link_profile in link_profile(), methods in 0..5u8) {
        let operator = WipePermission::Operator { what: "reinit".into() };
        let link_profile = LinkProfile { failures: link_profile.failures / 4, ..link_profile };
        let mut world = World::new(link_profile, build(methods, operator.clone()), replica_build_situation);
        let end = world.run()?;
        let removed = world.journal.records.iter().any(|r| r.cause == "done clear_data_directory");
        let called_off = end == "cancelled" && !removed; // nobody led: what lies there stays
        let ended = ["streaming", "copied", "restored", "left_alone"].contains(&end.as_str());
        prop_assert!(ended || called_off, "ended in {}", end);
        owns_what_it_removes(&world, &operator)?;
    }

    /// Every method gets its turn in every round, and no more; there is always another round.
    #[test]
    fn replica_build_never_gives_up(seed in any::<u64>(), methods in 1..4u8) {
        let link_profile = LinkProfile { seed, failures: 0, crashes: 0, lateness: 0 };
        let mut world =
            World::new(link_profile, build(methods, WipePermission::OwnLeftovers), |_| {
                let mut all = Rng(3);
                replica_build_situation(&mut all)
            });
        world.hopeless = |operation| matches!(operation, Operation::CopyCluster { .. });
        for _ in 0..INPUTS_MAX {
            prop_assert!(world.tick()?, "it ended in {:?}", world.ended);
            if world.machine.knowledge().attempt == 5 {
                break;
            }
        }
        let failures = world.journal.records.iter();
        let failures = failures.filter(|record| record.cause.starts_with("failed run_method"));
        prop_assert_eq!(failures.count(), usize::from(methods) * 5);
    }

    /// The operator's word is always heard, whatever is going on.
    #[test]
    fn replica_build_can_be_called_off(link_profile in link_profile(), inputs in 0..60usize) {
        let permission = WipePermission::OwnLeftovers;
        let mut world = World::new(link_profile, build(2, permission), replica_build_situation);
        for _ in 0..inputs {
            if !world.tick()? {
                return Ok(());
            }
        }
        let step = world.machine.handle(Input::Event(replica_build::Event::Cancel));
        prop_assert_eq!(step.map(|step| step.record.to), Some("cancelled".to_owned()));
    }

    /// A run is a function of its seed.
    #[test]
    fn replica_build_is_deterministic(link_profile in link_profile()) {
        let run = || {
            let permission = WipePermission::OwnLeftovers;
            let mut world = World::new(link_profile, build(3, permission), replica_build_situation);
            for _ in 0..200 {
                if !world.tick()? {
                    break;
                }
            }
            Ok::<_, TestCaseError>(world.journal.records)
        };
        prop_assert_eq!(run()?, run()?);
    }
}

/// The operator's permission is good for one emptying: afterwards only what is ours is removed.
fn owns_what_it_removes(
    world: &World<ReplicaBuild>,
    given: &WipePermission,
) -> Result<(), TestCaseError> {
    let cleared = |record: &&Record<ReplicaBuild>| record.cause == "done clear_data_directory";
    if let Some(first) = world.journal.records.iter().find(cleared) {
        for record in world.journal.records.iter().filter(|record| record.seq >= first.seq) {
            prop_assert_ne!(&record.knowledge.permission, given);
        }
    }
    Ok(())
}

/// The initial state must be a safe place to arrive from anywhere: a chart may lose a state.
#[test]
fn every_record_can_be_resumed_in_some_state() {
    for &(state, name) in State::ALL {
        let (_, step) = Machine::start(build(1, WipePermission::OwnLeftovers));
        let record = Record { to: name.to_owned(), ..step.record };
        let (machine, _) = Machine::resume(record);
        let row = &replica_build::Names::CHART.states[machine.state().index()];
        assert!(row.initial.is_none(), "resumed in the compound state {state}");
        assert!(
            machine.is_ended() || !machine.waiting_for().is_empty(),
            "{state} waits for nothing"
        );
    }
}
