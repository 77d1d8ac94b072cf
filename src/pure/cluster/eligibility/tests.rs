//! One case for every reason, and for everything that may differ between those who ask.
use serde_json::json;

use super::*;
use crate::pure::cluster::facts::{SqlFacts, SqlFailure};
use crate::pure::cluster::state::Initialize;

const LIMIT: u64 = 1_048_576;

/// A member, what it says of itself, and the cluster: all well, and to be bent.
struct Case {
    cluster: ClusterState,
    dynamic: Dynamic,
    member: Member,
    facts: Option<Facts>,
    wanted: bool,
    forced: bool,
    leader_runs: bool,
}

fn sound() -> Case {
    let sql = SqlFacts {
        in_recovery: true,
        system_identifier: "771".into(),
        timeline: 3,
        receive_lsn: Lsn(5_000_000),
        ..SqlFacts::default()
    };
    let facts = Facts {
        has_postgres: true,
        state: PgState::Running,
        copy: 7,
        sql: Some(sql),
        ..Facts::default()
    };
    Case {
        cluster: ClusterState {
            initialize: Initialize::Done { system_identifier: "771".into() },
            ..ClusterState::default()
        },
        dynamic: Dynamic::from_value(None),
        member: Member { name: "b".into(), ..Member::default() },
        facts: Some(facts),
        wanted: false,
        forced: false,
        leader_runs: false,
    }
}

impl Case {
    fn facts(&mut self) -> &mut Facts {
        self.facts.as_mut().expect("facts")
    }

    fn sql(&mut self) -> &mut SqlFacts {
        self.facts().sql.as_mut().expect("SQL facts")
    }

    fn judged(&self) -> Result<Kept, Ineligible> {
        let candidate = Candidate { id: 2, member: &self.member, fresh: self.facts.as_ref() };
        let election = Election {
            cluster: &self.cluster,
            dynamic: &self.dynamic,
            timelines: &self.cluster.timelines,
            optime: Lsn(5_000_000),
            timeline: 3,
            wanted: self.wanted.then_some("b"),
            forced: self.forced,
            leader_runs: self.leader_runs,
        };
        eligible(&election, &[candidate], &candidate)
    }
}

fn why(bend: impl FnOnce(&mut Case)) -> Ineligible {
    let mut case = sound();
    bend(&mut case);
    case.judged().expect_err("it may not lead")
}

fn may(bend: impl FnOnce(&mut Case)) {
    let mut case = sound();
    bend(&mut case);
    assert!(case.judged().is_ok(), "{:?}", case.judged());
}

#[test]
fn a_sound_member_may_lead_where_it_stands() {
    assert_eq!(sound().judged(), Ok((3, Lsn(5_000_000))));
}

#[test]
fn what_a_member_is_and_wants_comes_first() {
    assert_eq!(why(|c| c.member.witness = true), Ineligible::Witness);
    assert_eq!(why(|c| c.facts().has_postgres = false), Ineligible::Witness);
    assert_eq!(why(|c| c.facts = None), Ineligible::NotHeard);
    assert_eq!(why(|c| c.facts().leaving = true), Ineligible::Leaving);
    let tag = |c: &mut Case| c.facts().tags.insert("nofailover".into(), json!(true));
    assert_eq!(why(tag), Ineligible::Nofailover);
    assert_eq!(why(|c| c.facts().watchdog_failed = true), Ineligible::WatchdogUnusable);
    assert_eq!(why(|c| c.facts().phase = Phase::Rebuilding), Ineligible::Rebuilding);
    // An operator's order changes nothing about it.
    let ordered = |c: &mut Case| {
        (c.wanted, c.forced) = (true, true);
        c.facts().watchdog_failed = true;
    };
    assert_eq!(why(ordered), Ineligible::WatchdogUnusable);
    let mut broken = sound();
    broken.facts().watchdog_failed = true;
    let creates = |case: &Case| may_create(&case.member, case.facts.as_ref()).err();
    assert_eq!(creates(&broken), None, "its attempt says which device");
    broken.facts().leaving = true;
    assert_eq!(creates(&broken), Some(Ineligible::Leaving));
}

#[test]
fn only_a_postgresql_that_answers_may_lead() {
    let state = PgState::Stopped;
    let down = |c: &mut Case| c.facts().state = PgState::Stopped;
    assert_eq!(why(down), Ineligible::NotAnswering { state });
    let empty = |c: &mut Case| {
        (c.facts().state, c.facts().sql) = (PgState::Stopped, None);
        c.facts().data = DataDirectory::Incomplete;
    };
    assert_eq!(why(empty), Ineligible::NoCompleteCopy { state });
    let denied = |c: &mut Case| {
        c.facts().sql = None;
        c.facts().sql_failure = Some(SqlFailure { text: "no".into(), denied: true });
    };
    assert_eq!(why(denied), Ineligible::Denied { failure: "no".into() });
}

