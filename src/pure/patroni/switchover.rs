//! `POST /switchover` and `POST /failover`: the checks before, and what came of it after.
use serde_json::{Map, Value};

use super::snapshot::Snapshot;
use super::{Answer, schedule};
use crate::pure::cluster::RaftId;
use crate::pure::cluster::eligibility::{Candidate, Election, LastLeader, eligible};
use crate::pure::cluster::state::FailoverRequest;
use crate::pure::config::SynchronousMode;
use crate::pure::view::View;

/// Which of the two was called; a failover that names the leader becomes a switchover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Switchover,
    Failover,
}

impl Action {
    fn noun(self) -> &'static str {
        match self {
            Action::Switchover => "Switchover",
            Action::Failover => "Failover",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Action::Switchover => "switched",
            Action::Failover => "failed",
        }
    }
}

/// A request that passed the checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    pub action: Action,
    pub request: FailoverRequest,
}

/// First match wins, in Patroni's order. `now_epoch_s` is the wall clock, for schedules only.
pub fn check(
    snapshot: &Snapshot,
    action: Action,
    body: &Map<String, Value>,
    now_epoch_s: u64,
) -> Result<Accepted, Answer> {
    if !snapshot.fresh() {
        let text = "no quorum: no majority of the members is heard, so nothing can be agreed on";
        return Err(Answer::new(503, text));
    }
    let leader = name(body, "leader")?;
    let candidate = name(body, "candidate")?.or(name(body, "member")?);
    let scheduled_at = name(body, "scheduled_at")?;
    required(action, &leader, &candidate)?;
    if scheduled_at.is_some() && action == Action::Failover {
        return Err(Answer::new(400, "Failover can't be scheduled"));
    }
    let scheduled_at = match scheduled_at {
        None => None,
        Some(text) => Some(schedule::check(&text, now_epoch_s, "switchover")?),
    };
    let action = if leader.is_some() { Action::Switchover } else { action };
    if leader.is_some() && leader == candidate {
        return Err(Answer::new(400, "Switchover target and source are the same"));
    }
    let request = FailoverRequest { leader, candidate, scheduled_at };
    if request.scheduled_at.is_none() {
        possible(snapshot, action, &request).map_err(|text| Answer::new(412, text))?;
    }
    Ok(Accepted { action, request })
}

/// A text value; empty and null count as absent, other types are refused.
fn name(body: &Map<String, Value>, key: &str) -> Result<Option<String>, Answer> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(Answer::new(400, format!("{key} must be text, not {other}"))),
    }
}

fn required(
    action: Action,
    leader: &Option<String>,
    candidate: &Option<String>,
) -> Result<(), Answer> {
    let text = match action {
        Action::Failover if candidate.is_none() => {
            "Failover could be performed only to a specific candidate"
        }
        Action::Switchover if leader.is_none() => {
            "Switchover could be performed only from a specific leader"
        }
        _ => return Ok(()),
    };
    Err(Answer::new(400, text))
}

/// Whether it can be done now; the sentence of Patroni's refusal otherwise.
fn possible(snapshot: &Snapshot, action: Action, request: &FailoverRequest) -> Result<(), String> {
    let (leader, candidate) = (request.leader.as_deref(), request.candidate.as_deref());
    let cluster = &snapshot.view.cluster;
    if leader.is_some() && leader != cluster.leader() {
        return Err("leader name does not match".to_owned());
    }
    let synchronous = !snapshot.in_standby_cluster()
        && snapshot.dynamic.synchronous_mode == SynchronousMode::On
        && action == Action::Switchover;
    let standbys = cluster.sync.as_ref().map(|sync| sync.sync_standby.as_slice()).unwrap_or(&[]);
    if let Some(candidate) = candidate {
        let listed = standbys.iter().any(|name| name.eq_ignore_ascii_case(candidate));
        if synchronous && !listed {
            return Err("candidate name does not match with sync_standby".to_owned());
        }
        if cluster.member_named(candidate).is_none_or(|(_, member)| member.witness) {
            return Err("candidate does not exists".to_owned());
        }
    } else if synchronous && standbys.is_empty() {
        return Err(refused(action, "can not find sync_standby"));
    }
    let others = other_members(snapshot);
    if others.is_empty() {
        return Err(refused(action, "cluster does not have members except leader"));
    }
    if candidate.is_some() && candidate == cluster.leader() {
        return Ok(());
    }
    let named = |name: &&str| candidate.is_none_or(|wanted| wanted == *name);
    let named: Vec<&str> = others.into_iter().filter(named).collect();
    match any_is_eligible(snapshot, request, &named) {
        true => Ok(()),
        false => Err(refused(action, "no good candidates have been found")),
    }
}

