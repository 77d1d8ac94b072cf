//! Three to five cores in one loop: founding, election, lease, loss of the arbiter.
#[path = "consensus/members.rs"]
mod members;

use std::collections::VecDeque;

use surus::pure::cluster::command::Command;
use surus::pure::cluster::facts::{DataDirectory, Facts, SqlFacts};
use surus::pure::cluster::state::{FailoverRequest, Member};
use surus::pure::consensus::core::{Core, Input, Options, Output, Proposal};
use surus::pure::consensus::founding::FoundingRecord;
use surus::pure::consensus::message::{Greeting, PeerMessage};
use surus::pure::postgres::lsn::Lsn;
use surus::pure::postgres::state::PgState;

struct Net {
    cores: Vec<Core>,
    queue: VecDeque<(usize, Input)>,
    now: u64,
    up: Vec<bool>,
    deadlines: Vec<Option<u64>>,
    /// Every guard takes over what it is told.
    guards_are_bound: bool,
    receipts: Vec<(u64, String)>,
    names: Vec<String>,
    told: Vec<(usize, String)>,
    halted: Vec<(usize, String)>,
    next_tick: Vec<u64>,
    /// Answers a question for positions only after a while.
    /// How long each takes to look at its PostgreSQL, in ms.
    looks_ms: Vec<u64>,
    /// Says something unasked soon after it answered one.
    talkative: Option<usize>,
    later: Vec<(u64, usize, Input)>,
}

fn facts(i: usize) -> Facts {
    Facts {
        name: format!("n{i}"),
        has_postgres: true,
        data: DataDirectory::Empty,
        bootstrap_ttl_ms: Some(2000),
        serial: 1,
        ..Facts::default()
    }
}

