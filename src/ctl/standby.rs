//! `promote-cluster` and `demote-cluster`: two sites change places.
//!
//! Both wait for the outcome, but not for ever: when the time is up they say what the cluster
//! waits for, and the order stands.
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{DemoteCluster, PromoteCluster};
use super::client::{Client, Response};
use super::members::{self, Member};
use super::output::line;
use super::{Outcome, Stop, prompt};
use crate::pure::patroni::quantity;

const POLL: Duration = Duration::from_millis(500);

pub fn promote(client: &Client, task: &PromoteCluster) -> Outcome {
    let (scope, body) = members::cluster(client, task.cluster.as_deref())?;
    let wait = duration(&task.timeout)?;
    let now = leader(&body)?;
    let waits = !body["surus"]["standby"].is_null();
    if now.row["role"] != "standby_leader" && !waits {
        return Err("Cluster is already in the required state".into());
    }
    members::print(&scope, &body);
    if !task.force {
        if task.even_if_remote_writes {
            line("Both clusters will accept writes if the remote still does.");
        }
        prompt::confirm("Are you sure you want to promote standby_cluster?")?;
    }
    let terms = json!({"token": task.token, "even_if_remote_writes": task.even_if_remote_writes});
    accepted(client.change("POST", "/promote-cluster", Some(&terms))?)?;
    follow(client, &scope, wait, "promoted", |body| {
        let new = leader(body).ok()?;
        let done = new.row["role"] == "leader" && new.row["state"] == "running";
        done.then(|| String::from("Cluster is promoted"))
    })
}

pub fn demote(client: &Client, task: &DemoteCluster) -> Outcome {
    let (scope, body) = members::cluster(client, task.cluster.as_deref())?;
    let wait = duration(&task.timeout)?;
    if task.host.is_none() && task.port.is_none() && task.restore_command.is_none() {
        return Err("At least --host, --port or --restore-command should be specified".into());
    }
    let old = leader(&body)?;
    if old.row["role"] == "standby_leader" {
        return Err("Cluster is already in the required state".into());
    }
    members::print(&scope, &body);
    if !task.force {
        prompt::confirm(&format!("Are you sure you want to demote {scope} cluster?"))?;
    }
    let mut section = json!({});
    for (key, value) in [
        ("host", task.host.as_deref().map(Value::from)),
        ("port", task.port.map(Value::from)),
        ("restore_command", task.restore_command.as_deref().map(Value::from)),
        ("primary_slot_name", task.primary_slot_name.as_deref().map(Value::from)),
    ] {
        if let Some(value) = value {
            section[key] = value;
        }
    }
    let change = json!({"standby_cluster": section});
    accepted(client.change("PATCH", "/config", Some(&change))?)?;
    follow(client, &scope, wait, "demoted", |body| {
        let new = leader(body).ok()?;
        let serves = |member: &Member| {
            let state = member.row["state"].as_str().unwrap_or_default();
            matches!(state, "running" | "streaming" | "in archive recovery")
        };
        let all = members::all(body);
        let old_serves = all.iter().any(|member| member.name == old.name && serves(member));
        let follows = body["surus"]["members"][&new.name]["node_state"] == "standby_leading";
        let done = new.row["role"] == "standby_leader" && follows && serves(&new) && old_serves;
        done.then(|| told(&body["surus"]["standby"]["handover_token"]))
    })
}

/// `90`, `90s` or `2min`.
fn duration(text: &str) -> Outcome<Duration> {
    let ms = quantity::milliseconds(text).and_then(|ms| u64::try_from(ms).ok());
    let ms = ms.ok_or_else(|| format!("--timeout {text} is not a time such as 60 or 2min"))?;
    Ok(Duration::from_millis(ms))
}

/// What whoever takes over needs to know.
fn told(token: &Value) -> String {
    match token.as_str() {
        Some(token) => format!(
            "Cluster is demoted\nHandover token: {token}\nThe other site takes over with: \
             promote-cluster --token {token}"
        ),
        None => String::from(
            "Cluster is demoted, but did not stop cleanly: there is no handover token. Compare \
             the positions before the other site is promoted",
        ),
    }
}

fn leader(body: &Value) -> Outcome<Member> {
    let all = members::all(body);
    let found = all.into_iter().find(members::leads);
    found.ok_or_else(|| "Cluster has no leader".into())
}

fn accepted(answer: Response) -> Outcome {
    match answer.code {
        200 | 202 => Ok(()),
        code => {
            let text = answer.body.trim();
            Err(Stop::Error(format!("the cluster refused: {code}, {text}")))
        }
    }
}

fn follow(
    client: &Client,
    scope: &str,
    wait: Duration,
    what: &str,
    done: impl Fn(&Value) -> Option<String>,
) -> Outcome {
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let body = client.cluster();
        if let Ok(body) = &body {
            if let Some(text) = done(body) {
                members::print(scope, body);
                line(&text);
                return Ok(());
            }
            let waits = waits_for(body);
            if waits != said {
                line(&format!("Waiting: {waits}"));
                said = waits;
            }
        }
        if begun.elapsed() >= wait {
            let why = if said.is_empty() { "no member answers" } else { &said };
            return Err(Stop::Error(format!(
                "the cluster was not {what} within {} s: {why}; the order stands",
                wait.as_secs()
            )));
        }
        thread::sleep(POLL);
    }
}

/// What the cluster itself says it waits for, else who is in which state.
fn waits_for(body: &Value) -> String {
    let own = &body["surus"]["standby"];
    if let Some(why) = own["promotion_waits_for"].as_str() {
        return why.to_owned();
    }
    let all = members::all(body);
    let states = all.iter().map(|member| {
        let text = |key: &str| member.row[key].as_str().unwrap_or("?").to_owned();
        format!("{} is {} ({})", member.name, text("role"), text("state"))
    });
    states.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: EX-97.
    #[test]
    fn without_a_leader_there_is_nothing_to_promote_or_demote() {
        let row = |name: &str, role: &str| json!({"name": name, "role": role, "state": "running"});
        let body = json!({"scope": "e", "members": [row("a", "replica"), row("b", "replica")]});
        assert_eq!(leader(&body).map(|member| member.name), Err("Cluster has no leader".into()));
        let body = json!({"scope": "e", "members": [row("a", "replica"), row("b", "leader")]});
        assert_eq!(leader(&body).map(|member| member.name), Ok("b".into()));
        assert_eq!(duration("2min"), Ok(Duration::from_secs(120)));
        assert!(duration("soon").is_err());
    }
}
