//! What a seed means: the cluster's size and settings, the link profile, and the faults to come.
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fault::{self, Fault, Target};
use super::foreign::Adopts;
use super::network::{FAIR, LinkProfile};
use super::orders;
use super::rng::{PPM_MAX, Rng};
use crate::pure::cluster::Millis;
use crate::pure::config::{Dynamic, SynchronousMode};
use crate::pure::flow::any::Creation;
use crate::pure::flow::bootstrap::Limits;

/// Which faults a drawn plan is made of, and for how many nodes; all, where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub nodes: Option<usize>,
    /// Kinds as scenario files name them; empty for every kind.
    pub kinds: Vec<String>,
    /// A few faults within seconds, instead of some over a minute.
    pub clustered: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// These and the next two lines are what `config` says ([`Plan::read_config`]).
    #[serde(skip)]
    pub ttl_ms: Millis,
    #[serde(skip)]
    pub loop_wait_ms: Millis,
    /// The dynamic configuration that the founder writes, `bootstrap.dcs`.
    pub config: Value,
    /// How a cluster is created, in the order of trying.
    pub methods: Vec<String>,
    /// A script runs when it has been created.
    pub has_script: bool,
    #[serde(skip)]
    pub synchronous: bool,
    /// It follows another site until all faults have ended, and takes over then.
    #[serde(skip)]
    pub standby: bool,
    pub use_pg_rewind: bool,
    /// A script is asked before every promotion; it says no as often as operations fail.
    pub pre_promote: bool,
    /// A tool has its turn before pg_basebackup.
    pub has_tool: bool,
    pub voters_max: usize,
    /// What lies on the nodes when Surus first starts.
    pub adopts: Adopts,
    /// A look at PostgreSQL takes up to so long, and tells what was so when it began.
    pub look_ms_max: Millis,
    /// So long the setting that commits wait may be shown and not in force.
    pub reload_ms_max: Millis,
    /// Whatever a node does takes up to so long, and longer where it has a time of its own.
    pub operation_ms_max: Millis,
    /// The primary's own flush of a commit.
    pub wal_flush_ms_max: Millis,
    pub ppm: Vec<i64>,
    pub link_profile: LinkProfile,
    /// Times in a thousand that an operation fails by itself.
    pub operations_fail: u64,
    pub flush_ms_max: Millis,
    pub start_ms_max: Millis,
    pub copy_ms_max: Millis,
    pub stream_ms_max: Millis,
    pub write_ms_max: Millis,
    /// The nodes' names, where they are not n0, n1, …
    #[serde(skip)]
    pub names: Vec<String>,
    /// When each fault injects, in order; a scenario's story has them.
    #[serde(skip)]
    pub faults: Vec<(Millis, Fault)>,
    /// All faults end now, in ms.
    pub heal_at: Millis,
}

/// Where nothing is slow.
pub const OPERATION_MS_MAX: Millis = 25;

impl Default for Plan {
    fn default() -> Plan {
        Plan::quiet(1, 3)
    }
}

impl Plan {
    /// What the file of every node says of the cluster's creation.
    pub fn creation(&self) -> Creation {
        let (dcs, methods) = (self.config.clone(), self.methods.clone());
        Creation { dcs, methods, has_script: self.has_script, limits: Limits::default() }
    }

    /// A quiet cluster: nothing goes wrong by itself.
    pub fn quiet(seed: u64, nodes: usize) -> Plan {
        Plan {
            seed,
            nodes,
            ttl_ms: 3000,
            loop_wait_ms: 1000,
            config: json!({"ttl": 3, "loop_wait": 1, "retry_timeout": 1}),
            methods: vec![String::from("initdb")],
            has_script: true,
            synchronous: false,
            standby: false,
            use_pg_rewind: true,
            pre_promote: false,
            has_tool: false,
            voters_max: 5,
            adopts: Adopts::Nothing,
            look_ms_max: 0,
            reload_ms_max: 0,
            operation_ms_max: OPERATION_MS_MAX,
            wal_flush_ms_max: 0,
            ppm: vec![0; nodes],
            link_profile: FAIR,
            operations_fail: 0,
            flush_ms_max: 8,
            start_ms_max: 800,
            copy_ms_max: 1500,
            stream_ms_max: 40,
            write_ms_max: 120,
            names: Vec::new(),
            faults: Vec::new(),
            heal_at: 60_000,
        }
    }

