//! Replica builds step by step: which method from whom, what follows a failure, what an operator
//! may ask for. `tests/flows.rs` asks of whole runs that they are safe.
use std::collections::BTreeMap;
use std::io;

use serde_json::json;
use surus::pure::cluster::facts::{BuildProgress, Facts, SqlFacts, Walsender};
use surus::pure::cluster::state::{ClusterState, Initialize, Lease, Member, Purpose};
use surus::pure::config::{Dynamic, Tags};
use surus::pure::flow::replica_build::{Delay, Event, ReplicaBuild, State};
use surus::pure::machine::{Effect, Input, Journal, Machine, Record};
use surus::pure::node::situation::{OperatorRequests, Situation, Sources};
use surus::pure::operation::{
    Method, Offer, OfferKind, Operation, ReinitOptions, Remote, Report, Source, StartAs,
    WipePermission,
};
use surus::pure::postgres::lsn::Lsn;
use surus::pure::postgres::state::PgState;

struct Nowhere;

impl Journal<ReplicaBuild> for Nowhere {
    fn append(&mut self, _: &Record<ReplicaBuild>, _: &Input<ReplicaBuild>) -> io::Result<()> {
        Ok(())
    }
}

/// A build and what it wants done now.
struct Build {
    machine: Machine<ReplicaBuild>,
    operation: Option<Operation>,
    waits_ms: Option<u64>,
}

impl Build {
    fn new(methods: Vec<Method>, reinit: ReinitOptions) -> Build {
        Build::permitted(WipePermission::OwnLeftovers, methods, reinit)
    }

    /// A copy lies there, and the operator wants another.
    fn asked(methods: Vec<Method>) -> Build {
        let permission = WipePermission::Operator { what: "reinitialize".into() };
        Build::permitted(permission, methods, ReinitOptions::default())
    }

    fn permitted(permission: WipePermission, methods: Vec<Method>, reinit: ReinitOptions) -> Build {
        let (machine, step) = Machine::start(ReplicaBuild::new("n9", permission, methods, reinit));
        let mut build = Build { machine, operation: None, waits_ms: None };
        build.note(step.persist(&mut Nowhere).expect("nowhere takes all"));
        build
    }

    fn note(&mut self, effects: Vec<Effect<ReplicaBuild>>) {
        for effect in effects {
            match effect {
                Effect::Begin { operation, .. } => self.operation = Some(operation),
                Effect::Wake { after, .. } => self.waits_ms = Some(after),
                Effect::Cancel => self.operation = None,
                Effect::End(_) => {}
            }
        }
    }

    fn tell(&mut self, input: Input<ReplicaBuild>) -> State {
        if let Some(step) = self.machine.handle(input) {
            self.note(step.persist(&mut Nowhere).expect("nowhere takes all"));
        }
        self.machine.state()
    }

    fn done(&mut self) -> State {
        let visit = self.machine.visit();
        self.tell(Input::Done { visit, report: Report::Done })
    }

    fn failed(&mut self, problem: &str) -> State {
        let visit = self.machine.visit();
        self.tell(Input::Failed { visit, problem: problem.into() })
    }

    fn elapsed(&mut self, delay: Delay) -> State {
        let visit = self.machine.visit();
        self.tell(Input::Elapsed { visit, delay })
    }

    fn situation_changed(&mut self, leader: Option<&str>, offers: &[Offer]) -> State {
        self.situation_of(1, leader, offers)
    }

    fn situation_of(&mut self, epoch: u64, leader: Option<&str>, offers: &[Offer]) -> State {
        let upstream = leader.map(source);
        let leader = leader.map(str::to_string);
        self.tell(Input::Event(Event::TopologyChanged {
            leader,
            upstream,
            offers: offers.to_vec(),
            epoch,
        }))
    }

    /// Goes on until a method runs; which, and from whom.
    fn copying(&mut self) -> (String, Option<String>) {
        while !matches!(self.operation, Some(Operation::CopyCluster { .. })) {
            let before = self.machine.visit();
            self.done();
            assert_ne!(self.machine.visit(), before, "stuck in {}", self.machine.state());
        }
        let Some(Operation::CopyCluster { method, source, .. }) = &self.operation else {
            unreachable!()
        };
        (method.clone(), source.as_ref().map(|s| s.member.clone()))
    }

