//! Health checks: which path is 200 on which node.
//!
//! Load balancers poll these. One answer differs from Patroni on purpose: a node whose PostgreSQL
//! cannot take writes is never 200 on a write path, however good its lease is.
use super::look::{Look, SyncDuty};
use super::quantity;
use super::tags;
use crate::pure::postgres::state::Role;

/// Query parameters in the order in which they were sent.
pub type Query = [(String, String)];

/// 200 or 503 for GET, HEAD and OPTIONS on a health path; 503 for paths that nobody knows.
pub fn code(look: &Look, path: &str, query: &Query) -> u16 {
    let (healthy, reads_tags) = condition(look, path, query);
    let healthy = healthy && (!reads_tags || tags_match(look, query));
    if healthy { 200 } else { 503 }
}

/// Patroni looks for words inside the path, in this order; whole names come last.
fn condition(look: &Look, path: &str, query: &Query) -> (bool, bool) {
    let has = |word: &str| path.contains(word);
    if has("standby_leader") || has("standby-leader") {
        return (is_standby_leader(look), false);
    }
    if has("leader") {
        return (look.lease(), false);
    }
    if path == "/" || has("master") || has("primary") || has("read-write") {
        return (is_primary(look), false);
    }
    let healthy = if has("replica") {
        is_replica(look, query)
    } else if has("read-only") && !has("sync") && !has("quorum") {
        leads(look) || is_replica(look, query)
    } else if has("health") {
        look.state_text() == "running"
    } else {
        exact(look, path, query)
    };
    (healthy, true)
}

/// Names that only count as a whole; they need a fresh view of the cluster.
fn exact(look: &Look, path: &str, query: &Query) -> bool {
    let duty = look.own_sync_duty();
    let with = |wanted: Option<SyncDuty>| duty == wanted && is_replica(look, query);
    match path {
        _ if !look.fresh() => false,
        "/sync" | "/synchronous" => with(Some(SyncDuty::Sync)),
        "/quorum" => with(Some(SyncDuty::Quorum)),
        "/async" | "/asynchronous" => with(None),
        "/read-only-sync" | "/read-only-synchronous" => leads(look) || with(Some(SyncDuty::Sync)),
        "/read-only-quorum" => leads(look) || with(Some(SyncDuty::Quorum)),
        _ => false,
    }
}

fn is_primary(look: &Look) -> bool {
    look.is_writable() && !look.in_standby_cluster()
}

fn is_standby_leader(look: &Look) -> bool {
    let role = matches!(look.role(), Role::Replica | Role::StandbyLeader);
    look.lease() && look.in_standby_cluster() && role
}

fn leads(look: &Look) -> bool {
    is_primary(look) || is_standby_leader(look)
}

fn is_replica(look: &Look, query: &Query) -> bool {
    look.state_text() == "running"
        && look.role() == Role::Replica
        && !(look.lease() && look.in_standby_cluster())
        && !look.facts().is_some_and(|facts| facts.tags.noloadbalance())
        && !is_lagging(look, query)
        && replication_state_matches(look, query)
}

/// The first value of a parameter.
pub fn parameter<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn is_lagging(look: &Look, query: &Query) -> bool {
    let Some(lag_bytes_max) = parameter(query, "lag").and_then(quantity::bytes) else {
        return false;
    };
    let replayed = look.sql().map(|sql| sql.replay_lsn.0).unwrap_or_default();
    i128::from(look.leader_lsn_received().0) > i128::from(replayed) + i128::from(lag_bytes_max)
}

fn replication_state_matches(look: &Look, query: &Query) -> bool {
    let Some(wanted) = parameter(query, "replication_state") else {
        return true;
    };
    look.sql().and_then(|sql| sql.replication_state.as_deref()) == Some(wanted)
}

fn tags_match(look: &Look, query: &Query) -> bool {
    let tags = look.tags();
    query
        .iter()
        .filter_map(|(key, wanted)| key.strip_prefix("tag_").map(|tag| (tag, wanted)))
        .all(|(tag, wanted)| tags::matches(tags.get(tag), wanted))
}
