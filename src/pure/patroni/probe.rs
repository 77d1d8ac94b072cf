//! The two probes of container platforms: is the daemon alive, is this node ready for clients.
use super::health::{Query, parameter};
use super::snapshot::Snapshot;
use super::{quantity, standby};
use crate::pure::postgres::state::Role;

/// The daemon still turns: its view was renewed recently enough. No SQL, no Raft.
pub fn liveness(snapshot: &Snapshot) -> bool {
    let primary = snapshot.facts().is_some_and(|f| f.role == Role::Primary && f.postmaster_alive);
    let patience_ms = snapshot.dynamic.ttl_ms * if primary { 1 } else { 2 };
    let next_loop = snapshot.view.now.saturating_add(snapshot.dynamic.loop_wait_ms);
    next_loop.saturating_add(patience_ms) > snapshot.now
}

/// A leader always is, unless it leads a standby cluster whose remote is another cluster: then it
/// grows old and nobody else sees it. A replica when it streams and is close enough behind.
pub fn readiness(snapshot: &Snapshot, query: &Query) -> bool {
    if snapshot.lease() {
        return !standby::follows_a_stranger(snapshot);
    }
    let Some(sql) = snapshot.sql() else {
        return false;
    };
    let streaming = sql.replication_state.as_deref() == Some("streaming");
    let leader = snapshot.leader_lsn_received();
    if snapshot.state_text() != "running" || !streaming || leader.0 == 0 {
        return false;
    }
    let limit = parameter(query, "lag").and_then(quantity::bytes);
    let limit = limit.unwrap_or(snapshot.dynamic.maximum_lag_on_failover as i64);
    let written = parameter(query, "mode") == Some("write");
    let position = if written { sql.receive_lsn.max(sql.replay_lsn) } else { sql.replay_lsn };
    i128::from(leader.0) - i128::from(position.0) <= i128::from(limit)
}
