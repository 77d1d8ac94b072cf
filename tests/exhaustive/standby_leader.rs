//! At every place of the standby leader's machine, however it came there, one more thing happens: to the other site,
//! to the leader, or the order comes that promotes this site.
use serde_json::{Value, json};
use surus::pure::cluster::command::Command;
use surus::pure::cluster::state::FailoverRequest;
use surus::pure::consensus::core::Input;
use surus::pure::flow::standby_leader::StandbyLeader;
use surus::pure::machine::Flow;
use surus::sim::fault::{Fault, Target};
use surus::sim::plan::Plan;
use surus::sim::remote::section;
use surus::sim::world::World;

use super::{comes_back, every, missing, places};

/// Then everybody streams.
const READY_MS: u64 = 15_000;
/// So long what happens first may take to lead to the place.
const COMES_THERE_MS: u64 = 9_000;
/// And then all faults end, and this site is promoted.
const HEAL_MS: u64 = READY_MS + COMES_THERE_MS + 6_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Happens {
    SiteIsDown,
    /// Another cluster answers under its address.
    SiteIsReplaced,
    SiteIsItselfAgain,
    /// A standby answers there.
    SiteIsReadOnly,
    /// Promoted without the last that we have.
    SiteWentAnotherWay,
    Stop,
    DaemonDies,
    Switchover,
    NobodyToSwitchTo,
    PostgresDies,
    SectionIsEdited,
    SectionIsRemoved,
    Restart,
    OperationsFail,
    Isolated,
    Promotion,
}

use Happens::*;

const ALL: [Happens; 16] = [
    SiteIsDown,
    SiteIsReplaced,
    SiteIsItselfAgain,
    SiteIsReadOnly,
    SiteWentAnotherWay,
    Stop,
    DaemonDies,
    Switchover,
    NobodyToSwitchTo,
    PostgresDies,
    SectionIsEdited,
    SectionIsRemoved,
    Restart,
    OperationsFail,
    Isolated,
    Promotion,
];

/// What leads somewhere; `OperationsFail` stands before a second one.
const FIRST: [&[Happens]; 10] = [
    &[SiteIsReadOnly, OperationsFail, SectionIsEdited],
    &[SectionIsEdited],
    &[OperationsFail, SectionIsEdited],
    &[SiteIsDown, SectionIsEdited],
    &[SiteIsReplaced],
    &[SiteWentAnotherWay],
    &[Switchover],
    &[NobodyToSwitchTo],
    &[OperationsFail, Switchover],
    &[PostgresDies],
];

/// A standby cluster that has come to rest; who leads it.
fn standby_cluster(seed: u64) -> (World, usize) {
    let mut plan = Plan::quiet(seed, 3);
    plan.config["standby_cluster"] = section();
    plan.read_config();
    plan.heal_at = HEAL_MS;
    let mut world = World::new(plan);
    while world.now < READY_MS {
        world.step().expect("nothing has happened");
    }
    let holder = world.holder().expect("somebody leads");
    assert_eq!(place(&world), "leading_standbys", "{}", world.standing());
    world.plan.operation_ms_max = 1_500;
    (world, holder)
}

/// Where a standby leader is, if there is one.
fn place(world: &World) -> String {
    let flows = world.nodes.iter().filter_map(|node| Some(&node.daemon.as_ref()?.flows));
    let mut slots = flows.flat_map(|flows| &flows.slots);
    let slot = slots.find(|slot| slot.frame.machine().flow() == StandbyLeader::ID);
    slot.map(|slot| slot.frame.machine().state().to_string()).unwrap_or_default()
}

fn happen(world: &mut World, holder: usize, what: Happens) {
    let target = Target::Node(holder);
    let remote = &mut world.remote;
    match what {
        SiteIsDown => remote.up = false,
        SiteIsReplaced => remote.replaced = true,
        SiteIsItselfAgain => (remote.up, remote.replaced) = (true, false),
        SiteIsReadOnly => remote.writable = false,
        SiteWentAnotherWay => {
            let (length, timeline) = (remote.wal.len(), remote.wal.timeline());
            remote.wal.cut(length - 5);
            remote.wal.push(timeline + 1, 400_000_000);
        }
        Stop => world.inject(Fault::Stop { target, ms: 3_000 }),
        DaemonDies => world.inject(Fault::KillDaemon { target, back_ms: 300 }),
        Switchover => ask_for_switchover(world, holder, None),
        NobodyToSwitchTo => ask_for_switchover(world, holder, Some("n8")),
        PostgresDies => world.inject(Fault::KillPostgres { target }),
        SectionIsEdited => world.edit_section(json!({"host": "also_there", "port": 5432})),
        SectionIsRemoved => world.edit_section(Value::Null),
        Isolated => world.inject(Fault::Isolate { target, ms: 5_000 }),
        Restart => world.inject(Fault::Restart { target }),
        OperationsFail => world.inject(Fault::FailOperations { target, count: 1 }),
        Promotion => world.hand_over_here(),
    }
}

fn ask_for_switchover(world: &mut World, holder: usize, candidate: Option<&str>) {
    let leader = Some(world.nodes[holder].name.clone());
    let candidate = candidate.map(String::from);
    let request = FailoverRequest { leader, candidate, scheduled_at: None };
    let command = Command::SetFailover { request };
    world.feed(holder, Input::Propose { ticket: 77_000_000, command });
}

#[test]
fn whatever_happens_at_any_place_of_the_standby_leader_the_cluster_comes_back() {
    let places = places(StandbyLeader::ID);
    let count = FIRST.len() * places.len() * ALL.len();
    let walked = every(count as u64, |number| {
        let (first, rest) = (number as usize % FIRST.len(), number as usize / FIRST.len());
        let (there, then) = (&places[rest % places.len()], ALL[rest / places.len()]);
        let case = format!("{:?}, then at {there} {then:?}", FIRST[first]);
        let (mut world, holder) = standby_cluster(number);
        FIRST[first].iter().for_each(|what| happen(&mut world, holder, *what));
        while place(&world) != *there && world.now < READY_MS + COMES_THERE_MS {
            world.step().map_err(|broken| format!("{case}: {broken}"))?;
        }
        happen(&mut world, holder, then);
        comes_back(world, HEAL_MS + 3_000).map_err(|why| format!("{case}: {why}"))
    });
    // Of a remote that went on nobody is promoted; what the log refuses, a newer lease has made void, and
    // that is heard first.
    let never = [
        "behind_remote → leaving_standby (situation_changed)",
        "leaving_standby → backing_off (error)",
        "yielding → judging (error)",
    ];
    assert_eq!(missing(StandbyLeader::ID, &walked), never);
}
