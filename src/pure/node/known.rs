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
    node: Known<Node>,
    build: Known<ReplicaBuild>,
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
    /// The outer `None`: not known now; the operation that points it next writes the files with what is
    /// in force then.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::machine::Record;
    use crate::pure::operation::{ReinitOptions, Remote, StartAs, WipePermission};

    fn source(member: &str) -> Source {
        Source { member: member.into(), ..Source::default() }
    }

    /// A machine of this flow, in this state.
    fn at<F: Flow>(state: &str, knowledge: F) -> Machine<F> {
        let record = Machine::start(knowledge).1.record;
        Machine::resume(Record { to: state.into(), ..record }).0
    }

    fn flows(state: &str, node: Node) -> Flows {
        let mut flows = Flows::default();
        flows.note(&at(state, node));
        flows
    }

    #[test]
    fn upstream_is_the_nodes_own_unless_it_leads_a_standby_cluster() {
        let node = Node { upstream: Some(source("n1")), ..Node::default() };
        assert_eq!(Flows::default().upstream_in_use(), None);
        let following = flows("following", node.clone());
        assert_eq!(following.upstream_in_use(), Some(Some(source("n1"))));
        let mut leads = flows("standby_leading", node);
        assert_eq!(leads.upstream_in_use(), None, "its flow is not known yet");
        let remote = Remote { source: Some(source("remote")), ..Remote::default() };
        let mut under = |state: &str| {
            leads.note(&at(state, StandbyLeader::new(1, remote.clone())));
            leads.upstream_in_use()
        };
        assert_eq!(under("leading_standbys"), Some(Some(source("remote"))));
        assert_eq!(under("behind_remote"), Some(Some(source("remote"))));
        assert_eq!(under("unrelated_remote"), Some(None));
        assert_eq!(under("judging"), None);
    }

    #[test]
    fn build_runs_for_the_operator_only_where_one_asked() {
        let asked = Node { reinit: Some(ReinitOptions::default()), ..Node::default() };
        assert!(flows("building", asked.clone()).reinitializes());
        assert!(!flows("following", asked).reinitializes());
        assert!(!flows("building", Node::default()).reinitializes());
    }

    #[test]
    fn build_that_the_node_is_past_is_not_shown() {
        let build = || {
            at(
                "waiting",
                ReplicaBuild::new("n1", WipePermission::OwnLeftovers, vec![], Default::default()),
            )
        };
        for (state, shown) in [("building", true), ("initialising", true), ("following", false)] {
            let mut flows = flows(state, Node::default());
            flows.note(&build());
            assert_eq!(flows.running_build().is_some(), shown, "{state}");
        }
    }

    #[test]
    fn start_is_overdue_until_the_flow_is_forgotten() {
        let known = Restart::new(StartAs::Primary { epoch: 1 }, true, 0);
        let mut flows = Flows::default();
        flows.note(&at("starting", known.clone()));
        assert!(!flows.start_is_overdue());
        flows.note(&at("starting", Restart { timed_out: true, ..known }));
        assert!(flows.start_is_overdue());
        flows.forget(Restart::ID);
        assert!(!flows.start_is_overdue());
    }
}
