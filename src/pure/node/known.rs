//! What the running flows know, as their own types: others need not read it from what people are shown.
use crate::pure::flow::node;
use crate::pure::flow::node::Node;
use crate::pure::flow::replica_build::{self, ReplicaBuild};
use crate::pure::flow::restart::{self, Restart};
use crate::pure::flow::standby_leader::{self, StandbyLeader};
use crate::pure::machine::any::AnyMachine;
use crate::pure::machine::{Flow, Machine, State};
use crate::pure::operation::Source;

/// One running flow: where it is and what it knows.
type Known<F> = Option<(State<F>, F)>;

/// The running flows of one node of which others need to know.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    pub node: Known<Node>,
    pub build: Known<ReplicaBuild>,
    standby_leader: Known<StandbyLeader>,
    restart: Known<Restart>,
}

impl Flows {
    /// Takes over where this machine is and what it knows.
    pub fn note(&mut self, machine: &dyn AnyMachine) {
        keep(&mut self.node, machine);
        keep(&mut self.build, machine);
        keep(&mut self.standby_leader, machine);
        keep(&mut self.restart, machine);
    }

    /// The flow of this id runs no more.
    pub fn forget(&mut self, flow: &str) {
        match flow {
            Node::ID => self.node = None,
            ReplicaBuild::ID => self.build = None,
            StandbyLeader::ID => self.standby_leader = None,
            Restart::ID => self.restart = None,
            _ => {}
        }
    }

    /// The state of the flow `node`.
    pub fn node_state(&self) -> Option<node::State> {
        self.node.as_ref().map(|(state, _)| *state)
    }

    /// A start takes longer than `primary_start_timeout` and goes on.
    pub fn start_is_overdue(&self) -> bool {
        let restart = self.restart.as_ref();
        restart.is_some_and(|(state, known)| *state == restart::State::Starting && known.timed_out)
    }

    /// A copy is made because the operator asked for one.
    pub fn reinitializes(&self) -> bool {
        let node = self.node.as_ref();
        node.is_some_and(|(state, known)| *state == node::State::Building && known.reinit.is_some())
    }

    /// The build that is under way, unless the node is past it.
    pub fn running_build(&self) -> Option<&(replica_build::State, ReplicaBuild)> {
        let builds = [node::State::Building, node::State::Initialising];
        self.build.as_ref().filter(|_| self.node_state().is_some_and(|at| builds.contains(&at)))
    }

    /// Which upstream PostgreSQL follows, as this node's own flows have it.
    ///
    /// The outer `None`: whoever points it somewhere writes the files with what is in force then.
    pub fn upstream_in_use(&self) -> Option<Option<Source>> {
        let (state, node) = self.node.as_ref()?;
        if *state != node::State::StandbyLeading {
            return Some(node.upstream.clone());
        }
        let (state, flow) = self.standby_leader.as_ref()?;
        match state {
            standby_leader::State::LeadingStandbys | standby_leader::State::BehindRemote => {
                Some(flow.remote.source.clone())
            }
            standby_leader::State::UnrelatedRemote => Some(None),
            _ => None,
        }
    }
}

fn keep<F: Flow>(known: &mut Known<F>, machine: &dyn AnyMachine) {
    if let Some(machine) = machine.as_any().downcast_ref::<Machine<F>>() {
        *known = Some((machine.state(), machine.knowledge().clone()));
    }
}
