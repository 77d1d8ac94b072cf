//! Where this node stands in the cluster, right now: the level that every flow is told again and
//! again. Computed from the replicated state, the live lease and what was heard; decides nothing.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pure::cluster::RaftId;
use crate::pure::cluster::eligibility::{Candidate, Election, LastLeader};
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::rank::furthest;
use crate::pure::cluster::remote::{
    RemoteFacts, RemoteRelation, is_behind_remote, standing as standing_of,
};
use crate::pure::cluster::state::{ClusterState, FailoverRequest, Initialize, Purpose, Sync};
use crate::pure::cluster::sync::{STRICT_PLACEHOLDER, SyncStep};
use crate::pure::config::{Dynamic, StandbyCluster};
use crate::pure::operation::{
    Method, Offer, OfferKind, ReinitOptions, RejoinRules, Remote, Source,
};
use crate::pure::postgres::slot::slot_name;
use crate::pure::postgres::state::PgState;

/// One look at everything that may move a flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Situation {
    pub lease: LeaseStatus,
    /// The cluster's system identifier, once it exists.
    pub initialized: Option<String>,
    /// Of the dynamic configuration.
    #[serde(default)]
    pub config_version: u64,
    /// Whom to stream from; nobody while nobody leads.
    pub upstream: Option<Source>,
    /// Whom one could copy from, best first.
    #[serde(default)]
    pub clone_offers: Vec<Offer>,
    /// A postmaster of this data directory lives.
    pub postmaster_alive: bool,
    /// PostgreSQL runs, and what it runs on was removed under it.
    #[serde(default)]
    pub data_is_gone: bool,
    /// A guard is armed here and its deadline is ahead.
    pub guarded: bool,
    /// The epoch of an armed guard, whatever its deadline.
    #[serde(default)]
    pub armed: Option<u64>,
    /// What runs here is another cluster's, by its own word.
    #[serde(default)]
    pub stranger: bool,
    /// What SQL says; nothing while PostgreSQL does not answer.
    pub in_recovery: Option<bool>,
    /// The timeline that the leader went on to while this replica does not stream.
    #[serde(default)]
    pub timeline_behind_since: Option<u32>,
    /// A planned exchange is due: the candidate, if one is possible.
    pub hand_over: Option<HandOver>,
    pub requests: OperatorRequests,
    pub rules: RejoinRules,
    pub pre_promote: bool,
    pub sync_step: Option<SyncStep>,
    /// Of the synchronous set that the step was found for.
    #[serde(default)]
    pub sync_version: u64,
    /// PostgreSQL waits for somebody: what to publish once more before it may wait for others,
    /// where an earlier proposal may still be on its way.
    #[serde(default)]
    pub sync_barrier: Option<Sync>,
    /// This is a standby cluster: whom its leader follows.
    pub remote: Option<Remote>,
    /// What that remote is to us, by this node's own look at it.
    #[serde(default)]
    pub remote_relation: RemoteRelation,
    /// It does not stream, and the remote went on to another timeline.
    #[serde(default)]
    pub behind_remote: bool,
    /// The timeline that was set aside with the lease that is in force.
    #[serde(default)]
    pub set_aside: u32,
    /// On which our PostgreSQL is.
    #[serde(default)]
    pub timeline: u32,
    /// The remote answers and takes writes: the other site's primary, and no standby.
    #[serde(default)]
    pub remote_writes: bool,
    /// The section was taken out, and nothing speaks against the promotion.
    #[serde(default)]
    pub may_be_promoted: bool,
    /// The section was taken out before this cluster followed anybody.
    #[serde(default)]
    pub never_followed: bool,
    /// We hold the lease and do not write, and by what was last heard another member could take over.
    #[serde(default)]
    pub another_can_lead: bool,
}

/// This node and the lease. `Mine` only while the deadline is ahead: hope is not a lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum LeaseStatus {
    #[default]
    Nobody,
    Theirs {
        leader: Option<String>,
    },
    Mine {
        epoch: u64,
        /// Granted to create the cluster.
        creates: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandOver {
    pub request: FailoverRequest,
    /// Nobody: it cannot be done, and the request is dropped.
    pub candidate: Option<String>,
}

/// What the operator asked of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRequests {
    pub restart: bool,
    pub reinitialize: bool,
    /// With `reinitialize`: how.
    #[serde(default)]
    pub build: ReinitOptions,
    /// The running build is to be called off.
    #[serde(default)]
    pub cancel_build: bool,
    pub stop: bool,
}

