//! Where the node's machine goes.
use super::*;
use crate::pure::machine::{Machine, Record};
use crate::pure::node::situation::OperatorRequests;

fn source(member: &str) -> Source {
    Source { member: member.into(), host: "h".into(), port: 1, slot: None }
}

/// A replica that follows b.
fn following() -> Machine<Node> {
    let known = Node { upstream: Some(source("b")), ..Node::default() };
    let (_, step) = Machine::start(known);
    Machine::resume(Record { to: String::from("following"), ..step.record }).0
}

fn situation_changed(leader: Option<&str>) -> Input<Node> {
    let situation = Situation {
        lease: LeaseStatus::Theirs { leader: leader.map(str::to_string) },
        initialized: Some(String::from("771")),
        upstream: leader.map(source),
        postmaster_alive: true,
        in_recovery: Some(true),
        ..Situation::default()
    };
    Input::Event(Event::SituationChanged(Box::new(situation)))
}

/// PostgreSQL dies of it by itself, sooner or later; what it acknowledges until then is nowhere.
/// Spec: I-2.
#[test]
fn whoever_leads_on_nothing_resigns() {
    for (place, left) in [("leading", State::ReleasingLease), ("following", State::Demoting)] {
        let (_, step) = Machine::start(Node::default());
        let record = Record { to: place.to_owned(), ..step.record };
        let (mut node, _) = Machine::resume(record);
        let lease = match place {
            "leading" => LeaseStatus::Mine { epoch: 0, creates: false },
            _ => LeaseStatus::Theirs { leader: Some(String::from("b")) },
        };
        let situation_changed = |data_is_gone| {
            Input::Event(Event::SituationChanged(Box::new(Situation {
                lease: lease.clone(),
                initialized: Some(String::from("771")),
                postmaster_alive: true,
                in_recovery: Some(place != "leading"),
                data_is_gone,
                ..Situation::default()
            })))
        };
        node.handle(situation_changed(false));
        assert_eq!(node.state().to_string(), place);
        node.handle(situation_changed(true));
        assert_eq!(node.state(), left);
    }
}

/// Spec: SC-23.
#[test]
fn while_nobody_knows_the_leader_the_old_source_is_kept() {
    let mut node = following();
    node.handle(situation_changed(None));
    assert_eq!((node.state(), &node.knowledge().upstream), (State::Following, &Some(source("b"))));
    node.handle(situation_changed(Some("c")));
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
        let Input::Event(Event::SituationChanged(mut situation)) = situation_changed(Some("b"))
        else {
            panic!()
        };
        situation.timeline_behind_since = at;
        Input::Event(Event::SituationChanged(situation))
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

/// A daemon that is told to stop beside a server that it has not started, and that does not answer now.
fn stops_beside_a_silent_server(place: &str, unmanaged: bool) -> State {
    let inspection = Inspection { unmanaged, postmaster_alive: true, ..Inspection::default() };
    let (_, step) = Machine::start(Node { inspection, ..Node::default() });
    let (mut node, _) = Machine::resume(Record { to: place.to_owned(), ..step.record });
    let lease = match place {
        "leading" | "adjusting_sync" => LeaseStatus::Mine { epoch: 0, creates: false },
        _ => LeaseStatus::Theirs { leader: None },
    };
    let situation = Situation {
        lease,
        initialized: Some(String::from("771")),
        postmaster_alive: true,
        requests: OperatorRequests { stop: true, ..OperatorRequests::default() },
        ..Situation::default()
    };
    node.handle(Input::Event(Event::SituationChanged(Box::new(situation))));
    node.state()
}

/// It was taken over long ago; that it is slow just now makes it nobody else's. Left running, it would be
/// ended by the guard, and the lease would have to run out.
#[test]
fn an_adopted_server_is_stopped_with_the_daemon_though_it_does_not_answer() {
    for place in ["leading", "following", "adjusting_sync"] {
        assert_eq!(stops_beside_a_silent_server(place, true), State::ShuttingDown, "{place}");
    }
}

/// What is not known to be ours runs on; while it is looked at, the stop waits for the answer.
#[test]
fn what_was_not_adopted_outlives_the_daemon() {
    for place in ["waiting_to_retry", "deciding", "blocked", "disarming"] {
        assert_eq!(stops_beside_a_silent_server(place, true), State::GivingUpVote, "{place}");
    }
    for place in ["waiting_to_retry", "blocked", "disarming"] {
        assert_eq!(stops_beside_a_silent_server(place, false), State::ShuttingDown, "{place}");
    }
    for unmanaged in [true, false] {
        assert_eq!(stops_beside_a_silent_server("inspecting", unmanaged), State::Inspecting);
    }
}

/// It has been a cluster's before, or one is known by now: then two could write.
/// Spec: A-1.
#[test]
fn a_running_primary_is_left_alone_until_there_is_a_cluster() {
    let decides = |numbered, initialized: Option<&str>| {
        let inspection = Inspection {
            unmanaged: true,
            numbered,
            postmaster_alive: true,
            ..Inspection::default()
        };
        let (_, step) = Machine::start(Node { inspection, ..Node::default() });
        let (mut node, _) = Machine::resume(Record { to: "deciding".to_owned(), ..step.record });
        let situation = Situation {
            initialized: initialized.map(String::from),
            postmaster_alive: true,
            in_recovery: Some(false),
            ..Situation::default()
        };
        node.handle(Input::Event(Event::SituationChanged(Box::new(situation))));
        node.state()
    };
    assert_eq!(decides(false, None), State::Deciding);
    assert_eq!(decides(true, None), State::Demoting);
    assert_eq!(decides(false, Some("771")), State::Demoting);
}
