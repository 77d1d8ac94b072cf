//! `GET /cluster` and `GET /history`: everybody, as this node last heard of them.
use serde_json::{Map, Value, json};

use super::snapshot::{Snapshot, answering};
use super::{members, standby};
use crate::pure::cluster::facts::{Facts, Phase, SqlFacts};
use crate::pure::cluster::state::{FailoverRequest, Member};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::view::Heard;

/// The body of `/cluster`. Its last key, `surus`, says how good this knowledge is.
pub fn body(snapshot: &Snapshot) -> Value {
    let members: Vec<Value> = snapshot
        .members()
        .into_iter()
        .map(|(_, member, heard)| row(snapshot, member, heard))
        .collect();
    let mut body = Map::new();
    body.insert("members".into(), members.into());
    if let Some(scheduled) = snapshot.view.cluster.failover.as_ref().and_then(scheduled_switchover)
    {
        body.insert("scheduled_switchover".into(), scheduled);
    }
    body.insert("scope".into(), snapshot.config.scope.as_str().into());
    body.insert("surus".into(), own(snapshot));
    Value::Object(body)
}

/// The body of `/history`: `[timeline, lsn, reason, timestamp, new leader]` per row.
pub fn history(snapshot: &Snapshot) -> Value {
    let rows = snapshot.view.cluster.history.iter();
    rows.map(|row| json!([row.timeline, row.lsn.0, row.reason, row.timestamp, row.new_leader]))
        .collect()
}

fn row(snapshot: &Snapshot, member: &Member, heard: Option<&Heard>) -> Value {
    let facts = heard.map(|heard| &heard.facts);
    let sql = facts.and_then(answering);
    let leads = snapshot.leader() == Some(member.name.as_str());
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| row.insert(key.to_owned(), value);
    put("name", member.name.as_str().into());
    put("role", role(snapshot, member, leads, sql).into());
    let writes = leads && !snapshot.in_standby_cluster();
    let shown = if writes && facts.is_some_and(is_promoted) {
        "promoting".into()
    } else {
        state(facts, writes)
    };
    put("state", shown.into());
    put("api_url", member.api_url.as_str().into());
    if let Some(at) = member.host_port() {
        put("host", at.host.into());
        put("port", at.port.into());
    }
    if let Some(timeline) = sql.map(|sql| sql.timeline).filter(|timeline| *timeline > 0) {
        put("timeline", timeline.into());
    }
    remarks(&mut row, member, facts);
    if !leads {
        positions(&mut row, snapshot.leader_lsn(), sql);
    }
    Value::Object(row)
}

/// Is it being made the primary? Until it accepts writes nobody shall take it for one.
pub fn is_promoted(facts: &Facts) -> bool {
    match answering(facts) {
        Some(sql) => sql.in_recovery,
        None => facts.phase == Phase::Promoting,
    }
}

/// The part that most members do not have.
fn remarks(row: &mut Map<String, Value>, member: &Member, facts: Option<&Facts>) {
    if let Some(facts) = facts.filter(|facts| !facts.pending_restart.is_empty()) {
        row.insert("pending_restart".into(), true.into());
        row.insert("pending_restart_reason".into(), facts.pending_restart.clone().into());
    }
    if let Some(schedule) = facts.and_then(|facts| facts.scheduled_restart.as_ref()) {
        row.insert("scheduled_restart".into(), schedule.clone());
    }
    let tags = facts.map_or(&member.tags, |facts| &facts.tags).shown();
    if !tags.is_empty() {
        row.insert("tags".into(), tags.into());
    }
}

/// A leader whose cluster was told to follow another one is a leader until it has stopped writing.
fn role(snapshot: &Snapshot, member: &Member, leads: bool, sql: Option<&SqlFacts>) -> &'static str {
    let writes = sql.is_some_and(|sql| !sql.in_recovery);
    match (leads, snapshot.in_standby_cluster() && !writes) {
        (true, false) => "leader",
        (true, true) => "standby_leader",
        (false, _) => snapshot.sync_duty(&member.name).map_or("replica", |duty| duty.text()),
    }
}

