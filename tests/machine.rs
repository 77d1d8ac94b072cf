//! The machine's contract: what is written, when, and which answers still count.
//!
//! `tests/flows.rs` asks the same of whole runs; here each clause stands alone, on `replica_build`.
use std::io;

use surus::pure::flow::replica_build::{Delay, Event, ReplicaBuild, State};
use surus::pure::machine::{Effect, Input, Journal, Machine, Record};
use surus::pure::operation::{
    Offer, OfferKind, Operation, ReinitOptions, Report, Source, WipePermission,
};

type Effects = Vec<Effect<ReplicaBuild>>;

/// Records in memory; refuses when it is full.
#[derive(Default)]
struct Memory {
    records: Vec<Record<ReplicaBuild>>,
    full: bool,
}

impl Journal<ReplicaBuild> for Memory {
    fn append(&mut self, record: &Record<ReplicaBuild>, _: &Input<ReplicaBuild>) -> io::Result<()> {
        if self.full {
            return Err(io::Error::other("full"));
        }
        self.records.push(record.clone());
        Ok(())
    }
}

fn source() -> Source {
    Source { member: "alpha".into(), host: "127.0.0.1".into(), port: 5432, slot: None }
}

fn knowledge() -> ReplicaBuild {
    ReplicaBuild::new("n1", WipePermission::OwnLeftovers, vec![], ReinitOptions::default())
}

/// Somebody leads who can be copied from.
fn situation_changed() -> Input<ReplicaBuild> {
    let offer = Offer { source: source(), kind: OfferKind::Leader };
    Input::Event(Event::TopologyChanged {
        leader: Some("alpha".into()),
        upstream: Some(source()),
        offers: vec![offer],
        epoch: 1,
    })
}

/// A machine in `clearing` on its third visit, its journal and what it asked for.
fn clearing() -> (Machine<ReplicaBuild>, Memory, Effects) {
    let (mut machine, step) = Machine::start(knowledge());
    let mut journal = Memory::default();
    let mut effects = step.persist(&mut journal).expect("memory does not fail");
    for input in [situation_changed(), done(2)] {
        let step = machine.handle(input).expect("it moves");
        effects = step.persist(&mut journal).expect("memory does not fail");
    }
    (machine, journal, effects)
}

fn done(visit: u64) -> Input<ReplicaBuild> {
    Input::Done { visit, report: Report::Done }
}

#[test]
fn a_record_is_written_at_creation_before_the_first_work() {
    let (machine, step) = Machine::start(knowledge());
    let mut journal = Memory::default();
    let effects = step.persist(&mut journal).expect("memory does not fail");
    assert_eq!(machine.state(), State::Waiting);
    let [record] = &journal.records[..] else { panic!("one record, not {:?}", journal.records) };
    assert_eq!((record.seq, record.visit, record.from.as_deref()), (1, 1, None));
    assert_eq!((record.to.as_str(), record.cause.as_str()), ("waiting", "start"));
    let wake = Effect::Wake { visit: 1, delay: Delay::LeaderlessDelay, after: 10_000 };
    assert_eq!(effects, [wake]);
    let (_, _, effects) = clearing();
    let operation = Operation::ClearDataDirectory { permission: WipePermission::OwnLeftovers };
    let wake = Effect::Wake { visit: 3, delay: Delay::LocalTimeout, after: 600_000 };
    assert_eq!(effects[1..], [Effect::Begin { visit: 3, operation }, wake]);
}

#[test]
fn nothing_is_done_that_could_not_be_written() {
    let (mut machine, mut journal, _) = clearing();
    journal.full = true;
    let step = machine.handle(done(3)).expect("clearing is done");
    assert!(step.persist(&mut journal).is_err());
    assert_eq!(journal.records.len(), 3);
}

#[test]
fn leaving_cancels_and_arriving_begins() {
    let (mut machine, mut journal, _) = clearing();
    let step = machine.handle(done(3)).expect("clearing is done");
    let effects = step.persist(&mut journal).expect("memory does not fail");
    let operation = Operation::CopyCluster {
        method: "basebackup".into(),
        source: Some(source()),
        keep_data: false,
    };
    assert_eq!(effects[..2], [Effect::Cancel, Effect::Begin { visit: 4, operation }]);
    let record = journal.records.last().expect("four records");
    assert_eq!((record.seq, record.visit), (4, 4));
    assert_eq!(record.sentence(), "clearing → copying, because done clear_data_directory");
}

#[test]
fn answers_to_an_earlier_visit_are_dropped() {
    let (mut machine, _, _) = clearing();
    let step = machine.handle(done(3)).expect("clearing is done");
    assert_eq!(step.record.visit, 4);
    let late = [
        done(3),
        Input::Failed { visit: 3, problem: "late".into() },
        Input::Elapsed { visit: 3, delay: Delay::CopyTimeout },
        done(5),
    ];
    for input in late {
        assert!(machine.handle(input).is_none());
    }
    assert_eq!((machine.state(), machine.seq()), (State::Copying, 4));
}

