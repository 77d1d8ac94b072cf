//! A clustered story: a quiet cluster, and then a few faults that have to do with each other, within
//! seconds. What a long life of scattered ones meets once in ten thousand seeds, such stories meet in a minute.
use super::fault::{self, Fault, Target};
use super::orders;
use super::plan::{Plan, Wanted, config};
use super::rng::Rng;
use crate::pure::cluster::Millis;

/// When the first fault injects: the cluster is created and streams.
const BEGIN: Millis = 12_000;

/// What the faults of one story have to do with each other.
#[derive(Clone, Copy)]
enum Theme {
    /// A copy is made while its source changes, and is disturbed.
    Copy,
    /// Members come and go, and the majority with them.
    Vote,
    /// A node loses its state directory.
    State,
    /// The other site, and the section that names it.
    Site,
    /// Somebody orders who leads next, and the leader dies.
    Order,
    /// Settings change.
    Settings,
    Any,
}

/// What themes tell besides what every seed can draw.
const KINDS: [&str; 12] = [
    "cancel_build",
    "fail_operations",
    "hang_operations",
    "order",
    "patch",
    "remove_data",
    "replace",
    "section_slips",
    "sites_change",
    "sleep",
    "stall_streams",
    "wipe_state",
];

/// Does any story tell of this fault? Of another one none can be drawn.
pub fn tells_of(kind: &str) -> bool {
    KINDS.contains(&kind) || fault::DRAWN.contains(&kind)
}

const THEMES: [Theme; 7] = [
    Theme::Copy,
    Theme::Vote,
    Theme::State,
    Theme::Site,
    Theme::Order,
    Theme::Settings,
    Theme::Any,
];

impl Plan {
    /// A clustered story from the seed, of what was asked for.
    pub fn clustered(seed: u64, wanted: &Wanted) -> Plan {
        assert!(wanted.kinds.iter().all(|kind| tells_of(kind)), "{:?}", wanted.kinds);
        let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9) ^ 0xDE45_E000);
        let nodes = wanted.nodes.unwrap_or(3);
        let mut plan = Plan::quiet(seed, nodes);
        let theme = THEMES[rng.below(THEMES.len())];
        let sites = ["sites_change", "section_slips"].map(String::from);
        let is_of_sites = wanted.kinds.iter().any(|kind| sites.contains(kind));
        plan.clustered_settings(&mut rng, is_of_sites || matches!(theme, Theme::Site));
        let one = Target::Node(rng.below(nodes));
        for _ in 0..rng.between(3, 6) {
            let at = BEGIN - 2_000 + rng.between(0, 10_000);
            let mut fault = inject(theme, one, &mut rng, &plan, &wanted.kinds);
            while !fault.is_one_of(&wanted.kinds) {
                let theme = THEMES[rng.below(THEMES.len())];
                fault = inject(theme, one, &mut rng, &plan, &wanted.kinds);
            }
            plan.faults.push((at, fault));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        let last = plan.faults.last().map_or(BEGIN, |(at, _)| *at);
        plan.heal_at = last + [1_000, 4_000, 9_000][rng.below(3)];
        plan
    }

    fn clustered_settings(&mut self, rng: &mut Rng, is_standby: bool) {
        let synchronous = rng.in_thousand(400);
        let ttl_s = [2, 3, 3, 5][rng.below(4)];
        let lag_max = if rng.in_thousand(300) { 960 } else { 1_048_576 };
        self.config = config(ttl_s, lag_max, synchronous);
        if is_standby {
            self.config["standby_cluster"] = super::remote::section();
        }
        self.read_config();
        self.operations_take_time();
        let method = if rng.in_thousand(200) { "pitr" } else { "initdb" };
        self.methods = vec![method.to_owned()];
        self.use_pg_rewind = rng.in_thousand(800);
        self.has_tool = rng.in_thousand(150);
        self.flush_ms_max = [8, 8, 50, 400][rng.below(4)];
        self.wal_flush_ms_max = [0, 0, 20, 200][rng.below(4)];
        self.look_ms_max = [0, 0, 200, 1500][rng.below(4)];
        self.start_ms_max = [800, 400, 3000][rng.below(3)];
        self.copy_ms_max = [500, 1500, 4000][rng.below(3)];
        self.stream_ms_max = [40, 400, 1500][rng.below(3)];
    }
}