    fn progress(&self) -> BuildProgress {
        self.machine.knowledge().progress(self.machine.state()).expect("it builds")
    }
}

fn method(name: &str) -> Method {
    Method { name: name.into(), keep_data: false, no_leader: false }
}

fn source(member: &str) -> Source {
    Source { member: member.into(), host: "h".into(), port: 5432, slot: None }
}

fn offer(member: &str, kind: OfferKind) -> Offer {
    Offer { source: source(member), kind }
}

fn offers() -> Vec<Offer> {
    vec![
        offer("tagged", OfferKind::CloneFrom),
        offer("lead", OfferKind::Leader),
        offer("other", OfferKind::Member),
    ]
}

fn started(methods: &[&str]) -> Build {
    let methods = methods.iter().map(|name| method(name)).collect();
    let mut build = Build::new(methods, ReinitOptions::default());
    build.situation_changed(Some("lead"), &offers());
    build
}

fn from(member: &str) -> Option<String> {
    Some(member.to_string())
}

/// Spec: M-5, M-18, M-19, M-20, M-23, EX-60, EX-61, EX-62.
#[test]
fn whatever_fails_the_next_method_has_its_turn() {
    let mut build = started(&["one", "two", "three", "four"]);
    assert_eq!(build.copying().0, "one");
    assert_eq!(build.failed("exit code 3"), State::Checking);
    assert_eq!(build.copying().0, "two");
    assert_eq!(build.done(), State::Verifying);
    assert_eq!(build.failed("no pg_control"), State::Checking);
    assert_eq!(build.copying().0, "three");
    build.done();
    assert_eq!(build.done(), State::Starting);
    assert_eq!(build.failed("PostgreSQL did not start"), State::Stopping, "nothing may run on it");
    assert_eq!(build.done(), State::Checking);
    assert_eq!(build.copying().0, "four");
    assert_eq!(build.failed("exit code 1"), State::BackingOff);
    assert_eq!(build.machine.knowledge().failures.len(), 4);
    let shown = build.progress();
    assert_eq!((shown.phase.as_str(), shown.attempt), ("backing off", 1));
    assert_eq!(shown.problem, "four from tagged: exit code 1");
    assert_eq!(build.elapsed(Delay::RetryDelay), State::Waiting);
    build.situation_changed(Some("lead"), &offers());
    assert_eq!(build.copying().0, "one");
    assert_eq!(build.progress().attempt, 2);
    assert_eq!(build.tell(Input::Event(Event::Cancel)), State::Cancelled);
    assert_eq!(build.operation, None, "a cancelled build runs no further method");
}

/// Spec: S-1, S-3, BB-5, EX-63.
#[test]
fn the_second_best_source_has_its_turn_within_the_attempt() {
    let mut build = started(&["basebackup", "restore"]);
    assert_eq!(build.copying(), ("basebackup".into(), from("tagged")));
    build.failed("connection lost");
    assert_eq!(build.copying(), ("basebackup".into(), from("lead")));
    build.failed("connection lost");
    assert_eq!(build.copying(), ("restore".into(), from("tagged")));
    build.failed("exit code 1");
    build.elapsed(Delay::RetryDelay);
    // Of what failed last time nothing is forgotten: a third one comes first now.
    let mut offers = offers();
    offers.insert(2, offer("late", OfferKind::CloneFrom));
    build.situation_changed(Some("lead"), &offers);
    assert_eq!(build.copying(), ("basebackup".into(), from("late")));
}

