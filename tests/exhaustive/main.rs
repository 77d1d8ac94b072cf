//! Every place of a machine, under everything that the rest of the cluster may be then: a daemon comes back there
//! and goes on. It breaks no promise on the way, is nowhere without a way out, and the cluster is well within
//! its bound.
use std::collections::BTreeSet;
use std::path::Path;

use surus::pure::chart::{Chart, Trigger};
use surus::pure::flow::BUILT_IN;
use surus::sim::coverage::{StepWalked, reach};
use surus::sim::run::RECOVERY_MS_MAX;
use surus::sim::seeds;
use surus::sim::walked;
use surus::sim::world::World;

mod node;
mod standby_leader;

type Walked = BTreeSet<StepWalked>;

/// Where one can be, and what does not end the machine.
fn places(flow: &str) -> Vec<String> {
    let (_, json) = BUILT_IN.iter().find(|(id, _)| *id == flow).expect("it is built in");
    let chart = Chart::parse(json).expect("the build has checked it");
    let decides = |at: usize| chart.edges_of(at).any(|edge| edge.trigger == Trigger::Always);
    let states = chart.states.iter().enumerate();
    let rests = states.filter(|(at, s)| s.initial.is_none() && !s.is_final && !decides(*at));
    rests.map(|(_, state)| state.name.to_string()).collect()
}

/// Nothing on the way breaks a promise, and all is well in the end, but not before this time.
fn comes_back(mut world: World, not_before: u64) -> Result<(u64, Walked), String> {
    let until = world.now + RECOVERY_MS_MAX;
    while world.now < until {
        world.step().map_err(|broken| format!("{broken} (at {} ms)", world.now))?;
        if world.now > not_before && world.missing().is_none() {
            return Ok((world.now, std::mem::take(&mut world.checks.edges)));
        }
    }
    Err(format!("{}\n{}", world.missing().unwrap_or_default(), world.standing()))
}

/// All of so many cases come back; the steps that were walked.
fn every(
    count: u64,
    one: impl Fn(u64) -> Result<(u64, Walked), String> + std::marker::Sync,
) -> Walked {
    let (mut well, mut slowest) = (0_u64, 0);
    let (mut walked, mut failed) = (Walked::new(), Vec::new());
    seeds::seeds(0..count, seeds::cores(), &one, &mut |outcome| {
        match outcome {
            Ok((took, steps)) => {
                (well, slowest) = (well + 1, slowest.max(took));
                walked.extend(steps);
            }
            Err(why) => failed.push(why),
        }
        true
    });
    eprintln!("{well} of {count} come back, the slowest after {slowest} ms");
    failed.sort();
    let some: Vec<_> = failed.iter().take(5).cloned().collect();
    assert!(failed.is_empty(), "{} of {count}:\n{}", failed.len(), some.join("\n"));
    if let Some(file) = std::env::var_os("SURUS_WALKED") {
        walked::add(Path::new(&file), &walked).expect("the steps of earlier runs are added to");
    }
    walked
}

/// The steps of a flow that were not walked.
fn missing(flow: &str, walked: &Walked) -> Vec<String> {
    let missing = reach(walked).steps_missing.into_iter();
    missing.filter_map(|step| Some(step.strip_prefix(flow)?.strip_prefix(": ")?.into())).collect()
}
