//! Where the node's machine goes.
use super::*;
use crate::pure::machine::{Machine, Record};

fn source(member: &str) -> Source {
    Source { member: member.into(), host: "h".into(), port: 1, slot: None }
}

/// A replica that follows b.
fn following() -> Machine<Node> {
    let known = Node { upstream: Some(source("b")), ..Node::default() };
    let (_, step) = Machine::start(known);
    Machine::resume(Record { to: String::from("following"), ..step.record }).0
}

fn beat(leader: Option<&str>) -> Input<Node> {
    let situation = Situation {
        lease: Standing::Theirs { leader: leader.map(str::to_string) },
        initialized: Some(String::from("771")),
        upstream: leader.map(source),
        postmaster_alive: true,
        in_recovery: Some(true),
        ..Situation::default()
    };
    Input::Event(Event::Beat(Box::new(situation)))
}

/// PostgreSQL dies of it by itself, sooner or later; what it acknowledges until then is nowhere.
/// Spec: I-2.
#[test]
fn whoever_leads_on_nothing_resigns() {
    for (place, left) in [("leading", State::Resigning), ("following", State::Demoting)] {
        let (_, step) = Machine::start(Node::default());
        let record = Record { to: place.to_owned(), ..step.record };
        let (mut node, _) = Machine::resume(record);
        let lease = match place {
            "leading" => Standing::Mine { epoch: 0, creates: false },
            _ => Standing::Theirs { leader: Some(String::from("b")) },
        };
        let beat = |data_is_gone| {
            Input::Event(Event::Beat(Box::new(Situation {
                lease: lease.clone(),
                initialized: Some(String::from("771")),
                postmaster_alive: true,
                in_recovery: Some(place != "leading"),
                data_is_gone,
                ..Situation::default()
            })))
        };
        node.handle(beat(false));
        assert_eq!(node.state().to_string(), place);
        node.handle(beat(true));
        assert_eq!(node.state(), left);
    }
}

/// Spec: SC-23.
#[test]
fn while_nobody_knows_the_leader_the_old_source_is_kept() {
    let mut node = following();
    node.handle(beat(None));
    assert_eq!((node.state(), &node.knowledge().upstream), (State::Following, &Some(source("b"))));
    node.handle(beat(Some("c")));
    assert_eq!(
        (node.state(), &node.knowledge().upstream),
        (State::Retargeting, &Some(source("c")))
    );
}

/// Compared once with each timeline of its leader, while it does not stream.
#[test]
fn a_replica_that_is_left_behind_is_compared_again() {
    let mut node = following();
    let left = |at| {
        let Input::Event(Event::Beat(mut situation)) = beat(Some("b")) else { panic!() };
        situation.left_behind_at = at;
        Input::Event(Event::Beat(situation))
    };
    node.handle(left(None));
    assert_eq!(node.state(), State::Following);
    let visit = node.handle(left(Some(2))).expect("it moves").record.visit;
    assert_eq!(node.state(), State::Comparing);
    let report = Report::Diverged { yes: false, because: String::new() };
    node.handle(Input::Done { visit, report });
    node.handle(left(Some(2)));
    assert_eq!(node.state(), State::Following);
    node.handle(left(Some(3)));
    assert_eq!(node.state(), State::Comparing);
}
