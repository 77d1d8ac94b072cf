//! One seed from beginning to end: misfortunes, healing, and the demand that all is well again.
use super::check::Violation;
use super::plan::Plan;
use super::world::World;
use crate::pure::cluster::Millis;

/// After the faults have ended, all must be well within this much simulated time.
pub const RECOVERY_MS_MAX: Millis = 120_000;
/// All must have been well for this long to count.
const WELL_MS: Millis = 1500;

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    pub fingerprint: u64,
    pub events: u64,
    pub writes: u64,
    pub promised: usize,
    pub lost: u64,
    pub promotions: u64,
    /// Simulated ms from the end of the faults until all was well.
    pub recovered_in_ms: Millis,
    pub edges: std::collections::BTreeSet<(&'static str, String, String)>,
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
    pub at: Millis,
    pub lines: Vec<String>,
    pub standing: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seed = self.seed;
        writeln!(f, "seed {seed}: {} (at {} ms)", self.violation, self.at)?;
        writeln!(f, "the last events:")?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "where everything stands:\n{}", self.standing)?;
        let next = seed + 1;
        write!(f, "again: SURUS_SEEDS={seed}..{next} cargo nextest run --test cluster seeds")
    }
}

/// Runs a plan to its end.
///
/// # Errors
/// The promise that was broken, with the last events.
pub fn run(plan: Plan, aloud: bool) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(plan);
    world.aloud = aloud;
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| to_the_end(&mut world)));
    match ended.unwrap_or_else(|panic| Err(assertion(&*panic))) {
        Ok(recovered_in_ms) => Ok(Summary {
            fingerprint: world.fingerprint(),
            events: world.events,
            writes: world.client.writes,
            promised: world.client.promised.len(),
            lost: world.checks.lost,
            promotions: world.checks.promotions,
            recovered_in_ms,
            edges: world.checks.edges,
        }),
        Err(violation) => Err(Box::new(Failure {
            seed: world.plan.seed,
            violation,
            at: world.now,
            standing: world.standing(),
            lines: world.lines.into_iter().rev().take(60).rev().collect(),
        })),
    }
}

/// An assertion of the decision code failed: in production the process would abort.
fn assertion(panic: &(dyn std::any::Any + Send)) -> Violation {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    Violation { promise: "assertion", what: text.unwrap_or_default() }
}

fn to_the_end(world: &mut World) -> Result<Millis, Violation> {
    while !world.healed {
        world.step()?;
    }
    let healed_at = world.now;
    let mut well_since = None;
    while world.now < healed_at + RECOVERY_MS_MAX {
        world.step()?;
        if world.missing().is_some() {
            well_since = None;
        } else if world.now >= *well_since.get_or_insert(world.now) + WELL_MS {
            return Ok(world.now - WELL_MS - healed_at);
        }
    }
    let missing = world.missing().unwrap_or_else(|| String::from("it was never well for long"));
    let what = format!("{RECOVERY_MS_MAX} ms after the last fault {missing}");
    Err(Violation { promise: "P7", what })
}