    /// Takes over what the dynamic configuration says about the cluster.
    pub fn read_config(&mut self) {
        let dynamic = Dynamic::from_value(Some(&self.config));
        (self.ttl_ms, self.loop_wait_ms) = (dynamic.ttl_ms, dynamic.loop_wait_ms);
        self.synchronous = dynamic.synchronous_mode != SynchronousMode::Off;
        self.standby = dynamic.standby_cluster.is_some();
    }

    /// Everything from the seed.
    pub fn drawn(seed: u64) -> Plan {
        Plan::drawn_as(seed, &Wanted::default())
    }

    /// From the seed what was not asked for.
    pub fn drawn_as(seed: u64, wanted: &Wanted) -> Plan {
        if wanted.clustered {
            return Plan::clustered(seed, wanted);
        }
        let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9));
        let nodes = if rng.in_thousand(250) { 5 } else { 3 };
        let nodes = wanted.nodes.unwrap_or(nodes);
        let mut plan = Plan::quiet(seed, nodes);
        plan.settings(&mut rng);
        plan.ppm = (0..nodes).map(|_| rate(&mut rng)).collect();
        if rng.in_thousand(400) {
            plan.link_profile = storm(&mut rng);
        }
        if rng.in_thousand(300) {
            plan.operations_fail = rng.between(5, 60);
        }
        if rng.in_thousand(200) {
            plan.flush_ms_max = rng.between(50, 400);
        }
        let begin = rng.between(3_000, 15_000);
        if rng.in_thousand(150) && nodes > 1 {
            // Two that cannot see each other while the cluster is founded.
            let (from, ms) = (rng.below(nodes), rng.between(3_000, 15_000));
            let to = (from + 1 + rng.below(nodes - 1)) % nodes;
            plan.faults.push((1, Fault::CutOneWay { from, to, ms }));
        }
        let ttl_ms = plan.ttl_ms;
        let mut at = begin;
        for _ in 0..rng.between(1, 6) {
            plan.faults.push((at, fault::draw_of(&wanted.kinds, &mut rng, nodes, ttl_ms)));
            at += match rng.below(3) {
                0 => rng.between(50, 1500),
                1 => rng.between(500, 2 * ttl_ms),
                _ => rng.between(ttl_ms, 4 * ttl_ms),
            };
        }
        plan.heal_at = at + rng.between(100, 3 * ttl_ms);
        let methods: &[&str] = [&["initdb"][..], &["pitr"], &["pitr", "initdb"]][rng.below(3)];
        plan.methods = methods.iter().map(|name| name.to_string()).collect();
        if rng.in_thousand(120) {
            plan.follows(&mut rng);
        }
        plan.falls_behind();
        plan.is_operated();
        plan.gets_orders();
        plan.changes_hosts();
        plan.operations_take_time();
        plan.files_are_gone();
        plan.changes_settings();
        plan.faults.retain(|(_, fault)| fault.is_one_of(&wanted.kinds));
        plan
    }

    /// In an asynchronous cluster the replicas fall behind, and then the leader dies: who lags too
    /// much may not lead. Every eighth seed; its randomness is its own, so that no other fault becomes
    /// another.
    pub fn falls_behind(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0xFA11_BE41);
        if self.synchronous || self.standby || self.seed % 8 != 5 {
            return;
        }
        let at = rng.between(6_000, self.heal_at.max(6_001));
        let ms = rng.between(2_000, 2_000 + self.ttl_ms);
        self.faults.push((at, Fault::StallStreams { ms }));
        let target = Target::Holder;
        let end = Fault::PowerCut { target, ms: 4 * self.ttl_ms };
        self.faults.push((at + ms * 3 / 4, end));
        self.heal_at = self.heal_at.max(at + ms + 2 * self.ttl_ms);
    }

    /// Somebody restarts a server, asks for a copy and calls it off; or what a node begins fails. Three
    /// of four seeds; with randomness of its own, too.
    pub fn is_operated(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x0BE8_A7ED);
        (self.pre_promote, self.has_tool) = (rng.in_thousand(200), rng.in_thousand(300));
        for _ in 0..rng.below(4) {
            let at = rng.between(4_000, self.heal_at.max(4_001));
            let target = fault::target(&mut rng, self.nodes);
            match rng.below(6) {
                0 => self.faults.push((at, Fault::Restart { target })),
                1 => {
                    let later = rng.between(20, 3_000);
                    self.faults.push((at, Fault::Reinitialize { target }));
                    self.faults.push((at + later, Fault::CancelBuild { target }));
                }
                2 => self.faults.push((at, Fault::Stop { target, ms: rng.between(500, 20_000) })),
                _ => {
                    let count = 1 + rng.below(3) as u64;
                    self.faults.push((at, Fault::FailOperations { target, count }));
                }
            }
        }
    }

    /// Switchovers and failovers to a name, at once and for later; half of them while the replicas fall behind, and
    /// the leader dies before the time has come. One seed in three, with randomness of its own.
    pub fn gets_orders(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x00DE_12ED);
        if self.standby || rng.below(3) != 0 {
            return;
        }
        for _ in 0..rng.between(1, 2) {
            let at = rng.between(6_000, self.heal_at.max(6_001));
            self.faults.push((at, orders::draw(&mut rng, self.nodes)));
            if rng.in_thousand(500) {
                let ms = rng.between(1_000, 2 * self.ttl_ms);
                self.faults.push((at.saturating_sub(ms / 2), Fault::StallStreams { ms }));
                let end = Fault::PowerCut { target: Target::Holder, ms: 3 * self.ttl_ms };
                self.faults.push((at + rng.between(10, ms / 2), end));
                self.heal_at = self.heal_at.max(at + 2 * self.ttl_ms);
            }
        }
    }

    /// Hosts sleep, lose their state directory, are replaced or switched on late, looks are slow and settings
    /// late: with randomness of its own.
    pub fn changes_hosts(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x0B5E_1BED);
        if self.nodes > 3 && rng.in_thousand(300) {
            self.voters_max = 3;
        }
        self.adopts = match rng.below(24) {
            0 => Adopts::Stopped,
            1 => Adopts::Running,
            2 => Adopts::RunningWithStandby,
            _ => Adopts::Nothing,
        };
        self.look_ms_max = [0, 0, 20, 300, 1500][rng.below(5)];
        self.reload_ms_max = [0, 200, 3000][rng.below(3)];
        self.wal_flush_ms_max = [0, 5, 60][rng.below(3)];
        if rng.in_thousand(100) {
            let (node, ms) = (rng.below(self.nodes), rng.between(3_000, 30_000));
            self.faults.push((0, Fault::ComesLate { node, ms }));
        }
        for _ in 0..[0, 0, 1, 1, 2][rng.below(5)] {
            let at = rng.between(4_000, self.heal_at.max(4_001));
            let target = fault::target(&mut rng, self.nodes);
            let ms = rng.between(50, 3 * self.ttl_ms);
            self.faults.push(match rng.below(6) {
                5 => (at, Fault::Stranger { target, runs: rng.in_thousand(500) }),
                0 => (at, Fault::WipeState { target, ms }),
                1 => (at, Fault::Replace { target, ms }),
                2 => (at, Fault::Sleep { target, ms: self.ttl_ms * rng.between(90, 120) / 100 }),
                _ => (at, Fault::Sleep { target, ms }),
            });
        }
    }

    /// What nodes do takes its time, so that something else can happen meanwhile: two of five seeds, with randomness of
    /// its own.
    pub fn operations_take_time(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x510D_EED5);
        self.operation_ms_max =
            [OPERATION_MS_MAX, OPERATION_MS_MAX, OPERATION_MS_MAX, 300, 2500][rng.below(5)];
    }

    /// What they do hangs, or somebody removes the data under a server: one seed in eight each. Some clusters are
    /// created without a script. With randomness of its own.
    pub fn files_are_gone(&mut self) {
        let mut rng = Rng::new(self.seed ^ 0x6011_EF11);
        let at = rng.between(4_000, self.heal_at.max(4_001));
        let target = fault::target(&mut rng, self.nodes);
        self.has_script = rng.in_thousand(800);
        match rng.below(8) {
            0 => self.faults.push((at, Fault::RemoveData { target })),
            1 => {
                let count = rng.between(1, 3);
                self.faults.push((at, Fault::HangOperations { target, count }));
            }
            _ => {}
        }
    }

    /// A standby cluster. Its remote goes away and comes back, or the section slips; not both in
    /// one run, as a slip while the remote is away promotes rightly.
    pub fn follows(&mut self, rng: &mut Rng) {
        self.standby = true;
        self.config["standby_cluster"] = super::remote::section();
        let slips = rng.in_thousand(400);
        if !slips && rng.in_thousand(600) {
            let at = rng.between(6_000, self.heal_at.max(6_001));
            self.faults.push((at, Fault::SitesChange { ms: rng.between(4_000, 20_000) }));
            if rng.in_thousand(250) {
                let later = at + rng.between(2_000, 9_000);
                self.faults.push((later, Fault::BothSitesWrite));
            }
            self.heal_at = self.heal_at.max(at + rng.between(5_000, 40_000));
        }
        for _ in 0..rng.between(1, 3) {
            let at = rng.between(8_000, self.heal_at.max(8_001));
            let ms = rng.between(200, 3 * self.ttl_ms);
            let fault = match rng.below(2) {
                _ if slips => Fault::SectionSlips { ms },
                0 => Fault::RemoteDown { ms },
                _ => Fault::RemoteReplaced { ms },
            };
            self.faults.push((at, fault));
        }
    }

    fn settings(&mut self, rng: &mut Rng) {
        let ttl_s = [2, 3, 3, 5, 30][rng.below(5)];
        self.ttl_ms = ttl_s * 1000;
        self.synchronous = rng.in_thousand(500);
        self.use_pg_rewind = rng.in_thousand(700);
        let strict = self.synchronous && rng.in_thousand(200);
        let lag_max = if rng.in_thousand(300) { 960 } else { 1_048_576 };
        let two = self.nodes > 3 && rng.in_thousand(400);
        self.config = config(ttl_s, lag_max, self.synchronous);
        self.config["synchronous_mode_strict"] = strict.into();
        self.config["synchronous_node_count"] = if two { 2 } else { 1 }.into();
        self.stream_ms_max = [15, 40, 400][rng.below(3)];
        self.write_ms_max = [30, 120, 400][rng.below(3)];
    }
}

/// What differs from cluster to cluster of the dynamic configuration.
pub(super) fn config(ttl_s: u64, lag_max: u64, synchronous: bool) -> Value {
    json!({
        "ttl": ttl_s,
        "loop_wait": 1,
        "retry_timeout": 1,
        "maximum_lag_on_failover": lag_max,
        "synchronous_mode": synchronous,
    })
}

/// Half of the clocks are as wrong as they may be.
fn rate(rng: &mut Rng) -> i64 {
    match rng.below(4) {
        0 => -PPM_MAX,
        1 => PPM_MAX,
        2 => 0,
        _ => rng.between(0, 2 * PPM_MAX as u64) as i64 - PPM_MAX,
    }
}

fn storm(rng: &mut Rng) -> LinkProfile {
    LinkProfile {
        delay_min: 1,
        delay_max: rng.between(2, 60),
        lost: rng.between(0, 40),
        doubled: rng.between(0, 30),
        late: rng.between(0, 40),
    }
}
