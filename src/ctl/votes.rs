//! `members` and `members remove`: who votes, what may still fail, and taking out whoever is dead.
use serde_json::{Value, json};

use super::args::{Format, Members, MembersTask, RemoveMember};
use super::client::{Client, parse};
use super::output::{self, Column, Row, line};
use super::{Outcome, members, prompt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

const COLUMNS: [Column; 10] = [
    Column::left("Member"),
    Column::left("Raft id"),
    Column::left("Address"),
    Column::left("Vote"),
    Column::left("Role"),
    Column::left("Answers"),
    Column::right("Heard s ago"),
    Column::right("Lag"),
    Column::right("Log trails by"),
    Column::left("Version"),
];

pub fn members(client: &Client, task: &Members) -> Outcome {
    match &task.task {
        Some(MembersTask::Remove(order)) => remove(client, order),
        None => show(client, task),
    }
}

fn show(client: &Client, task: &Members) -> Outcome {
    members::cluster(client, task.cluster.as_deref())?;
    let body = client.any("/members").and_then(parse)?;
    if task.format == Format::Json {
        line(&crate::pure::patroni::json::dumps(&body));
        return Ok(());
    }
    let rows: Vec<Row> = body["members"].as_array().into_iter().flatten().map(row).collect();
    line(&output::render(task.format, None, &COLUMNS, &rows));
    if task.format == Format::Pretty {
        line(&below(&body));
    }
    Ok(())
}

/// What stands below the table.
fn below(body: &Value) -> String {
    let sentence = body["sentence"].as_str().unwrap_or_default();
    if body["quorum"] != false {
        return format!(" {sentence}");
    }
    let node = body["node"].as_str().unwrap_or("?");
    let age = body["quorum_age_s"].as_u64().map_or("?".to_owned(), |s| s.to_string());
    format!(" No quorum: shown is what member {node} knew {age} s ago\n {sentence}")
}

fn row(member: &Value) -> Row {
    let answers = if member["answers"] == true { "yes" } else { "no" };
    let role = match (member["role"].as_str().unwrap_or_default(), member["arbiter"] == true) {
        (role, true) => format!("{role}, arbiter"),
        (role, false) => role.to_owned(),
    };
    let vote = match (member["vote"].as_str().unwrap_or_default(), member["removing"] == true) {
        (vote, true) => format!("{vote}, being removed"),
        (vote, false) => vote.to_owned(),
    };
    let cells = json!({"Member": member["name"], "Raft id": member["raft_id"],
        "Address": member["address"], "Vote": vote, "Role": role, "Answers": answers,
        "Heard s ago": member["heard_s_ago"], "Lag": member["lag"],
        "Log trails by": member["log_trails_by"], "Version": member["version"]});
    cells.as_object().cloned().unwrap_or_default()
}

fn remove(client: &Client, order: &RemoveMember) -> Outcome {
    let body = client.any("/members").and_then(parse)?;
    let named = |member: &&Value| member["name"] == *order.name;
    let Some(member) = body["members"].as_array().into_iter().flatten().find(named) else {
        let text = format!("{} is no member of the cluster", order.name);
        if !order.if_exists {
            return Err(text.into());
        }
        line(&text);
        return Ok(());
    };
    let (vote, heard) = (&member["vote"], &member["heard_s_ago"]);
    let vote = vote.as_str().unwrap_or("member");
    let heard = heard.as_u64().map_or(String::from("never"), |s| format!("{s} s ago"));
    line(&format!("{} is a {vote}; last heard {heard}", order.name));
    if !order.force && !order.dry_run {
        let question = format!(
            "Is {} off for good? It must not start again with its raft.data_dir. Remove it?",
            order.name
        );
        prompt::confirm(&question)?;
    }
    let only_ask = if order.dry_run { "?dry_run" } else { "" };
    let name = utf8_percent_encode(&order.name, NON_ALPHANUMERIC);
    let path = format!("/members/{name}{only_ask}");
    let answer = client.change("DELETE", &path, None)?;
    match answer.code {
        200 | 202 => line(answer.body.trim()),
        404 if order.if_exists => line(answer.body.trim()),
        _ => return Err(answer.body.trim().into()),
    }
    if let Ok(after) = client.any("/members").and_then(parse) {
        line(after["sentence"].as_str().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_who_is_on_its_way_out() {
        let shown =
            row(&json!({"name": "n4", "vote": "voter", "removing": true, "role": "replica",
            "answers": false, "heard_s_ago": 90, "arbiter": false}));
        assert_eq!(shown["Vote"], "voter, being removed");
        assert_eq!((&shown["Answers"], &shown["Heard s ago"]), (&json!("no"), &json!(90)));
    }

    #[test]
    fn without_a_quorum_the_age_of_the_knowledge_is_said() {
        let body = json!({"quorum": false, "node": "n1", "quorum_age_s": 7, "sentence": "s"});
        assert_eq!(below(&body), " No quorum: shown is what member n1 knew 7 s ago\n s");
        assert_eq!(below(&json!({"quorum": true, "sentence": "s"})), " s");
    }
}