/// What the situation is computed from.
pub struct Sources<'a> {
    pub own: RaftId,
    pub cluster: &'a ClusterState,
    pub dynamic: &'a Dynamic,
    /// Epoch of our lease while its deadline is ahead.
    pub live_epoch: Option<u64>,
    pub heard: &'a BTreeMap<RaftId, &'a Facts>,
    pub requests: OperatorRequests,
    pub methods: Vec<Method>,
    pub postmaster_alive: bool,
    pub data_is_gone: bool,
    /// The epoch of an armed guard whose deadline is ahead.
    pub guarded: Option<u64>,
    /// The epoch of an armed guard.
    pub armed: Option<u64>,
    /// A scheduled request is due (wall clock: the host knows).
    pub failover_is_due: bool,
    /// The effective settings that the flows need.
    pub use_pg_rewind: bool,
    pub use_slots: bool,
    pub remove_on_rewind_failure: bool,
    pub remove_on_diverged_timelines: bool,
    pub pre_promote: bool,
    pub sync_step: Option<SyncStep>,
    pub another_can_lead: bool,
}

impl Situation {
    pub fn compute(s: Sources) -> Situation {
        let lease = standing(&s);
        let own = s.heard.get(&s.own);
        let in_recovery = own.and_then(|f| f.sql.as_ref()).map(|sql| sql.in_recovery);
        // Whoever writes has been promoted, or was never demoted.
        let never_followed = s.dynamic.leaves_standby && in_recovery == Some(false);
        let section = s.dynamic.standby_cluster.as_ref().filter(|_| !never_followed);
        let remote = section.map(|section| remote(&s, section));
        let upstream = upstream(&s, &lease, &remote);
        let clone_offers = clone_offers(&s, &lease, &upstream);
        let facts = own.and_then(|f| f.remote.as_ref());
        let leader_has_begun = section.is_some() || leader_has_begun(&s, &lease);
        Situation {
            hand_over: hand_over(&s, &lease),
            timeline_behind_since: timeline_behind_since(&s, &lease),
            rules: rules(&s),
            initialized: s.cluster.system_identifier().map(str::to_string),
            config_version: s.cluster.config_version,
            in_recovery,
            remote_relation: section
                .map(|c| standing_of(c, facts, s.cluster.system_identifier()))
                .unwrap_or_default(),
            set_aside: s.cluster.timeline,
            timeline: own.and_then(|f| f.sql.as_ref()).map_or(0, |sql| sql.timeline),
            remote_writes: facts.is_some_and(|facts| facts.accepts_writes == Some(true)),
            behind_remote: section.is_some()
                && is_behind_remote(facts, own.and_then(|f| f.sql.as_ref())),
            may_be_promoted: s.dynamic.leaves_standby && may_be_promoted(&s, section),
            never_followed,
            postmaster_alive: s.postmaster_alive,
            data_is_gone: s.data_is_gone,
            guarded: s.guarded.is_some(),
            armed: s.armed,
            stranger: runs_a_stranger(&s, own),
            pre_promote: s.pre_promote,
            lease,
            upstream,
            clone_offers,
            requests: OperatorRequests {
                reinitialize: s.requests.reinitialize && leader_has_begun,
                ..s.requests
            },
            sync_step: s.sync_step,
            another_can_lead: s.another_can_lead,
            sync_version: s.cluster.sync_version,
            sync_barrier: s.cluster.sync.clone().filter(|_| waits_for_somebody(own)),
            remote,
        }
    }

    pub fn epoch(&self) -> Option<u64> {
        match self.lease {
            LeaseStatus::Mine { epoch, .. } => Some(epoch),
            LeaseStatus::Nobody | LeaseStatus::Theirs { .. } => None,
        }
    }
}

/// The holder has our name and is not us: we were that before our state directory was lost, and nobody is
/// it any more.
fn was_us(s: &Sources, holder: RaftId) -> bool {
    let own = s.heard.get(&s.own).map(|facts| facts.name.as_str());
    holder != s.own && own.is_some() && s.cluster.name_of(holder) == own
}

/// What our own guard was armed for was granted: a log that does not know of it has not caught up
/// since the daemon came back, and what it says of the lease is old.
fn standing(s: &Sources) -> LeaseStatus {
    match &s.cluster.lease {
        _ if s.guarded.is_some_and(|epoch| epoch > s.cluster.epoch) => LeaseStatus::Nobody,
        None => LeaseStatus::Nobody,
        Some(lease) if was_us(s, lease.holder) => LeaseStatus::Nobody,
        Some(lease) if lease.holder == s.own => match s.live_epoch {
            Some(epoch) if epoch == lease.epoch => {
                LeaseStatus::Mine { epoch, creates: lease.purpose == Purpose::Initialise }
            }
            _ => LeaseStatus::Nobody,
        },
        Some(lease) if lease.purpose == Purpose::Initialise => LeaseStatus::Theirs { leader: None },
        Some(lease) => {
            LeaseStatus::Theirs { leader: s.cluster.name_of(lease.holder).map(str::to_string) }
        }
    }
}

