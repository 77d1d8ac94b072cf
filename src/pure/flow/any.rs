//! The list of flows, once: a flow by its id, and how one begins from its input.
use std::io;

use serde_json::{Value, json};

use super::bootstrap::{Bootstrap, Limits};
use super::cluster_init::ClusterInit;
use super::demote::Demote;
use super::node::Node;
use super::promote::Promote;
use super::rejoin::Rejoin;
use super::replica_build::ReplicaBuild;
use super::restart::Restart;
use super::standby_leader::StandbyLeader;
use super::switchover::Switchover;
use crate::pure::chart::Names;
use crate::pure::cluster::Millis;
use crate::pure::config;
use crate::pure::machine::any::{self, AnyEffect, AnyJournal, AnyMachine};
use crate::pure::machine::{Flow, FollowsSituation};
use crate::pure::operation::{FlowInput, StartAs, StopMode};

/// A replica may have much WAL to replay before it answers.
const REPLICA_START_MS: Millis = 600_000;

/// Something that is done with a flow of any type.
pub trait Visitor {
    type Output;
    /// Does it with this one.
    fn visit<F: FollowsSituation>(self) -> Self::Output;
}

macro_rules! flows {
    ($($flow:ident),+ $(,)?) => {
        /// The ids of all flows.
        pub const IDS: &[&str] = &[$($flow::ID),+];

        /// Visits the flow with this id; `None` where there is none.
        pub fn visit<V: Visitor>(id: &str, visitor: V) -> Option<V::Output> {
            match id {
                $($flow::ID => Some(visitor.visit::<$flow>()),)+
                _ => None,
            }
        }
    };
}

flows!(
    Node,
    ClusterInit,
    Bootstrap,
    ReplicaBuild,
    Rejoin,
    Promote,
    Demote,
    Switchover,
    Restart,
    StandbyLeader,
);

/// The id of the node's own flow, the parent of all others.
pub const NODE: &str = Node::ID;

/// What this name of the flow's chart means.
pub fn sentence(flow: &str, name: &str) -> Option<&'static str> {
    struct Sentence<'a>(&'a str);
    impl Visitor for Sentence<'_> {
        type Output = Option<&'static str>;
        fn visit<F: FollowsSituation>(self) -> Option<&'static str> {
            F::Names::CHART.sentence(self.0)
        }
    }
    visit(flow, Sentence(name)).flatten()
}

/// The event, delay or activity that a record's cause names, and what it means; causes are
/// `event`, `after x_delay`, `done activity` and `failed activity: …`.
pub fn cause_sentence<'a>(flow: &str, cause: &'a str) -> Option<(&'a str, &'static str)> {
    let named = cause.split(':').next().unwrap_or_default();
    named.split(' ').find_map(|name| Some((name, sentence(flow, name)?)))
}

/// What a flow begins with besides its input: this node's own settings and state.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// The node's name.
    pub node: String,
    pub postgres_runs: bool,
    pub creation: Creation,
    /// `primary_start_timeout` in force.
    pub primary_start_timeout_ms: Millis,
    /// How long the restart that an operator asked for may take.
    pub restart_timeout_ms: Option<Millis>,
}

/// What the file says of the cluster's creation.
#[derive(Clone, Debug, Default)]
pub struct Creation {
    /// `bootstrap.dcs`; null where there is none.
    pub dcs: Value,
    /// Names of the methods, in order.
    pub methods: Vec<String>,
    /// `post_bootstrap` is set.
    pub has_script: bool,
    pub limits: Limits,
}

impl Creation {
    /// Of the file's section.
    pub fn of(section: &config::Bootstrap) -> Creation {
        let ms = |seconds: Option<u64>| seconds.map(|s| s.saturating_mul(1000));
        Creation {
            dcs: section.dcs.clone(),
            methods: section.methods.iter().map(|method| method.name().to_string()).collect(),
            has_script: section.post_bootstrap.is_some(),
            limits: Limits {
                method_ms: ms(section.method_timeout_s),
                recovery_ms: ms(section.recovery_timeout_s),
                script_ms: ms(section.post_bootstrap_timeout_s),
            },
        }
    }

