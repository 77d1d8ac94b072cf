//! Any order of events, answers, failures and delays, to each flow.
//!
//! The world here is worse than the real one: answers come for visits that are over, reports are
//! of the wrong kind, situations contradict each other, and the process dies at any time. What has
//! to hold is the contract of [`crate::pure::machine`]; see [`Run::follows`].
use serde_json::Value;

use super::Memory;
use super::arbitrary;
use super::bytes::Bytes;
use crate::pure::chart::{Name, Names};
use crate::pure::flow::bootstrap::{Bootstrap, Limits};
use crate::pure::flow::cluster_init::ClusterInit;
use crate::pure::flow::demote::Demote;
use crate::pure::flow::node::Node;
use crate::pure::flow::promote::Promote;
use crate::pure::flow::rejoin::Rejoin;
use crate::pure::flow::replica_build::ReplicaBuild;
use crate::pure::flow::restart::Restart;
use crate::pure::flow::standby_leader::StandbyLeader;
use crate::pure::flow::switchover::Switchover;
use crate::pure::machine::any::Occurrence;
use crate::pure::machine::{Effect, Flow, FollowsSituation, Input, Machine, Record};

/// The first byte is the flow, the next are what it knows, the rest is what happens to it.
pub fn inputs(bytes: &[u8]) {
    let mut b = Bytes::new(bytes);
    match b.below(10) {
        0 => run(Node::default(), &mut b),
        1 => {
            let known = cluster_init(&mut b);
            run(known, &mut b);
        }
        2 => {
            let known = bootstrap(&mut b);
            run(known, &mut b);
        }
        3 => {
            let (permission, methods) = (arbitrary::permission(&mut b), arbitrary::methods(&mut b));
            let reinit = arbitrary::reinit(&mut b);
            run(ReplicaBuild::new("n1", permission, methods, reinit), &mut b);
        }
        4 => {
            let known =
                Rejoin { source: arbitrary::source(&mut b), rules: arbitrary::rules(&mut b) };
            run(known, &mut b);
        }
        5 => {
            let known = promote(&mut b);
            run(known, &mut b);
        }
        6 => {
            let known = demote(&mut b);
            run(known, &mut b);
        }
        7 => {
            let (epoch, candidate) = (b.number(), b.some(arbitrary::name));
            run(Switchover { epoch, candidate, shutdown: None }, &mut b);
        }
        8 => {
            let (start_as, crashed) = (arbitrary::start_as(&mut b), b.flag());
            run(Restart::new(start_as, crashed, 60_000), &mut b);
        }
        _ => {
            let known = StandbyLeader::new(b.number(), arbitrary::remote(&mut b));
            run(known, &mut b);
        }
    }
}

fn cluster_init(b: &mut Bytes) -> ClusterInit {
    ClusterInit {
        epoch: b.number(),
        node: arbitrary::name(b),
        has_data: b.flag(),
        runs: b.flag(),
        remote: b.some(arbitrary::remote),
        config: Value::Null,
        system_identifier: String::new(),
        problem: String::new(),
    }
}

fn bootstrap(b: &mut Bytes) -> Bootstrap {
    let methods = b.few(3, |b| arbitrary::method(b).name);
    let (epoch, has_script) = (b.number(), b.flag());
    Bootstrap { epoch, has_script, methods, limits: Limits::default(), ..Bootstrap::default() }
}

fn promote(b: &mut Bytes) -> Promote {
    Promote {
        epoch: b.number(),
        node: arbitrary::name(b),
        pre_promote: b.flag(),
        start_needed: b.flag(),
        set_aside: b.below(9) as u32,
        timeline: b.number() as u32,
        way: Vec::new(),
    }
}

fn demote(b: &mut Bytes) -> Demote {
    let (mode, release) = (arbitrary::mode(b), b.some(arbitrary::release));
    Demote { mode, release, shutdown: b.some(arbitrary::status), hands_over: b.some(Bytes::number) }
}

/// A machine, where it stands on the disk, and what was last asked for.
struct Run<F: Flow> {
    machine: Machine<F>,
    disk: Memory,
    asked: Vec<Effect<F>>,
}

fn run<F: FollowsSituation>(known: F, b: &mut Bytes) {
    let (machine, step) = Machine::start(known);
    let mut disk = Memory(String::new());
    let asked = step.persist(&mut disk).expect("memory takes everything");
    let mut run = Run { machine, disk, asked };
    run.stands();
    go_on(&mut run, b);
}

/// A machine that was resumed, in the hands of the same world.
pub fn resumed<F: FollowsSituation>(record: Record<F>, b: &mut Bytes) {
    let (machine, asked) = Machine::resume(record);
    let mut run = Run { machine, disk: Memory(String::new()), asked };
    run.settles();
    go_on(&mut run, b);
}

fn go_on<F: FollowsSituation>(run: &mut Run<F>, b: &mut Bytes) {
    while !b.is_empty() {
        match b.below(8) {
            0 => run.dies(),
            1 => {
                let stale = b.number().wrapping_add(run.machine.visit() + 1);
                run.tell(answer(stale, b));
            }
            2..=4 => run.tell(answer(run.machine.visit(), b)),
            _ => {
                let situation = arbitrary::situation(b);
                let died = b.below(4) == 3;
                let situation = Occurrence::Situation(&situation);
                let what = if died { Occurrence::PostgresDied } else { situation };
                run.tell(run.machine.knowledge().event_of(what).map(Input::Event));
            }
        }
    }
}

/// An answer under this visit: a report, a failure, or a delay that the chart knows.
fn answer<F: Flow>(visit: u64, b: &mut Bytes) -> Option<Input<F>> {
    let delays = F::Names::CHART.delays.len();
    Some(match b.below(4) {
        0 => Input::Failed { visit, problem: b.one_of(&["disk full", "", "gone"]).to_owned() },
        1 if delays > 0 => Input::Elapsed { visit, delay: Name::at(b.below(delays)) },
        _ => Input::Done { visit, report: arbitrary::report(b) },
    })
}

