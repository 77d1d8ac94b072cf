//! `GET /patroni`, also the body of every health check: one node, in Patroni's order of keys.
//!
//! Flags that are false are left out. `surus`, the last key, is ours.
use serde_json::{Map, Value, json};

use super::PATRONI_VERSION;
use super::snapshot::Snapshot;
use crate::pure::cluster::facts::{SqlFacts, Walsender};

/// The body.
pub fn body(snapshot: &Snapshot) -> Value {
    let mut body = Map::new();
    put(&mut body, "state", snapshot.state_text());
    postgres(&mut body, snapshot);
    cluster(&mut body, snapshot);
    pending_restart(&mut body, snapshot);
    let version = json!({"version": PATRONI_VERSION, "scope": snapshot.config.scope,
        "name": snapshot.config.name});
    put(&mut body, "patroni", version);
    if let Some(schedule) = snapshot.facts().and_then(|facts| facts.scheduled_restart.as_ref()) {
        put(&mut body, "scheduled_restart", schedule.clone());
    }
    if snapshot.facts().is_some_and(|facts| facts.watchdog_failed) {
        put(&mut body, "watchdog_failed", true);
    }
    put(&mut body, "surus", own(snapshot));
    Value::Object(body)
}

fn put(body: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    body.insert(key.to_owned(), value.into());
}

/// What PostgreSQL says of itself, or only the role where it says nothing.
fn postgres(body: &mut Map<String, Value>, snapshot: &Snapshot) {
    let Some(sql) = snapshot.sql() else {
        put(body, "role", snapshot.role().text());
        return;
    };
    put(body, "postmaster_start_time", sql.postmaster_start_time.as_str());
    put(body, "role", snapshot.role().text());
    put(body, "server_version", sql.server_version);
    put(body, "xlog", xlog(sql));
    if let Some(duty) = snapshot.own_sync_duty() {
        put(body, duty.text(), true);
    }
    if sql.timeline > 0 {
        put(body, "timeline", sql.timeline);
    }
    if let Some(state) = sql.replication_state.as_deref().filter(|_| sql.in_recovery) {
        put(body, "replication_state", state);
    }
    if !sql.replication.is_empty() {
        put(body, "replication", sql.replication.iter().map(walsender).collect::<Vec<_>>());
    }
}

fn xlog(sql: &SqlFacts) -> Value {
    if !sql.in_recovery {
        return json!({"location": sql.flush_lsn.0});
    }
    let received = if sql.receive_lsn.0 > 0 { sql.receive_lsn } else { sql.replay_lsn };
    json!({"received_location": received.0, "replayed_location": sql.replay_lsn.0,
        "replayed_timestamp": sql.replay_timestamp, "paused": sql.replay_paused})
}

fn walsender(row: &Walsender) -> Value {
    json!({"usename": row.usename, "application_name": row.application_name,
        "client_addr": row.client_addr, "state": row.state, "sync_state": row.sync_state,
        "sync_priority": row.sync_priority})
}

fn cluster(body: &mut Map<String, Value>, snapshot: &Snapshot) {
    if snapshot.unlocked() {
        put(body, "cluster_unlocked", true);
    }
    if snapshot.view.raft.quorum_at_epoch_s > 0 {
        put(body, "dcs_last_seen", snapshot.view.raft.quorum_at_epoch_s);
    }
    let tags = snapshot.tags();
    if !tags.is_empty() {
        put(body, "tags", tags);
    }
    if let Some(identifier) = system_identifier(snapshot) {
        put(body, "database_system_identifier", identifier);
    }
}

/// PostgreSQL's own, else what the data directory says, else the cluster's.
pub fn system_identifier(snapshot: &Snapshot) -> Option<String> {
    use crate::pure::cluster::facts::DataDirectory::Present;
    let sql = snapshot.sql().map(|sql| sql.system_identifier.as_str()).filter(|id| !id.is_empty());
    let data = snapshot.facts().and_then(|facts| match &facts.data {
        Present { system_identifier, .. } => Some(system_identifier.as_str()),
        _ => None,
    });
    sql.or(data).or(snapshot.view.cluster.system_identifier()).map(str::to_owned)
}

fn pending_restart(body: &mut Map<String, Value>, snapshot: &Snapshot) {
    let Some(facts) = snapshot.facts().filter(|facts| !facts.pending_restart.is_empty()) else {
        return;
    };
    put(body, "pending_restart", true);
    put(body, "pending_restart_reason", facts.pending_restart.clone());
}

/// Our own addition: the machine behind the state, its sentence, the lease's deadline, a build.
fn own(snapshot: &Snapshot) -> Value {
    let mut own = Map::new();
    put(&mut own, "version", env!("CARGO_PKG_VERSION"));
    let facts = snapshot.facts();
    put(&mut own, "node_state", facts.map_or("", |facts| facts.node_state.as_str()));
    put(&mut own, "sentence", snapshot.local.sentence.as_str());
    if let Some(deadline) = snapshot.view.lease.deadline.filter(|_| snapshot.lease()) {
        put(&mut own, "lease_deadline_ms", deadline.saturating_sub(snapshot.now));
    }
    if let Some(remote) = super::standby::own(snapshot).filter(|_| snapshot.lease()) {
        put(&mut own, "standby", remote);
    }
    if let Some(waiting) = &snapshot.view.joining {
        put(&mut own, "joining", waiting.as_str());
    }
    if facts.is_some_and(|facts| !facts.has_postgres) {
        put(&mut own, "witness", true);
    }
    if let Some(failure) = facts.and_then(|facts| facts.sql_failure.as_ref()) {
        put(&mut own, "sql_failure", failure.text.as_str());
    }
    if let Some(recovery) = facts.and_then(|facts| facts.recovery.as_ref()) {
        put(&mut own, "recovery", serde_json::to_value(recovery).unwrap_or_default());
    }
    if let Some(failure) = snapshot.initialize_failure() {
        put(&mut own, "initialize_failure", serde_json::to_value(&failure).unwrap_or_default());
    }
    if let Some(build) = facts.and_then(|facts| facts.build.as_ref()) {
        put(&mut own, "build", serde_json::to_value(build).unwrap_or_default());
    }
    Value::Object(own)
}
