//! The operations by which a made-up cluster comes into the world: initdb or a restore, its recovery, its
//! script and roles, its seal.
use super::flows::Work;
use super::operations::Look::{self, Again, Done};
use super::operations::failed;
use super::postgres::{Cluster, Data, Wal};
use super::world::{Event, World};
use crate::pure::flow::bootstrap::INITDB;
use crate::pure::operation::Report;

impl World {
    pub(super) fn create_cluster(&mut self, at: usize, work: &Work, method: &str) -> Look {
        let restores = method != INITDB;
        match &self.nodes[at].postgres.data {
            Data::Present(cluster) if cluster.sealed => return failed("a cluster lies there"),
            Data::Present(_) if restores => return Done(Report::Done),
            Data::Present(_) if self.nodes[at].postgres.server.is_some() => {
                return failed("PostgreSQL runs in it");
            }
            Data::Present(_) => {
                self.move_aside(at);
            }
            Data::Empty | Data::Incomplete => {}
        }
        if work.looks == 1 {
            self.nodes[at].postgres.data = Data::Incomplete;
            return Again(self.rng.between(300, 1500));
        }
        if self.fails() {
            return failed("initdb failed");
        }
        let system_identifier = 7_000_000 + self.fresh();
        let mut wal = Wal::default();
        wal.push(1, self.fresh());
        self.nodes[at].postgres.data = Data::Present(Cluster {
            recovers: restores,
            scripted: false,
            sealed: false,
            ..Cluster::whole(system_identifier, wal, false)
        });
        Done(Report::Done)
    }

    /// The restored server leaves recovery by itself, when it is where it was told to stop.
    pub(super) fn await_recovery(&mut self, at: usize, work: &mut Work) -> Look {
        let fails = self.fails();
        let Some(server) = &self.nodes[at].postgres.server else {
            return failed("PostgreSQL ended while it recovered");
        };
        if server.accepts && !server.in_recovery {
            return Done(Report::Done);
        }
        if work.generation.is_none() && server.accepts {
            let generation = server.generation;
            work.generation = Some(generation);
            if fails {
                return failed("recovery ended before its target was reached");
            }
            let took = self.rng.between(50, 4000);
            self.after(took, Event::PgPromoted { node: at, generation });
        }
        Again(50)
    }

    pub(super) fn run_script(&mut self, at: usize) -> Look {
        if self.fails() {
            return failed("post_bootstrap ended with exit code 1");
        }
        let postgres = &mut self.nodes[at].postgres;
        if !postgres.takes_writes() {
            return failed("PostgreSQL does not take writes");
        }
        if let Some(cluster) = postgres.cluster_mut() {
            cluster.scripted = true;
        }
        Done(Report::Ran(Default::default()))
    }

    pub(super) fn seal(&mut self, at: usize) -> Look {
        if let Some(cluster) = self.nodes[at].postgres.cluster_mut() {
            cluster.sealed = true;
        }
        Done(Report::Done)
    }

    pub(super) fn create_roles(&mut self, at: usize) -> Look {
        let id = self.fresh();
        let has_script = self.plan.has_script;
        let postgres = &mut self.nodes[at].postgres;
        if !postgres.takes_writes() {
            return failed("PostgreSQL does not take writes");
        }
        if let Some(cluster) = postgres.cluster_mut() {
            cluster.wal.push(cluster.wal.timeline(), id);
            cluster.scripted |= !has_script;
        }
        self.flush_all(at);
        Done(Report::Done)
    }
}
