//! P3: a scope is founded once and initialised at most once.
use super::super::world::World;
use crate::pure::consensus::founding::FoundingRecord;

impl World {
    /// A promise is given once. It moves only from oneself to a lower address, or away from a founder
    /// that stands behind somebody else, so that it can never found.
    pub fn check_one_founding_vote(&mut self, at: usize, founding_record: &FoundingRecord) {
        let Some(before) = self.nodes[at].disk.founding_record.voted_for else { return };
        let Some(now) = founding_record.voted_for.filter(|now| *now != before) else { return };
        let founder = self.nodes.iter().find(|n| n.raft_id == before);
        let stands_for_itself = founder.is_some_and(|founder| {
            founder.at != at && founder.disk.founding_record.voted_for == Some(before)
        });
        if stands_for_itself {
            let what = format!("n{at} promised to let {before} found, and now {now}");
            self.checks.broken("P3", what);
        }
    }

    /// A node writes down which cluster it belongs to: there may be only one.
    pub fn check_one_founding(&mut self, at: usize, founding_record: &FoundingRecord) {
        let Some(id) = &founding_record.cluster_id else { return };
        let known = self.checks.cluster_id.get_or_insert_with(|| id.clone());
        if known != id {
            let what = format!("n{at} belongs to the cluster {id}, others to {known}");
            self.checks.broken("P3", what);
        }
    }

    /// A node is about to publish the cluster that it made: every step of its creation is done.
    pub fn check_bootstrap_is_complete(&mut self, at: usize) {
        let cluster = self.nodes[at].postgres.cluster();
        let whole = cluster.is_some_and(|c| c.sealed && c.scripted && !c.recovers);
        if !whole {
            let what =
                format!("{} publishes {cluster:?}, which is not complete", self.nodes[at].name);
            self.checks.broken("P3", what);
        }
    }

    pub fn check_one_bootstrap(&mut self, identity: Option<String>) {
        match (&self.checks.identity, identity) {
            (None, Some(new)) => self.checks.identity = Some(new),
            (Some(old), new) if new.as_ref() != Some(old) => {
                let what = format!("the cluster was {old} and is now {new:?}");
                self.checks.broken("P3", what);
            }
            (None, None) | (Some(_), _) => {}
        }
    }
}
