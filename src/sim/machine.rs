//! Any flow's machine behind one face, so that a crew can hold a stack of different ones.
use std::io;

use super::disk::{Kept, Pen};
use crate::pure::chart::Name;
use crate::pure::cluster::Millis;
use crate::pure::deed::{Brief, Deed, Report, StartAs, StopMode};
use crate::pure::flow::bootstrap::{self, Bootstrap};
use crate::pure::flow::cluster_init::{self, ClusterInit};
use crate::pure::flow::demote::{self, Demote};
use crate::pure::flow::node::{self, Node};
use crate::pure::flow::promote::{self, Promote};
use crate::pure::flow::rejoin::{self, Rejoin};
use crate::pure::flow::replica_build::{self, ReplicaBuild};
use crate::pure::flow::restart::{self, Restart};
use crate::pure::flow::standby_leader::{self, StandbyLeader};
use crate::pure::flow::switchover::{self, Switchover};
use crate::pure::machine::{Effect, Flow, Input, Machine, Record};
use crate::pure::situation::Situation;

/// What a machine is told of its own work and delays.
#[derive(Clone, Debug)]
pub enum Tell {
    Done { visit: u64, report: Report },
    Failed { visit: u64, problem: String },
    Elapsed { visit: u64, delay: usize },
}

impl Tell {
    /// The visit that it answers to.
    pub fn visit(&self) -> u64 {
        match self {
            Tell::Done { visit, .. } | Tell::Failed { visit, .. } | Tell::Elapsed { visit, .. } => {
                *visit
            }
        }
    }
}

/// What everybody in the crew hears.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    Beat(&'a Situation),
    PostgresDied,
}

/// An effect without the flow's types.
#[derive(Clone, Debug)]
pub enum Act {
    Cancel,
    Begin { visit: u64, deed: Deed },
    Wake { visit: u64, delay: usize, after: Millis },
    End { state: &'static str },
}

pub type Acts = io::Result<Option<Vec<Act>>>;

/// A machine of any flow.
pub trait Body {
    fn flow(&self) -> &'static str;
    fn state(&self) -> &'static str;
    fn visit(&self) -> u64;
    fn is_working(&self) -> bool;
    fn is_ended(&self) -> bool;
    fn waiting_for(&self) -> String;
    /// A report, a failure or a delay; the acts come only out of a record that was written.
    fn tell(&mut self, tell: Tell, pen: &mut Pen) -> Acts;
    fn hear(&mut self, news: News, pen: &mut Pen) -> Acts;
}

/// The events that a flow makes of the news.
pub trait Hears: Flow {
    fn event(news: News) -> Option<Self::Event>;
}

impl<F: Hears> Body for Machine<F> {
    fn flow(&self) -> &'static str {
        F::ID
    }

    fn state(&self) -> &'static str {
        Machine::state(self).text()
    }

    fn visit(&self) -> u64 {
        Machine::visit(self)
    }

    fn is_working(&self) -> bool {
        Machine::is_working(self)
    }

    fn is_ended(&self) -> bool {
        Machine::is_ended(self)
    }

    fn waiting_for(&self) -> String {
        Machine::waiting_for(self)
    }

    fn tell(&mut self, tell: Tell, pen: &mut Pen) -> Acts {
        let input = match tell {
            Tell::Done { visit, report } => Input::Done { visit, report },
            Tell::Failed { visit, problem } => Input::Failed { visit, problem },
            Tell::Elapsed { visit, delay } => Input::Elapsed { visit, delay: Name::at(delay) },
        };
        handled(self, input, pen)
    }

    fn hear(&mut self, news: News, pen: &mut Pen) -> Acts {
        match F::event(news) {
            Some(event) => handled(self, Input::Event(event), pen),
            None => Ok(None),
        }
    }
}

fn handled<F: Hears>(machine: &mut Machine<F>, input: Input<F>, pen: &mut Pen) -> Acts {
    match machine.handle(input) {
        Some(step) => Ok(Some(acts(step.persist(pen)?))),
        None => Ok(None),
    }
}

fn acts<F: Flow>(effects: Vec<Effect<F>>) -> Vec<Act> {
    let act = |effect: Effect<F>| match effect {
        Effect::Cancel => Act::Cancel,
        Effect::Begin { visit, deed } => Act::Begin { visit, deed },
        Effect::Wake { visit, delay, after } => Act::Wake { visit, delay: delay.index(), after },
        Effect::End(state) => Act::End { state: state.text() },
    };
    effects.into_iter().map(act).collect()
}

macro_rules! deaf {
    ($($flow:ty => $module:ident),*) => {
        $(impl Hears for $flow {
            fn event(_news: News) -> Option<$module::Event> {
                None
            }
        })*
    };
}

deaf!(Bootstrap => bootstrap, ClusterInit => cluster_init, Demote => demote, Promote => promote,
    Rejoin => rejoin, Switchover => switchover);

impl Hears for Node {
    fn event(news: News) -> Option<node::Event> {
        Some(match news {
            News::Beat(situation) => node::Event::Beat(Box::new(situation.clone())),
            News::PostgresDied => node::Event::PostgresDied,
        })
    }
}

impl Hears for Restart {
    fn event(news: News) -> Option<restart::Event> {
        let News::Beat(situation) = news else { return None };
        let another_can_lead = situation.another_can_lead;
        Some(restart::Event::SituationChanged { another_can_lead })
    }
}