/// Until a new leader writes, by its own word, ours may be the best copy that is left: an order to copy anew waits.
fn leader_has_begun(s: &Sources, lease: &LeaseStatus) -> bool {
    let LeaseStatus::Theirs { .. } = lease else { return true };
    let holder = s.cluster.lease.as_ref().and_then(|lease| s.heard.get(&lease.holder));
    holder.and_then(|facts| facts.sql.as_ref()).is_some_and(|sql| !sql.in_recovery)
}

fn runs_a_stranger(s: &Sources, own: Option<&&Facts>) -> bool {
    let sql = own.and_then(|facts| facts.sql.as_ref());
    let (known, found) =
        (s.cluster.system_identifier(), sql.map(|sql| sql.system_identifier.as_str()));
    known.is_some() && found.is_some_and(|found| !found.is_empty() && Some(found) != known)
}

fn remote(s: &Sources, section: &StandbyCluster) -> Remote {
    let port = section.port.unwrap_or(5432);
    let seen = s.heard.get(&s.own).and_then(|facts| facts.remote.as_ref());
    let taken = seen.is_some_and(RemoteFacts::slot_is_taken);
    let slot = section.primary_slot_name.clone().filter(|_| s.use_slots && !taken);
    let source = section.host.as_deref().map(|host| Source::remote(host, port, slot));
    Remote { source, methods: s.methods.clone() }
}

fn may_be_promoted(s: &Sources, section: Option<&StandbyCluster>) -> bool {
    let own = s.heard.get(&s.own);
    let (sql, remote) = (own.and_then(|f| f.sql.as_ref()), own.and_then(|f| f.remote.as_ref()));
    section.is_some_and(|section| s.cluster.may_be_promoted(section, sql, remote).is_ok())
}

/// A member as somebody to connect to; the slot is ours on its server.
fn source_of(s: &Sources, name: &str) -> Option<Source> {
    let (id, member) = s.cluster.member_named(name)?;
    let at = member.host_port().filter(|_| id != s.own)?;
    let own = s.cluster.name_of(s.own).unwrap_or_default();
    let slot = s.use_slots.then(|| slot_name(own));
    Some(Source { member: name.to_string(), host: at.host, port: at.port, slot })
}

fn replicatefrom(s: &Sources) -> Option<String> {
    s.heard.get(&s.own)?.tags.replicatefrom()
}

fn upstream(s: &Sources, lease: &LeaseStatus, remote: &Option<Remote>) -> Option<Source> {
    if s.cluster.initialize == Initialize::Absent {
        return None;
    }
    if s.heard.get(&s.own).is_some_and(|f| f.tags.nostream()) {
        return None;
    }
    match lease {
        LeaseStatus::Mine { .. } => remote.as_ref().and_then(|remote| remote.source.clone()),
        LeaseStatus::Nobody => None,
        LeaseStatus::Theirs { leader } => {
            let leader = leader.as_deref()?;
            let wanted = replicatefrom(s).filter(|name| {
                s.cluster.member_named(name).is_some_and(|(id, _)| {
                    s.heard.get(&id).is_some_and(|f| f.state == PgState::Running)
                })
            });
            wanted.and_then(|name| source_of(s, &name)).or_else(|| source_of(s, leader))
        }
    }
}

/// A replica may have compared itself with its leader before that was promoted, and hold more than
/// it had then: such a one never streams, and has to be compared again.
fn timeline_behind_since(s: &Sources, lease: &LeaseStatus) -> Option<u32> {
    let LeaseStatus::Theirs { leader: Some(leader) } = lease else { return None };
    let lead = s.heard.values().find(|f| f.name == *leader)?.sql.as_ref()?;
    let own = s.heard.get(&s.own)?.sql.as_ref()?;
    let streams = own.replication_state.as_deref() == Some("streaming");
    (own.in_recovery && !streams && lead.timeline > own.timeline).then_some(lead.timeline)
}

/// Positions closer than this count as equal: then the less busy one is preferred.
const LAG_STEP_BYTES: u64 = 16 << 20;

