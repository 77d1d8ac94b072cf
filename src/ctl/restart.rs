//! `restart`, `reload` and `flush`: one call per chosen member.
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{Flush, Reload, Restart};
use super::client::{ACTION_WAIT, Client, Response};
use super::members::{self, Member};
use super::output::line;
use super::{Outcome, moment, prompt};

const SHORT_WAIT: Duration = Duration::from_secs(30);

pub fn restart(client: &Client, task: &Restart) -> Outcome {
    let chosen = &task.chosen;
    let (scope, body) = members::cluster(client, chosen.cluster.as_deref())?;
    members::print(&scope, &body);
    let mut list = members::choose(&scope, &body, &chosen.members, chosen.role)?;
    if task.pending {
        list.retain(|member| member.row["pending_restart"] == true);
    }
    let at = moment::given_or_asked(task.scheduled.as_deref(), "restart", chosen.force)?;
    if !chosen.force {
        let names = members::names(&list);
        prompt::confirm(&match &at {
            None => format!("Are you sure you want to restart members {names}?"),
            Some(at) => {
                format!("Are you sure you want to schedule restart of members {names} at {at}?")
            }
        })?;
    }
    if task.any {
        // Whichever: a different one with every second keeps it from always being the first.
        let second = jiff::Timestamp::now().as_second().unsigned_abs() as usize;
        list = list.get(second % list.len().max(1)).cloned().into_iter().collect();
    }
    let body = conditions(task, at.as_deref())?;
    for member in &list {
        if chosen.force && at.is_some() && !member.row["scheduled_restart"].is_null() {
            let _ = client.call("DELETE", &member.base, "/restart", None, SHORT_WAIT);
        }
        let answer = client.call("POST", &member.base, "/restart", Some(&body), ACTION_WAIT);
        line(&restarted(member, answer));
    }
    Ok(())
}

fn conditions(task: &Restart, at: Option<&str>) -> Outcome<Value> {
    let mut body = json!({});
    let version = match &task.pg_version {
        Some(version) => version.clone(),
        None if task.chosen.force => String::new(),
        None => {
            let question = "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ";
            prompt::ask(question, Some(""))?
        }
    };
    if !version.is_empty() {
        if crate::pure::patroni::restart::version(&version).is_none() {
            return Err(format!("PostgreSQL version {version} is not like 15.4 or 9.6.2").into());
        }
        body["postgres_version"] = version.into();
    }
    if task.pending {
        body["restart_pending"] = true.into();
    }
    if let Some(timeout) = &task.timeout {
        body["timeout"] = timeout.as_str().into();
    }
    if let Some(at) = at {
        body["schedule"] = at.into();
    }
    Ok(body)
}

fn restarted(member: &Member, answer: Result<Response, String>) -> String {
    let name = &member.name;
    match answer {
        Ok(Response { code: 200, .. }) => format!("Success: restart on member {name}"),
        Ok(Response { code: 202, .. }) => format!("Success: restart scheduled on member {name}"),
        Ok(Response { code: 409, .. }) => {
            format!("Failed: another restart is already scheduled on member {name}")
        }
        other => failed("restart", name, other),
    }
}

/// What every command says of a member that refused or did not answer.
pub fn failed(action: &str, name: &str, answer: Result<Response, String>) -> String {
    match answer {
        Err(error) => format!("Failed: {action} for member {name}, {error}"),
        Ok(Response { code, body, .. }) => {
            let body = body.trim();
            format!("Failed: {action} for member {name}, status code={code}, ({body})")
        }
    }
}

pub fn reload(client: &Client, task: &Reload) -> Outcome {
    let chosen = &task.chosen;
    let (scope, body) = members::cluster(client, chosen.cluster.as_deref())?;
    members::print(&scope, &body);
    let list = members::choose(&scope, &body, &chosen.members, chosen.role)?;
    if !chosen.force {
        let names = members::names(&list);
        prompt::confirm(&format!("Are you sure you want to reload members {names}?"))?;
    }
    let config = client.any("/config")?.body;
    let config: Value = serde_json::from_str(&config).unwrap_or_default();
    let seconds = config["loop_wait"].as_u64().unwrap_or(10);
    for member in &list {
        let name = &member.name;
        line(&match client.call("POST", &member.base, "/reload", None, SHORT_WAIT) {
            Ok(Response { code: 200, .. }) => format!("No changes to apply on member {name}"),
            Ok(Response { code: 202, body, .. }) => format!(
                "Reload request received for member {name} and will be processed within \
                 {seconds} seconds{}",
                body.lines().skip(1).map(|told| format!("\n  {told}")).collect::<String>()
            ),
            other => failed("reload", name, other),
        });
    }
    Ok(())
}

pub fn flush(client: &Client, task: &Flush) -> Outcome {
    let (target, names) = match task.words.split_last() {
        Some((target, names)) => (target.as_str(), names),
        None => ("", &task.words[..]),
    };
    let (scope, body) = members::cluster(client, Some(&task.cluster))?;
    match target {
        "restart" => flush_restarts(client, task, &scope, &body, names),
        "switchover" => flush_switchover(client, &body),
        other => Err(format!("{other} cannot be flushed: say restart or switchover").into()),
    }
}

fn flush_restarts(
    client: &Client,
    task: &Flush,
    scope: &str,
    body: &Value,
    names: &[String],
) -> Outcome {
    let list = members::choose(scope, body, names, task.role)?;
    if !task.force {
        let names = members::names(&list);
        prompt::confirm(&format!("Are you sure you want to flush members {names}?"))?;
    }
    for member in &list {
        let name = &member.name;
        if member.row["scheduled_restart"].is_null() {
            line(&format!("No scheduled restart for member {name}"));
            continue;
        }
        line(&match client.call("DELETE", &member.base, "/restart", None, SHORT_WAIT) {
            Ok(Response { code: 200, .. }) => {
                format!("Success: flush scheduled restart for member {name}")
            }
            Ok(Response { code: 404, .. }) => format!("No scheduled restart for member {name}"),
            other => failed("flush scheduled restart", name, other),
        });
    }
    Ok(())
}

fn flush_switchover(client: &Client, body: &Value) -> Outcome {
    if body["scheduled_switchover"].is_null() {
        line("No pending scheduled switchover");
        return Ok(());
    }
    let answer = client.change("DELETE", "/switchover", None)?;
    line(&match answer.code {
        200 => format!("Success: {}", answer.body.trim()),
        404 => "No pending scheduled switchover".to_owned(),
        code => format!("Failed: flush switchover, status code={code}, ({})", answer.body.trim()),
    });
    Ok(())
}
