//! `list` and `topology`: the members of `/cluster` as a table.
use std::thread;
use std::time::Duration;

use jiff::Zoned;
use serde_json::{Map, Value};

use super::Outcome;
use super::args::{Format, List, Topology, Watch};
use super::client::Client;
use super::output::{self, Column, Row, line};

/// Where the optional columns begin.
const ALWAYS: usize = 10;

const COLUMNS: [Column; 14] = [
    Column::left("Cluster"),
    Column::left("Member"),
    Column::left("Host"),
    Column::left("Role"),
    Column::left("State"),
    Column::right("TL"),
    Column::right("Receive LSN"),
    Column::right("Receive Lag").headed("Lag"),
    Column::right("Replay LSN"),
    Column::right("Replay Lag").headed("Lag"),
    Column::left("Pending restart"),
    Column::left("Pending restart reason"),
    Column::left("Scheduled restart"),
    Column::left("Tags"),
];

/// How a listing is to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    pub format: Format,
    pub extended: bool,
    pub tree: bool,
}

pub fn list(client: &Client, task: &List) -> Outcome {
    let look = Look { format: task.format, extended: task.extended, tree: false };
    watched(client, &task.clusters, look, task.timestamp, &task.watch)
}

pub fn topology(client: &Client, task: &Topology) -> Outcome {
    let look = Look { tree: true, ..Look::default() };
    watched(client, &task.clusters, look, false, &task.watch)
}

fn watched(
    client: &Client,
    clusters: &[String],
    look: Look,
    timestamp: bool,
    watch: &Watch,
) -> Outcome {
    let every = watch.watch.or(watch.watch_two.then_some(2.0)).filter(|s| *s > 0.0);
    loop {
        let shown = once(client, clusters, look, timestamp || every.is_some());
        let Some(seconds) = every else {
            return shown;
        };
        if let Err(super::Stop::Error(text)) = shown {
            line(&format!("Error: {text}"));
        }
        thread::sleep(Duration::from_secs_f64(seconds.min(86_400.0)));
        line("\u{1b}[2J\u{1b}[H");
    }
}

fn once(client: &Client, clusters: &[String], look: Look, timestamp: bool) -> Outcome {
    let body = client.cluster()?;
    let scope = client.scope(&body);
    let own = [scope.clone()];
    let wanted = if clusters.is_empty() { &own[..] } else { clusters };
    for cluster in wanted {
        if timestamp && look.format == Format::Pretty {
            line(&now());
        }
        let known = *cluster == scope;
        let nobody = Value::Object(Map::new());
        line(&text(cluster, if known { &body } else { &nobody }, look));
    }
    Ok(())
}

/// The local time as messages carry it.
pub fn now() -> String {
    Zoned::now().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
}

/// The whole listing of one cluster, footer included.
pub fn text(cluster: &str, body: &Value, look: Look) -> String {
    let members = body["members"].as_array().cloned().unwrap_or_default();
    let members = if look.tree { tree(members) } else { members };
    let rows: Vec<Row> =
        members.iter().map(|member| row(cluster, member, &members, look)).collect();
    let columns = columns(&rows, look);
    let title = format!(" Cluster: {cluster} ({}) ", identity(body));
    let mut text = output::render(look.format, Some(&title), &columns, &rows);
    if look.format == Format::Pretty {
        for footer in footers(body) {
            text.push('\n');
            text.push_str(&footer);
        }
    }
    text
}

fn identity(body: &Value) -> &str {
    match body["surus"]["initialize"].as_str() {
        None => "uninitialized",
        Some("") => "initializing",
        Some(system_identifier) => system_identifier,
    }
}

fn columns(rows: &[Row], look: Look) -> Vec<Column> {
    let filled =
        |key: &str| rows.iter().any(|row| row.get(key).is_some_and(|value| *value != Value::Null));
    let skip = usize::from(look.format == Format::Pretty);
    let shown = COLUMNS.iter().enumerate().skip(skip);
    shown
        .filter(|(index, column)| *index < ALWAYS || look.extended || filled(column.key))
        .map(|(_, column)| *column)
        .collect()
}

fn row(cluster: &str, member: &Value, all: &[Value], look: Look) -> Row {
    let mut row = Row::new();
    let mut put = |key: &str, value: Value| row.insert(key.to_owned(), value);
    let name = member["name"].as_str().unwrap_or_default();
    let indent = member["indent"].as_str().unwrap_or_default();
    put("Cluster", cluster.into());
    put("Member", format!("{indent}{name}").into());
    put("Host", host(member, all).into());
    put("Role", titled(member["role"].as_str().unwrap_or_default()).into());
    put("State", member["state"].clone());
    put("TL", member["timeline"].clone());
    put("Receive LSN", member["receive_lsn"].clone());
    put("Receive Lag", megabytes(&member["receive_lag"]));
    put("Replay LSN", member["replay_lsn"].clone());
    put("Replay Lag", megabytes(&member["replay_lag"]));
    if member["pending_restart"] == true {
        put("Pending restart", "*".into());
        put("Pending restart reason", reasons(&member["pending_restart_reason"], look));
    }
    put("Scheduled restart", scheduled(&member["scheduled_restart"]));
    let tags = &member["tags"];
    put(
        "Tags",
        if look.tree && !tags.is_null() { output::flow(tags).into() } else { tags.clone() },
    );
    row
}

