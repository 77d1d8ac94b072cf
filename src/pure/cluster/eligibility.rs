//! Eligibility: may this member become leader, and if not, why.
//!
//! One predicate for everything that asks: the arbiter's decision, the leader before it stops for a
//! planned exchange, the REST interface before it accepts one, and the creation of a cluster. Lists of
//! their own drift apart, and then a leader stops for a candidate whom the arbiter refuses.
//!
//! What may differ between them is said in [`Election`] and nowhere else.
//!
//! Invariant: a candidate that passes while the leader runs is refused after its stop only for something
//! that became known, or true, in between.
use std::fmt;

use super::facts::{DataDirectory, Facts, Phase};
use super::state::{ClusterState, FailoverRequest, Member, Sync};
use super::timelines::Timelines;
use crate::pure::config::{Dynamic, SynchronousMode};
use crate::pure::postgres::history::Switch;
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::PgState;

/// What is known of one member.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub id: u64,
    pub member: &'a Member,
    /// Facts that are young enough to decide by; none: it was not heard in time.
    pub fresh: Option<&'a Facts>,
}

/// The circumstances in which a leader is looked for.
pub struct Election<'a> {
    pub cluster: &'a ClusterState,
    pub dynamic: &'a Dynamic,
    /// Where timelines began: what is recorded, and what was heard of the last leader.
    pub timelines: &'a Timelines,
    /// The furthest position the last leader was ever heard to have.
    pub optime: Lsn,
    /// The newest timeline any member was heard on.
    pub timeline: u32,
    /// The member that a request in force names: its operator has looked, so it may lag.
    pub wanted: Option<&'a str>,
    /// That request is a failover: the member may be outside the synchronous set, too.
    pub forced: bool,
    /// The leader still runs: only a standby may follow it, and what a member lacks that streams is sent
    /// to it before the leader's shutdown ends.
    pub leader_runs: bool,
}

impl<'a> Election<'a> {
    /// The election that follows when the leader stops for this request now.
    pub fn of_request(
        (cluster, dynamic): (&'a ClusterState, &'a Dynamic),
        (last, timelines): (&LastLeader, &'a Timelines),
        request: &'a FailoverRequest,
    ) -> Election<'a> {
        Election {
            cluster,
            dynamic,
            timelines,
            optime: last.optime(cluster, timelines),
            timeline: last.on.max(cluster.status.timeline),
            wanted: request.candidate.as_deref(),
            forced: request.candidate.is_some() && request.leader.is_none(),
            leader_runs: cluster.lease.is_some(),
        }
    }

    pub(super) fn wants(&self, member: &Member) -> bool {
        self.wanted == Some(member.name.as_str())
    }

    /// In a standby cluster nobody acknowledges anything, and what its leader lacks comes from the
    /// remote: the furthest leads, however far that is.
    fn only_follows(&self) -> bool {
        self.cluster.only_follows(self.dynamic)
    }
}

/// The leader that is or was last, by its own word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastLeader {
    /// The timeline that it wrote, 0 when it was never heard.
    pub on: u32,
    /// How far it was heard to have come there.
    pub at: Lsn,
    /// What that timeline left, and where.
    pub left: Option<Switch>,
}

impl LastLeader {
    /// As the holder's facts tell; unknown while it does not write.
    pub fn from_facts(facts: Option<&Facts>) -> LastLeader {
        let sql = facts.and_then(|facts| facts.sql.as_ref()).filter(|sql| !sql.in_recovery);
        sql.map(|sql| LastLeader { on: sql.timeline, at: sql.flush_lsn, left: sql.left })
            .unwrap_or_default()
    }

    /// What is recorded, and its own timeline as it told of it: it may be gone before the record.
    pub fn timelines(&self, cluster: &ClusterState) -> Timelines {
        let mut known = cluster.timelines.clone();
        let newer = known.newest().is_none_or(|newest| newest < self.on);
        if let Some(left) = self.left.filter(|_| newer) {
            known.note(self.on, &[left]);
        }
        known
    }

    /// How far it is known to have come, on the way to the newest timeline: what an earlier one had
    /// beyond the beginning of the next is given up already.
    pub fn optime(&self, cluster: &ClusterState, timelines: &Timelines) -> Lsn {
        let kept = |on, at| timelines.kept(on, at).map_or(at, |(_, kept)| kept);
        let status = &cluster.status;
        kept(self.on, self.at).max(kept(status.timeline, status.optime))
    }
}

