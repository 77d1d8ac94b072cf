//! `surus dump`: everything one node knows, as one JSON value of a stable shape.
//!
//! Secrets cannot get out: their own type prints `<secret>`, and what users put into parameters and
//! connection strings is hidden on the way.
use serde_json::{Value, json};

pub mod text;

use super::config::redact::redacted;
use super::config::{Config, Dynamic};
use super::patroni::snapshot::Snapshot;
use super::patroni::{members, standby};
use super::view::{LocalView, View};

/// Version of the shape below. Keys may be added under the same number, never renamed or removed.
pub const SCHEMA: u32 = 1;

/// The dump. `postgres` is what the host found out about PostgreSQL's files and processes.
/// `wall` is left null: the host stamps it.
pub fn assemble(
    view: &View,
    local: &LocalView,
    dynamic: &Dynamic,
    config: &Config,
    postgres: Value,
) -> Value {
    let look = Snapshot { view, local, dynamic, config, now: view.now };
    let mut node = to_value(config);
    node["effective_dynamic"] = to_value(dynamic);
    redacted(&json!({
        "schema": SCHEMA,
        "node": config.name,
        "scope": config.scope,
        "version": env!("CARGO_PKG_VERSION"),
        "wall": null,
        "now_ms": view.now,
        "verdict": verdict(&look),
        "sentence": local.sentence,
        "busy": local.busy,
        "joining": view.joining,
        "votes": members::votes(&look),
        "raft": to_value(&view.raft),
        "lease": to_value(&view.lease),
        "guard": to_value(&local.guard),
        "cluster": to_value(&view.cluster),
        "facts": to_value(&view.facts),
        "machines": to_value(&local.machines),
        "postgresql": postgres,
        "config": node,
    }))
}

fn to_value(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| json!({"unprintable": error.to_string()}))
}

/// Who is writable, and what the cluster waits for: what is read first at three in the morning.
fn verdict(look: &Snapshot) -> Value {
    json!({
        "writable": writable(look),
        "here": look.is_writable(),
        "quorum": look.fresh(),
        "waiting_for": waiting_for(look),
        "sentence": sentence(look),
    })
}

/// The member whose PostgreSQL takes writes, as far as this node knows.
fn writable<'a>(look: &Snapshot<'a>) -> Option<&'a str> {
    let leader = look.view.cluster.leader()?;
    let (id, _) = look.view.cluster.member_named(leader)?;
    if id == look.view.own_id {
        return look.is_writable().then_some(leader);
    }
    look.heard(id).is_some_and(|heard| heard.facts.is_writable()).then_some(leader)
}

fn waiting_for(look: &Snapshot) -> Vec<String> {
    let cluster = &look.view.cluster;
    let mut waits: Vec<String> = look.view.joining.iter().cloned().collect();
    if !look.fresh() {
        waits.push("a quorum: no majority of the voters was heard within ttl".to_owned());
    }
    if let Some(failure) = &cluster.initialize_failure {
        waits.push(format!(
            "a cluster: attempt {} to create it on {} failed: {}",
            failure.attempts, failure.node, failure.reason
        ));
    } else if cluster.system_identifier().is_none() {
        waits.push("a member to create the cluster".to_owned());
    }
    match cluster.leader() {
        None => waits.extend(cluster.decisions.last().map(|d| format!("a leader: {}", d.reason))),
        Some(leader) if writable(look).is_none() && !look.in_standby_cluster() => {
            waits.push(format!("{leader}, which holds the lease, to accept writes"));
        }
        Some(_) => {}
    }
    if let Some(remote) = standby::own(look) {
        let problems = remote["problems"].as_array().into_iter().flatten();
        waits.extend(problems.filter_map(Value::as_str).map(str::to_owned));
    }
    waits.extend(standby::waits_for(look).map(|why| format!("its promotion: {why}")));
    if let Some(request) = &cluster.failover {
        let to = request.candidate.as_deref().unwrap_or("any candidate");
        let at = request.scheduled_at.as_deref().map(|at| format!(", at {at}"));
        waits.push(format!("a requested switchover to {to}{}", at.unwrap_or_default()));
    }
    waits
}

fn sentence(look: &Snapshot) -> String {
    let mut text = match writable(look) {
        Some(name) => format!("{name} is writable"),
        None => "no member is known to be writable".to_owned(),
    };
    if look.is_writable() {
        let deadline = look.view.lease.deadline.unwrap_or(look.now);
        let left_ms = deadline.saturating_sub(look.now);
        text.push_str(&format!(
            " (this node, epoch {}, lease {}.{} s left)",
            look.view.lease.epoch,
            left_ms / 1000,
            left_ms % 1000 / 100
        ));
    }
    let replicas: Vec<_> =
        look.members().into_iter().filter(|m| is_replica(look, &m.1.name)).collect();
    let streaming = replicas.iter().filter(|(_, _, heard)| {
        let sql = heard.and_then(|heard| heard.facts.sql.as_ref());
        sql.and_then(|sql| sql.replication_state.as_deref()) == Some("streaming")
    });
    text.push_str(&format!("; replicas streaming: {} of {}", streaming.count(), replicas.len()));
    let waits = waiting_for(look);
    if !waits.is_empty() {
        text.push_str(&format!("; waiting for {}", waits.join("; ")));
    }
    text
}

fn is_replica(look: &Snapshot, name: &str) -> bool {
    look.view.cluster.leader() != Some(name)
}
