//! The shortest history that still breaks the same promise.
//!
//! A plan is made simpler in one way at a time; whatever still breaks the promise is kept. It ends
//! when no simpler plan does, or when its time is up: the result is short, not the shortest.
use std::time::{Duration, Instant};

use super::network::FAIR;
use super::plan::Plan;
use super::run::{Failure, run};

/// Shrinks for at most this long; answers with the origin failure that was found.
pub fn shrink(failure: Box<Failure>, time: Duration) -> Box<Failure> {
    let began = Instant::now();
    let mut best = failure;
    loop {
        let simpler = simpler_plans(&best.plan).into_iter().take_while(|_| began.elapsed() < time);
        let promise = best.violation.promise;
        let still = |plan| run(plan, false).err().filter(|f| f.violation.promise == promise);
        let mut failing = simpler.filter_map(still);
        let Some(found) = failing.next() else { return best };
        drop(failing);
        best = found;
    }
}

/// Each is simpler than the plan in one way, the boldest first.
fn simpler_plans(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    let count = plan.misfortunes.len();
    let mut length = count;
    while length > 0 {
        for from in (0..count).step_by(length) {
            let mut less = plan.clone();
            less.misfortunes.drain(from..(from + length).min(count));
            plans.push(less);
        }
        length /= 2;
    }
    let origin = plan.clone();
    let plain = Plan::quiet(plan.seed, plan.nodes);
    let mut with = |change: &dyn Fn(&mut Plan)| {
        let mut simpler = origin.clone();
        change(&mut simpler);
        if simpler != *plan {
            plans.push(simpler);
        }
    };
    with(&|p| fewer_nodes(p));
    with(&|p| p.weather = FAIR);
    with(&|p| p.deeds_fail = 0);
    with(&|p| p.ppm = vec![0; p.nodes]);
    with(&|p| p.methods.clone_from(&plain.methods));
    with(&|p| p.flush_ms_max = plain.flush_ms_max);
    with(&|p| p.stream_ms_max = plain.stream_ms_max);
    with(&|p| p.write_ms_max = plain.write_ms_max);
    with(&|p| p.use_pg_rewind = true);
    with(&|p| {
        let last = p.misfortunes.iter().map(|(at, _)| *at).max().unwrap_or(0);
        p.heal_at = p.heal_at.min(last.max(5_000) + 1_000);
    });
    plans
}

/// Three nodes, where nothing befalls the others by their number.
fn fewer_nodes(plan: &mut Plan) {
    let named = |node: usize| plan.misfortunes.iter().any(|(_, fault)| fault.names(node));
    if plan.nodes > 3 && !(3..plan.nodes).any(named) {
        plan.nodes = 3;
        plan.ppm.truncate(3);
        plan.config["synchronous_node_count"] = 1.into();
    }
}
