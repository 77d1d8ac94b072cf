//! Synchronous mode: which step comes next, so that whoever may be promoted holds everything that
//! was acknowledged (patroni-surface §5.13, the overlap rule).
//!
//! The log is told *before* PostgreSQL stops waiting for a member (the member leaves the set of
//! those who may lead first), and *after* PostgreSQL has begun to wait for a new one.
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::facts::{Facts, SqlFacts};
use super::state::{ClusterState, Sync};
use crate::pure::config::{Dynamic, SynchronousMode};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::PgState;
use crate::pure::postgres::sync_names::first_names;

/// Nobody has this name: with `synchronous_mode_strict` commits wait until a standby is there.
pub const STRICT_PLACEHOLDER: &str = "__patroni_strict_sync_replica_placeholder__";

/// One step towards the wanted synchronous set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SyncStep {
    /// Tell the log.
    Publish(Option<Sync>),
    /// Tell PostgreSQL.
    Apply(String),
}

/// What the holder does next; nothing when all agrees.
pub fn next_step(
    leader: &str,
    cluster: &ClusterState,
    dynamic: &Dynamic,
    sql: &SqlFacts,
    members: &[&Facts],
) -> Option<SyncStep> {
    if dynamic.synchronous_mode == SynchronousMode::Off {
        return switch_off(cluster, sql);
    }
    let wanted = wanted(leader, dynamic, sql, members);
    let known: BTreeSet<String> = cluster
        .sync
        .iter()
        .filter(|s| s.leader == leader)
        .flat_map(|s| s.sync_standby.clone())
        .collect();
    let setting = setting(dynamic, &wanted);
    let publish = |names: &BTreeSet<String>| {
        let sync = Sync {
            leader: leader.to_string(),
            sync_standby: names.iter().cloned().collect(),
            quorum: 0,
        };
        (cluster.sync.as_ref() != Some(&sync)).then_some(SyncStep::Publish(Some(sync)))
    };
    let kept: BTreeSet<String> = known.intersection(&wanted).cloned().collect();
    if kept != known || cluster.sync.as_ref().is_none_or(|s| s.leader != leader) {
        return publish(&kept);
    }
    if sql.synchronous_standby_names != setting {
        return Some(SyncStep::Apply(setting));
    }
    let since = waits_since(leader, &setting, members)?;
    let holds_all = |name: &String| {
        sql.replication.iter().any(|w| {
            w.application_name.eq_ignore_ascii_case(name)
                && w.sync_state == "sync"
                && w.flush_lsn >= since
        })
    };
    let confirmed = wanted.iter().filter(|name| known.contains(*name) || holds_all(name));
    let confirmed: BTreeSet<String> = confirmed.cloned().collect();
    publish(&confirmed)
}

/// Where the leader's WAL ended when it began to wait: what was acknowledged before then waited
/// for nobody, so a standby that has not flushed as much may not lead yet.
fn waits_since(leader: &str, setting: &str, members: &[&Facts]) -> Option<Lsn> {
    let own = members.iter().find(|facts| facts.name == leader)?.sql.as_ref()?;
    (own.synchronous_standby_names == setting).then_some(own.waits_since)
}

fn switch_off(cluster: &ClusterState, sql: &SqlFacts) -> Option<SyncStep> {
    if cluster.sync.is_some() {
        return Some(SyncStep::Publish(None));
    }
    // Only what we set ourselves is taken back; the operator's own value comes with the files.
    let ours = sql.synchronous_standby_names == STRICT_PLACEHOLDER;
    ours.then(|| SyncStep::Apply(String::new()))
}

/// The members that should be synchronous now: running, streaming, not tagged away; who already is
/// stays, then whoever is furthest.
fn wanted(leader: &str, dynamic: &Dynamic, sql: &SqlFacts, members: &[&Facts]) -> BTreeSet<String> {
    let best = sql.replication.iter().map(|w| w.flush_lsn).max().unwrap_or_default();
    let mut able: Vec<_> = members
        .iter()
        .filter(|f| f.name != leader && f.state == PgState::Running && !f.leaving)
        .filter(|f| !f.tag_is_true("nosync"))
        .filter_map(|f| {
            let sender = sql.replication.iter().find(|w| {
                w.application_name.eq_ignore_ascii_case(&f.name) && w.state == "streaming"
            })?;
            let lag = best.since(sender.flush_lsn);
            let near = dynamic.maximum_lag_on_syncnode <= 0
                || lag <= dynamic.maximum_lag_on_syncnode as u64;
            let order = (f.nofailover(), sender.sync_state != "sync", lag, f.name.clone());
            near.then_some((order, f.name.clone()))
        })
        .collect();
    able.sort();
    let count = dynamic.synchronous_node_count.max(1) as usize;
    able.into_iter().take(count).map(|(_, name)| name).collect()
}

fn setting(dynamic: &Dynamic, wanted: &BTreeSet<String>) -> String {
    match (wanted.is_empty(), dynamic.synchronous_mode_strict) {
        (true, true) => STRICT_PLACEHOLDER.to_string(),
        (true, false) => String::new(),
        (false, _) => first_names(wanted.len() as u32, wanted),
    }
}
