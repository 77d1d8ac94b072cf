//! `surus sim`: whole clusters, thousands of faults, every promise checked after every event.
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};

use super::clustered;
use super::coverage::{StepWalked, reach};
use super::fault::{ADDED, DRAWN};
use super::plan::{Plan, Wanted};
use super::run::{self, Failure, Summary};
use super::scenario::Scenario;
use super::seeds::{self, Outcome};
use super::shrink::shrink;
use super::walked;

/// `surus sim …`
#[derive(Args, Debug)]
pub struct SimArgs {
    /// One seed, told in full
    #[arg(long, conflicts_with_all = ["seeds", "time", "scenario"])]
    seed: Option<u64>,
    /// Seeds from A up to but not including B; without B as many as there is time for
    #[arg(long, value_name = "A..B", value_parser = range)]
    seeds: Option<Range<u64>>,
    /// For how long, as 90s or 10m; without --seeds from a first seed that depends on the clock
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Members of every cluster; without it three, sometimes five
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: Option<u64>,
    /// Only these faults, separated by commas: kill_daemon, freeze, …
    #[arg(long, value_delimiter = ',', value_parser = kinds())]
    faults: Vec<String>,
    /// Short stories: a few faults that have to do with each other, within seconds
    #[arg(long, conflicts_with = "scenario")]
    clustered: bool,
    /// A scenario file (several, where it is a directory)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seeds", "time", "nodes", "faults"])]
    scenario: Option<PathBuf>,
    /// Where the shortest history of a failure is written, as a scenario
    #[arg(long, value_name = "FILE", default_value = "surus-sim-failure.yaml")]
    failure: PathBuf,
    /// Also write every transition of the run, for `surus replay`; with --seed or --scenario
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Threads; without it one for each core
    #[arg(long)]
    jobs: Option<usize>,
    /// Print every event of a run
    #[arg(long)]
    verbose: bool,
    /// Afterwards list the states and steps of the charts that no run has walked
    #[arg(long)]
    unreached: bool,
    /// Steps of the charts that earlier runs have walked; those of this one are added
    #[arg(long, value_name = "FILE")]
    walked: Option<PathBuf>,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` is no range of seeds: write 0..2000, or 2000..");
    let (from, to) = text.split_once("..").ok_or_else(wrong)?;
    let from: u64 = from.trim().parse().map_err(|_| wrong())?;
    let to = if to.is_empty() { u64::MAX } else { to.trim().parse().map_err(|_| wrong())? };
    if from < to { Ok(from..to) } else { Err(wrong()) }
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.ok_or_else(|| format!("`{text}` is no time: write 90s, 10m or 1h30m"))
}

fn kinds() -> clap::builder::PossibleValuesParser {
    DRAWN.iter().chain(&ADDED).copied().collect::<Vec<_>>().into()
}

/// A line of output; whoever reads no further has what was wanted.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::sim::cli::line(&format!($($text)*))
    };
}
pub(super) use say;

pub(super) fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

thread_local! {
    /// The command that repeats what this thread runs, for the last words of an assertion.
    static AGAIN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Where a panic ends the process at once, it still has to say which run it was.
pub fn tell_run_of_a_panic() {
    let Some(again) = AGAIN.take() else { return };
    eprintln!("an assertion of the decision code failed\nagain: {again}");
}

/// The exit code: 0 when every promise held, 1 when one was broken, 2 when nothing could be run.
pub fn main(args: &SimArgs) -> i32 {
    match (&args.scenario, &args.history, args.seed) {
        (None, Some(_), None) => {
            eprintln!("--history is one run's: say which with --seed or --scenario");
            2
        }
        (Some(path), ..) => scenarios(path, args),
        (None, ..) => match not_told(args) {
            None => seeds(args),
            Some(kind) => {
                eprintln!("--clustered never tells of {kind}: leave one of them out");
                2
            }
        },
    }
}

/// A fault that was asked for and happens in no clustered story.
fn not_told(args: &SimArgs) -> Option<&String> {
    args.faults.iter().find(|kind| args.clustered && !clustered::tells_of(kind))
}

/// Runs a plan once more and writes its history; runs are the same every time.
fn write_history(plan: Plan, args: &SimArgs) {
    let Some(file) = &args.history else { return };
    match std::fs::write(file, run::history(plan).to_string()) {
        Ok(()) => say!("its history: surus replay {}", file.display()),
        Err(error) => eprintln!("{} cannot be written: {error}", file.display()),
    }
}

fn scenarios(path: &Path, args: &SimArgs) -> i32 {
    let files = match files(path) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("{} cannot be read: {error}", path.display());
            return 2;
        }
    };
    let mut walked = BTreeSet::new();
    let mut code = |file: &PathBuf| one_scenario(file, args, &mut walked);
    let code = files.iter().map(&mut code).max().unwrap_or(0);
    code.max(tell_reach(walked, args))
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    files.sort();
    Ok(files)
}

fn one_scenario(file: &Path, args: &SimArgs, walked: &mut BTreeSet<StepWalked>) -> i32 {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
    let scenario = match text.and_then(|text| Scenario::parse(&text)) {
        Ok(scenario) => scenario,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            return 2;
        }
    };
    let again = format!("surus sim --scenario {}", file.display());
    AGAIN.set(Some(again.clone()));
    write_history(scenario.plan.clone(), args);
    match scenario.run(args.verbose) {
        Ok(summary) => {
            say!("{}: {}", scenario.title, in_words(&summary));
            walked.extend(summary.edges);
            0
        }
        Err(mut failure) => {
            failure.again = again;
            say!("{}:\n{failure}", scenario.title);
            1
        }
    }
}

fn in_words(summary: &Summary) -> String {
    format!(
        "every promise held; {} simulated s, {} events, {} promotions, {} of {} acknowledged \
         commits lost, well {} ms after the last fault",
        summary.simulated_ms / 1000,
        summary.events,
        summary.promotions,
        summary.lost,
        summary.promised as u64 + summary.lost,
        summary.recovered_in_ms
    )
}

/// What all runs together have come to.
#[derive(Default)]
struct Tally {
    runs: u64,
    events: u64,
    simulated_ms: u64,
    slowest_ms: u64,
    edges: BTreeSet<StepWalked>,
}

impl Tally {
    fn add(&mut self, summary: Summary) {
        self.runs += 1;
        self.events += summary.events;
        self.simulated_ms += summary.simulated_ms;
        self.slowest_ms = self.slowest_ms.max(summary.recovered_in_ms);
        self.edges.extend(summary.edges);
    }

    fn line(&self, took: Duration, threads: usize) -> String {
        let ratio = self.simulated_ms as f64 / 1000.0 / took.as_secs_f64().max(0.001);
        let reach = reach(&self.edges);
        format!(
            "{} seeds, {} events, {} of {} states entered, {} of {} steps walked, {:.0} times real \
             time ({:.0} on each core), slowest recovery {:.1} s",
            HumanCount(self.runs),
            HumanCount(self.events),
            reach.states_entered,
            reach.states,
            reach.steps_walked,
            reach.steps,
            ratio,
            ratio / threads as f64,
            self.slowest_ms as f64 / 1000.0
        )
    }
}

/// Between two renewals of the line that shows how far it is.
const SHOWN_EVERY: Duration = Duration::from_millis(200);
/// The same where no terminal is, and every line stays.
const SAID_EVERY: Duration = Duration::from_secs(30);

fn seeds(args: &SimArgs) -> i32 {
    let wanted = Wanted {
        nodes: args.nodes.map(|nodes| nodes as usize),
        kinds: args.faults.clone(),
        clustered: args.clustered,
    };
    let range = which(args);
    let threads = args.jobs.unwrap_or_else(seeds::cores);
    let began = Instant::now();
    let mut shown = began;
    let limit = args.time.or(args.seeds.is_none().then_some(Duration::from_secs(60)));
    say!("seeds from {}", range.start);
    args.seed.into_iter().for_each(|seed| write_history(Plan::drawn_as(seed, &wanted), args));
    let (bar, mut tally, mut failed) = (bar(), Tally::default(), None::<Box<Failure>>);
    let one = |seed: u64| -> Outcome {
        AGAIN.set(Some(again(seed, args)));
        run::run(Plan::drawn_as(seed, &wanted), args.verbose)
    };
    seeds::seeds(range.clone(), threads, &one, &mut |outcome| {
        match outcome {
            Ok(summary) => tally.add(summary),
            Err(failure) => {
                let lowest = failed.take().filter(|f| f.plan.seed < failure.plan.seed);
                failed = Some(lowest.unwrap_or(failure));
            }
        }
        if shown.elapsed() > if bar.is_hidden() { SAID_EVERY } else { SHOWN_EVERY } {
            shown = Instant::now();
            show(&bar, tally.line(began.elapsed(), threads));
        }
        failed.is_none() && (args.seed.is_some() || limit.is_none_or(|l| began.elapsed() < l))
    });
    bar.finish_and_clear();
    say!("{}", tally.line(began.elapsed(), threads));
    let code = tell_reach(tally.edges, args);
    match failed {
        None => code,
        Some(failure) => tell(failure, args),
    }
}

/// What was walked, with what earlier runs have walked, where that is wanted.
fn tell_reach(walked: BTreeSet<StepWalked>, args: &SimArgs) -> i32 {
    let walked = match args.walked.as_ref().map(|file| (file, walked::add(file, &walked))) {
        None => walked,
        Some((_, Ok(all))) => all,
        Some((file, Err(error))) => {
            eprintln!("{}: {error}", file.display());
            return 2;
        }
    };
    let reach = reach(&walked);
    if args.walked.is_some() {
        let (entered, stepped) = (reach.states_entered, reach.steps_walked);
        let (states, steps) = (reach.states, reach.steps);
        say!("all runs: {entered} of {states} states entered, {stepped} of {steps} steps walked");
    }
    if args.unreached {
        reach.states_missing.iter().for_each(|state| say!("never entered: {state}"));
        reach.steps_missing.iter().for_each(|step| say!("never walked: {step}"));
    }
    0
}

fn which(args: &SimArgs) -> Range<u64> {
    match (args.seed, &args.seeds) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(seeds)) => seeds.clone(),
        (None, None) => Timestamp::now().as_second().unsigned_abs() * 1000..u64::MAX,
    }
}

fn show(bar: &ProgressBar, line: String) {
    match bar.is_hidden() {
        true => say!("{line}"),
        false => bar.set_message(line),
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("it is a template");
    ProgressBar::new_spinner().with_style(style)
}

/// The command that repeats one seed.
fn again(seed: u64, args: &SimArgs) -> String {
    let nodes = args.nodes.map(|n| format!(" --nodes {n}")).unwrap_or_default();
    let faults = args.faults.join(",");
    let faults = if faults.is_empty() { faults } else { format!(" --faults {faults}") };
    let clustered = if args.clustered { " --clustered" } else { "" };
    format!("surus sim --seed {seed}{nodes}{faults}{clustered}")
}

/// Long enough for a few hundred runs.
const SHRINKING: Duration = Duration::from_secs(60);

/// The promise, the seed, the shortest history in words, and the command that repeats it.
fn tell(mut failure: Box<Failure>, args: &SimArgs) -> i32 {
    let seed = failure.plan.seed;
    failure.again = again(seed, args);
    say!("\n{failure}");
    say!("looking for the shortest history that breaks the same promise …");
    let source = failure.again.clone();
    let short = shrink(failure, SHRINKING);
    let scenario = Scenario {
        title: format!("seed {seed}: {}", short.violation),
        source,
        plan: short.plan.clone(),
        expects: Vec::new(),
    };
    say!("\n{}\n{}", short.violation, story(&short));
    match std::fs::write(&args.failure, scenario.text()) {
        Ok(()) => say!("again: surus sim --scenario {}", args.failure.display()),
        Err(error) => eprintln!("{} cannot be written: {error}", args.failure.display()),
    }
    1
}

/// A failure's plan in plain words.
fn story(failure: &Failure) -> String {
    let plan = &failure.plan;
    let mode = if plan.synchronous { "synchronous" } else { "asynchronous" };
    let mut text = format!("{} nodes, ttl {} ms, {mode}:\n", plan.nodes, plan.ttl_ms);
    for (at, fault) in &plan.faults {
        text.push_str(&format!("  at {:>7.3} s {fault}\n", *at as f64 / 1000.0));
    }
    let (heal, end) = (plan.heal_at as f64 / 1000.0, failure.at as f64 / 1000.0);
    text.push_str(&format!("  at {heal:>7.3} s all faults end\n"));
    text.push_str(&format!("  at {end:>7.3} s the promise is broken\n"));
    text
}
