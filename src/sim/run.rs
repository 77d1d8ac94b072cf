//! One seed from beginning to end: faults, healing, and the demand that all is well again.
use serde_json::{Map, Value};

use super::check::Violation;
use super::coverage::StepWalked;
use super::plan::Plan;
use super::world::World;
use crate::pure::cluster::Millis;
use crate::pure::replay::history::History;

/// After the faults have ended, all must be well within this much simulated time.
///
/// A PostgreSQL that is told to stop may take 70 s, and a copy pauses for up to a minute after failures.
pub const RECOVERY_MS_MAX: Millis = 150_000;
/// All must have been well for this long to count.
const WELL_MS: Millis = 1500;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    pub fingerprint: u64,
    pub events: u64,
    pub simulated_ms: Millis,
    pub writes: u64,
    pub promised: usize,
    pub lost: u64,
    pub promotions: u64,
    /// Simulated ms from the end of the faults until all was well.
    pub recovered_in_ms: Millis,
    pub edges: std::collections::BTreeSet<StepWalked>,
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    pub plan: Plan,
    pub violation: Violation,
    pub at: Millis,
    pub lines: Vec<String>,
    pub standing: String,
    /// The command that repeats it.
    pub again: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}: {} (at {} ms)", self.plan.seed, self.violation, self.at)?;
        writeln!(f, "the last events:")?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "where everything stands:\n{}", self.standing)?;
        write!(f, "again: {}", self.again)
    }
}

/// Looks at the world before the next event, which comes at this time; true: it has seen all that
/// it waits for.
pub type Watch<'a> = &'a mut dyn FnMut(&mut World, Millis) -> Result<bool, Violation>;

/// Runs a plan to its end.
///
/// # Errors
/// The promise that was broken, with the last events.
pub fn run(plan: Plan, verbose: bool) -> Result<Summary, Box<Failure>> {
    watched(plan, verbose, &mut |_, _| Ok(true))
}

/// Runs a plan to its end, and as long as the watch waits for something.
///
/// # Errors
/// The promise that was broken or what the watch objects to, with the last events.
pub fn watched(plan: Plan, verbose: bool, watch: Watch) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(plan);
    world.verbose = verbose;
    ended(world, watch)
}

/// Runs a plan to its end or to the promise that is broken: the file that `surus replay` reads.
pub fn history(plan: Plan) -> Value {
    let mut world = World::new(plan.clone());
    world.keep_history();
    let ended = to_the_end(&mut world, &mut |_, _| Ok(true));
    let ending = ended.map_or_else(|broken| broken.to_string(), |_| "every promise held".into());
    let mut about = Map::new();
    about.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    about.insert("ended".into(), ending.into());
    about.insert("plan".into(), serde_json::to_value(plan).unwrap_or_default());
    History::file(about, &world.history)
}

fn ended(mut world: World, watch: Watch) -> Result<Summary, Box<Failure>> {
    let ended =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| to_the_end(&mut world, watch)));
    match ended.unwrap_or_else(|panic| Err(assertion(&*panic))) {
        Ok(recovered_in_ms) => Ok(Summary {
            fingerprint: world.fingerprint(),
            events: world.events,
            simulated_ms: world.now,
            writes: world.client.writes,
            promised: world.client.promised.len(),
            lost: world.checks.lost,
            promotions: world.checks.promotions,
            recovered_in_ms,
            edges: world.checks.edges,
        }),
        Err(violation) => Err(Box::new(Failure {
            again: format!("surus sim --seed {}", world.plan.seed),
            violation,
            at: world.now,
            standing: world.standing(),
            lines: world.lines.into_iter().rev().take(60).rev().collect(),
            plan: world.plan,
        })),
    }
}

/// An assertion of the decision code failed: in production the process would abort.
fn assertion(panic: &(dyn std::any::Any + Send)) -> Violation {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    Violation { promise: "assertion", what: text.unwrap_or_default() }
}

fn to_the_end(world: &mut World, watch: Watch) -> Result<Millis, Violation> {
    let mut step = |world: &mut World| {
        let seen_all = watch(world, world.next_at())?;
        world.step().map(|()| seen_all)
    };
    while !world.healed {
        step(world)?;
    }
    let healed_at = world.now;
    let mut well_since = None;
    while world.now < healed_at + RECOVERY_MS_MAX {
        let seen_all = step(world)?;
        if world.missing().is_some() {
            well_since = None;
        } else if world.now >= *well_since.get_or_insert(world.now) + WELL_MS && seen_all {
            return Ok(world.now - WELL_MS - healed_at);
        }
    }
    let missing = world.missing().unwrap_or_else(|| String::from("it was never well for long"));
    let what = format!("{RECOVERY_MS_MAX} ms after the last fault {missing}");
    Err(Violation { promise: "P7", what })
}
