//! The dump of a stopped node: read from its state directory, without changing it.
use serde_json::{Value, json};

use super::clock;
use super::journal::Journal;
use super::restored::restored;
use super::store::SledLog;
use crate::pure::config::{Config, redact};
use crate::pure::consensus::quorum_loss::last_state;

/// What the state directory knows while no daemon runs.
///
/// # Errors
/// One sentence: which directory cannot be read, and why.
pub fn from_state_dir(config: &Config) -> Result<Value, String> {
    let dir = &config.raft.data_dir;
    let log_path = dir.join("log");
    let loaded = SledLog::read_stopped(&log_path)
        .map_err(|error| format!("{} cannot be read: {error}", log_path.display()))?;
    let log = restored(&loaded)?;
    let cluster = last_state(&log)?;
    let journal_path = dir.join("journal");
    let machines = Journal::read_stopped(&journal_path)
        .map_err(|error| format!("{} cannot be read: {error}", journal_path.display()))?;
    let machines: Vec<Value> = machines
        .iter()
        .map(|(flow, records)| {
            let rows: Vec<&Value> = records.iter().rev().take(50).rev().map(|r| &r.1).collect();
            let last = rows.last().and_then(|r| r.get("to")).cloned().unwrap_or_default();
            json!({"flow": flow, "state": last, "transitions": rows})
        })
        .collect();
    Ok(json!({
        "schema": 1,
        "node": config.name,
        "wall": clock::wall(),
        "now_ms": clock::now(),
        "verdict": {"running": false, "sentence": "the daemon is stopped; this is its state directory"},
        "raft": {
            "id": loaded.identity.as_ref().map(|i| i.raft_id),
            "cluster_id": loaded.identity.as_ref().and_then(|i| i.cluster_id.clone()),
            "term": log.hard_state.term,
            "commit": log.hard_state.commit,
            "first_index": log.first(),
            "last_index": log.last().0,
            "voters": log.conf_state.voters.to_vec(),
            "learners": log.conf_state.learners.to_vec(),
        },
        "cluster": cluster,
        "machines": redact::redacted(&machines),
        "config": redact::redacted(config),
    }))
}