/// Spec: M-5, NL-4, EX-60.
#[test]
fn the_pauses_grow_and_differ_between_nodes() {
    let mut pauses = vec![];
    let mut build = started(&["one"]);
    for _ in 0..12 {
        build.copying();
        assert_eq!(build.failed("no"), State::BackingOff);
        pauses.push(build.waits_ms.take().expect("it says how long"));
        build.elapsed(Delay::RetryDelay);
        build.situation_changed(Some("lead"), &offers());
    }
    assert!((3_750..=6_250).contains(&pauses[0]), "{pauses:?}");
    assert!(pauses[3] > 2 * pauses[1], "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 75_000), "{pauses:?}");
    assert!(pauses[11] >= 45_000, "{pauses:?}");
    let first = |name: &str| {
        let flow =
            ReplicaBuild::new(name, WipePermission::OwnLeftovers, vec![], ReinitOptions::default());
        surus::pure::machine::Flow::delay(&flow, Delay::RetryDelay)
    };
    assert_ne!(first("n1"), first("n2"), "nodes that failed together do not come back together");
    assert_eq!(first("n1"), first("n1"));
}

/// Spec: M-16, M-17, RI-3.
#[test]
fn keep_data_means_keep_also_when_everything_failed() {
    let delta = Method { keep_data: true, ..method("delta") };
    let mut build = Build::new(vec![delta.clone()], ReinitOptions::default());
    for _ in 0..3 {
        build.situation_changed(Some("lead"), &offers());
        assert_eq!(build.done(), State::Copying, "nothing is cleared");
        assert!(matches!(build.operation, Some(Operation::CopyCluster { keep_data: true, .. })));
        assert_eq!(build.failed("the repository is away"), State::BackingOff);
        build.elapsed(Delay::RetryDelay);
    }
    // The next method that does not keep clears, with the permission that was given once.
    let mut build = Build::asked(vec![delta, method("basebackup")]);
    build.situation_changed(Some("lead"), &offers());
    build.done();
    build.failed("the repository is away");
    assert_eq!(build.done(), State::Clearing);
    let operator = WipePermission::Operator { what: "reinitialize".into() };
    assert_eq!(build.operation, Some(Operation::ClearDataDirectory { permission: operator }));
    build.done();
    build.failed("no");
    assert_eq!(build.done(), State::Clearing);
    let ours = WipePermission::OwnLeftovers;
    assert_eq!(build.operation, Some(Operation::ClearDataDirectory { permission: ours }));
}

/// What was to be removed may be what the others need when their leader is gone.
#[test]
fn a_copy_is_not_removed_while_nobody_leads() {
    let mut build = Build::asked(vec![method("basebackup")]);
    assert_eq!(
        build.situation_changed(None, &offers()),
        State::Waiting,
        "a failover is over sooner"
    );
    assert_eq!(build.elapsed(Delay::LeaderlessDelay), State::Leaderless);
    assert_eq!(build.situation_changed(None, &offers()), State::Cancelled);
    // From where it was removed there is no way back.
    let mut build = Build::asked(vec![method("basebackup")]);
    build.situation_changed(Some("lead"), &offers());
    build.copying();
    build.failed("connection lost");
    build.copying();
    assert_eq!(build.failed("connection lost"), State::BackingOff);
    build.elapsed(Delay::RetryDelay);
    build.elapsed(Delay::LeaderlessDelay);
    assert_eq!(build.situation_changed(None, &offers()), State::Checking);
}

/// Spec: NL-1, NL-4, M-4, S-4.
#[test]
fn without_a_leader_only_what_needs_none_is_run() {
    let backup = Method { no_leader: true, ..method("backup") };
    let wal_e = Method { no_leader: true, ..method("wal_e") };
    let methods = vec![method("basebackup"), backup, method("rsync"), wal_e];
    let mut build = Build::new(methods, ReinitOptions::default());
    assert_eq!(build.situation_changed(None, &[]), State::Waiting, "a failover is over sooner");
    assert_eq!(build.elapsed(Delay::LeaderlessDelay), State::Leaderless);
    build.situation_changed(None, &[]);
    assert_eq!(build.copying(), ("backup".into(), None));
    build.failed("exit code 1");
    assert_eq!(build.copying(), ("wal_e".into(), None));
    build.done();
    build.done();
    let standby = Operation::StartPostgres { start_as: StartAs::Standby { source: None } };
    assert_eq!(build.operation, Some(standby));
    assert_eq!(build.done(), State::Restored);
    // With no method of that kind it waits, and says for what.
    let mut build = Build::new(vec![method("rsync")], ReinitOptions::default());
    build.elapsed(Delay::LeaderlessDelay);
    assert_eq!(build.situation_changed(None, &[]), State::Leaderless);
    assert_eq!(build.progress().phase, "waiting for a source");
    assert_eq!(build.situation_changed(Some("lead"), &offers()), State::Checking);
}

/// Spec: NL-2, NL-3.
#[test]
fn with_a_leader_such_a_method_is_an_ordinary_one() {
    let backup = Method { no_leader: true, ..method("backup") };
    let mut build = Build::new(vec![backup], ReinitOptions::default());
    build.situation_changed(Some("lead"), &offers());
    assert_eq!(build.copying(), ("backup".into(), from("tagged")));
    // A standby cluster without a leader has its remote to copy from.
    let remote = Some(Remote { source: Some(source("remote")), methods: vec![] });
    let situation = Situation { remote, ..Situation::default() };
    let mut build = Build::new(vec![], ReinitOptions::default());
    build.elapsed(Delay::LeaderlessDelay);
    build.tell(Input::Event(Event::of(&situation)));
    assert_eq!(build.copying(), ("basebackup".into(), from("remote")));
}

#[test]
fn a_healthy_member_is_copied_when_nobody_leads_for_a_while() {
    let others = [offer("other", OfferKind::Member)];
    let mut build = Build::new(vec![], ReinitOptions::default());
    assert_eq!(build.situation_changed(None, &others), State::Waiting);
    build.elapsed(Delay::LeaderlessDelay);
    build.situation_changed(None, &others);
    assert_eq!(build.copying(), ("basebackup".into(), from("other")));
}

/// Spec: S-5, EX-65.
#[test]
fn a_copy_outlives_its_leader_and_follows_whoever_leads_then() {
    let mut build = started(&["basebackup"]);
    build.copying();
    assert_eq!(build.situation_changed(None, &[]), State::Copying);
    assert_eq!(build.situation_changed(Some("other"), &offers()), State::Copying);
    build.done();
    build.done();
    let standby =
        Operation::StartPostgres { start_as: StartAs::Standby { source: Some(source("other")) } };
    assert_eq!(build.operation, Some(standby));
    assert_eq!(build.done(), State::CatchingUp);
    assert_eq!(build.situation_changed(Some("lead"), &offers()), State::Copied);
}

/// PostgreSQL follows whom it was started with, whoever is heard of meanwhile (seed 206 of the
/// simulator waited an hour for a stream from nobody).
#[test]
fn a_leader_that_is_heard_of_while_the_copy_starts_is_no_upstream_yet() {
    let mut build = started(&["basebackup"]);
    build.copying();
    let leader = Some("other".to_owned());
    build.tell(Input::Event(Event::TopologyChanged {
        leader,
        upstream: None,
        offers: vec![],
        epoch: 1,
    }));
    build.done();
    build.done();
    let standby = Operation::StartPostgres { start_as: StartAs::Standby { source: None } };
    assert_eq!(build.operation, Some(standby));
    assert_eq!(build.situation_changed(Some("other"), &offers()), State::Starting);
    assert_eq!(build.done(), State::CatchingUp);
    assert_eq!(
        build.situation_changed(Some("other"), &offers()),
        State::Copied,
        "the node points it there"
    );
}

/// The copy was made of an old leader's data, and may hold what the new one never had: then it never streams,
/// and has to be compared.
#[test]
fn a_copy_that_was_begun_under_another_lease_is_compared() {
    for (epoch, left) in [(1, State::CatchingUp), (2, State::Copied)] {
        let mut build = started(&["basebackup"]);
        build.copying();
        build.situation_of(epoch, Some("lead"), &offers());
        build.done();
        build.done();
        assert_eq!(build.done(), State::CatchingUp);
        assert_eq!(build.situation_of(epoch, Some("lead"), &offers()), left);
    }
}

/// Spec: RI-1, RI-3, RI-4, M-3.
#[test]
fn what_the_operator_asked_for_holds_until_it_is_done() {
    let methods = || vec![method("restore"), method("basebackup")];
    let reinit = ReinitOptions { from_leader: true, ..ReinitOptions::default() };
    let mut build = Build::new(methods(), reinit);
    for _ in 0..3 {
        build.situation_changed(Some("lead"), &offers());
        assert_eq!(build.copying(), ("basebackup".into(), from("lead")));
        assert_eq!(build.failed("no"), State::BackingOff);
        build.elapsed(Delay::RetryDelay);
    }
    let reinit = ReinitOptions {
        source: from("other"),
        method: from("restore"),
        ..ReinitOptions::default()
    };
    let mut build = Build::new(methods(), reinit);
    build.situation_changed(Some("lead"), &offers()[..2]);
    assert_eq!(build.machine.state(), State::Waiting, "only from whom was asked for");
    build.situation_changed(Some("lead"), &offers());
    assert_eq!(build.copying(), ("restore".into(), from("other")));
    let reinit = ReinitOptions { keep_data: Some(true), ..ReinitOptions::default() };
    let mut build = Build::new(methods(), reinit);
    build.situation_changed(Some("lead"), &offers());
    assert_eq!(build.done(), State::Copying, "nothing is cleared");
    assert_eq!(build.failed("no"), State::BackingOff, "basebackup would not keep");
}

// ---------------------------------------------------------------------------------------------
// Whom one could copy from

/// Name, timeline, bytes behind, streams it serves, tags.
type Row<'a> = (&'a str, u32, u64, usize, serde_json::Value);

