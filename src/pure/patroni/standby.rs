//! What a standby cluster shows of its remote and of its way out, on every node alike.
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::Answer;
use super::snapshot::Snapshot;
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::handover::Token;
use crate::pure::cluster::remote::{RemoteRelation, standing};
use crate::pure::cluster::standby::Order;

/// The remote, its faults, what a promotion waits for; and of a cluster that was demoted the
/// handover token. Nothing for a cluster that follows nobody.
pub fn own(snapshot: &Snapshot) -> Option<Value> {
    let section = snapshot.dynamic.standby_cluster.as_ref()?;
    let facts = leader(snapshot).and_then(|facts| facts.remote.as_ref());
    let mut own = json!({"remote": section.address(), "slot": section.primary_slot_name,
        "problems": facts.map(|facts| facts.problems.clone()).unwrap_or_default()});
    if let Some(facts) = facts.filter(|facts| facts.answered_by.is_some()) {
        own["answered_by"] = json!(facts.answered_by);
        own["system_identifier"] = facts.system_identifier.as_str().into();
        own["timeline"] = facts.timeline.into();
        own["server_version"] = facts.server_version.into();
        own["accepts_writes"] = json!(facts.accepts_writes);
    }
    if let Some(token) = &snapshot.view.cluster.handover {
        own["handover_token"] = token.to_string().into();
    }
    if let Some(why) = waits_for(snapshot) {
        own["promotion_waits_for"] = why.into();
    }
    Some(own)
}

fn leader<'a>(snapshot: &Snapshot<'a>) -> Option<&'a Facts> {
    let (id, _) = snapshot.view.cluster.member_named(snapshot.view.cluster.leader()?)?;
    snapshot.heard(id).map(|heard| &heard.facts)
}

/// The section was taken out and the cluster is not promoted yet: why.
pub fn waits_for(snapshot: &Snapshot) -> Option<String> {
    let section =
        snapshot.dynamic.standby_cluster.as_ref().filter(|_| snapshot.dynamic.leaves_standby)?;
    let leader = leader(snapshot);
    let (sql, remote) =
        (leader.and_then(|f| f.sql.as_ref()), leader.and_then(|f| f.remote.as_ref()));
    let waits = snapshot.view.cluster.may_be_promoted(section, sql, remote).err();
    Some(waits.unwrap_or_else(|| String::from("the leader is about to be promoted")))
}

/// This node leads a standby cluster whose remote is another cluster.
pub fn follows_a_stranger(snapshot: &Snapshot) -> bool {
    let remote = snapshot.facts().and_then(|facts| facts.remote.as_ref());
    snapshot.dynamic.standby_cluster.as_ref().is_some_and(|section| {
        let identity = snapshot.view.cluster.system_identifier();
        standing(section, remote, identity) == RemoteRelation::Foreign
    })
}

/// The terms in the body of `POST /promote-cluster`.
pub fn order(snapshot: &Snapshot, body: &Map<String, Value>) -> Result<Order, Answer> {
    let known = ["token", "even_if_remote_writes"];
    if let Some((key, _)) = body.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        return Err(Answer::new(400, format!("unknown key {key}; there are {}", known.join(", "))));
    }
    if snapshot.view.cluster.standby.is_none() {
        return Err(Answer::new(409, "Cluster is already in the required state"));
    }
    let token = match body.get("token") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => {
            Some(Token::from_str(text).map_err(|why| Answer::new(400, why))?)
        }
        Some(other) => return Err(Answer::new(400, format!("token must be text, not {other}"))),
    };
    let identity = snapshot.view.cluster.system_identifier().unwrap_or_default();
    if let Some(token) = token.as_ref().filter(|token| token.system_identifier != identity) {
        let theirs = &token.system_identifier;
        let text =
            format!("the token is of the system identifier {theirs}, this cluster is {identity}");
        return Err(Answer::new(409, text));
    }
    let even_if_remote_writes = match body.get("even_if_remote_writes") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => *value,
        Some(other) => {
            let text = format!("even_if_remote_writes must be true or false, not {other}");
            return Err(Answer::new(400, text));
        }
    };
    Ok(Order { token, even_if_remote_writes })
}
