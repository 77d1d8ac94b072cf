//! How long real clusters take, and what they cost when idle. The figures of the README that are
//! about Surus come from here:
//!
//!     cargo bench --bench cluster -- [--ttl SECONDS] [--runs N] [SCENARIO…]
//!
//! Three nodes on this machine, a writer per node; a pause is the longest time between two
//! acknowledged writes, whichever node took them. Nothing is asserted but that nothing is lost twice.
#![allow(dead_code)] // the tests' harness offers more than is used here

#[path = "../tests/cluster_postgres/cluster.rs"]
mod cluster;
#[path = "../tests/cluster_postgres/http.rs"]
mod http;
#[path = "../tests/cluster_postgres/node.rs"]
mod node;
#[path = "../tests/cluster_postgres/process.rs"]
mod process;
#[path = "../tests/cluster_postgres/sql.rs"]
mod sql;
#[path = "../tests/cluster_postgres/writers.rs"]
mod writers;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::Signal;

use cluster::{Cluster, Spec, bin_dir, wait_until};
use sql::PASSWORD;
use writers::Seen;

const IDLE: Duration = Duration::from_secs(60);
/// Rows of the replica build's table; about 1 GiB on disk.
const BIG_ROWS: u32 = 950_000;

#[derive(Parser)]
struct Arguments {
    /// Seconds; the shortest is 2
    #[arg(long, default_value_t = 6)]
    ttl: u32,
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// bring_up, switchover, postmaster_kill, daemon_kill, node_death, daemon_freeze, idle,
    /// replica_build; all of them unless some are named
    scenarios: Vec<String>,
    #[arg(long, hide = true)]
    bench: bool,
}

type Scenario = fn(&mut Cluster) -> String;

const SCENARIOS: [(&str, Scenario); 7] = [
    ("switchover", switchover),
    ("postmaster_kill", postmaster_kill),
    ("daemon_kill", daemon_kill),
    ("node_death", node_death),
    ("daemon_freeze", daemon_freeze),
    ("idle", idle),
    ("replica_build", replica_build),
];

fn main() {
    let arguments = Arguments::parse();
    let wanted = |name: &str| {
        arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|wanted| wanted == name)
    };
    println!("ttl {} s, three nodes, PostgreSQL in {:?}", arguments.ttl, bin_dir());
    let runs = if wanted("bring_up") { arguments.runs } else { 1 };
    let mut cluster = None;
    for _ in 0..runs {
        drop(cluster.take());
        cluster = bring_up(arguments.ttl);
    }
    let Some(mut cluster) = cluster else { return };
    for (name, scenario) in SCENARIOS.into_iter().filter(|(name, _)| wanted(name)) {
        let once = matches!(name, "idle" | "replica_build" | "daemon_freeze");
        for _ in 0..if once { 1 } else { arguments.runs } {
            println!("{name}: {}", scenario(&mut cluster));
            cluster.wait_settled(120);
        }
    }
}

/// From three empty directories to three nodes that stream.
fn bring_up(ttl_s: u32) -> Option<Cluster> {
    let mut cluster = Cluster::plan(Spec { ttl_s, ..Spec::default() })?;
    let began = Instant::now();
    (0..3).for_each(|k| cluster.start(k));
    cluster.wait_writable(60);
    let writable = began.elapsed();
    cluster.wait_settled(60);
    println!(
        "bring_up: writable after {writable:.2?}, all streaming after {:.2?}",
        began.elapsed()
    );
    cluster.make_table();
    Some(cluster)
}

/// Writes for a second, lets `fault` happen, and goes on until writes are taken again.
fn under_writes(cluster: &mut Cluster, fault: impl FnOnce(&mut Cluster, usize)) -> (Seen, Instant) {
    let leader = cluster.leader();
    let writers = cluster.writers();
    wait_until("some writes", 20, || writers.acked().len() > 100);
    let began = Instant::now();
    fault(cluster, leader);
    let after = Instant::now();
    wait_until("writes afterwards", 120, || writers.acked_since(after) > 100);
    (writers.stop(), began)
}

fn told(seen: &Seen) -> String {
    format!(
        "longest pause {} ms, two writers for {} ms",
        seen.longest_gap().as_millis(),
        seen.overlap_ms()
    )
}

fn switchover(cluster: &mut Cluster) -> String {
    let (seen, _) = under_writes(cluster, |cluster, leader| {
        let (code, text) = cluster.ctl(leader, &["switchover", "--force"]);
        assert_eq!(code, 0, "{text}");
    });
    told(&seen)
}

fn postmaster_kill(cluster: &mut Cluster) -> String {
    let (seen, _) = under_writes(cluster, |cluster, leader| {
        process::signal(cluster.nodes[leader].postmaster().expect("it runs"), Signal::KILL);
        std::thread::sleep(Duration::from_millis(100));
    });
    told(&seen)
}

fn daemon_kill(cluster: &mut Cluster) -> String {
    let leader = cluster.leader();
    let writers = cluster.writers();
    wait_until("some writes", 20, || writers.acked().len() > 100);
    let began = Instant::now();
    cluster.nodes[leader].kill_daemon();
    std::thread::sleep(Duration::from_millis(300));
    cluster.start(leader);
    cluster.wait_settled(60);
    let failed = writers.failures(leader, began).len();
    format!("{failed} failed writes; {}", told(&writers.stop()))
}

