//! The dump for people: the verdict first, then every machine, Raft, lease, guard, PostgreSQL.
//!
//! It reads the JSON and not the values, so that a dump that was saved reads the same years later.
use std::fmt::Write;

use serde_json::Value;

/// The whole text, lines of any length.
pub fn text(dump: &Value) -> String {
    let mut out = String::new();
    verdict(&mut out, dump);
    members(&mut out, dump);
    machines(&mut out, dump);
    raft(&mut out, dump);
    lease(&mut out, dump);
    decisions(&mut out, dump);
    section(&mut out, "PostgreSQL", &dump["postgresql"]);
    section(&mut out, "Configuration", &dump["config"]);
    out
}

/// Writing into a String cannot fail; this keeps the lines below short.
fn put(out: &mut String, line: std::fmt::Arguments) {
    let _ = writeln!(out, "{line}");
}

/// Text as it is, other values as JSON, nothing as a dash.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// How long before the dump something happened, or how long after.
fn relative(dump: &Value, at: &Value) -> String {
    let (Some(now), Some(at)) = (dump["now_ms"].as_u64(), at.as_u64()) else {
        return "-".to_owned();
    };
    let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    match at <= now {
        true => format!("{} ago", seconds(now - at)),
        false => format!("in {}", seconds(at - now)),
    }
}

fn verdict(out: &mut String, dump: &Value) {
    let verdict = &dump["verdict"];
    put(out, format_args!("{}", word(&verdict["sentence"])));
    for wait in list(&verdict["waiting_for"]) {
        put(out, format_args!("  waits for {}", word(wait)));
    }
    put(
        out,
        format_args!(
            "node {} of {}, surus {}, at {}",
            word(&dump["node"]),
            word(&dump["scope"]),
            word(&dump["version"]),
            word(&dump["wall"])
        ),
    );
    put(out, format_args!("now: {}", word(&dump["sentence"])));
    if !dump["busy"].is_null() {
        put(out, format_args!("busy: {}", word(&dump["busy"])));
    }
}

fn members(out: &mut String, dump: &Value) {
    put(out, format_args!("\nMembers"));
    for (id, member) in dump["cluster"]["members"].as_object().into_iter().flatten() {
        let heard = &dump["facts"][id];
        let facts = &heard["facts"];
        let sql = &facts["sql"];
        put(
            out,
            format_args!(
                "  {} ({id}): {}, {}, node {}, timeline {}, heard {}",
                word(&member["name"]),
                word(&facts["role"]),
                word(&facts["state"]),
                word(&facts["node_state"]),
                word(&sql["timeline"]),
                relative(dump, &heard["heard_at"])
            ),
        );
        if !facts["build"].is_null() {
            put(out, format_args!("    build: {}", facts["build"]));
        }
    }
}

fn machines(out: &mut String, dump: &Value) {
    put(out, format_args!("\nMachines"));
    for machine in list(&dump["machines"]) {
        put(
            out,
            format_args!(
                "  {}: {} since {} ({})",
                word(&machine["flow"]),
                word(&machine["state"]),
                relative(dump, &machine["since"]),
                word(&machine["since_wall"])
            ),
        );
        let until = match &machine["until"] {
            Value::Null => String::new(),
            until => format!(", until {}", relative(dump, until)),
        };
        put(out, format_args!("    waits for {}{until}", word(&machine["waiting_for"])));
        put(out, format_args!("    knows {}", machine["knowledge"]));
        for step in list(&machine["transitions"]) {
            put(
                out,
                format_args!(
                    "    {} {} {} -> {}: {}",
                    word(&step["seq"]),
                    word(&step["at_wall"]),
                    word(&step["from"]),
                    word(&step["to"]),
                    word(&step["cause"])
                ),
            );
        }
    }
}

fn raft(out: &mut String, dump: &Value) {
    let raft = &dump["raft"];
    put(
        out,
        format_args!(
            "\nRaft: {}, term {}, arbiter {}, commit {}, applied {}, log {}..{}",
            word(&raft["role"]),
            word(&raft["term"]),
            word(&raft["leader"]),
            word(&raft["commit"]),
            word(&raft["applied"]),
            word(&raft["first_index"]),
            word(&raft["last_index"])
        ),
    );
    put(
        out,
        format_args!(
            "  voters {}, learners {}, quorum seen {}, slowest write {} us of {}",
            raft["voters"],
            raft["learners"],
            relative(dump, &raft["quorum_at"]),
            word(&raft["fsync_max_us"]),
            word(&raft["fsync_count"])
        ),
    );
    put(out, format_args!("  {}", word(&dump["votes"]["sentence"])));
    for peer in list(&raft["peers"]) {
        let connected = if peer["connected"] == true { "connected" } else { "not connected" };
        put(
            out,
            format_args!(
                "  peer {} ({}) at {}: {connected}, has {}, heard {}",
                word(&peer["name"]),
                word(&peer["id"]),
                word(&peer["addr"]),
                word(&peer["matched"]),
                relative(dump, &peer["last_heard"])
            ),
        );
    }
}

fn lease(out: &mut String, dump: &Value) {
    let (lease, guard) = (&dump["lease"], &dump["guard"]);
    let held = if lease["held"] == true { "held here" } else { "not held here" };
    put(
        out,
        format_args!(
            "\nLease: {held}, epoch {}, deadline {}, not given on before {}",
            word(&lease["epoch"]),
            relative(dump, &lease["deadline"]),
            relative(dump, &lease["not_before"])
        ),
    );
    let armed = if guard["armed"] == true { "armed" } else { "not armed" };
    put(
        out,
        format_args!(
            "Guard: {armed}, pid {}, epoch {}, deadline {}, stopped PostgreSQL {} times",
            word(&guard["pid"]),
            word(&guard["epoch"]),
            relative(dump, &guard["deadline"]),
            word(&guard["fenced_count"])
        ),
    );
}

fn decisions(out: &mut String, dump: &Value) {
    put(out, format_args!("\nDecisions"));
    for decision in list(&dump["cluster"]["decisions"]) {
        put(
            out,
            format_args!(
                "  {} epoch {}: {} ({})",
                word(&decision["at"]),
                word(&decision["epoch"]),
                word(&decision["winner"]),
                word(&decision["reason"])
            ),
        );
        for verdict in list(&decision["verdicts"]) {
            put(
                out,
                format_args!(
                    "    {} {}: {} {}",
                    word(&verdict["member"]),
                    word(&verdict["outcome"]),
                    word(&verdict["rule"]),
                    word(&verdict["inputs"])
                ),
            );
        }
    }
}

fn section(out: &mut String, title: &str, value: &Value) {
    put(out, format_args!("\n{title}"));
    indented(out, value, 1);
}

/// Keys and values, one a line, nested by two spaces; short lists stay on their line.
fn indented(out: &mut String, value: &Value, depth: usize) {
    let margin = "  ".repeat(depth);
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        put(out, format_args!("{margin}{key}:"));
                        indented(out, value, depth + 1);
                    }
                    other => put(out, format_args!("{margin}{key}: {}", word(other))),
                }
            }
        }
        other => put(out, format_args!("{margin}{}", word(other))),
    }
}