/// A member's state as `/cluster` words it; `unknown` when nothing was heard of it for ttl. Whoever
/// writes streams from nobody; a standby leader does.
pub fn state(facts: Option<&Facts>, writes: bool) -> String {
    let Some(facts) = facts else {
        return "unknown".to_owned();
    };
    let streams = answering(facts).and_then(|sql| sql.replication_state.as_deref());
    match streams.filter(|_| !writes) {
        Some(state) => state.to_owned(),
        None => facts.state.text().to_owned(),
    }
}

/// Position and lag (bytes) per kind; both are the text `unknown` where the position is.
fn positions(row: &mut Map<String, Value>, leader: Lsn, sql: Option<&SqlFacts>) {
    let pairs = [
        ("receive_lag", "receive_lsn", sql.map(|sql| sql.receive_lsn)),
        ("replay_lag", "replay_lsn", sql.map(|sql| sql.replay_lsn)),
        ("lag", "lsn", sql.map(SqlFacts::position)),
    ];
    for (lag, lsn, position) in pairs {
        let known = position.filter(|lsn| lsn.0 > 0);
        let bytes = known.map_or("unknown".into(), |lsn| Value::from(leader.since(lsn)));
        row.insert(lag.into(), bytes);
        row.insert(lsn.into(), known.map_or("unknown".into(), |lsn| lsn.to_string().into()));
    }
}

fn scheduled_switchover(request: &FailoverRequest) -> Option<Value> {
    let mut scheduled = Map::new();
    scheduled.insert("at".into(), request.scheduled_at.as_deref()?.into());
    if let Some(leader) = &request.leader {
        scheduled.insert("from".into(), leader.as_str().into());
    }
    if let Some(candidate) = &request.candidate {
        scheduled.insert("to".into(), candidate.as_str().into());
    }
    Some(Value::Object(scheduled))
}

/// Who says this, whether a majority stands behind it, and what members are doing in our words.
fn own(snapshot: &Snapshot) -> Value {
    let raft = &snapshot.view.raft;
    let age = |at: u64| snapshot.now.saturating_sub(at) / 1000;
    let quorum_age = (raft.quorum_at > 0).then(|| age(raft.quorum_at));
    let members: Map<String, Value> = snapshot
        .view
        .cluster
        .members
        .iter()
        .map(|(id, member)| (member.name.clone(), member_extra(snapshot, *id, member)))
        .collect();
    let mut own = json!({"node": snapshot.config.name, "initialize": snapshot.view.cluster.initialize_key(),
        "quorum": snapshot.fresh(), "quorum_age_s": quorum_age, "votes": members::votes(snapshot),
        "members": members});
    if let Some(waiting) = &snapshot.view.joining {
        own["joining"] = waiting.as_str().into();
    }
    if let Some(remote) = standby::own(snapshot) {
        own["standby"] = remote;
    }
    if let Some(failure) = snapshot.initialize_failure() {
        own["initialize_failure"] = serde_json::to_value(&failure).unwrap_or_default();
    }
    own
}

fn member_extra(snapshot: &Snapshot, id: u64, member: &Member) -> Value {
    let mut extra = json!({"api_url": member.api_url, "version": member.version});
    extra["vote"] = snapshot.view.raft.voters.contains(&id).into();
    if member.witness {
        extra["witness"] = true.into();
    }
    if member.left {
        extra["left"] = true.into();
    }
    let Some(heard) = snapshot.view.facts.get(&id) else {
        return extra;
    };
    let heard_age =
        if id == snapshot.view.own_id { 0 } else { snapshot.now.saturating_sub(heard.heard_at) };
    extra["heard_s_ago"] = (heard_age / 1000).into();
    extra["node_state"] = heard.facts.node_state.as_str().into();
    extra["sentence"] = heard.facts.sentence.as_str().into();
    if let Some(failure) = &heard.facts.sql_failure {
        extra["sql_failure"] = failure.text.as_str().into();
    }
    if let Some(recovery) = &heard.facts.recovery {
        extra["recovery"] = recovery.text().into();
    }
    if let Some(build) = &heard.facts.build {
        extra["build"] = serde_json::to_value(build).unwrap_or_default();
    }
    extra
}