fn node_death(cluster: &mut Cluster) -> String {
    let mut old = 0;
    let (seen, _) = under_writes(cluster, |cluster, leader| {
        cluster.nodes[leader].kill();
        old = leader;
        wait_until("another leader", 120, || cluster.writable().is_some());
    });
    let leader = cluster.leader();
    let before = seen.acked();
    let lost = before.difference(&cluster.stored(leader)).count();
    let began = Instant::now();
    cluster.start(old);
    cluster.wait_settled(120);
    let (back, told) = (began.elapsed(), told(&seen));
    format!("{told}, {lost} of {} acknowledged writes lost, back after {back:.2?}", before.len())
}

fn daemon_freeze(cluster: &mut Cluster) -> String {
    let mut frozen = 0;
    let (seen, _) = under_writes(cluster, |cluster, leader| {
        frozen = leader;
        cluster.nodes[leader].signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(15));
    });
    cluster.nodes[frozen].signal(Signal::CONT);
    told(&seen)
}

/// CPU and memory of the daemons and guards, PostgreSQL apart.
fn idle(cluster: &mut Cluster) -> String {
    let commit = |cluster: &Cluster| {
        cluster.nodes[0].dump().and_then(|dump| dump["raft"]["commit"].as_u64()).unwrap_or(0)
    };
    let (before, commit_before) = (cpu_ticks(cluster), commit(cluster));
    std::thread::sleep(IDLE);
    let entries = commit(cluster) - commit_before;
    let per_node = cpu_ticks(cluster).into_iter().zip(before).zip(cluster.numbers());
    let told: Vec<String> = per_node
        .map(|((after, before), k)| {
            let percent = (after - before) as f64 / (IDLE.as_secs() as f64); // 100 ticks a second
            let pss: u64 = of_surus(cluster, k).into_iter().map(pss_kib).sum();
            format!("{percent:.2} % of a core, {:.1} MiB", pss as f64 / 1024.0)
        })
        .collect();
    format!("{}; {entries} log entries in {} s", told.join("; "), IDLE.as_secs())
}

fn of_surus(cluster: &Cluster, k: usize) -> Vec<i32> {
    let all = process::of(&cluster.nodes[k].dir).into_iter();
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    all.filter(|pid| name(*pid).trim() == "surus").collect()
}

fn cpu_ticks(cluster: &Cluster) -> Vec<u64> {
    let of = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<i64> =
            stat.rsplit(')').next().unwrap_or_default().split(' ').flat_map(str::parse).collect();
        // Fields 14 and 15 of proc(5): user and system time; ten numbers stand before them.
        fields.iter().skip(10).take(2).sum::<i64>() as u64
    };
    cluster.numbers().into_iter().map(|k| of_surus(cluster, k).into_iter().map(of).sum()).collect()
}

fn pss_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

/// An emptied member comes back, beside pg_basebackup alone, before and after it.
fn replica_build(cluster: &mut Cluster) -> String {
    let leader = cluster.leader();
    let member = cluster.others(leader)[0];
    let at = cluster.address(leader).clone();
    let sql =
        sql::Sql::connect(&at.host, at.postgresql, Duration::from_secs(600)).expect("it runs");
    let fill = format!(
        "CREATE TABLE IF NOT EXISTS big AS SELECT g, (SELECT string_agg(md5((g * 31 + k)::text), '')
         FROM generate_series(1, 32) AS k) AS t FROM generate_series(1, {BIG_ROWS}) AS g"
    );
    sql.value(&fill).expect("it fills");
    let mut raw = vec![raw_copy(cluster, &sql, &at)];
    sql.value("CHECKPOINT").expect("it checkpoints");
    cluster.nodes[member].stop(60);
    cluster.nodes[member].wipe_data();
    let began = Instant::now();
    cluster.start(member);
    wait_until("the member to stream", 600, || cluster.streaming_from(leader).contains(&member));
    let build = began.elapsed().as_secs_f64();
    raw.push(raw_copy(cluster, &sql, &at));
    let mean = raw.iter().sum::<f64>() / raw.len() as f64;
    let size = sql.value("SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database");
    let size = size.expect("it answers").unwrap_or_default();
    format!(
        "{size} in {build:.2} s, pg_basebackup alone {:.2} s and {:.2} s: ratio {:.2}",
        raw[0],
        raw[1],
        build / mean
    )
}

fn raw_copy(cluster: &Cluster, sql: &sql::Sql, at: &cluster::Address) -> f64 {
    sql.value("CHECKPOINT").expect("it checkpoints");
    let to = cluster.nodes[0].dir.join("raw");
    let _ = fs::remove_dir_all(&to);
    let began = Instant::now();
    let done = Command::new(bin_dir().expect("found before").join("pg_basebackup"))
        .args(["-X", "stream", "-c", "fast", "-U", "postgres", "-h", &at.host, "-p"])
        .arg(at.postgresql.to_string())
        .arg("-D")
        .arg(&to)
        .env("PGPASSWORD", PASSWORD)
        .status()
        .expect("it runs");
    assert!(done.success(), "pg_basebackup failed");
    let took = began.elapsed().as_secs_f64();
    let _ = fs::remove_dir_all(&to);
    took
}