fn refused(action: Action, because: &str) -> String {
    format!("{} is not possible: {because}", action.noun().to_lowercase())
}

fn other_members<'a>(snapshot: &Snapshot<'a>) -> Vec<&'a str> {
    let leader = snapshot.view.cluster.leader();
    let all = snapshot.view.cluster.members.values().filter(|member| !member.witness);
    all.map(|member| member.name.as_str()).filter(|name| Some(*name) != leader).collect()
}

/// Would the arbiter take one of these, if the leader stopped now?
fn any_is_eligible(snapshot: &Snapshot, request: &FailoverRequest, names: &[&str]) -> bool {
    let cluster = &snapshot.view.cluster;
    let heard = |id: &RaftId| snapshot.heard(*id).map(|heard| &heard.facts);
    let members = cluster.members.iter();
    let all: Vec<Candidate> =
        members.map(|(id, member)| Candidate { id: *id, member, fresh: heard(id) }).collect();
    let leader = cluster.lease.as_ref().and_then(|lease| heard(&lease.holder));
    let last = LastLeader::from_facts(leader);
    let timelines = last.timelines(cluster);
    let election = Election::of_request((cluster, snapshot.dynamic), (&last, &timelines), request);
    let mut among = all.iter().filter(|candidate| names.contains(&candidate.member.name.as_str()));
    among.any(|candidate| eligible(&election, &all, candidate).is_ok())
}

/// How long the caller waits for the outcome, in seconds.
pub fn patience_s(loop_wait_ms: u64) -> u64 {
    2 * (loop_wait_ms / 1000).max(10)
}

/// What came of it so far. `settled` means that the request was seen in the log and is gone since.
///
/// The new leader must take writes before it counts (in a standby cluster it never does): whoever
/// is told of success connects at once.
pub fn outcome(
    view: &View,
    accepted: &Accepted,
    leader_before: Option<&str>,
    settled: bool,
) -> Option<Answer> {
    let cluster = &view.cluster;
    let (noun, verb) = (accepted.action.noun(), accepted.action.verb());
    let wanted = accepted.request.candidate.as_deref();
    match cluster.leader() {
        Some(now) if leader_before != Some(now) && !serves(view, now) => None,
        Some(now) if leader_before != Some(now) => Some(match wanted {
            Some(wanted) if wanted != now => {
                let verb = capitalised(verb);
                Answer::new(200, format!("{verb} over to \"{now}\" instead of \"{wanted}\""))
            }
            _ => Answer::new(200, format!("Successfully {verb} over to \"{now}\"")),
        }),
        Some(_) if settled => Some(Answer::new(503, format!("{noun} failed"))),
        _ => None,
    }
}

fn serves(view: &View, leader: &str) -> bool {
    let standby = view.cluster.standby.is_some();
    let heard = view.cluster.member_named(leader).and_then(|(id, _)| view.facts.get(&id));
    standby || heard.is_some_and(|heard| heard.facts.is_writable())
}

/// The answer when the wait is over without an outcome.
pub fn unknown(action: Action, waited_s: u64) -> Answer {
    let text = format!(
        "{} status unknown after {waited_s} seconds; operation may still be in progress",
        action.noun()
    );
    Answer::new(503, text)
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