#[test]
fn what_is_for_no_edge_here_leaves_no_trace() {
    let (mut machine, _, _) = clearing();
    assert!(machine.handle(situation_changed()).is_none(), "a level that is known");
    assert!(machine.handle(Input::Elapsed { visit: 3, delay: Delay::RetryDelay }).is_none());
    assert_eq!((machine.seq(), machine.visit()), (3, 3));
}

#[test]
fn failures_and_timeouts_say_why() {
    let (mut machine, _, _) = clearing();
    let problem = format!("no space left {}", "x".repeat(10_000));
    let step = machine.handle(Input::Failed { visit: 3, problem }).expect("clearing failed");
    assert!(step.record.cause.starts_with("failed clear_data_directory: no space left"));
    assert!(step.record.cause.len() < 600, "a problem's length has a limit in records");
    assert_eq!(machine.state(), State::Stopping, "whatever still runs on it");
    let (mut machine, mut journal, _) = clearing();
    let elapsed = Input::Elapsed { visit: 3, delay: Delay::LocalTimeout };
    let step = machine.handle(elapsed).expect("clearing took too long");
    assert_eq!(step.record.cause, "after local_timeout");
    let effects = step.persist(&mut journal).expect("memory does not fail");
    assert!(matches!(effects[..], [Effect::Cancel, Effect::Wake { .. }]), "{effects:?}");
}

#[test]
fn nothing_moves_what_has_ended() {
    let (mut machine, _, _) = clearing();
    let step = machine.handle(Input::Event(Event::Cancel)).expect("the operator is heard");
    assert_eq!(step.record.to, "cancelled");
    assert!(machine.handle(Input::Event(Event::Cancel)).is_none());
    assert_eq!(machine.waiting_for(), "");
}

#[test]
fn a_resumed_machine_begins_its_work_under_a_new_visit() {
    let (_, journal, effects) = clearing();
    let text = serde_json::to_string(&journal.records[2]).expect("a record is JSON");
    let record = serde_json::from_str(&text).expect("a record can be read back");
    let (mut machine, again) = Machine::<ReplicaBuild>::resume(record);
    assert_eq!((machine.state(), machine.visit(), machine.seq()), (State::Clearing, 4, 3));
    assert_eq!(again.len() + 1, effects.len(), "there is nothing to cancel");
    assert!(matches!(&again[0], Effect::Begin { visit: 4, .. }), "{again:?}");
    assert!(machine.handle(done(3)).is_none(), "the old life's answer is dropped");
    let step = machine.handle(done(4)).expect("the new life's answer counts");
    assert_eq!((step.record.seq, step.record.visit), (4, 5));
}

#[test]
fn a_state_that_is_gone_or_cannot_be_rested_in_becomes_the_initial_one() {
    for gone in ["copying_v1", "building", "preparing"] {
        let (_, mut journal, _) = clearing();
        let mut record = journal.records.remove(0);
        record.to = gone.to_owned();
        record.knowledge = knowledge();
        let (machine, effects) = Machine::resume(record);
        assert_eq!(machine.state(), State::Waiting, "from {gone}");
        assert!(matches!(effects[..], [Effect::Wake { .. }]), "{effects:?}");
    }
}

#[test]
fn a_machine_says_what_it_waits_for() {
    let (machine, _) = Machine::start(knowledge());
    assert_eq!((machine.state(), machine.is_working()), (State::Waiting, false));
    assert_eq!(machine.waiting_for(), "topology_changed, cancel, after leaderless_delay");
    assert!(machine.is_in(State::Building) && !machine.is_in(State::Copied));
    assert!(machine.description().starts_with("Look for somebody to copy from"));
    let (machine, _, _) = clearing();
    assert_eq!(
        (machine.waiting_for().as_str(), machine.is_working()),
        ("clear_data_directory", true)
    );
}

/// A flow whose chart has what `replica_build` lacks: an edge without target. The chart is read at
/// run time, and the names stand here by hand as `statecharts/build.rs` would write them.
mod stays {
    use std::borrow::Cow;
    use std::fmt;

    use serde::{Deserialize, Serialize};
    use surus::pure::chart::{Chart, Edge, Implementation, Name, Names, StateRow, Trigger};
    use surus::pure::cluster::Millis;
    use surus::pure::machine::{Flow, Input};
    use surus::pure::operation::Operation;

