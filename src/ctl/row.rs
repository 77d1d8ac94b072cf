//! One member of `/cluster` as a row of the listing.
use serde_json::Value;

use super::args::Format;
use super::list::Look;
use super::output::{self, Row};
use super::progress;

/// The row; `all` tells whether hosts alone keep members apart.
pub fn row(cluster: &str, member: &Value, all: &[Value], look: Look) -> Row {
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
    if member["build"].is_object() {
        put("Build", progress::line(&member["build"]).into());
    }
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