/// Why a member may not become leader. Its `Display` is the rule in words; [`Ineligible::inputs`] are the
/// figures behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ineligible {
    Witness,
    NotHeard,
    Leaving,
    Nofailover,
    WatchdogUnusable,
    Rebuilding,
    NoCompleteCopy {
        state: PgState,
    },
    /// PostgreSQL accepts connections and gives Surus no facts.
    Denied {
        failure: String,
    },
    NotAnswering {
        state: PgState,
    },
    /// A leader runs, and this member writes, too.
    NotStandby,
    UnknownTimeline {
        timeline: u32,
        position: Lsn,
    },
    ForeignCluster {
        system_identifier: String,
    },
    /// Another copy lies there today than the one that confirmed.
    OtherCopy {
        copy: u64,
        synchronous: u64,
    },
    NotSynchronous {
        sync_standby: Vec<String>,
    },
    Lags {
        timeline: u32,
        position: Lsn,
        lag_bytes: u64,
    },
    OlderTimeline {
        timeline: u32,
        position: Lsn,
        lag_bytes: u64,
    },
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ineligible::Witness => "a witness has no PostgreSQL",
            Ineligible::NotHeard => "was not heard in time",
            Ineligible::Leaving => "is shutting down",
            Ineligible::Nofailover => "is tagged nofailover",
            Ineligible::WatchdogUnusable => "its watchdog is required and unusable",
            Ineligible::Rebuilding => "is to be copied anew, by the operator's order",
            Ineligible::NoCompleteCopy { .. } => "has no complete copy",
            Ineligible::Denied { .. } => "its PostgreSQL does not answer Surus",
            Ineligible::NotAnswering { .. } => "its PostgreSQL does not answer",
            Ineligible::NotStandby => "is no standby, and another leads",
            Ineligible::UnknownTimeline { .. } => {
                "is on a timeline of which nobody recorded where it began"
            }
            Ineligible::ForeignCluster { .. } => "belongs to another cluster",
            Ineligible::OtherCopy { .. } => "its copy is not the one that was synchronous",
            Ineligible::NotSynchronous { .. } => "is not in the synchronous set",
            Ineligible::Lags { .. } => "lags more than maximum_lag_on_failover",
            Ineligible::OlderTimeline { .. } => "is on an older timeline (check_timeline)",
        })
    }
}

impl Ineligible {
    /// What it was judged by, as a verdict shows it; empty where the rule says it all.
    pub fn inputs(&self) -> String {
        match self {
            Ineligible::NoCompleteCopy { state } | Ineligible::NotAnswering { state } => {
                state.text().to_owned()
            }
            Ineligible::Denied { failure } => failure.clone(),
            Ineligible::UnknownTimeline { timeline, position } => {
                format!("timeline={timeline} position={position}")
            }
            Ineligible::ForeignCluster { system_identifier } => {
                format!("system_identifier={system_identifier}")
            }
            Ineligible::OtherCopy { copy, synchronous } => {
                format!("copy={copy:016x} synchronous={synchronous:016x}")
            }
            Ineligible::NotSynchronous { sync_standby } => {
                format!("sync_standby={}", sync_standby.join(","))
            }
            Ineligible::Lags { timeline, position, lag_bytes }
            | Ineligible::OlderTimeline { timeline, position, lag_bytes } => {
                format!("timeline={timeline} position={position} lag_bytes={lag_bytes}")
            }
            _ => String::new(),
        }
    }
}

/// Where an eligible member stands: the timeline and the position that count.
pub type Kept = (u32, Lsn);

/// May this member lead, whatever lies in its data directory? All that is asked before a cluster exists.
///
/// # Errors
/// The first reason why not.
pub fn may_lead<'a>(member: &Member, fresh: Option<&'a Facts>) -> Result<&'a Facts, Ineligible> {
    let facts = may_create(member, fresh)?;
    if facts.watchdog_failed {
        return Err(Ineligible::WatchdogUnusable);
    }
    Ok(facts)
}

/// May this member create the cluster? A required watchdog that is broken is found by the attempt,
/// whose failure names the device.
///
/// # Errors
/// The first reason why not.
pub fn may_create<'a>(member: &Member, fresh: Option<&'a Facts>) -> Result<&'a Facts, Ineligible> {
    if member.witness {
        return Err(Ineligible::Witness);
    }
    let facts = fresh.ok_or(Ineligible::NotHeard)?;
    if !facts.has_postgres {
        return Err(Ineligible::Witness);
    }
    if facts.leaving {
        return Err(Ineligible::Leaving);
    }
    if facts.nofailover() {
        return Err(Ineligible::Nofailover);
    }
    if facts.phase == Phase::Rebuilding {
        return Err(Ineligible::Rebuilding);
    }
    Ok(facts)
}

/// May this member become leader in this election? `all` are the members, the last leader included.
///
/// # Errors
/// The first reason why not.
pub fn eligible(
    election: &Election,
    all: &[Candidate],
    candidate: &Candidate,
) -> Result<Kept, Ineligible> {
    let facts = may_lead(candidate.member, candidate.fresh)?;
    let (timeline, position) = answers(election, facts)?;
    let (kept_on, position) = kept(election, candidate.member, timeline, position)?;
    same_cluster(election, facts)?;
    synchronous(election, all, candidate)?;
    behind(election, candidate.member, facts, (timeline, position))?;
    Ok((kept_on, position))
}

