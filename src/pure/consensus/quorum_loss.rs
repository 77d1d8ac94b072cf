//! A majority is lost for ever: what the survivor's own log becomes when it goes on alone.
//!
//! Everything in the survivor's log counts, also entries that nobody confirmed: those who could
//! object are gone. The result is a snapshot whose only voter is the survivor, of a cluster whose
//! epoch is one higher and whose id names the survivor: nodes that were left behind, and another
//! survivor that was recovered too, are refused by the handshake.
use std::collections::BTreeSet;

use raft::eraftpb::{
    ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState, Snapshot,
};
use raft::{GetEntriesContext, Storage};

use super::core::Proposal;
use super::founding::FoundingRecord;
use super::group::{change_of, payload};
use super::log::MemoryLog;
use crate::pure::cluster::RaftId;
use crate::pure::cluster::state::{ClusterState, DECISIONS_MAX, Decision, Member};

/// Stands between a cluster's first id and what recoveries added to it.
const RECOVERED_MARK: char = '+';

/// What a recovery found, and what it puts in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// The newest term that the log knows; the new one is one higher.
    pub term: u64,
    pub last_index: u64,
    /// Ids and names; a node whose name nobody knows any more has an empty one.
    pub voters_before: Vec<(RaftId, String)>,
    pub learners_before: Vec<(RaftId, String)>,
    /// Names of the synchronous set, if the survivor was not in it: data may be missing.
    pub not_synchronous: Option<Vec<String>>,
    pub snapshot: Snapshot,
    pub hard_state: HardState,
    pub founding_record: FoundingRecord,
}

/// The cluster's id without what recoveries added.
pub fn first_id(cluster_id: &str) -> &str {
    cluster_id.split(RECOVERED_MARK).next().unwrap_or(cluster_id)
}

/// Makes the node `id` the only voter of the cluster that `log` tells of.
///
/// # Errors
/// One sentence: this node was never in a cluster, or is no member of it any more.
pub fn recover(
    id: RaftId,
    log: &MemoryLog,
    founding_record: &FoundingRecord,
    wall: &str,
) -> Result<Recovery, String> {
    let cluster_id = founding_record.cluster_id.as_deref().ok_or(
        "this node never belonged to a cluster: there is nothing to recover; start it as it is",
    )?;
    let mut told = Told::of(log)?;
    let own = told.cluster.members.get(&id).cloned().ok_or(
        "this node is no member of the cluster any more (it was removed); recover on another, or \
         move its raft.data_dir aside and let it join as a new member",
    )?;
    let voters_before = told.named(&told.voters);
    let learners_before = told.named(&told.learners);
    let not_synchronous = not_synchronous(&told.cluster, &own);
    let (last_index, last_term) = log.last();
    let term = log.hard_state.term.max(last_term);
    alone(&mut told.cluster, id, own, wall);
    let epoch = founding_record.cluster_epoch + 1;
    Ok(Recovery {
        term,
        last_index,
        voters_before,
        learners_before,
        not_synchronous,
        snapshot: snapshot(id, last_index, last_term, &told.cluster),
        hard_state: HardState { term: term + 1, commit: last_index, ..HardState::default() },
        founding_record: FoundingRecord {
            cluster_id: Some(format!("{}{RECOVERED_MARK}{epoch}.{id:x}", first_id(cluster_id))),
            cluster_epoch: epoch,
            voted_for: None,
            genesis: None,
            heard_of: None,
        },
    })
}

fn not_synchronous(cluster: &ClusterState, own: &Member) -> Option<Vec<String>> {
    let sync = cluster.sync.as_ref().filter(|sync| !sync.sync_standby.is_empty())?;
    let named = sync.leader == own.name || sync.sync_standby.contains(&own.name);
    (!named).then(|| [std::slice::from_ref(&sync.leader), &sync.sync_standby].concat())
}