/// The old leader may take its own lease again; beside a leader that runs, whoever writes is no candidate.
#[test]
fn beside_a_leader_only_a_standby_may_lead() {
    let writes = |c: &mut Case, leader_runs| {
        (c.sql().in_recovery, c.sql().flush_lsn) = (false, Lsn(5_000_000));
        c.leader_runs = leader_runs;
    };
    may(|c| writes(c, false));
    assert_eq!(why(|c| writes(c, true)), Ineligible::NotStandby);
}

#[test]
fn another_clusters_data_may_not_lead() {
    let system_identifier = String::from("9");
    let foreign = |c: &mut Case| c.sql().system_identifier = "9".into();
    assert_eq!(why(foreign), Ineligible::ForeignCluster { system_identifier });
}

#[test]
fn a_timeline_without_a_record_counts_only_by_order() {
    let old = |c: &mut Case| {
        c.sql().timeline = 2;
        c.cluster.timelines.note(3, &[Switch { timeline: 1, at: Lsn(9) }]);
    };
    let (timeline, position) = (2, Lsn(5_000_000));
    assert_eq!(why(old), Ineligible::UnknownTimeline { timeline, position });
    may(|c| {
        old(c);
        c.wanted = true;
    });
}

/// The limit is for what the arbiter chooses by itself. Who streams from a leader that runs gets the rest
/// before that leader's shutdown ends; who does not, would make it stop for nothing.
#[test]
fn lag_counts_unless_an_operator_named_it_or_it_streams() {
    let lags = |c: &mut Case| c.sql().receive_lsn = Lsn(5_000_000 - LIMIT - 1);
    let (timeline, position, lag_bytes) = (3, Lsn(5_000_000 - LIMIT - 1), LIMIT + 1);
    let reason = Ineligible::Lags { timeline, position, lag_bytes };
    assert_eq!(why(lags), reason);
    may(|c| c.sql().receive_lsn = Lsn(5_000_000 - LIMIT));
    let planned = |c: &mut Case, state: &str| {
        lags(c);
        c.leader_runs = true;
        c.sql().replication_state = Some(state.into());
    };
    assert_eq!(why(|c| planned(c, "in archive recovery")), reason);
    may(|c| planned(c, "streaming"));
    may(|c| {
        planned(c, "in archive recovery");
        c.wanted = true;
    });
    let streamed = |c: &mut Case| {
        planned(c, "streaming");
        c.leader_runs = false;
    };
    assert_eq!(why(streamed), reason, "nobody sends it anything any more");
}

#[test]
fn an_older_timeline_is_refused_where_that_is_configured() {
    let old = |c: &mut Case| {
        (c.sql().timeline, c.wanted) = (2, true);
        c.dynamic.check_timeline = true;
    };
    let (timeline, position, lag_bytes) = (2, Lsn(5_000_000), 0);
    assert_eq!(why(old), Ineligible::OlderTimeline { timeline, position, lag_bytes });
    may(|c| {
        old(c);
        c.dynamic.check_timeline = false;
    });
}

#[test]
fn outside_the_synchronous_set_only_a_failover_leads() {
    let outside = |c: &mut Case| {
        c.dynamic.synchronous_mode = SynchronousMode::On;
        let sync_standby = vec![String::from("c")];
        c.cluster.sync = Some(Sync { leader: "a".into(), sync_standby, ..Sync::default() });
    };
    let sync_standby = vec![String::from("c")];
    assert_eq!(why(outside), Ineligible::NotSynchronous { sync_standby: sync_standby.clone() });
    let switchover = |c: &mut Case| {
        outside(c);
        c.wanted = true;
    };
    assert_eq!(why(switchover), Ineligible::NotSynchronous { sync_standby });
    may(|c| {
        switchover(c);
        c.forced = true;
    });
    let copied = |c: &mut Case| {
        outside(c);
        let sync = c.cluster.sync.as_mut().expect("one");
        sync.sync_standby = vec![String::from("b")];
        sync.copies = [(String::from("b"), 8)].into();
    };
    assert_eq!(why(copied), Ineligible::OtherCopy { copy: 7, synchronous: 8 });
}

/// What people see: the rule is one sentence, its figures stand beside it.
#[test]
fn a_reason_is_a_sentence_with_its_figures() {
    let lags = Ineligible::Lags { timeline: 3, position: Lsn(16), lag_bytes: 5 };
    assert_eq!(lags.to_string(), "lags more than maximum_lag_on_failover");
    assert_eq!(lags.inputs(), "timeline=3 position=0/10 lag_bytes=5");
    assert_eq!(Ineligible::Witness.inputs(), "");
}
