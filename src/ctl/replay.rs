//! `surus replay`: what happened on a node, stepped through on a laptop.
use std::fs;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use crate::pure::flow::any as flows;
use crate::pure::replay::history::{History, Transition};
use crate::pure::replay::{Again, Outcome};

/// `surus replay …`
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A dump (`surus dump --json`, of one node or --all), or the history of a simulated run
    file: PathBuf,
    /// Wait for Enter after each transition
    #[arg(long)]
    step: bool,
    /// Only up to this number
    #[arg(long, value_name = "SEQ")]
    until: Option<usize>,
    /// Say where another recording goes another way
    #[arg(long, value_name = "OTHER")]
    diff: Option<PathBuf>,
    /// Only this node's
    #[arg(long)]
    node: Option<String>,
    /// Only this flow's
    #[arg(long)]
    flow: Option<String>,
}

/// The exit code: 0, 1 where today's code decides otherwise or the recordings differ, 2 where a
/// file cannot be read.
pub fn run(args: &ReplayArgs) -> i32 {
    let done = match &args.diff {
        Some(other) => read(args, &args.file).and_then(|one| Ok((one, read(args, other)?))),
        None => read(args, &args.file).map(|one| (one, History::default())),
    };
    match (done, &args.diff) {
        (Err(error), _) => {
            eprintln!("{error}");
            2
        }
        (Ok((one, two)), Some(_)) => differ(&one, &two),
        (Ok((history, _)), None) => show(&history, args).unwrap_or(0),
    }
}

fn read(args: &ReplayArgs, file: &Path) -> Result<History, String> {
    let sentence = |error: String| format!("{}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(|error| sentence(error.to_string()))?;
    let mut history = History::parse(&text).map_err(sentence)?;
    let wanted = |filter: &Option<String>, text: &str| filter.as_ref().is_none_or(|f| f == text);
    history.transitions.retain(|t| wanted(&args.node, &t.node) && wanted(&args.flow, &t.flow));
    match history.transitions.is_empty() {
        true => Err(sentence(String::from("no such node or flow has a transition in it"))),
        false => Ok(history),
    }
}

/// A closed pipe ends the listing, as with any tool.
fn show(history: &History, args: &ReplayArgs) -> io::Result<i32> {
    let mut out = io::stdout().lock();
    let mut otherwise = 0;
    let mut decisions = history.decisions.iter().peekable();
    let count = history.transitions.len().min(args.until.unwrap_or(usize::MAX));
    for (place, transition) in history.transitions[..count].iter().enumerate() {
        let due = |d: &&Value| d["at"].as_str().is_some_and(|at| at <= transition.at.as_str());
        while let Some(decision) = decisions.next_if(due) {
            write_decision(&mut out, decision)?;
        }
        let again = history.again(place);
        otherwise += i32::from(matches!(again.outcome, Outcome::Otherwise(_)));
        write_transition(&mut out, place + 1, transition, &again)?;
        if args.step && place + 1 < count {
            out.flush()?;
            io::stdin().lock().read_line(&mut String::new())?;
        }
    }
    for decision in decisions.filter(|_| count == history.transitions.len()) {
        write_decision(&mut out, decision)?;
    }
    let verdict = match otherwise {
        0 => String::from("today's code decides the same wherever it can be asked"),
        n => format!("today's code decides {n} of them otherwise"),
    };
    writeln!(out, "{count} transitions: {verdict}")?;
    Ok(i32::from(otherwise > 0))
}

fn write_transition(
    out: &mut impl Write,
    number: usize,
    transition: &Transition,
    again: &Again,
) -> io::Result<()> {
    let Transition { node, flow, at, .. } = transition;
    let (from, to) = (transition.text("from"), transition.text("to"));
    let from = if from.is_empty() { "nowhere" } else { from };
    writeln!(out, "#{number} {at} {node} {flow}: {from} → {to}")?;
    let cause = transition.text("cause");
    writeln!(out, "    because {cause}")?;
    if let Some((name, sentence)) = flows::cause_sentence(flow, cause) {
        writeln!(out, "    {name}: {sentence}")?;
    }
    let answers: Vec<String> = again.guards.iter().map(|(g, yes)| answer(g, *yes)).collect();
    if !answers.is_empty() {
        writeln!(out, "    asked: {}", answers.join(", "))?;
    }
    let held = again.guards.iter().filter(|(_, yes)| *yes);
    for (guard, _) in held {
        let sentence = flows::sentence(flow, guard).unwrap_or_default();
        writeln!(out, "    {guard}: {sentence}")?;
    }
    match &again.outcome {
        Outcome::Same | Outcome::Began => {}
        Outcome::Unknown(why) => writeln!(out, "    not walked again: {why}")?,
        Outcome::Otherwise(what) => writeln!(out, "    OTHERWISE TODAY: {what}")?,
    }
    if again.other_chart {
        writeln!(out, "    the chart has changed since")?;
    }
    Ok(())
}

fn answer(guard: &str, yes: bool) -> String {
    format!("{guard} {}", if yes { "yes" } else { "no" })
}

fn write_decision(out: &mut impl Write, decision: &Value) -> io::Result<()> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("nobody").to_owned();
    let (at, winner, reason) =
        (text(decision, "at"), text(decision, "winner"), text(decision, "reason"));
    writeln!(out, "-- {at} the arbiter: {winner} leads (epoch {}): {reason}", decision["epoch"])?;
    for verdict in decision["verdicts"].as_array().into_iter().flatten() {
        let [member, outcome, rule, inputs] =
            ["member", "outcome", "rule", "inputs"].map(|key| text(verdict, key));
        writeln!(out, "       {member}: {outcome}, {rule} ({inputs})")?;
    }
    Ok(())
}

fn differ(one: &History, two: &History) -> i32 {
    let Some(place) = one.parts_from(two) else {
        println!("both are the same: {} transitions", one.transitions.len());
        return 0;
    };
    println!("the first {place} transitions are the same; then:");
    for (name, history) in [("one", one), ("other", two)] {
        match history.transitions.get(place) {
            None => println!("{name}: it ends"),
            Some(t) => {
                let (from, to, cause) = (t.text("from"), t.text("to"), t.text("cause"));
                println!("{name}: {} {} {}: {from} → {to}, because {cause}", t.at, t.node, t.flow);
            }
        }
    }
    1
}