/// The lease stays: the new arbiter waits until it is over, and so until its guard has acted.
fn alone(cluster: &mut ClusterState, id: RaftId, own: Member, wall: &str) {
    let name = own.name.clone();
    cluster.members = [(id, Member { left: false, ..own })].into();
    cluster.sync = None;
    cluster.failover = None;
    cluster.decisions.push(Decision {
        epoch: cluster.epoch,
        winner: None,
        reason: format!("`surus recover`: {name} goes on alone, without the majority"),
        verdicts: Vec::new(),
        at: wall.to_string(),
    });
    let too_many = cluster.decisions.len().saturating_sub(DECISIONS_MAX);
    cluster.decisions.drain(..too_many);
}

fn snapshot(id: RaftId, index: u64, term: u64, cluster: &ClusterState) -> Snapshot {
    let mut conf = ConfState::default();
    conf.set_voters(vec![id]);
    let mut snapshot = Snapshot::default();
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (index, term);
    meta.set_conf_state(conf);
    snapshot.data = serde_json::to_vec(cluster).expect("a state is plain data").into();
    snapshot
}

/// The state after every entry of the log. That the last of them were agreed on is not always on this
/// disk: the commit index goes along with the next write.
///
/// # Errors
/// One sentence: the snapshot or the log cannot be read.
pub fn last_state(log: &MemoryLog) -> Result<ClusterState, String> {
    Told::of(log).map(|told| told.cluster)
}

/// The state and the membership after the entries of the log.
struct Told {
    cluster: ClusterState,
    voters: BTreeSet<RaftId>,
    learners: BTreeSet<RaftId>,
}

impl Told {
    fn of(log: &MemoryLog) -> Result<Told, String> {
        let cluster: ClusterState = serde_json::from_slice(&log.snapshot.data)
            .or_else(|error| match log.snapshot.data.is_empty() {
                true => Ok(ClusterState::default()),
                false => Err(error),
            })
            .map_err(|error| format!("the snapshot of the Raft log cannot be read: {error}"))?;
        let conf = &log.conf_state;
        let mut told = Told {
            cluster,
            voters: conf.voters.iter().copied().collect(),
            learners: conf.learners.iter().chain(&conf.learners_next).copied().collect(),
        };
        let context = GetEntriesContext::empty(false);
        let entries = match log.last().0 + 1 - log.first() {
            0 => Vec::new(),
            _ => log
                .entries(log.first(), log.last().0 + 1, None, context)
                .map_err(|error| format!("the Raft log cannot be read: {error}"))?,
        };
        entries.iter().try_for_each(|entry| told.hear(entry))?;
        Ok(told)
    }

    fn hear(&mut self, entry: &Entry) -> Result<(), String> {
        let unknown = |error: &dyn std::fmt::Display| {
            format!(
                "entry {} of the Raft log was written by another version and is not known to this \
                 one: {error}; use the version that wrote it",
                entry.index
            )
        };
        if entry.get_entry_type() != EntryType::EntryNormal {
            self.change_membership(&change_of(entry).map_err(|error| unknown(&error))?);
        } else if let Some(bytes) = payload(entry) {
            let proposal: Proposal = serde_json::from_slice(bytes).map_err(|e| unknown(&e))?;
            self.cluster.apply_of(proposal.origin, entry.index, proposal.command);
        }
        self.cluster.applied = entry.index;
        Ok(())
    }

    fn change_membership(&mut self, change: &ConfChangeV2) {
        for single in change.get_changes() {
            let id = single.node_id;
            self.voters.remove(&id);
            self.learners.remove(&id);
            match single.get_change_type() {
                ConfChangeType::RemoveNode => {
                    self.cluster.forget_member(id);
                }
                ConfChangeType::AddNode => {
                    self.voters.insert(id);
                }
                ConfChangeType::AddLearnerNode => {
                    self.learners.insert(id);
                    if let Ok(member) = serde_json::from_slice(change.get_context()) {
                        self.cluster.members.insert(id, member);
                    }
                }
            }
        }
    }

    fn named(&self, ids: &BTreeSet<RaftId>) -> Vec<(RaftId, String)> {
        let name = |id: &RaftId| self.cluster.name_of(*id).unwrap_or_default().to_string();
        ids.iter().map(|id| (*id, name(id))).collect()
    }
}