/// Members that run, best first: those tagged `clonefrom`, then the leader, then all others; within
/// each by timeline, lag and load.
fn clone_offers(s: &Sources, lease: &LeaseStatus, upstream: &Option<Source>) -> Vec<Offer> {
    if matches!(lease, LeaseStatus::Mine { .. }) {
        // The leader of a standby cluster has only the remote to copy from.
        let remote = upstream.clone().map(|source| Offer { source, kind: OfferKind::Leader });
        return remote.into_iter().collect();
    }
    let leader = s.cluster.leader();
    let lead = s.heard.values().find(|f| Some(f.name.as_str()) == leader);
    let end = lead.and_then(|f| f.sql.as_ref()).map(|sql| sql.position()).unwrap_or_default();
    let newest = lead.and_then(|f| f.sql.as_ref()).map_or(0, |sql| sql.timeline);
    let slot = upstream.as_ref().and_then(|u| u.slot.clone());
    let mut ranked: Vec<_> = s
        .heard
        .values()
        .filter(|f| f.raft_id != s.own && f.state == PgState::Running)
        .filter(|f| leader != Some(f.name.as_str()))
        .filter_map(|f| {
            let sql = f.sql.as_ref().filter(|sql| sql.in_recovery)?;
            let tagged = f.tags.clonefrom() && sql.timeline >= newest;
            let kind = if tagged { OfferKind::CloneFrom } else { OfferKind::Member };
            let lag = end.since(sql.replay_lsn) / LAG_STEP_BYTES;
            let source = Source { slot: slot.clone(), ..source_of(s, &f.name)? };
            let place = if tagged { 0 } else { 2 };
            let timeline = std::cmp::Reverse(sql.timeline);
            Some(((place, timeline, lag, load(s, f), f.name.clone()), Offer { source, kind }))
        })
        .collect();
    if let Some(source) = leader.and_then(|name| source_of(s, name)) {
        let key = (1, std::cmp::Reverse(0), 0, 0, String::new());
        ranked.push((key, Offer { source, kind: OfferKind::Leader }));
    }
    ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
    ranked.into_iter().map(|(_, offer)| offer).collect()
}

/// How many it serves already: streams, and builds that copy from it.
fn load(s: &Sources, member: &Facts) -> usize {
    let builds = |f: &&&Facts| f.build.as_ref().is_some_and(|b| b.source == member.name);
    let copies = s.heard.values().filter(|f| f.raft_id != s.own).filter(builds).count();
    copies + member.sql.as_ref().map_or(0, |sql| sql.replication.len())
}

fn rules(s: &Sources) -> RejoinRules {
    RejoinRules {
        use_pg_rewind: s.use_pg_rewind,
        remove_on_rewind_failure: s.remove_on_rewind_failure,
        // A standby cluster that parted from its remote is looked at before it is removed.
        remove_on_diverged_timelines: s.remove_on_diverged_timelines
            && s.dynamic.standby_cluster.is_none(),
        methods: s.methods.clone(),
        system_identifier: s.cluster.system_identifier().unwrap_or_default().to_string(),
        leader_epoch: s.cluster.epoch,
    }
}

/// Only the holder acts on a request, and only on one that is due and meant for it.
fn hand_over(s: &Sources, lease: &LeaseStatus) -> Option<HandOver> {
    let LeaseStatus::Mine { creates: false, .. } = lease else { return None };
    let request = s.cluster.failover.clone().filter(|_| s.failover_is_due)?;
    let own = s.cluster.name_of(s.own)?;
    if request.leader.as_deref().is_some_and(|leader| leader != own) {
        return Some(HandOver { request, candidate: None });
    }
    let heard = |id: &RaftId| s.heard.get(id).copied();
    let all: Vec<Candidate> = s
        .cluster
        .members
        .iter()
        .map(|(id, member)| Candidate { id: *id, member, fresh: heard(id) })
        .collect();
    let last = LastLeader::from_facts(heard(&s.own));
    let timelines = last.timelines(s.cluster);
    let election = Election::of_request((s.cluster, s.dynamic), (&last, &timelines), &request);
    let others = all.iter().filter(|candidate| candidate.id != s.own);
    let named = |candidate: &&Candidate| {
        request.candidate.as_ref().is_none_or(|name| *name == candidate.member.name)
    };
    let candidate = furthest(&election, &all, others.filter(named)).map(str::to_owned);
    Some(HandOver { request, candidate })
}

fn waits_for_somebody(own: Option<&&Facts>) -> bool {
    let names = own.and_then(|f| f.sql.as_ref()).map(|sql| sql.synchronous_standby_names.as_str());
    names.is_some_and(|names| !names.is_empty() && names != STRICT_PLACEHOLDER)
}

#[cfg(test)]
mod tests;
