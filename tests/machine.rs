//! The machine's contract: what is written, when, and which answers still count.
//!
//! `tests/flows.rs` asks the same of whole runs; here each clause stands alone, on `replica_build`.
use std::io;

use surus::pure::deed::{Deed, Method, Report, Source, WipePermission};
use surus::pure::flow::replica_build::{Delay, Event, ReplicaBuild, State};
use surus::pure::machine::{Effect, Input, Journal, Machine, Record};

type Effects = Vec<Effect<ReplicaBuild>>;

/// Records in memory; refuses when it is full.
#[derive(Default)]
struct Memory {
    records: Vec<Record<ReplicaBuild>>,
    full: bool,
}

impl Journal<ReplicaBuild> for Memory {
    fn append(&mut self, record: &Record<ReplicaBuild>) -> io::Result<()> {
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

fn knowledge(source: Option<Source>) -> ReplicaBuild {
    ReplicaBuild::new(source, WipePermission::OwnLeftovers, vec![])
}

/// A machine in `clearing`, its journal and what it asked for.
fn clearing() -> (Machine<ReplicaBuild>, Memory, Effects) {
    let (machine, step) = Machine::start(knowledge(Some(source())));
    let mut journal = Memory::default();
    let effects = step.persist(&mut journal).expect("memory does not fail");
    (machine, journal, effects)
}

fn done(visit: u64) -> Input<ReplicaBuild> {
    Input::Done { visit, report: Report::Done }
}

#[test]
fn a_record_is_written_at_creation_before_the_first_work() {
    let (machine, journal, effects) = clearing();
    assert_eq!(machine.state(), State::Clearing);
    let [record] = &journal.records[..] else { panic!("one record, not {:?}", journal.records) };
    assert_eq!((record.seq, record.visit, record.from.as_deref()), (1, 1, None));
    assert_eq!((record.to.as_str(), record.cause.as_str()), ("clearing", "start"));
    let deed = Deed::ClearDataDirectory { permission: WipePermission::OwnLeftovers };
    let wake = Effect::Wake { visit: 1, delay: Delay::LocalTimeout, after: 600_000 };
    assert_eq!(effects, [Effect::Begin { visit: 1, deed }, wake]);
}

#[test]
fn nothing_is_done_that_could_not_be_written() {
    let (mut machine, mut journal, _) = clearing();
    journal.full = true;
    let step = machine.handle(done(1)).expect("clearing is done");
    assert!(step.persist(&mut journal).is_err());
    assert_eq!(journal.records.len(), 1);
}

#[test]
fn leaving_cancels_and_arriving_begins() {
    let (mut machine, mut journal, _) = clearing();
    let step = machine.handle(done(1)).expect("clearing is done");
    let effects = step.persist(&mut journal).expect("memory does not fail");
    let deed = Deed::CopyCluster { method: "basebackup".into(), source: Some(source()) };
    assert_eq!(effects[..2], [Effect::Cancel, Effect::Begin { visit: 2, deed }]);
    let record = journal.records.last().expect("two records");
    assert_eq!((record.seq, record.visit), (2, 2));
    assert_eq!(record.sentence(), "clearing → copying, because done clear_data_directory");
}

#[test]
fn answers_to_an_earlier_visit_are_dropped() {
    let (mut machine, _, _) = clearing();
    let step = machine.handle(done(1)).expect("clearing is done");
    assert_eq!(step.record.visit, 2);
    let late = [
        done(1),
        Input::Failed { visit: 1, problem: "late".into() },
        Input::Elapsed { visit: 1, delay: Delay::CopyTimeout },
        done(3),
    ];
    for input in late {
        assert!(machine.handle(input).is_none());
    }
    assert_eq!((machine.state(), machine.seq()), (State::Copying, 2));
}

#[test]
fn what_is_for_no_edge_here_leaves_no_trace() {
    let (mut machine, _, _) = clearing();
    assert!(machine.handle(Input::Event(Event::LeaderLost)).is_none());
    assert!(machine.handle(Input::Elapsed { visit: 1, delay: Delay::RetryDelay }).is_none());
    assert_eq!((machine.seq(), machine.visit()), (1, 1));
}

#[test]
fn failures_and_timeouts_say_why() {
    let (mut machine, _, _) = clearing();
    let problem = format!("no space left {}", "x".repeat(10_000));
    let step = machine.handle(Input::Failed { visit: 1, problem }).expect("clearing failed");
    assert!(step.record.cause.starts_with("failed clear_data_directory: no space left"));
    assert!(step.record.cause.len() < 600, "a problem's length has a limit in records");
    assert!(machine.is_ended());
    let (mut machine, mut journal, _) = clearing();
    let elapsed = Input::Elapsed { visit: 1, delay: Delay::LocalTimeout };
    let step = machine.handle(elapsed).expect("clearing took too long");
    assert_eq!(step.record.cause, "after local_timeout");
    let effects = step.persist(&mut journal).expect("memory does not fail");
    assert_eq!(effects, [Effect::Cancel, Effect::End(State::Failed)]);
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
    let text = serde_json::to_string(&journal.records[0]).expect("a record is JSON");
    let record = serde_json::from_str(&text).expect("a record can be read back");
    let (mut machine, again) = Machine::<ReplicaBuild>::resume(record);
    assert_eq!((machine.state(), machine.visit(), machine.seq()), (State::Clearing, 2, 1));
    assert_eq!(again.len(), effects.len());
    assert!(matches!(&again[0], Effect::Begin { visit: 2, .. }), "{again:?}");
    assert!(machine.handle(done(1)).is_none(), "the old life's answer is dropped");
    let step = machine.handle(done(2)).expect("the new life's answer counts");
    assert_eq!((step.record.seq, step.record.visit), (2, 3));
}

#[test]
fn a_state_that_is_gone_or_cannot_be_rested_in_becomes_the_initial_one() {
    for gone in ["copying_v1", "building", "preparing"] {
        let (_, mut journal, _) = clearing();
        let mut record = journal.records.remove(0);
        record.to = gone.to_owned();
        record.knowledge = knowledge(None);
        let (machine, effects) = Machine::resume(record);
        assert_eq!(machine.state(), State::Waiting, "from {gone}");
        assert_eq!(effects, []);
    }
}

#[test]
fn a_machine_says_what_it_waits_for() {
    let (machine, _) = Machine::start(knowledge(None));
    assert_eq!((machine.state(), machine.is_working()), (State::Waiting, false));
    assert_eq!(machine.waiting_for(), "topology_changed, cancel");
    assert!(machine.is_in(State::Building) && !machine.is_in(State::Failed));
    assert!(machine.description().starts_with("Nothing to copy from"));
    let (machine, _, _) = clearing();
    assert_eq!((machine.waiting_for().as_str(), machine.is_working()), ("clear_data_directory", true));
}

#[test]
fn a_method_that_keeps_data_does_not_clear() {
    let rsync = Method { name: "rsync".into(), keep_data: true, no_leader: true };
    let knowledge = ReplicaBuild::new(None, WipePermission::OwnLeftovers, vec![rsync]);
    let (machine, _) = Machine::start(knowledge);
    assert_eq!(machine.state(), State::Copying);
}