impl<F: Flow> Run<F> {
    fn tell(&mut self, input: Option<Input<F>>) {
        let Some(input) = input else { return };
        let before = self.machine.clone();
        let waited = self.waits_for(&input);
        let Some(step) = self.machine.handle(input.clone()) else {
            assert!(!waited, "{} took no notice of {input:?}", before.state());
            assert_eq!(self.machine.state(), before.state(), "nothing moved");
            assert_eq!(self.machine.knowledge(), before.knowledge(), "nothing was learned");
            return;
        };
        assert!(!before.is_ended(), "{} is the end, and {input:?} moved it", before.state());
        self.is_no_stale_answer(&before, &input);
        let record = step.record.clone();
        let effects = step.persist(&mut self.disk).expect("memory takes everything");
        self.follows(&before, &record, effects);
    }

    /// The chart promises an edge for every answer that the state has asked for.
    fn waits_for(&self, input: &Input<F>) -> bool {
        let here = self.machine.visit();
        match input {
            Input::Done { visit, .. } | Input::Failed { visit, .. } => {
                *visit == here && self.machine.is_working()
            }
            Input::Elapsed { visit, delay } => {
                let place = self.machine.state().index();
                *visit == here && F::Names::CHART.delays_of(place).any(|at| at == delay.index())
            }
            Input::Start | Input::Event(_) => false,
        }
    }

    fn is_no_stale_answer(&self, before: &Machine<F>, input: &Input<F>) {
        let (Input::Done { visit, .. }
        | Input::Failed { visit, .. }
        | Input::Elapsed { visit, .. }) = input
        else {
            return;
        };
        assert_eq!(*visit, before.visit(), "an answer to another visit moved {}", before.state());
    }

    /// The record says what happened, and the effects are what the place asks for.
    fn follows(&mut self, before: &Machine<F>, record: &Record<F>, effects: Vec<Effect<F>>) {
        assert_eq!(record.seq, before.seq() + 1, "records are counted");
        assert_eq!(record.from.as_deref(), Some(before.state().text()));
        assert_eq!(record.to, self.machine.state().text());
        assert_eq!(&record.knowledge, self.machine.knowledge());
        assert_eq!(record.visit, self.machine.visit());
        if record.visit == before.visit() {
            assert!(effects.is_empty(), "whoever stays begins nothing");
            assert_eq!(before.state(), self.machine.state(), "whoever stays is where it was");
        } else {
            assert_eq!(record.visit, before.visit() + 1, "arrivals are counted");
            let cancels = effects.iter().filter(|e| matches!(e, Effect::Cancel)).count();
            let busy = before.is_working()
                || F::Names::CHART.delays_of(before.state().index()).next().is_some();
            assert_eq!(cancels, usize::from(busy), "what was left is cancelled once");
            self.asked = effects.into_iter().filter(|e| !matches!(e, Effect::Cancel)).collect();
        }
        self.stands();
    }

    /// Where we are is a place to be, and exactly its work and its delays were asked for.
    fn stands(&self) {
        let (chart, place) = (F::Names::CHART, self.machine.state().index());
        assert!(chart.states[place].initial.is_none(), "nobody is in a state with states");
        let (mut begun, mut woken, mut ended) = (0, 0, 0);
        for effect in &self.asked {
            match effect {
                Effect::Cancel => panic!("an arrival cancels nothing of its own"),
                Effect::Begin { visit, .. } => {
                    assert_eq!(*visit, self.machine.visit(), "work runs under this visit");
                    begun += 1;
                }
                Effect::Wake { visit, .. } => {
                    assert_eq!(*visit, self.machine.visit(), "delays run under this visit");
                    woken += 1;
                }
                Effect::End(state) => {
                    assert_eq!(*state, self.machine.state(), "the end is where we are");
                    ended += 1;
                }
            }
        }
        assert_eq!(begun, usize::from(self.machine.is_working()), "{}", self.machine.state());
        assert_eq!(ended, usize::from(self.machine.is_ended()), "{}", self.machine.state());
        let delays = if self.machine.is_ended() { 0 } else { chart.delays_of(place).count() };
        assert_eq!(woken, delays, "{}", self.machine.state());
        let silent = self.machine.waiting_for().is_empty() && !self.machine.is_ended();
        assert!(!silent, "{} does not say what it waits for", self.machine.state());
    }

    /// kill -9 and a new process: it stands where the record says, and asks for the same work.
    fn dies(&mut self) {
        let record: Record<F> = serde_json::from_str(&self.disk.0).expect("it was written");
        let old = self.machine.clone();
        let (machine, asked) = Machine::resume(record);
        assert_eq!(machine.knowledge(), old.knowledge(), "nothing is forgotten");
        assert_eq!(machine.state(), old.state(), "it stands where it stood");
        assert!(machine.visit() > old.visit() || machine.is_ended(), "old answers are stale");
        (self.machine, self.asked) = (machine, asked);
        self.settles();
    }

    /// A resumed machine, with its visit on the disk: the next life's has to be another. (In production
    /// nothing is written then, as no answer outlives the process that it was asked in.)
    fn settles(&mut self) {
        self.disk.0 = serde_json::to_string(&Record {
            seq: self.machine.seq(),
            visit: self.machine.visit(),
            from: None,
            to: self.machine.state().text().to_owned(),
            cause: "resumed".to_owned(),
            knowledge: self.machine.knowledge().clone(),
            chart: String::new(),
        })
        .expect("a record is plain data");
        self.stands();
    }
}
