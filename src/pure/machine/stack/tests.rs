//! The rules among flows, one by one.
use super::*;
use crate::pure::flow::demote::Demote;
use crate::pure::machine::{Flow, Machine};
use crate::pure::operation::StopMode;

/// Keeps the last record; may refuse.
#[derive(Default)]
struct Memory {
    last: Option<Value>,
    refuses: bool,
}

impl AnyJournal for Memory {
    fn append(&mut self, entry: JournalEntry) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::other("refused"));
        }
        self.last = Some(entry.value);
        Ok(())
    }
}

const INPUT: FlowInput = FlowInput::Demote { mode: StopMode::Fast, release: None };

fn child_of(run: &str, resumes: bool) -> ChildOf {
    ChildOf { run: run.to_owned(), resumes }
}

fn child(of: ChildOf, last: Option<Value>, journal: &mut Memory) -> (Frame, Vec<Order>) {
    let own = (String::from("fresh"), Local::default());
    Frame::child((INPUT, of), last, own, journal).expect("it takes everything")
}

fn stopped(visit: u64) -> Answer {
    Answer::Done { visit, report: Report::Done }
}

/// A child of `parent 4` that has moved once.
fn moved() -> (Memory, &'static str) {
    let mut journal = Memory::default();
    let (mut frame, orders) = child(child_of("parent 4", false), None, &mut journal);
    assert!(matches!(orders[0], Order::Begin { visit: 1, .. }));
    let moved = frame.answer(stopped(1), &mut journal).expect("written").expect("it moves");
    assert_eq!((moved.from, moved.orders[0].clone()), ("stopping", Order::Cancel));
    (journal, moved.to)
}

#[test]
fn child_of_the_very_run_goes_on() {
    let (mut journal, at) = moved();
    let last = journal.last.clone();
    let (frame, _) = child(child_of("parent 4", true), last, &mut journal);
    assert!(frame.is_resumed());
    assert_eq!(frame.machine().state(), at);
}

#[test]
fn child_of_another_arrival_begins_anew() {
    let (mut journal, _) = moved();
    let last = journal.last.clone();
    let (frame, _) = child(child_of("parent 5", true), last, &mut journal);
    assert!(!frame.is_resumed());
    assert_eq!(frame.machine().state(), "stopping");
}

/// The parent moved in this life: what it runs now it runs for the first time.
#[test]
fn child_of_a_parent_that_moved_begins_anew() {
    let (mut journal, _) = moved();
    let last = journal.last.clone();
    let (frame, _) = child(child_of("parent 4", false), last, &mut journal);
    assert!(!frame.is_resumed());
}

/// The daemon died after the child's last record and before its parent's next.
#[test]
fn ended_child_gives_its_result_again() {
    let mut journal = Memory::default();
    let (mut frame, _) = child(child_of("parent 4", false), None, &mut journal);
    let mut fail = || {
        let answer = Answer::of(frame.machine().visit(), Err(String::from("it would not stop")));
        frame.answer(answer, &mut journal).expect("written").expect("it moves").orders
    };
    let orders = [fail(), fail()].concat();
    let Some(Order::End(first)) = orders.last().cloned() else { panic!("{orders:?} end not") };
    assert!(first.as_ref().is_err_and(|why| why.contains("it would not stop")), "{first:?}");
    let last = journal.last.clone();
    let (_, orders) = child(child_of("parent 4", true), last, &mut journal);
    assert_eq!(orders, [Order::End(first)]);
}

#[test]
fn answer_to_an_earlier_visit_changes_nothing() {
    let mut journal = Memory::default();
    let (mut frame, _) = child(child_of("parent 4", false), None, &mut journal);
    journal.refuses = true;
    assert!(frame.answer(stopped(7), &mut journal).expect("nothing is written").is_none());
}

#[test]
fn nothing_is_ordered_that_the_journal_refuses() {
    let mut journal = Memory::default();
    let (mut frame, _) = child(child_of("parent 4", false), None, &mut journal);
    journal.refuses = true;
    assert!(frame.answer(stopped(1), &mut journal).is_err());
}

/// The arrival counts on through edges without a target and through resumes: a child stays its own.
#[test]
fn resumed_parent_names_the_arrival_of_its_record() {
    let run = Run { id: String::from("a"), arrived: 3, parent: String::new() };
    let record = Machine::start(Demote {
        mode: StopMode::Fast,
        release: None,
        shutdown: None,
        hands_over: None,
    })
    .1
    .record;
    let mut value = serde_json::to_value(record).expect("plain data");
    value["run"] = serde_json::to_value(&run).expect("plain data");
    let (frame, _) = Frame::resumed(Demote::ID, Some(value), "").expect("it is known");
    assert_eq!((frame.machine().visit(), frame.run.child()), (2, String::from("a 3")));
}

/// Its end is the daemon's: the next daemon begins from the start.
#[test]
fn ended_node_begins_anew() {
    let mut journal = Memory::default();
    let (_, _) = Frame::node(None, String::from("a"), &mut journal).expect("written");
    let mut last = journal.last.clone().expect("a record");
    last["to"] = Value::String(String::from("stopped"));
    let (frame, _) = Frame::node(Some(last), String::from("b"), &mut journal).expect("written");
    assert!(!frame.is_resumed());
    assert_eq!(frame.run.id, "b");
}

/// An older version's states may have had other names: every initial state is safe to arrive in.
#[test]
fn record_of_another_version_is_not_gone_on_from() {
    let mut journal = Memory::default();
    let (_, _) = Frame::node(None, String::from("a"), &mut journal).expect("written");
    for (key, value) in [("to", "doing_something"), ("knowledge", "of another form")] {
        let mut last = journal.last.clone().expect("a record");
        last[key] = Value::String(value.into());
        let begun = Frame::node(Some(last), String::from("b"), &mut journal).expect("written");
        assert!(!begun.0.is_resumed(), "{key}");
    }
}
