//! The shortest history that still breaks the same promise.
//!
//! A plan is made simpler in one way at a time; whatever still breaks the promise is kept. It ends
//! when no simpler plan does, or when its time is up: the result is short, not the shortest.
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::network::FAIR;
use super::plan::{OPERATION_MS_MAX, Plan};
use super::run::{Failure, run};

/// Shrinks for at most this long; answers with the simplest failure that was found.
pub fn shrink(failure: Box<Failure>, time: Duration) -> Box<Failure> {
    shrunk(failure, time, &|plan| run(plan, false).err())
}

fn shrunk(
    failure: Box<Failure>,
    time: Duration,
    fails: &dyn Fn(Plan) -> Option<Box<Failure>>,
) -> Box<Failure> {
    let began = Instant::now();
    let mut best = failure;
    loop {
        let promise = best.violation.promise;
        let simpler = simpler_plans(&best.plan).into_iter().take_while(|_| began.elapsed() < time);
        let still = |plan| fails(plan).filter(|failure| failure.violation.promise == promise);
        let found = simpler.filter_map(still).next();
        match found {
            Some(simpler) => best = simpler,
            None => return best,
        }
    }
}

/// Each is simpler than the plan in one way, the boldest first.
fn simpler_plans(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    let count = plan.faults.len();
    let mut length = count;
    while length > 0 {
        for from in (0..count).step_by(length) {
            let mut less = plan.clone();
            less.faults.drain(from..(from + length).min(count));
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
    with(&|p| p.link_profile = FAIR);
    with(&|p| p.operations_fail = 0);
    with(&|p| p.ppm = vec![0; p.nodes]);
    with(&|p| p.methods.clone_from(&plain.methods));
    with(&|p| p.flush_ms_max = plain.flush_ms_max);
    with(&|p| p.stream_ms_max = plain.stream_ms_max);
    with(&|p| p.write_ms_max = plain.write_ms_max);
    with(&|p| p.look_ms_max = 0);
    with(&|p| p.operation_ms_max = OPERATION_MS_MAX);
    with(&|p| p.reload_ms_max = 0);
    with(&|p| p.has_script = true);
    with(&|p| p.wal_flush_ms_max = 0);
    with(&|p| p.adopts = plain.adopts);
    with(&|p| p.voters_max = plain.voters_max);
    with(&|p| p.use_pg_rewind = true);
    with(&|p| {
        let last = p.faults.iter().map(|(at, _)| *at).max().unwrap_or(0);
        p.heal_at = p.heal_at.min(last.max(5_000) + 1_000);
    });
    plans
}

/// Three nodes, where nothing befalls the others by their number.
fn fewer_nodes(plan: &mut Plan) {
    let others = |fault: &Fault| fault.numbers().iter().any(|node| *node >= 3);
    if plan.nodes > 3 && !plan.faults.iter().any(|(_, fault)| others(fault)) {
        plan.nodes = 3;
        plan.ppm.truncate(3);
        plan.config["synchronous_node_count"] = 1.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::check::Violation;
    use crate::sim::fault::Target;

    /// Breaks P1 where the leader is frozen, and another promise where PostgreSQL is killed.
    fn fails(plan: Plan) -> Option<Box<Failure>> {
        let has = |wanted: &str| plan.faults.iter().any(|(_, fault)| fault.kind() == wanted);
        let promise = if has("freeze") { "P1" } else { "P2" };
        let violation = Violation { promise, what: String::new() };
        let broken = has("freeze") || has("kill_postgres");
        let (lines, standing, again) = (Vec::new(), String::new(), String::new());
        broken.then(|| Box::new(Failure { plan, violation, at: 0, lines, standing, again }))
    }

    #[test]
    fn what_is_left_is_what_it_needs() {
        let mut plan = Plan::drawn(5);
        let frozen = Fault::Freeze { target: Target::Holder, ms: 9 };
        plan.faults = vec![(7_000, Fault::Switchover); 6];
        plan.faults.push((8_000, Fault::KillPostgres { target: Target::Holder }));
        plan.faults.insert(3, (7_500, frozen));
        plan.operations_fail = 50;
        let short = shrunk(fails(plan).expect("it fails"), Duration::from_secs(5), &fails);
        assert_eq!(short.plan.faults, [(7_500, frozen)]);
        assert_eq!((short.plan.operations_fail, short.violation.promise), (0, "P1"));
    }
}