/// Only a PostgreSQL that runs and answers can be promoted.
fn answers(election: &Election, facts: &Facts) -> Result<Kept, Ineligible> {
    match (&facts.sql, &facts.data) {
        (Some(sql), _) if facts.state == PgState::Running => {
            let standby = sql.in_recovery || !election.leader_runs;
            standby.then(|| (sql.timeline, sql.position())).ok_or(Ineligible::NotStandby)
        }
        (_, DataDirectory::Empty | DataDirectory::Incomplete) => {
            Err(Ineligible::NoCompleteCopy { state: facts.state })
        }
        _ => Err(match &facts.sql_failure {
            Some(failure) => Ineligible::Denied { failure: failure.text.clone() },
            None => Ineligible::NotAnswering { state: facts.state },
        }),
    }
}

/// What a later leader did not take over counts for nothing: an old leader's tail is no progress. An operator
/// who names somebody has looked.
fn kept(
    election: &Election,
    member: &Member,
    timeline: u32,
    position: Lsn,
) -> Result<Kept, Ineligible> {
    let raw = election.wants(member) || election.only_follows() || timeline >= election.timeline;
    let known = election.timelines.kept(timeline, position);
    known
        .or(raw.then_some((timeline, position)))
        .ok_or(Ineligible::UnknownTimeline { timeline, position })
}

fn same_cluster(election: &Election, facts: &Facts) -> Result<(), Ineligible> {
    let own = facts.sql.as_ref().map_or("", |sql| sql.system_identifier.as_str());
    match election.cluster.system_identifier() {
        Some(sysid) if sysid != own => {
            Err(Ineligible::ForeignCluster { system_identifier: own.to_owned() })
        }
        _ => Ok(()),
    }
}

/// With synchronous_mode on, only the set that holds everything acknowledged may lead.
fn synchronous(
    election: &Election,
    all: &[Candidate],
    candidate: &Candidate,
) -> Result<(), Ineligible> {
    if election.dynamic.synchronous_mode == SynchronousMode::Off || election.only_follows() {
        return Ok(());
    }
    let Some(sync) = &election.cluster.sync else { return Ok(()) };
    let sync = in_force(sync, all);
    let name = &candidate.member.name;
    if election.wants(candidate.member) && election.forced {
        return Ok(());
    }
    if sync.leader != *name && !sync.sync_standby.contains(name) {
        return Err(Ineligible::NotSynchronous { sync_standby: sync.sync_standby.clone() });
    }
    let copy = candidate.fresh.map(|facts| facts.copy);
    match sync.copies.get(name) {
        Some(known) if Some(*known) != copy => {
            let copy = copy.unwrap_or_default();
            Err(Ineligible::OtherCopy { copy, synchronous: *known })
        }
        _ => Ok(()),
    }
}

/// The set that counts: a leader that was granted the lease and never began its timeline has acknowledged
/// nothing, and what was before still holds. Its own PostgreSQL says so, or a copy that is still the one which
/// was granted and not finished: such a copy is never promoted.
fn in_force<'a>(sync: &'a Sync, all: &[Candidate]) -> &'a Sync {
    let leader = all.iter().find(|c| c.member.name == sync.leader);
    let facts = leader.and_then(|c| c.fresh);
    let never_led = facts.is_some_and(|facts| {
        let same = sync.copies.get(&sync.leader) == Some(&facts.copy);
        let unfinished = facts.copy != 0 && facts.data == DataDirectory::Incomplete;
        let recovers = facts.sql.as_ref().filter(|sql| sql.in_recovery && sql.timeline > 0);
        same && (unfinished || recovers.is_some_and(|sql| sql.timeline < sync.timeline))
    });
    match sync.before.as_deref().filter(|_| never_led) {
        Some(before) => in_force(before, all),
        None => sync,
    }
}

fn behind(
    election: &Election,
    member: &Member,
    facts: &Facts,
    (timeline, position): Kept,
) -> Result<(), Ineligible> {
    if election.only_follows() {
        return Ok(());
    }
    let lag_bytes = election.optime.since(position);
    let state = facts.sql.as_ref().and_then(|sql| sql.replication_state.as_deref());
    let catches_up = election.leader_runs && state == Some("streaming");
    let may_lag = election.wants(member) || catches_up;
    if !may_lag && lag_bytes > election.dynamic.maximum_lag_on_failover {
        return Err(Ineligible::Lags { timeline, position, lag_bytes });
    }
    if election.dynamic.check_timeline && timeline < election.timeline {
        return Err(Ineligible::OlderTimeline { timeline, position, lag_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
