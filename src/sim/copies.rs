//! The operations between two made-up servers: whom one reaches, copies, compares and rewinds.
use super::flows::Work;
use super::operations::Look::{self, Again, Done};
use super::operations::failed;
use super::postgres::{Cluster, Data};
use super::remote::REMOTE;
use super::world::World;
use crate::pure::operation::{Report, Source};
use crate::pure::postgres::history::{divergence, namesake};

/// Of a thousand copies, so many need WAL of their source before they are consistent.
const UNRIPE: u64 = 400;

impl World {
    /// The node that a source names, or the other site.
    pub(super) fn node_at(&self, source: &Source) -> Option<usize> {
        if source.is_remote() {
            return Some(REMOTE);
        }
        let at = source.host.rsplit('.').next()?.parse::<usize>().ok()?.checked_sub(1)?;
        (at < self.nodes.len()).then_some(at)
    }

    /// The source's PostgreSQL answers, and we can reach it.
    pub(super) fn answering(&self, at: usize, source: &Source) -> Option<usize> {
        let from = self.node_at(source).filter(|from| *from != at && *from != REMOTE)?;
        let answers = self.nodes[from].postgres.answers();
        (answers && self.network.reaches(at, from)).then_some(from)
    }

    pub(super) fn check_method(&mut self, at: usize, source: Option<&Source>) -> Look {
        let ours = |from: &usize| self.is_of_this_cluster(&self.nodes[*from]);
        let answers = |source: &Source| {
            self.answering(at, source).filter(ours).is_some() || self.remote_is_same_cluster(source)
        };
        match source.map(answers) {
            Some(false) => failed("the source does not answer, or is of another cluster"),
            None | Some(true) => Done(Report::Done),
        }
    }

    pub(super) fn copy(&mut self, at: usize, work: &Work, source: Option<&Source>) -> Look {
        let Some(source) = source else { return failed("there is nobody to copy from") };
        let from = self.answering(at, source);
        let fails = self.fails();
        let remote = self.remote_is_same_cluster(source);
        let Some(from) = from.or(remote.then_some(REMOTE)) else {
            return failed("the source does not answer");
        };
        if work.looks == 1 {
            let postgres = &self.nodes[at].postgres;
            if matches!(postgres.data, Data::Present(_)) && !postgres.is_its_builds() {
                return failed("a complete data directory lies there");
            }
            self.nodes[at].postgres.data = Data::Incomplete;
        }
        if fails {
            return failed("pg_basebackup failed");
        }
        if work.looks <= 4 {
            return Again(self.rng.between(50, self.plan.copy_ms_max / 4));
        }
        let Some(cluster) = self.data_of(from) else {
            return failed("the source has no data");
        };
        let names = String::new();
        // A copy brings the WAL that makes it consistent along; one that was cut short, or whose source
        // wrote on, needs more. The other site keeps what its copies need; a member may be gone.
        let unripe = from != REMOTE && self.rng.in_thousand(UNRIPE);
        let copy = self.fresh();
        self.nodes[at].postgres.unproven = true;
        self.nodes[at].postgres.data = Data::Present(Cluster {
            standby: true,
            clean: true,
            unripe,
            copy,
            synchronous_standby_names: names,
            ..cluster
        });
        Done(Report::Done)
    }

    pub(super) fn verify(&mut self, at: usize) -> Look {
        let copy = self.fresh();
        let runs = self.nodes[at].postgres.server.is_some();
        let stranger = !runs && self.is_known_cluster(at) == Some(false);
        match self.nodes[at].postgres.cluster_mut() {
            Some(_) if stranger => failed("the copy is of another cluster: correct the source"),
            Some(cluster) => {
                cluster.copy = if runs && cluster.copy == 0 { copy } else { cluster.copy };
                let system_identifier = cluster.system_identifier.to_string();
                Done(Report::Identified { system_identifier })
            }
            None => failed("what lies there is not a complete cluster"),
        }
    }

    pub(super) fn watch_replay(&mut self, at: usize) -> Look {
        match &self.nodes[at].postgres.server {
            None => failed("PostgreSQL died"),
            Some(s) if s.streamed_at.is_some_and(|t| self.now < t + 1000) => Done(Report::Done),
            Some(_) => Again(200),
        }
    }

    pub(super) fn check_divergence(&mut self, at: usize, source: &Source) -> Look {
        let from = self.answering(at, source);
        let follows = self.nodes[at].daemon.as_ref().is_some_and(|d| {
            let dynamic = d.core.dynamic();
            dynamic.standby_cluster.is_some()
        });
        let from = from.filter(|from| follows || self.nodes[*from].postgres.is_writable());
        let remote = source.is_remote() && self.remote.is_itself();
        let from = from.or(remote.then_some(REMOTE));
        let Some(from) = from else { return failed("the leader does not answer") };
        let ours = self.nodes[at].postgres.cluster();
        let (Some(ours), Some(theirs)) = (ours, self.data_of(from)) else {
            return failed("there is no data to compare");
        };
        if ours.system_identifier != theirs.system_identifier {
            return failed("our cluster and the leader's are not copies of each other");
        }
        let (mine, lineage) = (ours.wal.history(), theirs.lineage());
        let found = divergence(ours.wal.timeline(), Some(&mine), ours.left(), &lineage);
        Done(Report::Diverged { yes: found.yes, because: found.because })
    }

    pub(super) fn rewind(&mut self, at: usize, work: &Work, source: &Source) -> Look {
        if self.nodes[at].postgres.server.is_some() {
            return failed("PostgreSQL runs");
        }
        let from = self.answering(at, source);
        let fails = self.fails();
        let Some(from) = from.filter(|_| !fails) else { return failed("pg_rewind failed") };
        if work.looks == 1 {
            return Again(self.rng.between(200, 1500));
        }
        let Some(source) = self.data_of(from) else {
            return failed("the source has no data");
        };
        let copy = self.fresh();
        let (theirs, lineage) = (&source.wal, source.lineage());
        let Some(ours) = self.nodes[at].postgres.cluster_mut() else {
            return failed("there is no data to rewind");
        };
        if ours.system_identifier != source.system_identifier {
            return failed("source and target are of different systems");
        }
        if namesake(ours.wal.timeline(), Some(&ours.wal.history()), &lineage).is_some() {
            return failed("pg_rewind would mix two histories");
        }
        let common = ours.wal.common(theirs);
        ours.wal.cut(common);
        (ours.standby, ours.unripe, ours.copy) = (true, true, copy);
        Done(Report::Done)
    }
}
