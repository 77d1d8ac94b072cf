//! `POST /reinitialize`: may this node be rebuilt at all, and how is it to be done.
use serde_json::{Map, Value};

use super::Answer;
use super::snapshot::Snapshot;

/// What the operator asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reinit {
    /// Cancel what is running instead of being refused by it.
    pub force: bool,
    /// Copy from the leader, not from a clonefrom member or a backup.
    pub from_leader: bool,
    /// Ours: only this method, only from this member, and whether what is there stays.
    pub method: Option<String>,
    pub source: Option<String>,
    pub keep_data: Option<bool>,
}

/// The checks that need nothing but the view.
pub fn check(snapshot: &Snapshot, body: &Map<String, Value>) -> Result<Reinit, Answer> {
    if snapshot.facts().is_some_and(|facts| !facts.has_postgres) {
        let text = "this node is a witness: it has no PostgreSQL to reinitialize";
        return Err(Answer::new(503, text));
    }
    let Some(leader) = snapshot.view.cluster.leader() else {
        return Err(Answer::new(503, "Cluster has no leader, can not reinitialize"));
    };
    if leader == snapshot.config.name {
        return Err(Answer::new(503, "I am the leader, can not reinitialize"));
    }
    let from_leader = body.get("from_leader").or(body.get("from-leader"));
    let wanted = Reinit {
        force: flag(body.get("force"), "force")?.unwrap_or(false),
        from_leader: flag(from_leader, "from_leader")?.unwrap_or(false),
        method: text(body.get("method"), "method")?,
        source: text(body.get("source"), "source")?,
        keep_data: flag(body.get("keep_data"), "keep_data")?,
    };
    match fault(snapshot, &wanted) {
        Some(text) => Err(Answer::new(400, text)),
        None => Ok(wanted),
    }
}

/// Why this cannot be done as asked, before anything is stopped for it.
fn fault(snapshot: &Snapshot, wanted: &Reinit) -> Option<String> {
    let methods = snapshot.config.postgresql.as_ref().map(|p| p.create_replica_methods.as_slice());
    let methods = methods.unwrap_or_default();
    let known = |name: &str| methods.iter().any(|m| m.name == name) || name == "basebackup";
    if let Some(name) = wanted.method.as_deref().filter(|name| !known(name)) {
        return Some(format!("{name} is not among postgresql.create_replica_methods"));
    }
    let custom = wanted.method.as_deref().is_some_and(|name| name != "basebackup");
    if wanted.from_leader && (custom || wanted.source.is_some()) {
        return Some(
            "from_leader means basebackup from the leader: name no method or source".into(),
        );
    }
    let source = wanted.source.as_deref();
    if source.is_some_and(|name| snapshot.view.cluster.member_named(name).is_none()) {
        return Some(format!("{} is not a member", source.unwrap_or_default()));
    }
    if source == Some(snapshot.config.name.as_str()) {
        return Some("a member is not copied from itself".into());
    }
    let keeps = |m: &&crate::pure::config::ReplicaMethod| m.name != "basebackup";
    let none_keeps =
        if wanted.method.is_some() { !custom } else { !methods.iter().any(|m| keeps(&m)) };
    if wanted.keep_data == Some(true) && (none_keeps || wanted.from_leader) {
        return Some("basebackup cannot keep data: name a method that can".into());
    }
    None
}

fn text(value: Option<&Value>, key: &str) -> Result<Option<String>, Answer> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(other) => Err(Answer::new(400, format!("{key} must be a name, not {other}"))),
    }
}

/// A boolean; anything else is refused, because this request deletes data.
fn flag(value: Option<&Value>, key: &str) -> Result<Option<bool>, Answer> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => {
            let text = format!("{key} must be true or false, not {other}");
            Err(Answer::new(400, text))
        }
    }
}
