//! Single stories, told to the simulator: what happens, and what must come of it.
use surus::sim::fault::{Fault, Target};
use surus::sim::plan::Plan;
use surus::sim::scenario::Scenario;
use surus::sim::world::World;

/// A quiet cluster of three, in which this happens at ten seconds.
fn story(fault: Fault) -> World {
    let mut plan = Plan::quiet(7, 3);
    plan.faults = vec![(10_000, fault)];
    plan.heal_at = 3_600_000;
    World::new(plan)
}

fn run_until(world: &mut World, real_ms: u64) {
    while world.now < real_ms {
        world.step().unwrap_or_else(|broken| panic!("{broken}\n{}", world.standing()));
    }
}

fn leader(world: &World) -> Option<usize> {
    world.nodes.iter().position(|n| n.postgres.takes_writes())
}

#[test]
fn the_leaders_host_dies_and_another_leads_soon_after_the_ttl() {
    let mut world = story(Fault::PowerCut { target: Target::Holder, ms: 300_000 });
    run_until(&mut world, 9_950);
    let old = leader(&world).expect("somebody leads after ten seconds");
    run_until(&mut world, 10_001);
    while leader(&world).is_none() && world.now < 30_000 {
        let next = world.now + 1;
        run_until(&mut world, next);
    }
    let new = leader(&world).expect("another leads");
    assert_ne!(new, old);
    let took = world.now - 10_000;
    let ttl = world.plan.ttl_ms;
    assert!(took < ttl + 2000, "took {took} ms with a ttl of {ttl} ms");
    run_until(&mut world, 40_000);
    let follows = |n: &surus::sim::node::Node| {
        n.at == old
            || n.at == new
            || n.postgres.server.as_ref().is_some_and(|s| s.upstream == Some(new))
    };
    assert!(world.nodes.iter().all(follows), "{}", world.standing());
}

#[test]
fn a_daemon_that_dies_and_returns_within_the_ttl_finds_postgresql_untouched() {
    let mut world = story(Fault::KillDaemon { target: Target::Holder, back_ms: 500 });
    run_until(&mut world, 9_950);
    let old = leader(&world).expect("somebody leads after ten seconds");
    let generation = world.nodes[old].postgres.generation;
    let epoch = world.checks.epoch;
    run_until(&mut world, 30_000);
    assert_eq!(leader(&world), Some(old), "{}", world.standing());
    assert_eq!(world.nodes[old].postgres.generation, generation, "it was never restarted");
    assert_eq!(world.checks.epoch, epoch, "the lease never moved");
}

#[test]
fn a_node_that_was_stopped_votes_no_more_and_votes_again_when_it_is_back() {
    let mut world = story(Fault::Stop { target: Target::Holder, ms: 20_000 });
    run_until(&mut world, 9_950);
    let old = leader(&world).expect("somebody leads after ten seconds");
    run_until(&mut world, 18_000);
    assert!(world.nodes[old].daemon.is_none(), "it has stopped");
    let new = leader(&world).expect("another leads");
    let voters = |world: &World| {
        let daemon = world.nodes[new].daemon.as_ref().expect("the leader runs");
        daemon.core.group().map_or(0, |group| group.voters().len())
    };
    assert_eq!(voters(&world), 2, "{}", world.standing());
    run_until(&mut world, 45_000);
    assert_eq!(voters(&world), 3, "{}", world.standing());
}

#[test]
fn a_switchover_moves_the_leadership_and_costs_no_lease() {
    let mut world = story(Fault::Switchover);
    run_until(&mut world, 9_950);
    let old = leader(&world).expect("somebody leads after ten seconds");
    run_until(&mut world, 14_000);
    let new = leader(&world).expect("another leads");
    assert_ne!(new, old);
    run_until(&mut world, 30_000);
    assert_eq!(world.missing(), None);
    assert_eq!(world.checks.lost, 0);
}

#[test]
fn an_isolated_leader_stops_before_another_leads_and_returns_as_a_replica() {
    let mut world = story(Fault::Isolate { target: Target::Holder, ms: 15_000 });
    run_until(&mut world, 9_950);
    let old = leader(&world).expect("somebody leads after ten seconds");
    run_until(&mut world, 20_000);
    assert_ne!(leader(&world).expect("another leads"), old);
    run_until(&mut world, 45_000);
    assert_eq!(world.missing(), None, "{}", world.standing());
}

/// Every file under `tests/scenario`; `surus sim --scenario FILE --verbose` shows one in full.
#[test]
fn the_scenario_files_end_as_they_say() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenario");
    let mut failed = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it is listed").path();
        let text = std::fs::read_to_string(&path).expect("it reads");
        let scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!scenario.source.is_empty(), "{} has no source", path.display());
        if let Err(failure) = scenario.run(false) {
            failed.push(format!("{}: {failure}", path.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
