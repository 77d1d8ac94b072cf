//! Chart → Mermaid and Markdown.
//!
//! `statecharts/README.md` holds what this writes for the built-in charts; a test keeps it true.
//! Edges between the same two states share one arrow when nothing but the trigger differs.
use std::fmt::Write as _;

use super::{Chart, Edge, Text};

/// The chart as a Mermaid state diagram.
pub fn mermaid(chart: &Chart) -> String {
    let mut out = String::from("stateDiagram-v2\n");
    level(chart, None, 1, &mut out);
    for (state, row) in chart.states.iter().enumerate().filter(|(_, row)| row.is_final) {
        let _ = writeln!(out, "    {} --> [*]", chart.states[state].name);
        debug_assert!(row.initial.is_none(), "a final state contains nothing");
    }
    out
}

/// The chart's drawing and its vocabulary as one section of Markdown.
pub fn section(chart: &Chart) -> String {
    let mut out = format!("## {}\n\n{}\n\n", chart.id, chart.description);
    let _ = write!(out, "```mermaid\n{}```\n\n", mermaid(chart));
    out.push_str("| state | what is going on | work |\n|---|---|---|\n");
    for (state, row) in chart.states.iter().enumerate() {
        let work = row.activity.map_or("", |activity| &chart.activities[activity]);
        let depth = "· ".repeat(chart.ancestry(state).count() - 1);
        let _ = writeln!(out, "| {depth}{} | {} | {work} |", row.name, cell(&row.description));
    }
    out.push('\n');
    words(&mut out, chart, ("event", &chart.events));
    words(&mut out, chart, ("guard", &chart.guards));
    words(&mut out, chart, ("action", &chart.actions));
    words(&mut out, chart, ("work", &chart.activities));
    words(&mut out, chart, ("delay", &chart.delays));
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn words(out: &mut String, chart: &Chart, (kind, words): (&str, &[Text])) {
    if words.is_empty() {
        return;
    }
    let _ = write!(out, "| {kind} | meaning |\n|---|---|\n");
    for word in words {
        let sentence = chart.sentence(word).unwrap_or_default();
        let _ = writeln!(out, "| `{word}` | {} |", cell(sentence));
    }
    out.push('\n');
}

/// The states with this parent, each with what is inside, then their edges.
fn level(chart: &Chart, parent: Option<usize>, depth: usize, out: &mut String) {
    let indent = "    ".repeat(depth);
    let initial = parent.map_or(Some(chart.initial), |state| chart.states[state].initial);
    if let Some(initial) = initial {
        let _ = writeln!(out, "{indent}[*] --> {}", chart.states[initial].name);
    }
    let here = || (0..chart.states.len()).filter(|&state| chart.states[state].parent == parent);
    for state in here().filter(|&state| chart.states[state].initial.is_some()) {
        let _ = writeln!(out, "{indent}state {} {{", chart.states[state].name);
        level(chart, Some(state), depth + 1, out);
        let _ = writeln!(out, "{indent}}}");
    }
    for state in here() {
        arrows(chart, state, &indent, out);
    }
}

fn arrows(chart: &Chart, state: usize, indent: &str, out: &mut String) {
    let edges: Vec<_> = chart.edges_of(state).collect();
    let mut drawn = vec![false; edges.len()];
    for place in 0..edges.len() {
        if drawn[place] {
            continue;
        }
        let mut labels = vec![];
        for (other, edge) in edges.iter().enumerate().skip(place) {
            if other == place
                || (plain(edge) && plain(edges[place]) && edge.target == edges[place].target)
            {
                drawn[other] = true;
                labels.push(label(chart, edge));
            }
        }
        let label = labels.join(", ");
        let colon = if label.is_empty() { "" } else { " : " };
        let to = &chart.states[edges[place].target.unwrap_or(state)].name;
        let _ = writeln!(out, "{indent}{} --> {to}{colon}{label}", chart.states[state].name);
    }
}

/// Only a trigger: such arrows may be joined.
fn plain(edge: &Edge) -> bool {
    edge.guard.is_none() && edge.actions.is_empty() && edge.target.is_some()
}

fn label(chart: &Chart, edge: &Edge) -> String {
    let mut parts = vec![chart.trigger_text(edge.trigger)];
    parts.extend(edge.guard.map(|guard| format!("[{}]", chart.guards[guard])));
    let actions: Vec<_> = edge.actions.iter().map(|&at| chart.actions[at].as_ref()).collect();
    if !actions.is_empty() {
        parts.push(format!("/ {}", actions.join(", ")));
    }
    if edge.target.is_none() {
        parts.push("(stays)".to_owned());
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}
