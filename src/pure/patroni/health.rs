//! Health checks: which path is 200 on which node.
//!
//! Load balancers poll these. One answer differs from Patroni on purpose: a node whose PostgreSQL
//! cannot take writes is never 200 on a write path, however good its lease is.
use super::quantity;
use super::snapshot::{Snapshot, SyncDuty};
use super::tags;
use crate::pure::postgres::state::Role;

/// Query parameters in the order in which they were sent.
pub type Query = [(String, String)];

/// 200 or 503 for GET, HEAD and OPTIONS on a health path; 503 for paths that nobody knows.
pub fn code(snapshot: &Snapshot, path: &str, query: &Query) -> u16 {
    let (healthy, reads_tags) = condition(snapshot, path, query);
    let healthy = healthy && (!reads_tags || tags_match(snapshot, query));
    if healthy { 200 } else { 503 }
}

/// Patroni looks for words inside the path, in this order; whole names come last.
fn condition(snapshot: &Snapshot, path: &str, query: &Query) -> (bool, bool) {
    let has = |word: &str| path.contains(word);
    if has("standby_leader") || has("standby-leader") {
        return (is_standby_leader(snapshot), false);
    }
    if has("leader") {
        return (snapshot.lease(), false);
    }
    if path == "/" || has("master") || has("primary") || has("read-write") {
        return (is_primary(snapshot), false);
    }
    let healthy = if has("replica") {
        is_replica(snapshot, query)
    } else if has("read-only") && !has("sync") && !has("quorum") {
        leads(snapshot) || is_replica(snapshot, query)
    } else if has("health") {
        snapshot.state_text() == "running"
    } else {
        exact(snapshot, path, query)
    };
    (healthy, true)
}

/// Names that only count as a whole; they need a fresh view of the cluster.
fn exact(snapshot: &Snapshot, path: &str, query: &Query) -> bool {
    let duty = snapshot.own_sync_duty();
    let with = |wanted: Option<SyncDuty>| duty == wanted && is_replica(snapshot, query);
    match path {
        _ if !snapshot.fresh() => false,
        "/sync" | "/synchronous" => with(Some(SyncDuty::Sync)),
        "/quorum" => with(Some(SyncDuty::Quorum)),
        "/async" | "/asynchronous" => with(None),
        "/read-only-sync" | "/read-only-synchronous" => {
            leads(snapshot) || with(Some(SyncDuty::Sync))
        }
        "/read-only-quorum" => leads(snapshot) || with(Some(SyncDuty::Quorum)),
        _ => false,
    }
}

fn is_primary(snapshot: &Snapshot) -> bool {
    snapshot.is_writable() && !snapshot.in_standby_cluster()
}

fn is_standby_leader(snapshot: &Snapshot) -> bool {
    let role = matches!(snapshot.role(), Role::Replica | Role::StandbyLeader);
    snapshot.lease() && snapshot.in_standby_cluster() && role
}

fn leads(snapshot: &Snapshot) -> bool {
    is_primary(snapshot) || is_standby_leader(snapshot)
}

fn is_replica(snapshot: &Snapshot, query: &Query) -> bool {
    snapshot.state_text() == "running"
        && snapshot.role() == Role::Replica
        && !(snapshot.lease() && snapshot.in_standby_cluster())
        && !snapshot.facts().is_some_and(|facts| facts.tags.noloadbalance())
        && !is_lagging(snapshot, query)
        && replication_state_matches(snapshot, query)
}

/// The first value of a parameter.
pub fn parameter<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn is_lagging(snapshot: &Snapshot, query: &Query) -> bool {
    let Some(lag_bytes_max) = parameter(query, "lag").and_then(quantity::bytes) else {
        return false;
    };
    let replayed = snapshot.sql().map(|sql| sql.replay_lsn.0).unwrap_or_default();
    i128::from(snapshot.leader_lsn_received().0) > i128::from(replayed) + i128::from(lag_bytes_max)
}

fn replication_state_matches(snapshot: &Snapshot, query: &Query) -> bool {
    let Some(wanted) = parameter(query, "replication_state") else {
        return true;
    };
    snapshot.sql().and_then(|sql| sql.replication_state.as_deref()) == Some(wanted)
}

fn tags_match(snapshot: &Snapshot, query: &Query) -> bool {
    let tags = snapshot.tags();
    query
        .iter()
        .filter_map(|(key, wanted)| key.strip_prefix("tag_").map(|tag| (tag, wanted)))
        .all(|(tag, wanted)| tags::matches(tags.get(tag), wanted))
}
