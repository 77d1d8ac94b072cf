//! Whole clusters under the simulator: fixed seeds, then `SURUS_SEEDS=a..b` for more.
//!
//! `SURUS_VERBOSE=1` prints every line of a run. A failing seed says which promise it broke, shows
//! the last events, and names the command that repeats it.
use surus::sim::plan::{Plan, Wanted};
use surus::sim::run::{Failure, Summary, run};
use surus::sim::seeds;

/// Seeds of one run of the tests (each twice); more with `SURUS_SEEDS`.
const SEEDS: std::ops::Range<u64> = 0..1000;

/// Of the short stories.
const CLUSTERED: std::ops::Range<u64> = 0..500;

type Failures = Vec<Box<Failure>>;

fn verbose() -> bool {
    std::env::var_os("SURUS_VERBOSE").is_some()
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("SURUS_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("SURUS_SEEDS is written a..b");
    let number = |text: &str| text.trim().parse().expect("SURUS_SEEDS holds two numbers");
    number(from)..number(to)
}

/// What two runs of one seed must have in common.
fn print(outcome: &seeds::Outcome) -> Result<(u64, u64), String> {
    outcome.as_ref().map(|s| (s.fingerprint, s.events)).map_err(|f| f.to_string())
}

/// Every seed on as many threads as there are cores; the failures, the lowest seed first.
fn run_all(
    seeds: std::ops::Range<u64>,
    plan: &(dyn Fn(u64) -> Plan + Sync),
) -> (Vec<Summary>, Failures) {
    let first_only = std::env::var_os("SURUS_FIRST").is_some();
    let (mut well, mut failed) = (Vec::new(), Vec::new());
    let twice = std::env::var_os("SURUS_SEEDS").is_none();
    let one = |seed| {
        let outcome = run(plan(seed), verbose());
        if twice {
            assert_eq!(print(&run(plan(seed), false)), print(&outcome), "seed {seed}");
        }
        outcome
    };
    seeds::seeds(seeds, seeds::cores(), &one, &mut |outcome| {
        match outcome {
            Ok(summary) => well.push(summary),
            Err(failure) => failed.push(failure),
        }
        failed.is_empty() || !first_only
    });
    failed.sort_by_key(|failure| failure.plan.seed);
    (well, failed)
}

#[test]
fn a_quiet_cluster_is_founded_and_streams() {
    let mut plan = Plan::quiet(1, 3);
    plan.heal_at = 20_000;
    let summary = run(plan, verbose()).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(summary.promised > 50, "{summary:?}");
    assert_eq!(summary.lost, 0);
    assert!(summary.recovered_in_ms < 100, "all was well when nothing had happened");
}

/// And each seed gives the same run twice: every event and every line of its log.
#[test]
fn seeds_break_no_promise() {
    let began = std::time::Instant::now();
    let (well, failed) = run_all(seeds(), &Plan::drawn);
    let events: u64 = well.iter().map(|s| s.events).sum();
    let slowest = well.iter().map(|s| s.recovered_in_ms).max();
    eprintln!(
        "{} runs in {:?}: {events} events, slowest recovery {slowest:?} ms, {} failed",
        well.len() + failed.len(),
        began.elapsed(),
        failed.len()
    );
    let mut kinds = std::collections::BTreeMap::<&str, Vec<u64>>::new();
    for failure in &failed {
        kinds.entry(failure.violation.promise).or_default().push(failure.plan.seed);
    }
    if let Some(first) = failed.first() {
        panic!("{first}\n{} of the seeds failed: {kinds:?}", failed.len());
    }
}

/// A few faults within seconds: `surus sim --clustered`.
#[test]
fn clustered_stories_break_no_promise() {
    let (well, failed) = run_all(CLUSTERED, &|seed| Plan::clustered(seed, &Wanted::default()));
    assert!(failed.is_empty(), "{}", failed[0]);
    assert_eq!(well.len() as u64, CLUSTERED.end);
}
