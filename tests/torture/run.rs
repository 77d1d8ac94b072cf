//! One run from beginning to end: a cluster, clients, faults, healing, and the judgement.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::checker::{Mode, Report, Rules, check};
use super::clients::{Clients, TABLES};
use super::clocks::Clocks;
use super::cluster::{Cluster, Spec};
use super::faults::{Step, longest_ttl_s, schedule};
use super::history::{Entry, Final, lsn_of};
use super::inject::{Means, Torturer};
use super::network::Network;
use super::sql::Sql;
use super::state_disks::state_disks;
use super::wall_clock::WallClocks;
use super::{http, process};

const TTL_S: u32 = 3;
/// ttl and loop_wait of the cluster as it is brought up.
pub const USUAL_S: (u32, u32) = (TTL_S, 1);
const LAG_MAX: u64 = 131_072;
/// After the faults have ended all must stream again within this time.
const BACK_S_MAX: u64 = 120;

#[derive(Clone, Debug)]
pub struct Settings {
    pub seconds: u64,
    pub nodes: usize,
    pub synchronous: bool,
    pub seed: u64,
}

impl Settings {
    /// Out of `minutes=10 mode=sync nodes=5 seed=7`; what is not said has its usual value.
    pub fn parse(text: &str) -> Result<Settings, String> {
        let mut settings = Settings { seconds: 60, nodes: 3, synchronous: false, seed: 1 };
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or(format!("{word}: not KEY=VALUE"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{word}: not a number"));
            match (key, value) {
                ("minutes", _) => settings.seconds = 60 * number()?,
                ("seconds", _) => settings.seconds = number()?,
                ("nodes", "3" | "5") => settings.nodes = number()? as usize,
                ("seed", _) => settings.seed = number()?,
                ("mode", "sync" | "async") => settings.synchronous = value == "sync",
                _ => return Err(format!("{word}: unknown; nodes are 3 or 5, mode sync or async")),
            }
        }
        Ok(settings)
    }

    fn steps(&self) -> Vec<Step> {
        schedule(self.seed, self.nodes, u64::from(TTL_S) * 1000, self.seconds * 1000)
    }

    fn rules(&self) -> Rules {
        let mode = if self.synchronous { Mode::Sync } else { Mode::Async { lag_max: LAG_MAX } };
        let ttl = u64::from(longest_ttl_s(&self.steps(), TTL_S)) * 1_000_000;
        Rules { mode, ttl, pause: 500_000 }
    }

    fn spec(&self) -> Spec {
        let dcs = json!({
            "maximum_lag_on_failover": LAG_MAX,
            "synchronous_mode": self.synchronous,
            "postgresql": { "parameters": { "max_connections": 150, "max_wal_size": "256MB" } },
        });
        let file = json!({ "bootstrap": { "dcs": dcs } });
        Spec { nodes: self.nodes, ttl_s: TTL_S, file, ..Spec::default() }
    }
}

/// What a run came to; `None`: it cannot be done here.
pub struct Outcome {
    pub report: Report,
    pub back: Option<Duration>,
    pub ended: usize,
    /// Kept if there is anything to complain about.
    pub dir: PathBuf,
}

/// # Panics
/// When the cluster cannot even be brought up.
pub fn torture(settings: &Settings) -> Option<Outcome> {
    println!("{settings:?}");
    let network = Network::make(settings.nodes)?;
    let mut cluster = network.plan(settings.spec())?;
    let clocks = Clocks::make(settings.nodes, &cluster.root());
    let means = means(&mut cluster, network, &clocks);
    println!("{}", cluster.root().display());
    cluster.numbers().into_iter().for_each(|k| cluster.start(k));
    let leader = cluster.wait_settled(90);
    make_tables(&cluster, leader);
    let clients = Clients::start(cluster.addresses(), leader);
    let began = clients.began();
    let (back, ended) = torment(&mut cluster, &means, settings, &clients);
    let history = clients.stop();
    let dir = cluster.root();
    let complaints = afterwards(&mut cluster, back);
    let (last, unequal) = final_state(&cluster);
    let mut report = check(&history, &last, settings.rules());
    report.violations.extend(complaints);
    report.violations.extend(unequal);
    report.violations.extend(panics(&cluster));
    report.violations.extend(stop(&mut cluster));
    if !report.violations.is_empty() {
        write_down(&dir, &history, &last);
        cluster.keep();
    }
    println!("took {:.0?} in all", began.elapsed());
    drop(cluster);
    drop(means);
    Some(Outcome { report, back, ended, dir })
}

/// With patience: where the first synchronous replica has only just begun, a commit waits for it.
fn make_tables(cluster: &Cluster, leader: usize) {
    let at = cluster.address(leader);
    let connect = Sql::connect(&at.host, at.postgresql, Duration::from_secs(20));
    let sql = connect.unwrap_or_else(|why| panic!("nobody answers at {}: {why:?}", at.host));
    for statement in TABLES {
        sql.column(statement).unwrap_or_else(|why| panic!("{statement}: {why:?}"));
    }
}

/// What can be broken here; every node gets clocks and a disk of its own.
fn means(cluster: &mut Cluster, network: Network, clocks: &Clocks) -> Means {
    let wall = WallClocks::make(cluster.nodes.len(), &cluster.root())
        .inspect_err(|why| eprintln!("no wall clock jumps: {why}"))
        .ok();
    for k in cluster.numbers() {
        let words = wall.iter().flat_map(|wall| wall.prefix(k));
        cluster.nodes[k].prefix.extend(clocks.prefix(k).into_iter().chain(words));
    }
    Means { network, disks: state_disks(cluster).unwrap_or_default(), clocks: wall }
}

/// How long it took to come back after the faults, and how many daemons ended by themselves.
fn torment(
    cluster: &mut Cluster,
    means: &Means,
    settings: &Settings,
    clients: &Clients,
) -> (Option<Duration>, usize) {
    let began = Instant::now();
    let steps = settings.steps();
    let mut torturer = Torturer::new(cluster, means, clients.began());
    for step in &steps {
        torturer.run_until(began + Duration::from_millis(step.at_ms));
        torturer.inject(step, clients.writable());
    }
    torturer.run_until(began + Duration::from_secs(settings.seconds));
    torturer.heal();
    let healed = Instant::now();
    while healed.elapsed() < Duration::from_secs(BACK_S_MAX) {
        torturer.run_until(Instant::now() + Duration::from_millis(200));
        if is_well(torturer.cluster) && clients.writes_since(healed) > 0 {
            let back = healed.elapsed();
            torturer.say(&format!("all well {back:.1?} after the faults ended"));
            torturer.run_until(Instant::now() + Duration::from_secs(3));
            return (Some(back), torturer.ended);
        }
    }
    torturer.say("NOT WELL IN TIME");
    (None, torturer.ended)
}

/// The one node that takes writes. All are asked at once, with patience: the machine is busy.
fn leader(cluster: &Cluster) -> Option<usize> {
    let answers: Vec<bool> = std::thread::scope(|scope| {
        let ask = |k: usize| {
            scope.spawn(move || column(cluster, k, "SELECT pg_is_in_recovery()") == ["f"])
        };
        let threads: Vec<_> = cluster.numbers().into_iter().map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(false)).collect()
    });
    let mut leaders = cluster.numbers().into_iter().filter(|k| answers[*k]);
    leaders.next().filter(|_| leaders.next().is_none())
}

