//! `surus what-if`: who leads, what is lost and how long it takes, asked of a simulated cluster
//! that stands where a dump says the real one stood.
use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use self::action::Action;
use self::start::Dumped;
use super::cli::say;
use super::world::World;
use crate::pure::cluster::Millis;

mod action;
mod start;

/// `surus what-if …`
#[derive(Args, Debug)]
pub struct WhatIfArgs {
    /// What `surus dump --json` printed
    #[arg(long, value_name = "FILE")]
    dump: PathBuf,
    /// What happens, in order: "kill n2", "cut n1 n3", "wait 10s", "switchover", …
    #[arg(required = true)]
    actions: Vec<String>,
    /// How often it is played, each time with other randomness
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    runs: u64,
    /// Print every event of the first run
    #[arg(long)]
    verbose: bool,
}

/// Long enough for a simulated cluster to be seen to work.
const SETTLING_MS_MAX: Millis = 60_000;
/// So long after the last action it ends, in ttls, and at least so many ms.
const WATCHED_TTLS: Millis = 4;
const WATCHED_MS_MIN: Millis = 30_000;
/// Starts that come to nothing because randomness cost the old leader its lease.
const STARTS_MAX: u64 = 50;

/// The exit code: 0, 1 where a promise was broken, 2 where the question makes no sense.
pub fn main(args: &WhatIfArgs) -> i32 {
    match answered(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            2
        }
    }
}

fn answered(args: &WhatIfArgs) -> Result<i32, String> {
    let file = args.dump.display();
    let text = std::fs::read_to_string(&args.dump).map_err(|error| format!("{file}: {error}"))?;
    let dumped = Dumped::parse(&text).map_err(|error| format!("{file}: {error}"))?;
    let actions: Result<Vec<Action>, String> =
        args.actions.iter().map(|words| action::parse(words, &dumped)).collect();
    let actions = actions?;
    for sentence in &dumped.left_out {
        say!("note: {sentence}");
    }
    let mut answers = Vec::new();
    for run in 0..args.runs {
        let verbose = args.verbose && run == 0;
        let mut world = settled(&dumped, run, verbose)?;
        match play(&mut world, &actions) {
            Ok(answer) => answers.push(answer),
            Err(broken) => {
                say!("run {run}: {broken}");
                return Ok(1);
            }
        }
    }
    print(&dumped, &answers);
    Ok(0)
}

/// The cluster as dumped, at work: whoever led leads.
fn settled(dumped: &Dumped, run: u64, verbose: bool) -> Result<World, String> {
    for start in 0..STARTS_MAX {
        let mut world = dumped.world(1 + run * STARTS_MAX + start);
        world.verbose = verbose;
        while world.now < SETTLING_MS_MAX {
            world.step().map_err(|broken| broken.to_string())?;
            let leader = world.nodes.iter().position(|n| n.postgres.takes_writes());
            let kept = dumped.leader().is_none() || leader == dumped.leader();
            if kept && world.now > 5_000 && world.arbiter().is_some() {
                return Ok(world);
            }
            if leader.is_some() && !kept {
                break;
            }
        }
        // Without a leader in the dump, or without a quorum: it stands as well as it can.
        if dumped.leader().is_none_or(|_| world.arbiter().is_none()) {
            return Ok(world);
        }
    }
    Err(String::from("the simulated cluster does not come to stand as the dumped one did"))
}

/// What became of one run.
struct Answer {
    leader: Option<usize>,
    /// Why nobody leads, as the last decision says.
    reason: String,
    /// In all, from the first action on.
    not_writable_ms: Millis,
    lost: u64,
    acknowledged: u64,
    streaming: usize,
}

fn play(world: &mut World, actions: &[Action]) -> Result<Answer, super::check::Violation> {
    let began = world.now;
    let (mut not_writable_ms, lost) = (0, world.checks.lost);
    let mut until = began;
    let mut run_until = |world: &mut World, until: Millis| {
        while world.next_at() <= until {
            let writable = world.nodes.iter().any(|n| n.postgres.takes_writes());
            let before = world.now;
            world.step()?;
            not_writable_ms += if writable { 0 } else { world.now - before };
        }
        Ok(())
    };
    for action in actions {
        match action {
            Action::Wait(ms) => {
                until += ms;
                run_until(world, until)?;
            }
            Action::Inject(faults) => faults.iter().for_each(|fault| world.inject(*fault)),
        }
    }
    let watched = (WATCHED_TTLS * world.plan.ttl_ms).max(WATCHED_MS_MIN);
    run_until(world, until + watched)?;
    let leader = world.nodes.iter().position(|n| n.postgres.takes_writes());
    let decisions = world.nodes.iter().filter_map(|n| n.daemon.as_ref());
    let newest = decisions.map(|d| d.core.cluster()).max_by_key(|state| state.applied);
    let last = newest.and_then(|state| state.decisions.last());
    let quorum = world.arbiter().is_some();
    let reason = if quorum { last.map(|d| d.reason.clone()) } else { None };
    let now = world.now;
    let streams = |n: &&super::node::Node| {
        let server = n.postgres.server.as_ref().filter(|s| s.in_recovery);
        server.is_some_and(|s| s.streamed_at.is_some_and(|at| now < at + 2000))
    };
    Ok(Answer {
        leader,
        reason: reason.unwrap_or_else(|| String::from("no majority of the voters is there")),
        not_writable_ms,
        lost: world.checks.lost - lost,
        acknowledged: world.client.promised.len() as u64 + world.checks.lost,
        streaming: world.nodes.iter().filter(streams).count(),
    })
}