    /// The cluster's first dynamic configuration.
    fn config(&self) -> Value {
        let mut config = if self.dcs.is_object() { self.dcs.clone() } else { json!({}) };
        // Refused when asked for; stored, it would say what is not so.
        config.as_object_mut().map(|keys| keys.shift_remove("pause"));
        config
    }
}

/// The id of the flow that this input begins.
pub fn id_of(input: &FlowInput) -> &'static str {
    match input {
        FlowInput::ClusterInit { .. } => ClusterInit::ID,
        FlowInput::Bootstrap { .. } => Bootstrap::ID,
        FlowInput::ReplicaBuild { .. } => ReplicaBuild::ID,
        FlowInput::Rejoin { .. } => Rejoin::ID,
        FlowInput::Promote { .. } => Promote::ID,
        FlowInput::Demote { .. } | FlowInput::StepDown { .. } => Demote::ID,
        FlowInput::Switchover { .. } => Switchover::ID,
        FlowInput::Restart { .. } => Restart::ID,
        FlowInput::StandbyLeader { .. } => StandbyLeader::ID,
    }
}

/// A machine with its first effects.
pub type Begun = (Box<dyn AnyMachine>, Vec<AnyEffect>);

/// The node's own flow, from its beginning.
///
/// # Errors
/// The journal's.
pub fn start_node(journal: &mut dyn AnyJournal) -> io::Result<Begun> {
    any::start(Node::default(), journal)
}

/// The flow that this input begins, with its first record written.
///
/// # Errors
/// The journal's.
pub fn start(input: FlowInput, local: Local, journal: &mut dyn AnyJournal) -> io::Result<Begun> {
    match input {
        FlowInput::ClusterInit { epoch, has_data, runs, remote } => {
            let (config, node) = (local.creation.config(), local.node);
            let (system_identifier, problem) = (String::new(), String::new());
            let flow = ClusterInit {
                epoch,
                node,
                has_data,
                runs,
                remote,
                config,
                system_identifier,
                problem,
            };
            any::start(flow, journal)
        }
        FlowInput::Bootstrap { epoch } => {
            let Creation { methods, has_script, limits, .. } = local.creation;
            let flow = Bootstrap { epoch, has_script, methods, limits, ..Bootstrap::default() };
            any::start(flow, journal)
        }
        FlowInput::ReplicaBuild { permission, methods, reinit } => {
            any::start(ReplicaBuild::new(&local.node, permission, methods, reinit), journal)
        }
        FlowInput::Rejoin { source, rules } => any::start(Rejoin { source, rules }, journal),
        FlowInput::Promote { epoch, pre_promote, start_needed, set_aside } => {
            let start_needed = start_needed || !local.postgres_runs;
            let (node, timeline, way) = (local.node, 0, Vec::new());
            let flow = Promote { epoch, node, pre_promote, start_needed, set_aside, timeline, way };
            any::start(flow, journal)
        }
        FlowInput::Demote { mode, release } => {
            any::start(Demote { mode, release, shutdown: None, hands_over: None }, journal)
        }
        FlowInput::StepDown { epoch } => {
            let (mode, hands_over) = (StopMode::Fast, Some(epoch));
            any::start(Demote { mode, release: None, shutdown: None, hands_over }, journal)
        }
        FlowInput::Switchover { epoch, candidate } => {
            any::start(Switchover { epoch, candidate, shutdown: None }, journal)
        }
        FlowInput::Restart { start_as, crashed } => {
            let is_primary = matches!(start_as, StartAs::Primary { .. });
            let usual = if is_primary { local.primary_start_timeout_ms } else { REPLICA_START_MS };
            let asked = local.restart_timeout_ms.filter(|_| !crashed);
            any::start(Restart::new(start_as, crashed, asked.unwrap_or(usual)), journal)
        }
        FlowInput::StandbyLeader { epoch, remote } => {
            any::start(StandbyLeader::new(epoch, remote), journal)
        }
    }
}

/// The machine of this flow as its last record left it; `None` where today's charts do not know it.
pub fn resume(flow: &str, record: Value) -> Option<Begun> {
    struct Resume(Value);
    impl Visitor for Resume {
        type Output = Option<Begun>;
        fn visit<F: FollowsSituation>(self) -> Option<Begun> {
            any::resume::<F>(self.0)
        }
    }
    visit(flow, Resume(record)).flatten()
}
