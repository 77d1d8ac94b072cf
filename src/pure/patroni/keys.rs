//! The keys Patroni keeps in its store, as values of what Raft replicates.
use serde_json::{Map, Value, json};

use super::snapshot::{Snapshot, answering};
use crate::pure::cluster::RaftId;
use crate::pure::cluster::facts::{Facts, SqlFacts};
use crate::pure::cluster::state::{ClusterState, FailoverRequest, Member};
use crate::pure::postgres::slot::slot_name;

/// The text under a key (`leader`, `members/NAME`, …); `None` where Patroni would have no key.
pub fn value(snapshot: &Snapshot, key: &str) -> Option<String> {
    let cluster = &snapshot.view.cluster;
    match key.trim_matches('/') {
        "initialize" => cluster.initialize_key(),
        "leader" => cluster.leader().map(str::to_owned),
        "config" => cluster.config.as_ref().map(Value::to_string),
        "history" => initialised(cluster).map(|()| super::cluster::history(snapshot).to_string()),
        "status" => initialised(cluster).map(|()| status(snapshot).to_string()),
        "sync" => sync(cluster).map(|value| value.to_string()),
        "failover" => cluster.failover.as_ref().map(|request| failover(request).to_string()),
        other => {
            let (id, member) = cluster.member_named(other.strip_prefix("members/")?)?;
            Some(member_value(snapshot, id, member).to_string())
        }
    }
}

fn initialised(cluster: &ClusterState) -> Option<()> {
    cluster.system_identifier().map(|_| ())
}

fn status(snapshot: &Snapshot) -> Value {
    let mut status = json!({"optime": snapshot.leader_lsn().0});
    let leader =
        snapshot.view.cluster.leader().and_then(|name| snapshot.view.cluster.member_named(name));
    let facts = leader.and_then(|(id, _)| snapshot.heard(id)).map(|heard| &heard.facts);
    let slots = facts.and_then(|facts| Some(slots(snapshot, &facts.name, answering(facts)?)));
    let slots = slots.unwrap_or_default();
    if !slots.is_empty() {
        status["slots"] = slots.into();
    }
    status
}

/// How far each slot of the leader is, and the leader itself under the name its own slot would have:
/// whoever follows another member finds everybody there. Where members keep no slots
/// (`member_slots_ttl: 0`), only permanent ones. Spec: SL-12.
fn slots(snapshot: &Snapshot, leader: &str, sql: &SqlFacts) -> Map<String, Value> {
    let own = (slot_name(leader), sql.position());
    let slots = sql.slots.iter().map(|slot| (slot.name.clone(), slot.restart_lsn));
    let all = slots.filter(|(name, _)| *name != own.0).chain([own.clone()]);
    let for_members = snapshot.dynamic.member_slots_ttl_ms > 0;
    let permanent = |name: &str| snapshot.dynamic.permanent_slots.iter().any(|s| s.name == name);
    let shown = all.filter(|(name, _)| for_members || permanent(name));
    shown.map(|(name, lsn)| (name, Value::from(lsn.0))).collect()
}

fn sync(cluster: &ClusterState) -> Option<Value> {
    let sync = cluster.sync.as_ref()?;
    let standbys = (!sync.sync_standby.is_empty()).then(|| sync.sync_standby.join(","));
    Some(json!({"leader": sync.leader, "quorum": sync.quorum, "sync_standby": standbys}))
}

fn failover(request: &FailoverRequest) -> Value {
    let fields = [
        ("leader", &request.leader),
        ("member", &request.candidate),
        ("scheduled_at", &request.scheduled_at),
    ];
    let present = fields.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    present.map(|(key, value)| (key.to_owned(), Value::from(value))).collect::<Map<_, _>>().into()
}

/// What a member's own key says: its addresses, its state, and positions while SQL answers.
pub fn member_value(snapshot: &Snapshot, id: RaftId, member: &Member) -> Value {
    let facts = snapshot.heard(id).map(|heard| &heard.facts);
    let mut row = Map::new();
    row.insert("conn_url".into(), member.conn_url.as_str().into());
    row.insert("api_url".into(), member.api_url.as_str().into());
    row.insert("state".into(), facts.map_or("unknown", |facts| facts.state.text()).into());
    row.insert("role".into(), facts.map_or("uninitialized", |facts| facts.role.text()).into());
    row.insert("version".into(), super::PATRONI_VERSION.into());
    let tags = facts.map_or(&member.tags, |facts| &facts.tags).shown();
    if !tags.is_empty() {
        row.insert("tags".into(), tags.into());
    }
    if let Some(facts) = facts {
        of_facts(&mut row, facts);
    }
    Value::Object(row)
}

fn of_facts(row: &mut Map<String, Value>, facts: &Facts) {
    if !facts.pending_restart.is_empty() {
        row.insert("pending_restart".into(), true.into());
        row.insert("pending_restart_reason".into(), facts.pending_restart.clone().into());
    }
    if let Some(sql) = answering(facts) {
        positions(row, sql);
    }
    if let Some(schedule) = &facts.scheduled_restart {
        row.insert("scheduled_restart".into(), schedule.clone());
    }
}

fn positions(row: &mut Map<String, Value>, sql: &SqlFacts) {
    row.insert("xlog_location".into(), sql.position().0.into());
    if sql.in_recovery {
        row.insert("replay_lsn".into(), sql.replay_lsn.0.into());
        row.insert("receive_lsn".into(), sql.receive_lsn.0.into());
    }
    if let Some(state) = &sql.replication_state {
        row.insert("replication_state".into(), state.as_str().into());
    }
    if sql.timeline > 0 {
        row.insert("timeline".into(), sql.timeline.into());
    }
}