/// One node takes writes, and all others stream from it.
fn is_well(cluster: &Cluster) -> bool {
    let question = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'";
    leader(cluster).is_some_and(|leader| {
        let names = column(cluster, leader, question);
        let streams = |k: &usize| names.contains(&cluster.nodes[*k].name);
        cluster.others(leader).iter().all(streams)
    })
}

fn afterwards(cluster: &mut Cluster, back: Option<Duration>) -> Vec<String> {
    let mut complaints = Vec::new();
    if back.is_none() {
        complaints.push(format!("not writable with all replicas after {BACK_S_MAX} s"));
        for k in cluster.numbers() {
            let (_, dump) = cluster.surus(&["dump", "-c"], k);
            fs::write(cluster.nodes[k].dir.join("dump.txt"), dump).ok();
        }
    }
    complaints
}

/// What the leader holds, and whether the others hold the same.
fn final_state(cluster: &Cluster) -> (Final, Vec<String>) {
    let Some(leader) = leader(cluster) else {
        return (Final::default(), vec![String::from("nobody takes writes at the end")]);
    };
    let mut unequal = Vec::new();
    let wanted = contents(cluster, leader);
    for k in cluster.others(leader) {
        let began = Instant::now();
        while contents(cluster, k) != wanted && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(300));
        }
        if contents(cluster, k) != wanted {
            unequal.push(format!("n{} does not hold what n{} holds", k + 1, leader + 1));
        }
    }
    (last_of(cluster, leader), unequal)
}

/// The number of rows and a sum over them.
fn contents(cluster: &Cluster, k: usize) -> Option<String> {
    let rows = column(
        cluster,
        k,
        "SELECT (SELECT count(*) || ' ' || sum(hashint8(seq * 100 + client)::bigint) FROM torture_set)
             || ' ' || (SELECT count(*) || ' ' || sum(hashint8(stamp)::bigint) FROM torture_steps)",
    );
    rows.into_iter().next()
}