/// With the port where it is needed to tell members apart.
fn host(member: &Value, all: &[Value]) -> String {
    let host = member["host"].as_str().unwrap_or_default();
    let same = all.iter().filter(|other| other["host"] == member["host"]).count();
    let odd = all.iter().any(|other| other["port"].as_u64().is_some_and(|port| port != 5432));
    match member["port"].as_u64() {
        Some(port) if odd || same > 1 => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

/// `sync_standby` as `Sync Standby`.
fn titled(role: &str) -> String {
    let words = role.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        format!("{}{rest}", first.to_ascii_uppercase())
    });
    words.collect::<Vec<_>>().join(" ")
}

fn megabytes(bytes: &Value) -> Value {
    bytes
        .as_f64()
        .map_or(Value::Null, |bytes| Value::from((bytes / 1_048_576.0).round_ties_even() as u64))
}

fn reasons(reasons: &Value, look: Look) -> Value {
    let Some(reasons) = reasons.as_object() else {
        return Value::Null;
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let lines = reasons.iter().map(|(name, change)| {
        let full =
            format!("{name}: {}->{}", text(&change["old_value"]), text(&change["new_value"]));
        match look.format == Format::Pretty && full.chars().count() > 50 {
            true => format!("{name}: [hidden - too long]"),
            false => full,
        }
    });
    lines.collect::<Vec<_>>().join("\n").into()
}

fn scheduled(restart: &Value) -> Value {
    let Some(at) = restart["schedule"].as_str() else {
        return Value::Null;
    };
    match restart["postgres_version"].as_str() {
        Some(version) => format!("{at} if version < {version}").into(),
        None => at.into(),
    }
}

/// Parents before children; a parent is the `replicatefrom` tag's member, else the leader.
fn tree(members: Vec<Value>) -> Vec<Value> {
    let leads =
        |member: &Value| matches!(member["role"].as_str(), Some("leader" | "standby_leader"));
    let leader = members.iter().find(|m| leads(m)).map(|m| m["name"].clone());
    let parent = |member: &Value| {
        let wanted = &member["tags"]["replicatefrom"];
        let other = members.iter().any(|m| {
            m["name"] == *wanted
                && m["name"] != member["name"]
                && Some(&m["name"]) != leader.as_ref()
        });
        if other { Some(wanted.clone()) } else { leader.clone() }
    };
    let mut ordered: Vec<Value> = Vec::new();
    for member in members.iter().filter(|m| leads(m)) {
        ordered.push(member.clone());
    }
    let mut waiting: Vec<(Value, &Value)> =
        members.iter().filter(|m| !leads(m)).map(|m| (parent(m).unwrap_or_default(), m)).collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        for (parent, member) in std::mem::take(&mut waiting) {
            match ordered.iter().position(|m| m["name"] == parent) {
                Some(at) => insert_below(&mut ordered, at, member),
                None => waiting.push((parent, member)),
            }
        }
        if waiting.len() == before {
            let left = waiting.drain(..).map(|(_, member)| indented(member, 1));
            ordered.extend(left.collect::<Vec<_>>());
        }
    }
    ordered
}

fn depth(member: &Value) -> usize {
    member["depth"].as_u64().unwrap_or_default() as usize
}

fn insert_below(ordered: &mut Vec<Value>, parent: usize, member: &Value) {
    let level = depth(&ordered[parent]);
    let below = ordered[parent + 1..].iter().take_while(|other| depth(other) > level).count();
    ordered.insert(parent + 1 + below, indented(member, level + 1));
}

fn indented(member: &Value, depth: usize) -> Value {
    let mut member = member.clone();
    member["depth"] = depth.into();
    member["indent"] = format!("{}+ ", "  ".repeat(depth.saturating_sub(1))).into();
    member
}

/// What stands below the table.
fn footers(body: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if body["pause"] == true {
        lines.push(" Maintenance mode: on".to_owned());
    }
    if let Some(at) = body["scheduled_switchover"]["at"].as_str() {
        let head = format!(" Switchover scheduled at: {at}");
        let width = head.chars().count();
        lines.push(head);
        for key in ["from", "to"] {
            if let Some(name) = body["scheduled_switchover"][key].as_str() {
                let label = format!("{key}:");
                let column = " Switchover scheduled at:".len();
                lines.push(
                    format!("{label:>column$} {name}")
                        .chars()
                        .take(width.max(column + 1 + name.len()))
                        .collect(),
                );
            }
        }
    }
    let own = &body["surus"];
    if own["quorum"] == false {
        let node = own["node"].as_str().unwrap_or("?");
        let age =
            own["quorum_age_s"].as_u64().map_or("an unknown number of".into(), |s| s.to_string());
        lines.push(format!(" No quorum: shown is what member {node} knew {age} s ago"));
    }
    for (name, member) in own["members"].as_object().into_iter().flatten() {
        lines.extend(building(name, &member["build"]));
    }
    lines
}

/// ` Building pg2: basebackup from pg0, copying, 45 %`
fn building(name: &str, build: &Value) -> Option<String> {
    let word = |key: &str| build[key].as_str().filter(|text| !text.is_empty());
    let mut text = format!(" Building {name}: {}", word("method")?);
    if let Some(source) = word("source") {
        text.push_str(&format!(" from {source}"));
    }
    if let Some(phase) = word("phase") {
        text.push_str(&format!(", {phase}"));
    }
    let number = |key: &str| build[key].as_u64().unwrap_or_default();
    if number("bytes_total") > 0 {
        let percent = number("bytes_done").min(number("bytes_total")) * 100 / number("bytes_total");
        text.push_str(&format!(", {percent} %"));
    }
    Some(text)
}