fn print(dumped: &Dumped, answers: &[Answer]) {
    let runs = answers.len();
    let mut outcomes = BTreeMap::<String, Vec<&Answer>>::new();
    for answer in answers {
        let who = match answer.leader {
            Some(at) if Some(at) == dumped.leader() => {
                format!("{} leads, as before", dumped.members[at].name)
            }
            Some(at) => format!("{} leads", dumped.members[at].name),
            None => format!("nobody accepts writes: {}", answer.reason),
        };
        outcomes.entry(who).or_default().push(answer);
    }
    let mut outcomes: Vec<_> = outcomes.into_iter().collect();
    outcomes.sort_by_key(|(_, answers)| std::cmp::Reverse(answers.len()));
    for (who, answers) in &outcomes {
        say!("{who} (in {} of {runs} runs)", answers.len());
        if answers.iter().any(|answer| answer.leader.is_some()) {
            let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
            say!("  not writable: {}", span(answers, |a| a.not_writable_ms, &seconds));
        }
        let count = |n: u64| n.to_string();
        let lost = span(answers, |a| a.lost, &count);
        let of = span(answers, |a| a.acknowledged, &count);
        say!("  acknowledged commits lost: {lost} of {of} (of a made-up load)");
        say!("  replicas streaming: {}", span(answers, |a| a.streaming as u64, &count));
    }
}

/// The least and the most, or the one value that all have.
fn span(answers: &[&Answer], of: fn(&Answer) -> u64, say: &dyn Fn(u64) -> String) -> String {
    let values = || answers.iter().map(|answer| of(answer));
    let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    if say(low) == say(high) { say(low) } else { format!("{} to {}", say(low), say(high)) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::action::{Action, parse};
    use super::start::Dumped;
    use super::{play, settled};
    use crate::pure::cluster::facts::{Facts, SqlFacts};
    use crate::pure::cluster::state::{ClusterState, Initialize, Lease, Member, Purpose};
    use crate::pure::postgres::lsn::Lsn;

    /// Three members as a dump shows them; n1 leads, and n2 is far behind: among equals it would be next.
    fn dump() -> Value {
        let mut cluster = ClusterState {
            applied: 90,
            epoch: 4,
            initialize: Initialize::Done { system_identifier: "7300000000000000001".into() },
            config: Some(json!({"ttl": 5, "loop_wait": 1, "maximum_lag_on_failover": 1_048_576})),
            ..ClusterState::default()
        };
        let (holder, purpose) = (11, Purpose::Lead);
        cluster.lease = Some(Lease::new(holder, 4, 5000, purpose));
        let mut facts = serde_json::Map::new();
        for (id, name, lag) in [(11, "n1", 0), (22, "n2", 5_000_000), (33, "n3", 0)] {
            cluster.members.insert(id, Member { name: name.into(), ..Member::default() });
            let at = Lsn(0x9000_0000 - lag);
            let sql = SqlFacts {
                in_recovery: id != 11,
                timeline: 3,
                flush_lsn: at,
                receive_lsn: at,
                replay_lsn: at,
                ..SqlFacts::default()
            };
            let heard =
                Facts { raft_id: id, name: name.into(), sql: Some(sql), ..Facts::default() };
            facts.insert(id.to_string(), json!({"facts": heard, "heard_at": 1}));
        }
        let raft = json!({"cluster_id": "c", "term": 7, "voters": [11, 22, 33], "learners": []});
        json!({"node": "n1", "cluster": cluster, "raft": raft, "facts": facts})
    }

    fn leader_after(questions: &[&str]) -> Option<usize> {
        let dumped = Dumped::parse(&dump().to_string()).expect("it is a dump");
        let actions: Vec<Action> =
            questions.iter().map(|q| parse(q, &dumped).expect("it is understood")).collect();
        let mut world = settled(&dumped, 0, false).expect("it comes to stand");
        assert_eq!(world.nodes.iter().position(|n| n.postgres.takes_writes()), Some(0));
        play(&mut world, &actions).expect("no promise is broken").leader
    }

    #[test]
    fn who_is_behind_too_far_does_not_lead() {
        assert_eq!(leader_after(&["kill n1"]), Some(2));
        assert_eq!(leader_after(&["cut n1"]), Some(2));
    }

    #[test]
    fn without_a_majority_nobody_leads_and_with_it_again_somebody_does() {
        assert_eq!(leader_after(&["kill n1", "kill n2"]), None);
        assert_eq!(leader_after(&["kill n1", "kill n2", "wait 20s", "start n1"]), Some(0));
    }

    #[test]
    fn questions_and_dumps_that_make_no_sense_are_told_so() {
        let dumped = Dumped::parse(&dump().to_string()).expect("it is a dump");
        for (text, words) in [("kill n7", "only n1, n2, n3"), ("dance", "write `kill NAME`")] {
            let error = parse(text, &dumped).expect_err(text);
            assert!(error.contains(words), "{error}");
        }
        let error = Dumped::parse("{").expect_err("it is cut off");
        assert!(error.starts_with("line 1, column 1"), "{error}");
        let mut unborn = dump();
        unborn["cluster"]["initialize"] = json!("Absent");
        let error = Dumped::parse(&unborn.to_string()).expect_err("no cluster");
        assert!(error.contains("not initialised"), "{error}");
    }
}