impl Hears for ReplicaBuild {
    fn event(news: News) -> Option<replica_build::Event> {
        let News::Beat(situation) = news else { return None };
        Some(replica_build::Event::of(situation))
    }
}

impl Hears for StandbyLeader {
    fn event(news: News) -> Option<standby_leader::Event> {
        let News::Beat(situation) = news else { return None };
        Some(standby_leader::Event::SituationChanged(Box::new(situation.clone())))
    }
}

/// A new machine with its first record written.
pub type Begun = io::Result<(Box<dyn Body>, Vec<Act>)>;

fn begun<F: Hears>(knowledge: F, pen: &mut Pen) -> Begun {
    let (machine, step) = Machine::start(knowledge);
    let acts = acts(step.persist(pen)?);
    Ok((Box::new(machine), acts))
}

pub fn begin_node(pen: &mut Pen) -> Begun {
    begun(Node::default(), pen)
}

/// As the host's.
const REPLICA_START_MS: Millis = 600_000;

/// What a cluster is created by, as the file says.
#[derive(Clone, Debug)]
pub struct BornBy {
    /// `bootstrap.dcs`.
    pub config: serde_json::Value,
    pub methods: Vec<String>,
    /// `post_bootstrap` is set.
    pub has_script: bool,
}

/// A child from its brief, on the node of this name. With the file's creation comes `primary_start_timeout`, in ms.
pub fn begin(
    brief: &Brief,
    node: &str,
    postgres_runs: bool,
    (born_by, start_ms): (BornBy, Millis),
    pen: &mut Pen,
) -> Begun {
    match brief.clone() {
        Brief::ClusterInit { epoch, has_data, runs, remote } => begun(
            ClusterInit {
                epoch,
                node: node.to_string(),
                has_data,
                runs,
                remote,
                config: born_by.config,
                system_identifier: String::new(),
                problem: String::new(),
            },
            pen,
        ),
        Brief::Bootstrap { epoch } => {
            let BornBy { methods, has_script, .. } = born_by;
            begun(Bootstrap { epoch, has_script, methods, ..Bootstrap::default() }, pen)
        }
        Brief::ReplicaBuild { permission, methods, wish } => {
            begun(ReplicaBuild::new(node, permission, methods, wish), pen)
        }
        Brief::Rejoin { source, rules } => begun(Rejoin { source, rules }, pen),
        Brief::Promote { epoch, pre_promote, start_needed, set_aside } => begun(
            Promote {
                epoch,
                node: node.to_string(),
                pre_promote,
                start_needed: start_needed || !postgres_runs,
                set_aside,
                timeline: 0,
                way: Vec::new(),
            },
            pen,
        ),
        Brief::Demote { mode, release } => {
            begun(Demote { mode, release, shutdown: None, hands_over: None }, pen)
        }
        Brief::StandDown { epoch } => {
            let (mode, hands_over) = (StopMode::Fast, Some(epoch));
            begun(Demote { mode, release: None, shutdown: None, hands_over }, pen)
        }
        Brief::Switchover { epoch, candidate } => {
            begun(Switchover { epoch, candidate, shutdown: None }, pen)
        }
        Brief::Restart { as_, crashed } => {
            let usual =
                if matches!(as_, StartAs::Primary { .. }) { start_ms } else { REPLICA_START_MS };
            begun(Restart::new(as_, crashed, usual), pen)
        }
        Brief::StandbyLeader { epoch, remote } => begun(StandbyLeader::new(epoch, remote), pen),
    }
}

pub fn flow_of(brief: &Brief) -> &'static str {
    match brief {
        Brief::ClusterInit { .. } => ClusterInit::ID,
        Brief::Bootstrap { .. } => Bootstrap::ID,
        Brief::ReplicaBuild { .. } => ReplicaBuild::ID,
        Brief::Rejoin { .. } => Rejoin::ID,
        Brief::Promote { .. } => Promote::ID,
        Brief::Demote { .. } | Brief::StandDown { .. } => Demote::ID,
        Brief::Switchover { .. } => Switchover::ID,
        Brief::Restart { .. } => Restart::ID,
        Brief::StandbyLeader { .. } => StandbyLeader::ID,
    }
}

fn resumed<F: Hears>(kept: &Kept) -> (Box<dyn Body>, Vec<Act>) {
    let record: Record<F> =
        serde_json::from_value(kept.record.clone()).expect("the journal gives back what it got");
    let (machine, effects) = Machine::resume(record);
    (Box::new(machine), acts(effects))
}

/// The machine of this flow as its last record left it.
pub fn resume(flow: &str, kept: &Kept) -> (Box<dyn Body>, Vec<Act>) {
    match flow {
        Node::ID => resumed::<Node>(kept),
        ClusterInit::ID => resumed::<ClusterInit>(kept),
        Bootstrap::ID => resumed::<Bootstrap>(kept),
        ReplicaBuild::ID => resumed::<ReplicaBuild>(kept),
        Rejoin::ID => resumed::<Rejoin>(kept),
        Promote::ID => resumed::<Promote>(kept),
        Demote::ID => resumed::<Demote>(kept),
        Switchover::ID => resumed::<Switchover>(kept),
        Restart::ID => resumed::<Restart>(kept),
        StandbyLeader::ID => resumed::<StandbyLeader>(kept),
        other => panic!("the journal holds a record of `{other}`, which is no flow"),
    }
}
