//! `switchover` and `failover`.
use serde_json::{Value, json};

use super::args::{Failover, Switchover};
use super::client::{Client, Response};
use super::members::{self, Member};
use super::moment;
use super::output::line;
use super::{Outcome, list, prompt};
use crate::pure::config::Tags;

/// What both commands come down to.
struct SwitchRequest {
    action: &'static str,
    leader: Option<String>,
    candidate: Option<String>,
    scheduled_at: Option<String>,
}

pub fn switchover(client: &Client, task: &Switchover) -> Outcome {
    let (scope, body) = members::cluster(client, task.cluster.as_deref())?;
    line("Current cluster topology");
    members::print(&scope, &body);
    let all = members::all(&body);
    let leader = all.iter().find(|member| members::leads(member));
    let leader = leader.ok_or("This cluster has no leader")?;
    let title = if leader.row["role"] == "standby_leader" { "Standby Leader" } else { "Primary" };
    let named = match &task.leader {
        Some(named) => named.clone(),
        None if task.force => leader.name.clone(),
        None => prompt::ask(title, Some(&leader.name))?,
    };
    if named != leader.name {
        return Err(format!("Member {named} is not the leader of cluster {scope}").into());
    }
    let candidate = candidate(&scope, &all, Some(leader), &task.candidate, task.force)?;
    let at = moment::given_or_asked(task.scheduled.as_deref(), "switchover", task.force)?;
    if !task.force {
        let question = match &at {
            None => format!(
                "Are you sure you want to switchover cluster {scope}, demoting current leader {named}?"
            ),
            Some(at) => format!(
                "Are you sure you want to schedule switchover of cluster {scope} at {at}, \
                 demoting current leader {named}?"
            ),
        };
        prompt::confirm(&question)?;
    }
    let request =
        SwitchRequest { action: "switchover", leader: Some(named), candidate, scheduled_at: at };
    carry_out(client, &scope, &request)
}

pub fn failover(client: &Client, task: &Failover) -> Outcome {
    let (scope, body) = members::cluster(client, task.cluster.as_deref())?;
    line("Current cluster topology");
    members::print(&scope, &body);
    let all = members::all(&body);
    let leader = all.iter().find(|member| members::leads(member));
    let candidate = candidate(&scope, &all, leader, &task.candidate, task.force)?;
    let candidate = candidate.ok_or("Failover could be performed only to a specific candidate")?;
    if !task.force {
        if is_asynchronous(client, &all, &candidate) {
            let question =
                format!("Are you sure you want to failover to the asynchronous node {candidate}?");
            prompt::confirm(&question)?;
        }
        let demoting = leader.map(|leader| format!(", demoting current leader {}", leader.name));
        let demoting = demoting.unwrap_or_default();
        prompt::confirm(&format!("Are you sure you want to failover cluster {scope}{demoting}?"))?;
    }
    let candidate = Some(candidate);
    let request = SwitchRequest { action: "failover", leader: None, candidate, scheduled_at: None };
    carry_out(client, &scope, &request)
}

/// Synchronous mode is on and commits do not wait for this member.
fn is_asynchronous(client: &Client, all: &[Member], candidate: &str) -> bool {
    let config = client.any("/config").ok().and_then(|r| serde_json::from_str(&r.body).ok());
    let mode = config.unwrap_or(Value::Null)["synchronous_mode"].clone();
    let synchronous = mode == true || mode == "on" || mode == "quorum";
    let role = all.iter().find(|member| member.name == candidate).map(|m| m.row["role"].clone());
    let listed = role.is_some_and(|role| role == "sync_standby" || role == "quorum_standby");
    synchronous && !listed
}

/// The candidate that was named or asked for; `None` leaves the choice to the cluster.
fn candidate(
    scope: &str,
    all: &[Member],
    leader: Option<&Member>,
    given: &Option<String>,
    force: bool,
) -> Outcome<Option<String>> {
    let is_leader = |name: &str| leader.is_some_and(|leader| leader.name == name);
    let eligible: Vec<&str> = all
        .iter()
        .filter(|member| !is_leader(&member.name) && !Tags::from(&member.row["tags"]).nofailover())
        .map(|member| member.name.as_str())
        .collect();
    if eligible.is_empty() {
        return Err("No candidates found to switchover to".into());
    }
    let named = match given {
        Some(named) => named.clone(),
        None if force => String::new(),
        None => {
            let names: Vec<_> = eligible.iter().map(|name| format!("'{name}'")).collect();
            prompt::ask(&format!("Candidate [{}]", names.join(", ")), Some(""))?
        }
    };
    if named.is_empty() {
        return Ok(None);
    }
    if is_leader(&named) {
        return Err(format!("Member {named} is already the leader of cluster {scope}").into());
    }
    if !eligible.contains(&named.as_str()) {
        let text =
            format!("Member {named} does not exist in cluster {scope} or is tagged as nofailover");
        return Err(text.into());
    }
    Ok(Some(named))
}

fn carry_out(client: &Client, scope: &str, request: &SwitchRequest) -> Outcome {
    let mut body = json!({});
    for (key, value) in [
        ("leader", &request.leader),
        ("candidate", &request.candidate),
        ("scheduled_at", &request.scheduled_at),
    ] {
        if let Some(value) = value {
            body[key] = value.as_str().into();
        }
    }
    let answer = client.change("POST", &format!("/{}", request.action), Some(&body))?;
    line(&told(request.action, &answer));
    if let Ok(body) = client.cluster() {
        members::print(scope, &body);
    }
    Ok(())
}

fn told(action: &str, answer: &Response) -> String {
    let text = answer.body.trim();
    match answer.code {
        200 | 202 => format!("{} {text}", list::now()),
        503 if text.contains("status unknown") => {
            format!("{} result unknown, details: {}, {text}", titled(action), answer.code)
        }
        code => format!("{} failed, details: {code}, {text}", titled(action)),
    }
}

fn titled(action: &str) -> &'static str {
    if action == "failover" { "Failover" } else { "Switchover" }
}