impl Net {
    fn new(n: usize) -> Net {
        let names: Vec<String> = (0..n).map(|i| format!("n{i}")).collect();
        Net::named(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn named(names: &[&str]) -> Net {
        let n = names.len();
        let addr = |i: usize| format!("127.0.0.1:{}", 9000 + i);
        let cores = (0..n)
            .map(|i| {
                let partners = (0..n).filter(|j| *j != i).map(addr).collect();
                Core::new(Options {
                    id: 100 + i as u64,
                    member: Member {
                        name: names[i].to_owned(),
                        raft_addr: addr(i),
                        ..Member::default()
                    },
                    partners,
                    voters_max: 5,
                    ttl_ms: 2000,
                    seed: i as u64 * 7919,
                    founding_record: FoundingRecord::default(),
                    log: None,
                    now: 0,
                })
            })
            .collect();
        let mut net = Net {
            cores,
            queue: VecDeque::new(),
            now: 0,
            up: vec![true; n],
            deadlines: vec![None; n],
            guards_are_bound: true,
            receipts: vec![],
            names: names.iter().map(|name| name.to_string()).collect(),
            told: vec![],
            halted: vec![],
            next_tick: vec![0; n],
            looks_ms: vec![0; n],
            talkative: None,
            later: vec![],
        };
        for i in 0..n {
            net.queue.push_back((i, Input::Local(Box::new(facts(i)))));
            net.greet(i);
        }
        net
    }

    fn greeting(&self, i: usize) -> Greeting {
        Greeting {
            id: 100 + i as u64,
            name: self.names[i].clone(),
            addr: format!("127.0.0.1:{}", 9000 + i),
            standing: surus::pure::consensus::message::FoundingStatus {
                cluster_epoch: 0,
                cluster_id: self.cores[i].founding_record().cluster_id.clone(),
                voted_for: self.cores[i].founding_record().voted_for,
                heard_of: self.cores[i].founding_record().heard_of.clone(),
            },
        }
    }

    fn greet(&mut self, i: usize) {
        for j in 0..self.cores.len() {
            if j != i && self.up[i] && self.up[j] {
                let greeting = self.greeting(i);
                self.queue.push_back((j, Input::Greeted(greeting)));
            }
        }
    }

    fn index(addr: &str) -> usize {
        addr.rsplit(':').next().unwrap().parse::<usize>().unwrap() - 9000
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            for i in 0..self.cores.len() {
                if self.up[i] && self.now >= self.next_tick[i] {
                    self.next_tick[i] = self.now + self.cores[i].tick_every();
                    self.queue.push_back((i, Input::Tick));
                }
            }
            let (due, later) = self.later.drain(..).partition(|(at, _, _)| *at <= self.now);
            self.later = later;
            let due: Vec<(u64, usize, Input)> = due;
            self.queue.extend(due.into_iter().map(|(_, i, input)| (i, input)));
            while let Some((i, input)) = self.queue.pop_front() {
                if self.up[i] {
                    let out = self.cores[i].handle(self.now, input);
                    self.carry_out(i, out);
                }
            }
            self.now += 10;
        }
    }

    fn carry_out(&mut self, i: usize, out: Vec<Output>) {
        let id = 100 + i as u64;
        for output in out {
            match output {
                Output::SendRaft { addr, message } => {
                    self.queue.push_back((Net::index(&addr), Input::Raft { from: id, message }));
                }
                Output::SendPeer { addr, message } => {
                    self.queue.push_back((Net::index(&addr), Input::Peer { from: id, message }));
                }
                Output::Write(write) if write.number > 0 => {
                    self.queue.push_back((i, Input::Persisted { number: write.number }));
                }
                Output::Deadline { epoch, deadline } => {
                    self.deadlines[i] = deadline;
                    if let Some(at) = deadline.filter(|_| self.guards_are_bound) {
                        self.cores[i].guard_is_bound(epoch, at);
                    }
                }
                Output::Receipt { ticket, outcome } => {
                    self.receipts.push((ticket, format!("{outcome:?}")));
                }
                Output::AskFresh { round } => {
                    let answer = Input::Local(Box::new(self.replica(i, round)));
                    match self.looks_ms[i] {
                        0 => self.queue.push_back((i, answer)),
                        ms => self.later.push((self.now + ms, i, answer)),
                    }
                    if self.talkative == Some(i) {
                        let more = Input::Local(Box::new(self.replica(i, 0)));
                        self.later.push((self.now + 30, i, more));
                    }
                }
                Output::Greeting(_) => self.greet(i),
                Output::Halt(sentence) => self.halted.push((i, sentence)),
                Output::Told(text) => {
                    eprintln!("{} n{i} {text}", self.now);
                    self.told.push((i, text));
                }
                _ => {}
            }
        }
    }

    fn replica(&self, i: usize, round: u64) -> Facts {
        let sql = SqlFacts {
            in_recovery: true,
            system_identifier: "7".into(),
            timeline: 1,
            ..SqlFacts::default()
        };
        let state = PgState::Running;
        Facts { round, serial: self.now, state, sql: Some(sql), ..facts(i) }
    }

    /// The cluster exists from now on; who holds the lease.
    fn born(&mut self) -> usize {
        self.run(4000);
        let holder = self.holder().expect("somebody was granted the lease");
        let born = Command::Initialised {
            epoch: self.cores[holder].cluster().epoch,
            system_identifier: "7".into(),
            config: serde_json::json!({"ttl": 2, "loop_wait": 1, "retry_timeout": 1}),
        };
        self.queue.push_back((holder, Input::Propose { ticket: 9, command: born }));
        self.run(6000);
        assert_eq!(self.receipts, [(9, "Ok(Done)".to_string())]);
        holder
    }

    fn holder(&self) -> Option<usize> {
        let live = self.up.iter().position(|up| *up).unwrap();
        self.cores[live].cluster().lease.as_ref().map(|l| l.holder as usize - 100)
    }
}

#[test]
fn three_fresh_nodes_found_one_cluster_and_one_of_them_may_create_it() {
    let mut net = Net::new(3);
    net.run(4000);
    let ids: Vec<_> = net.cores.iter().map(|c| c.founding_record().cluster_id.clone()).collect();
    assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let holder = net.holder().expect("somebody was granted the lease");
    assert!(net.deadlines[holder].is_some_and(|d| d > net.now), "the holder's deadline moves on");
    assert_eq!(net.deadlines.iter().flatten().count(), 1);
}

#[test]
fn when_the_holder_dies_another_is_granted_the_lease_after_the_ttl() {
    let mut net = Net::new(3);
    let holder = net.born();
    assert!(
        !net.cores[holder].group().unwrap().is_leader(),
        "the arbiter stands apart from the holder"
    );
    net.up[holder] = false;
    let died = net.now;
    let deadline = net.deadlines[holder].unwrap();
    for i in 0..3 {
        if i != holder {
            let addr = format!("127.0.0.1:{}", 9000 + holder);
            net.queue.push_back((i, Input::Gone { addr, id: 100 + holder as u64 }));
        }
    }
    while net.holder().is_none_or(|h| h == holder) && net.now < died + 9000 {
        net.run(10);
    }
    let next = net.holder().expect("a new holder");
    assert_ne!(next, holder);
    assert!(net.now > deadline, "granted at {} before the deadline {deadline}", net.now);
    assert!(net.now < died + 3500, "took {} ms", net.now - died);
}

#[test]
fn who_comes_after_the_founding_receives_the_whole_state_before_it_votes() {
    let mut net = Net::new(4);
    net.up[3] = false;
    net.run(8000);
    assert!(net.cores[0].founding_record().cluster_id.is_some(), "three of four found it");
    net.up[3] = true;
    (0..4).for_each(|i| net.greet(i));
    net.run(4000);
    let (old, new) = (net.cores[0].cluster(), net.cores[3].cluster());
    assert!(new.applied > 0, "the newcomer has nothing");
    assert_eq!((new.applied, &new.members), (old.applied, &old.members));
    assert_eq!(net.cores[0].group().map(|g| g.voters().len()), Some(4));
}

/// Whoever has answered the arbiter's question may say more before the last answer is in: what it
/// says then is newer still, and must not count as no answer.
#[test]
fn a_word_more_after_the_answer_does_not_lose_the_leadership() {
    let mut net = Net::new(3);
    let holder = net.born();
    let candidate = (0..3).find(|i| *i != holder).expect("there are three");
    (net.looks_ms[holder], net.talkative) = (60, Some(candidate));
    let request = FailoverRequest {
        leader: Some(format!("n{holder}")),
        candidate: Some(format!("n{candidate}")),
        scheduled_at: None,
    };
    let release = Command::Release {
        epoch: net.cores[holder].cluster().epoch,
        reason: "switchover".into(),
        shutdown: None,
        hand_over_to: request.candidate.clone(),
        carried_out: false,
    };
    for command in [Command::SetFailover { request }, release] {
        net.queue.push_back((holder, Input::Propose { ticket: 10, command }));
    }
    net.run(1000);
    assert_eq!(net.holder(), Some(candidate));
}

/// What an order may do counts from the hand-over to the next grant; the leader's death is none.
#[test]
fn an_order_counts_only_when_its_leader_hands_over() {
    let mut net = Net::new(3);
    let holder = net.born();
    let mut cluster = net.cores[holder].cluster().clone();
    let epoch = cluster.epoch;
    let order = |scheduled_at: Option<&str>| Command::SetFailover {
        request: FailoverRequest {
            leader: Some(format!("n{holder}")),
            candidate: Some(String::from("x")),
            scheduled_at: scheduled_at.map(str::to_owned),
        },
    };
    let release = |to: Option<&str>| Command::Release {
        epoch,
        reason: "switchover".into(),
        shutdown: None,
        hand_over_to: to.map(str::to_owned),
        carried_out: false,
    };
    let over = Command::LeaseOver { epoch, reason: "it died".into() };
    let by_name = FailoverRequest { candidate: Some(String::from("x")), ..Default::default() };
    let by_name = Command::SetFailover { request: by_name };
    let cases = [
        (vec![order(None), release(Some("x"))], true),
        (vec![order(None), release(None)], false),
        (vec![order(None), over.clone()], false),
        (vec![order(Some("2030-01-01T00:00:00Z")), over.clone()], false),
        (vec![by_name.clone(), over.clone()], false),
        (vec![over, by_name], true),
    ];
    let untouched = cluster.clone();
    for (commands, counts) in cases {
        let said = format!("{commands:?}");
        cluster = untouched.clone();
        commands.into_iter().for_each(|command| drop(cluster.apply(1000, command)));
        assert_eq!(cluster.order_in_force().is_some(), counts, "{said}");
    }
}

/// Whoever is slow is waited for longer with every round: else none of them would ever lead.
#[test]
fn a_slow_postgresql_leads_in_the_end() {
    let mut net = Net::new(3);
    let holder = net.born();
    net.up[holder] = false;
    net.looks_ms = vec![900; 3];
    let heir = |net: &Net| net.holder().filter(|h| *h != holder);
    let until = net.now + 20_000;
    while heir(&net).is_none() && net.now < until {
        net.run(100);
    }
    assert!(heir(&net).is_some(), "nobody was waited for");
}

/// The arbiter dies, and the leader has stopped writing: whoever arbitrates next has heard it, too.
#[test]
fn the_lag_is_bounded_by_an_arbiter_that_was_none_when_the_leader_wrote() {
    let mut net = Net::new(3);
    let holder = net.born();
    let arbiter = (0..3).find(|i| net.cores[*i].group().is_some_and(|g| g.is_leader()));
    let arbiter = arbiter.filter(|i| *i != holder).expect("it stands apart from the holder");
    let mut leads = net.replica(holder, 0);
    let flush_lsn = Lsn(500_000_000);
    leads.sql = leads.sql.map(|sql| SqlFacts { in_recovery: false, flush_lsn, ..sql });
    net.queue.push_back((holder, Input::Local(Box::new(leads))));
    net.run(100);
    let recovers = net.replica(holder, 0);
    net.queue.push_back((holder, Input::Local(Box::new(recovers))));
    net.run(100);
    net.up[arbiter] = false;
    net.run(1500);
    let epoch = net.cores[holder].cluster().epoch;
    let (reason, shutdown, hand_over_to) = ("cannot serve it".into(), None, None);
    let release = Command::Release { epoch, reason, shutdown, hand_over_to, carried_out: false };
    net.queue.push_back((holder, Input::Propose { ticket: 11, command: release }));
    net.run(10_000);
    assert!(net.cores[holder].cluster().epoch == epoch && net.holder().is_none(), "who lags leads");
    let decisions = &net.cores[holder].cluster().decisions;
    let rules: Vec<_> = decisions.iter().flat_map(|d| &d.verdicts).map(|v| &v.rule).collect();
    assert!(rules.iter().any(|rule| rule.contains("maximum_lag_on_failover")), "{rules:?}");
}

/// The log knows a longer ttl at once, a shorter one only from a holder whose guard is bound to it.
#[test]
fn a_shorter_ttl_is_told_to_the_log_when_the_guard_is_bound() {
    let mut net = Net::new(3);
    let holder = net.born();
    let epoch = net.cores[holder].cluster().epoch;
    net.guards_are_bound = false;
    let patch = |net: &mut Net, ttl: u64| {
        let command = Command::PatchConfig { patch: serde_json::json!({ "ttl": ttl }) };
        net.queue.push_back((holder, Input::Propose { ticket: 31, command }));
    };
    let agreed = |net: &Net| net.cores[holder].cluster().lease.clone().map(|l| (l.epoch, l.ttl_ms));
    patch(&mut net, 30);
    net.run(4_000);
    assert_eq!(agreed(&net), Some((epoch, 30_000)), "it costs nothing");
    assert!(net.deadlines[holder].is_some_and(|at| at > net.now + 20_000), "{:?}", net.deadlines);
    patch(&mut net, 2);
    net.run(4_000);
    assert!(net.deadlines[holder].is_some_and(|at| at < net.now + 2_000), "{:?}", net.deadlines);
    assert_eq!(agreed(&net), Some((epoch, 30_000)), "nobody knows what the guard's page says");
    net.guards_are_bound = true;
    net.run(2_000);
    assert_eq!(agreed(&net), Some((epoch, 2_000)));
}

/// SEC-9: both others are frozen, and somebody speaks for them. The deadline stays where it was.
#[test]
fn forged_answers_do_not_prolong_a_lease() {
    let mut net = Net::new(3);
    let holder = net.born();
    (0..3).filter(|i| *i != holder).for_each(|i| net.up[i] = false);
    net.run(20);
    let deadline = net.deadlines[holder].expect("it holds the lease");
    let epoch = net.cores[holder].cluster().epoch;
    while net.now < deadline + 1000 {
        for from in [100, 101, 102, 999] {
            for serial in 1..100 {
                let (applied, nonce) = (0, [0, 0]);
                let ttl_ms = None;
                let message = PeerMessage::RenewAck { epoch, serial, applied, nonce, ttl_ms };
                net.queue.push_back((holder, Input::Peer { from, message }));
            }
        }
        net.run(200);
        assert!(net.deadlines[holder].is_none_or(|now| now == deadline), "it moved");
    }
}

/// SEC-5: what somebody proposes who is no member is not looked at.
#[test]
fn a_strangers_entry_is_not_applied() {
    let mut net = Net::new(3);
    net.born();
    let propose = |from: u64, to: u64, key: &str| {
        let command = Command::PatchConfig { patch: serde_json::json!({ key: 30 }) };
        let proposal = Proposal { origin: from, ticket: 0, command };
        let mut message = raft::eraftpb::Message::default();
        message.set_msg_type(raft::eraftpb::MessageType::MsgPropose);
        (message.from, message.to) = (from, to);
        let data = serde_json::to_vec(&proposal).expect("plain data").into();
        message.mut_entries().push(raft::eraftpb::Entry { data, ..Default::default() });
        Input::Raft { from, message: Box::new(message) }
    };
    let arbiter = (0..3).find(|i| net.cores[*i].group().is_some_and(|g| g.is_leader()));
    let arbiter = arbiter.expect("somebody arbitrates");
    let to = 100 + arbiter as u64;
    net.queue.push_back((arbiter, propose(999, to, "loop_wait")));
    net.queue.push_back((arbiter, propose(100 + (arbiter as u64 + 1) % 3, to, "retry_timeout")));
    net.run(500);
    let config = net.cores[arbiter].cluster().config.as_ref().expect("it is initialised");
    assert_eq!((&config["loop_wait"], &config["retry_timeout"]), (&1.into(), &30.into()));
}

/// Who was away hears from those it knows whom else it may believe; a stranger's word counts for nothing.
#[test]
fn members_name_members() {
    let mut net = Net::new(3);
    net.born();
    let named = |net: &Net| net.cores[0].targets().iter().any(|addr| addr == "127.0.0.1:9009");
    let book = || PeerMessage::Book([(900, "127.0.0.1:9009".into())].into());
    net.queue.push_back((0, Input::Peer { from: 999, message: book() }));
    net.run(20);
    assert!(!named(&net));
    net.queue.push_back((0, Input::Peer { from: 101, message: book() }));
    net.run(20);
    assert!(named(&net));
}