    macro_rules! name {
        ($kind:ident { $($variant:ident = $text:literal),* }) => {
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
            pub enum $kind { $($variant),* }
            impl Name for $kind {
                const ALL: &'static [(Self, &'static str)] = &[$(($kind::$variant, $text)),*];
            }
            impl fmt::Display for $kind {
                fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                    out.pad(self.text())
                }
            }
        };
    }
    name!(State { Working = "working", Ended = "ended" });
    name!(EventName { Noted = "noted" });
    name!(Guard {});
    name!(Action { TakeNote = "take_note" });
    name!(Activity { Checkpoint = "checkpoint" });
    name!(Delay { WorkTimeout = "work_timeout" });

    const fn row(name: &'static str, activity: Option<usize>) -> StateRow {
        StateRow {
            name: Cow::Borrowed(name),
            description: Cow::Borrowed("by hand"),
            parent: None,
            initial: None,
            is_final: activity.is_none(),
            is_failure: false,
            activity,
        }
    }

    const fn edge(trigger: Trigger, target: Option<usize>, actions: &'static [usize]) -> Edge {
        let actions = Cow::Borrowed(actions);
        Edge { source: 0, trigger, guard: None, target, actions, description: None }
    }

    static STATES: &[StateRow] = &[row("working", Some(0)), row("ended", None)];
    static EDGES: &[Edge] = &[
        edge(Trigger::Event(0), None, &[0]),
        edge(Trigger::Done, Some(1), &[]),
        edge(Trigger::Error, Some(0), &[]),
        edge(Trigger::After(0), Some(1), &[]),
    ];
    static CHART: Chart = Chart {
        id: Cow::Borrowed("stays"),
        description: Cow::Borrowed("by hand"),
        fingerprint: 0,
        initial: 0,
        states: Cow::Borrowed(STATES),
        edges: Cow::Borrowed(EDGES),
        events: Cow::Borrowed(&[Cow::Borrowed("noted")]),
        guards: Cow::Borrowed(&[]),
        actions: Cow::Borrowed(&[Cow::Borrowed("take_note")]),
        activities: Cow::Borrowed(&[Cow::Borrowed("checkpoint")]),
        delays: Cow::Borrowed(&[Cow::Borrowed("work_timeout")]),
        vocabulary: Cow::Borrowed(&[]),
    };

    #[derive(Clone, Copy, Debug)]
    pub struct AllNames;

    impl Names for AllNames {
        type State = State;
        type EventName = EventName;
        type Guard = Guard;
        type Action = Action;
        type Activity = Activity;
        type Delay = Delay;
        const CHART: &'static Chart = &CHART;
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub struct Stays {
        pub note: u32,
    }

    impl Implementation<AllNames, Input<Stays>> for Stays {
        fn allows(&self, guard: Guard, _: &Input<Stays>) -> bool {
            match guard {}
        }

        fn apply(&mut self, action: Action, input: &Input<Stays>) {
            match (action, input) {
                (Action::TakeNote, Input::Event(note)) => self.note = *note,
                (Action::TakeNote, other) => panic!("nobody else takes notes: {other:?}"),
            }
        }
    }

    impl Flow for Stays {
        type Names = AllNames;
        type Event = u32;
        const ID: &'static str = "stays";

        fn name(_: &u32) -> EventName {
            EventName::Noted
        }

        fn operation(&self, Activity::Checkpoint: Activity) -> Operation {
            Operation::Checkpoint
        }

        fn delay(&self, Delay::WorkTimeout: Delay) -> Millis {
            1000
        }
    }
}

struct Nowhere;

impl Journal<stays::Stays> for Nowhere {
    fn append(&mut self, _: &Record<stays::Stays>, _: &Input<stays::Stays>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_edge_without_target_is_written_and_leaves_the_work_alone() {
    let (mut machine, _) = Machine::start(stays::Stays::default());
    let step = machine.handle(Input::Event(7)).expect("a new note is a change");
    assert_eq!((step.record.seq, step.record.visit, step.record.knowledge.note), (2, 1, 7));
    assert_eq!(step.persist(&mut Nowhere).expect("nowhere takes all"), []);
    let step = machine.handle(Input::Done { visit: 1, report: Report::Done });
    assert_eq!(step.expect("the work still counts").record.to, "ended");
}

#[test]
fn a_level_that_is_repeated_is_not_written_again() {
    let (mut machine, _) = Machine::start(stays::Stays::default());
    assert!(machine.handle(Input::Event(7)).is_some());
    assert!(machine.handle(Input::Event(7)).is_none());
    assert_eq!(machine.seq(), 2);
}

#[test]
fn an_edge_to_the_state_itself_starts_the_work_again() {
    let (mut machine, _) = Machine::start(stays::Stays::default());
    let failed = Input::Failed { visit: 1, problem: "no".into() };
    let step = machine.handle(failed).expect("it is tried again");
    assert_eq!((step.record.to.as_str(), step.record.visit), ("working", 2));
    let effects = step.persist(&mut Nowhere).expect("nowhere takes all");
    let begin = Effect::Begin { visit: 2, operation: Operation::Checkpoint };
    assert!(effects[0] == Effect::Cancel && effects[1] == begin, "{effects:?}");
}