fn ranked(own: &str, rows: &[Row]) -> Vec<(String, OfferKind)> {
    let end = 1 << 30;
    let facts: Vec<Facts> = rows
        .iter()
        .enumerate()
        .map(|(k, (name, timeline, behind, streams, tags))| Facts {
            raft_id: k as u64 + 1,
            name: (*name).into(),
            state: PgState::Running,
            sql: Some(SqlFacts {
                in_recovery: *name != "lead",
                timeline: *timeline,
                flush_lsn: Lsn(end),
                replay_lsn: Lsn(end - behind),
                replication: vec![Walsender::default(); *streams],
                ..SqlFacts::default()
            }),
            tags: Tags::from(tags),
            ..Facts::default()
        })
        .collect();
    let id = |name: &str| facts.iter().find(|f| f.name == name).map_or(0, |f| f.raft_id);
    let member = |f: &Facts| Member {
        name: f.name.clone(),
        conn_url: format!("postgres://10.0.0.{}:5432/postgres", f.raft_id),
        ..Member::default()
    };
    let cluster = ClusterState {
        members: facts.iter().map(|f| (f.raft_id, member(f))).collect(),
        initialize: Initialize::Done { system_identifier: "7".into() },
        lease: Some(Lease::new(id("lead"), 1, 1, Purpose::Lead)),
        epoch: 1,
        ..ClusterState::default()
    };
    let heard: BTreeMap<u64, &Facts> = facts.iter().map(|f| (f.raft_id, f)).collect();
    let situation = Situation::compute(Sources {
        own: id(own),
        cluster: &cluster,
        dynamic: &Dynamic::from_value(None),
        live_epoch: None,
        heard: &heard,
        requests: OperatorRequests::default(),
        methods: vec![],
        postmaster_alive: false,
        data_is_gone: false,
        guarded: None,
        armed: None,
        failover_is_due: false,
        use_pg_rewind: false,
        use_slots: true,
        remove_on_rewind_failure: false,
        remove_on_diverged_timelines: false,
        pre_promote: false,
        sync_step: None,
        another_can_lead: false,
    });
    situation.clone_offers.into_iter().map(|o| (o.source.member, o.kind)).collect()
}

/// Spec: S-1, S-2, EX-64.
#[test]
fn sources_are_ranked_by_timeline_lag_and_load() {
    let tagged = || json!({"clonefrom": true});
    let rows = [
        ("lead", 3, 0, 5, tagged()),
        ("busy", 3, 0, 2, tagged()),
        ("idle", 3, 1000, 0, tagged()),
        ("behind", 3, 200 << 20, 0, tagged()),
        ("old", 2, 0, 0, tagged()),
        ("plain", 3, 0, 0, json!({})),
        ("me", 3, 0, 0, json!({"clonefrom": true, "replicatefrom": "busy"})),
    ];
    let names: Vec<String> = ranked("me", &rows).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["idle", "busy", "behind", "lead", "plain", "old"]);
    let kinds = ranked("me", &rows);
    assert_eq!(kinds[3].1, OfferKind::Leader, "clonefrom on the leader means nothing");
    assert_eq!(kinds[5].1, OfferKind::Member, "an old timeline is no source by itself");
}
