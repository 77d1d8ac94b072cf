//! What happens to the cluster, and when: all of it from one seed, before anything begins.
use std::fmt;

use surus::sim::rng::Rng;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Whoever acknowledged a write last when it injects.
    Leader,
    Node(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// kill -9; somebody (systemd, usually) starts it again after the time.
    KillDaemon,
    KillPostmaster,
    KillGuard,
    /// All processes of the node at once.
    KillNode,
    /// All processes of all nodes at once.
    KillAll,
    /// SIGSTOP, and SIGCONT after the time.
    FreezeDaemon,
    FreezeGuard,
    FreezePostgres,
    FreezeNode,
    /// Neither hears from the others nor is heard.
    Isolate,
    /// Is not heard, but hears.
    Mute,
    /// Hears nobody, but is heard.
    Deaf,
    /// From this node to the next one nothing gets through.
    CutOneWay,
    /// The first nodes from this one on, without a majority, are apart from the rest.
    Halves,
    /// The disk with the Raft log and the journal hangs.
    StallDisk,
    /// The wall clock is set wrong, and right again after the time.
    JumpClock,
    /// The data directory is moved aside under a running server, and back after the time if nothing
    /// else has come to its place.
    MoveData,
    /// PATCH of ttl and loop_wait, and of the usual ones after the time; other changes may come between.
    ChangeTimings,
    /// SIGHUP to the daemon with another setting of PostgreSQL in its file.
    Reload,
    /// An orderly stop of the daemon, and a start after the time.
    Stop,
    Switchover,
    RestartPostgres,
    Reinitialize,
}

/// How often each is drawn.
const WEIGHTS: &[(Fault, usize)] = &[
    (Fault::KillDaemon, 4),
    (Fault::KillPostmaster, 4),
    (Fault::KillGuard, 3),
    (Fault::KillNode, 5),
    (Fault::KillAll, 1),
    (Fault::FreezeDaemon, 3),
    (Fault::FreezeGuard, 1),
    (Fault::FreezePostgres, 2),
    (Fault::FreezeNode, 2),
    (Fault::Isolate, 4),
    (Fault::Mute, 2),
    (Fault::Deaf, 2),
    (Fault::CutOneWay, 2),
    (Fault::Halves, 2),
    (Fault::StallDisk, 3),
    (Fault::JumpClock, 3),
    (Fault::MoveData, 2),
    (Fault::ChangeTimings, 5),
    (Fault::Reload, 2),
    (Fault::Stop, 2),
    (Fault::Switchover, 4),
    (Fault::RestartPostgres, 2),
    (Fault::Reinitialize, 2),
];

#[derive(Clone, Debug)]
pub struct Step {
    pub at_ms: u64,
    pub fault: Fault,
    pub target: Target,
    /// After this it ends, if it is one that lasts.
    pub ms: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match self.target {
            Target::Leader => String::from("the leader"),
            Target::Node(k) => format!("n{}", k + 1),
        };
        write!(f, "{:?} of {target} for {:.1} s", self.fault, self.ms as f64 / 1e3)
    }
}

/// The faults of so much time. They overlap: a majority may be gone for a while.
pub fn schedule(seed: u64, nodes: usize, ttl_ms: u64, until_ms: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    let mut steps = Vec::new();
    let mut at_ms = rng.between(1_000, 3_000);
    while at_ms < until_ms {
        let (fault, target) = (draw(&mut rng), target(&mut rng, nodes));
        let ms = lasts(&mut rng, ttl_ms);
        steps.push(Step { at_ms, fault, target, ms });
        at_ms += match rng.below(4) {
            0 => rng.between(100, 2_000),
            1 | 2 => rng.between(2_000, 6_000),
            _ => rng.between(6_000, 15_000),
        };
    }
    steps
}

fn draw(rng: &mut Rng) -> Fault {
    let mut left = rng.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
    for (fault, weight) in WEIGHTS {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return *fault,
        }
    }
    Fault::Switchover
}

fn target(rng: &mut Rng, nodes: usize) -> Target {
    if rng.in_thousand(550) { Target::Leader } else { Target::Node(rng.below(nodes)) }
}

/// A moment, about a ttl, or long.
fn lasts(rng: &mut Rng, ttl_ms: u64) -> u64 {
    match rng.below(4) {
        0 => rng.between(50, ttl_ms / 2),
        1 => rng.between(ttl_ms * 9 / 10, ttl_ms * 13 / 10),
        _ => rng.between(ttl_ms, 5 * ttl_ms),
    }
}

/// What a change of timings that lasts so long sets ttl and loop_wait to, in s: longer and shorter
/// than the usual ones.
pub fn timings_s(ms: u64) -> (u32, u32) {
    let drawn = u32::try_from(ms % 21).unwrap_or(0);
    (2 + drawn % 7, 1 + drawn % 3)
}

/// The longest ttl that is in force at any time of these steps.
pub fn longest_ttl_s(steps: &[Step], usual_s: u32) -> u32 {
    let changes = steps.iter().filter(|step| step.fault == Fault::ChangeTimings);
    changes.map(|step| timings_s(step.ms).0).max().unwrap_or(0).max(usual_s)
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let told = |seed| -> Vec<String> {
        schedule(seed, 3, 3000, 600_000).iter().map(|s| format!("{} {s}", s.at_ms)).collect()
    };
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
    let all: Vec<Step> = (0..5).flat_map(|seed| schedule(seed, 3, 3000, 600_000)).collect();
    for (fault, _) in WEIGHTS {
        assert!(all.iter().any(|step| step.fault == *fault), "{fault:?} never happens");
    }
}

#[test]
fn timings_go_up_and_down_and_the_longest_ttl_is_known() {
    let all: Vec<(u32, u32)> = (0..21).map(timings_s).collect();
    assert!(all.contains(&(2, 1)) && all.contains(&(8, 1)) && all.contains(&(8, 3)), "{all:?}");
    let step = |fault, ms| Step { at_ms: 0, fault, target: Target::Leader, ms };
    let steps = [step(Fault::ChangeTimings, 0), step(Fault::ChangeTimings, 6)];
    assert_eq!(longest_ttl_s(&steps[..1], 3), 3);
    assert_eq!(longest_ttl_s(&steps, 3), 8);
    assert_eq!(longest_ttl_s(&[step(Fault::Reload, 6)], 3), 3);
}