/// One fault of the theme; half of them hit the same node.
fn inject(theme: Theme, one: Target, rng: &mut Rng, plan: &Plan, kinds: &[String]) -> Fault {
    let ms = rng.between(500, 12_000);
    let target = if rng.in_thousand(500) { one } else { fault::target(rng, plan.nodes) };
    let count = rng.between(1, 3);
    match (theme, rng.below(8)) {
        (Theme::Copy, 0..=2) => Fault::Reinitialize { target: one },
        (Theme::Copy, 3) => Fault::CancelBuild { target: one },
        (Theme::Copy, 4) => Fault::FailOperations { target: one, count },
        (Theme::Copy, 5) => Fault::StallStreams { ms },
        (Theme::Copy, 6) => Fault::PowerCut { target: Target::Holder, ms },
        (Theme::Copy, 7) => Fault::HangOperations { target: one, count },
        (Theme::Vote, 0 | 1) => Fault::Stop { target, ms },
        (Theme::Vote, 2) => Fault::Replace { target: one, ms },
        (Theme::Vote, 3 | 4) => Fault::KillDaemon { target, back_ms: ms / 4 },
        (Theme::Vote, 5) => Fault::Isolate { target: one, ms },
        (Theme::State, 0 | 1) => Fault::WipeState { target, ms: ms / 4 },
        (Theme::State, 2) => Fault::KillPostgres { target },
        (Theme::State, 3) => Fault::Sleep { target, ms },
        (Theme::State, 4) => Fault::RemoveData { target },
        (Theme::State, 5) => Fault::HangOperations { target, count },
        (Theme::Site, 0..=2) => Fault::SitesChange { ms },
        (Theme::Site, 3 | 4) => Fault::SectionSlips { ms },
        (Theme::Order, 0..=2) => orders::draw(rng, plan.nodes),
        (Theme::Order, 3 | 4) => Fault::StallStreams { ms },
        (Theme::Order, 5 | 6) => Fault::PowerCut { target: Target::Holder, ms: 3 * plan.ttl_ms },
        (Theme::Order, 7) => Fault::FailOperations { target, count },
        (Theme::Site, 5) => Fault::StallStreams { ms },
        (Theme::Settings, 0..=3) => super::settings::change(rng, plan.standby),
        (Theme::Settings, 4) => Fault::Freeze { target: Target::Holder, ms: 2 * ms },
        (Theme::Settings, 5) => Fault::KillDaemon { target: Target::Arbiter, back_ms: ms / 8 },
        _ => fault::draw_of(kinds, rng, plan.nodes, plan.ttl_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// None is quiet, and nothing else happens.
    #[test]
    fn every_kind_can_be_asked_for() {
        for kind in KINDS.iter().chain(&fault::DRAWN) {
            let wanted = Wanted { kinds: vec![String::from(*kind)], ..Wanted::default() };
            for seed in 0..20 {
                let plan = Plan::clustered(seed, &wanted);
                assert!(plan.faults.len() >= 3, "{kind}");
                assert!(plan.faults.iter().all(|(_, fault)| fault.kind() == *kind), "{kind}");
            }
        }
    }

    #[test]
    fn a_story_is_short_and_clustered_and_the_same_every_time() {
        for seed in 0..200 {
            let plan = Plan::clustered(seed, &Wanted::default());
            assert_eq!(plan, Plan::clustered(seed, &Wanted::default()), "seed {seed}");
            let times: Vec<Millis> = plan.faults.iter().map(|(at, _)| *at).collect();
            assert!((3..=6).contains(&times.len()) && times.is_sorted(), "seed {seed}: {times:?}");
            assert!(
                times.iter().all(|at| (10_000..=20_000).contains(at)),
                "seed {seed}: {times:?}"
            );
        }
    }
}