/// The first column of an answer that may be long.
fn column(cluster: &Cluster, k: usize, statement: &str) -> Vec<String> {
    let at = cluster.address(k);
    let sql = Sql::connect(&at.host, at.postgresql, Duration::from_secs(20)).ok();
    let rows = sql.and_then(|sql| sql.column(statement).ok()).unwrap_or_default();
    rows.into_iter().flatten().collect()
}

fn last_of(cluster: &Cluster, leader: usize) -> Final {
    let node = &cluster.nodes[leader];
    let numbers = |statement: &str| -> Vec<Vec<u64>> {
        let row = |text: String| text.split(' ').flat_map(str::parse).collect();
        column(cluster, leader, statement).into_iter().map(row).collect()
    };
    let set = numbers("SELECT client || ' ' || seq || ' ' || place FROM torture_set");
    let steps = numbers("SELECT version || ' ' || stamp FROM torture_steps ORDER BY version");
    Final {
        set: set.into_iter().map(|row| (row[0] as usize, row[1], row[2])).collect(),
        steps: steps.into_iter().map(|row| (row[0], row[1])).collect(),
        ends: ends(&node.data(), cluster.timeline(leader)),
        reported: reported(&node.rest()),
    }
}

/// Where the timelines before this one end, as PostgreSQL's own history file says.
fn ends(data: &Path, timeline: u32) -> BTreeMap<u32, u64> {
    let file = data.join(format!("pg_wal/{timeline:08X}.history"));
    let text = fs::read_to_string(file).unwrap_or_default();
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, lsn_of(words.next()?)?))
    };
    text.lines().filter_map(row).collect()
}

/// Timelines whose end `GET /history` shows.
fn reported(rest: &str) -> Vec<u32> {
    let rows = http::get_json(rest, "/history").unwrap_or_default();
    let first = |row: &serde_json::Value| row[0].as_u64().map(|timeline| timeline as u32);
    rows.as_array().into_iter().flatten().filter_map(first).collect()
}

fn panics(cluster: &Cluster) -> Vec<String> {
    let panicked = cluster.nodes.iter().filter(|node| node.said("panicked") > 0);
    panicked.map(|node| format!("the daemon of {} panicked", node.name)).collect()
}

/// An orderly end of all nodes, after which nothing may run.
fn stop(cluster: &mut Cluster) -> Vec<String> {
    cluster.nodes.iter().for_each(|node| node.signal(Signal::TERM));
    let began = Instant::now();
    let mut running = cluster.nodes.len();
    while running > 0 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
        running = cluster.nodes.iter_mut().map(|node| usize::from(node.is_running())).sum();
    }
    let left = process::of(&cluster.root());
    let mut complaints = Vec::new();
    if running > 0 {
        complaints.push(format!("{running} daemons did not stop in 60 s"));
    }
    for pid in left {
        complaints.push(format!("left running: {pid} {}", process::title(pid)));
    }
    complaints
}

/// For a person to look at.
fn write_down(dir: &Path, history: &[Entry], last: &Final) {
    let mut text = String::new();
    for entry in history {
        writeln!(text, "{entry}").expect("text takes text");
    }
    fs::write(dir.join("history.txt"), text).ok();
    fs::write(dir.join("final.txt"), format!("{last:#?}")).ok();
}

fn judged(settings: &Settings) {
    let Some(outcome) = torture(settings) else { return };
    println!("{}", outcome.report);
    println!("back after     {:.1?}", outcome.back.unwrap_or_default());
    println!("daemons that ended by themselves: {}", outcome.ended);
    let dir = outcome.dir.display();
    assert!(outcome.report.violations.is_empty(), "seed {}, kept in {dir}", settings.seed);
}

/// A short slice, as everything that must hold is run.
#[test]
fn a_minute_of_torture_breaks_no_promise() {
    judged(&Settings { seconds: 60, nodes: 3, synchronous: false, seed: 3 });
}

/// SURUS_TORTURE="minutes=10 mode=sync nodes=5 seed=7", see scripts/torture.
#[test]
#[ignore = "as long as scripts/torture says"]
fn torture_as_told() {
    let told = std::env::var("SURUS_TORTURE").unwrap_or_default();
    judged(&Settings::parse(&told).unwrap_or_else(|why| panic!("SURUS_TORTURE: {why}")));
}

#[test]
fn mistakes_in_settings_are_named() {
    let settings = Settings::parse("minutes=2 mode=sync nodes=5 seed=9").expect("it is right");
    assert_eq!((settings.seconds, settings.nodes, settings.seed), (120, 5, 9));
    assert!(settings.synchronous);
    for wrong in ["minutes", "nodes=4", "mode=quorum", "seed=x"] {
        assert!(Settings::parse(wrong).is_err_and(|why| why.starts_with(wrong)), "{wrong}");
    }
}
