//! `surus chart`: look at statecharts, built in or from any file.
//!
//! What an operator or a reviewer asks of a flow without running it: which are there, is this file
//! sound, what does it look like, where would these events lead. Works without a daemon and without
//! a configuration.
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, Result, anyhow, bail};
use clap::Subcommand;

use crate::pure::chart::step::{self, Crossing, Interpreter, Walk};
use crate::pure::chart::{Chart, Fault, Text, Trigger, draw};
pub use crate::pure::flow::BUILT_IN;

/// `surus chart …`
#[derive(Debug, Subcommand)]
pub enum ChartCommand {
    /// Show the charts that are built in
    List,
    /// Say whether charts are sound, and if not, why (all built-in ones without FILES)
    Check {
        /// Chart files, or names of built-in charts
        files: Vec<String>,
    },
    /// Draw a chart as a Mermaid state diagram
    Draw {
        /// A chart file, or the name of a built-in chart
        name_or_file: String,
    },
    /// Walk a chart by hand and show the states left and entered
    Step {
        /// A chart file, or the name of a built-in chart
        name_or_file: String,
        /// Event names, `done`, `error` or `after:DELAY`, in order
        events: Vec<String>,
        /// How guards answer; asked for on a terminal when left out
        #[arg(short, long = "guard", value_name = "NAME=yes|no")]
        guards: Vec<String>,
    },
}

/// Does what the command says and prints to standard output.
///
/// # Errors
/// A sentence for the operator: no such chart, an unsound one, an unknown event, a guard without
/// an answer.
pub fn run(command: ChartCommand) -> Result<()> {
    let out = &mut io::stdout().lock();
    match command {
        ChartCommand::List => list(out),
        ChartCommand::Check { files } => check(out, &files),
        ChartCommand::Draw { name_or_file } => {
            let chart = open(&name_or_file)?;
            write!(out, "{}", draw::mermaid(&chart)).context("write the drawing")
        }
        ChartCommand::Step { name_or_file, events, guards } => {
            let chart = open(&name_or_file)?;
            let answers = answers(&chart, &guards)?;
            let ask = |guard: &str| if io::stdin().is_terminal() { ask(guard) } else { None };
            walk(&chart, &events, answers, ask, |line| Ok(writeln!(out, "{line}")?))
        }
    }
}

fn list(out: &mut impl Write) -> Result<()> {
    for (name, json) in BUILT_IN {
        let chart = parse(name, json)?;
        writeln!(out, "{name}: {} states. {}", chart.states.len(), chart.description)?;
    }
    Ok(())
}

fn check(out: &mut impl Write, files: &[String]) -> Result<()> {
    let all: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files = if files.is_empty() { &all } else { files };
    let mut unsound = 0;
    for file in files {
        match Chart::parse(&read(file)?) {
            Ok(chart) => {
                let (states, edges) = (chart.states.len(), chart.edges.len());
                writeln!(out, "{file}: sound, {states} states and {edges} edges")?;
            }
            Err(faults) => {
                unsound += 1;
                write!(out, "{}", sentences(file, &faults))?;
            }
        }
    }
    if unsound > 0 {
        bail!("{unsound} of {} charts are not sound", files.len());
    }
    Ok(())
}

/// The text of a built-in chart or of a file.
fn read(name_or_file: &str) -> Result<String> {
    if let Some((_, json)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_file) {
        return Ok((*json).to_owned());
    }
    fs::read_to_string(name_or_file).with_context(|| {
        format!("read `{name_or_file}` (`surus chart list` shows the charts that need no file)")
    })
}

fn open(name_or_file: &str) -> Result<Chart> {
    parse(name_or_file, &read(name_or_file)?)
}

fn parse(name: &str, json: &str) -> Result<Chart> {
    Chart::parse(json).map_err(|faults| {
        anyhow!("the chart is not sound:\n{}", sentences(name, &faults).trim_end())
    })
}

fn sentences(file: &str, faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{file}: {fault}\n")).collect()
}

/// `name=yes` and `name=no`, checked against the chart's guards.
fn answers(chart: &Chart, guards: &[String]) -> Result<BTreeMap<String, bool>> {
    let mut answers = BTreeMap::new();
    for given in guards {
        let (name, answer) = given.split_once('=').unwrap_or((given, ""));
        let answer = match answer {
            "yes" => true,
            "no" => false,
            _ => bail!("`{given}` is not an answer: write {name}=yes or {name}=no"),
        };
        place(&chart.guards, "guard", name)?;
        answers.insert(name.to_owned(), answer);
    }
    Ok(answers)
}

/// The place of a word in its table, or a sentence that names the nearest.
fn place(words: &[Text], kind: &str, word: &str) -> Result<usize> {
    words.iter().position(|known| known == word).ok_or_else(|| {
        let near = |known: &&Text| (1000.0 * strsim::jaro_winkler(known, word)) as u32;
        let hint = words.iter().max_by_key(near);
        let hint = hint.map_or("it has none".to_owned(), |near| format!("did you mean `{near}`?"));
        anyhow!("the chart has no {kind} `{word}`: {hint}")
    })
}

fn trigger(chart: &Chart, event: &str) -> Result<Trigger> {
    match event {
        "done" => Ok(Trigger::Done),
        "error" => Ok(Trigger::Error),
        _ => match event.strip_prefix("after:") {
            Some(delay) => place(&chart.delays, "delay", delay).map(Trigger::After),
            None => place(&chart.events, "event", event).map(Trigger::Event),
        },
    }
}

fn ask(guard: &str) -> Option<bool> {
    eprint!("{guard}? [yes/no] ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).ok()?;
    Some(line.trim().starts_with(['y', 'Y']))
}

/// Walks the chart from its beginning and tells every line of the trace.
///
/// # Errors
/// An unknown event, or a guard that neither `answers` nor `ask` answers.
pub fn walk(
    chart: &Chart,
    events: &[String],
    answers: BTreeMap<String, bool>,
    ask: impl FnMut(&str) -> Option<bool>,
    mut tell: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let triggers = events.iter().map(|event| trigger(chart, event)).collect::<Result<Vec<_>>>()?;
    let mut operator = Operator { chart, answers, ask, unanswered: None, actions: vec![] };
    let first = step::enter(chart, &mut operator);
    operator.answered()?;
    tell("start")?;
    trace(chart, &first, &operator.take_actions(), &mut tell)?;
    let mut state = first.state;
    for (event, trigger) in events.iter().zip(triggers) {
        let walk = step::step(chart, state, trigger, &mut operator);
        operator.answered()?;
        tell(event)?;
        let actions = operator.take_actions();
        match walk {
            Some(walk) => {
                trace(chart, &walk, &actions, &mut tell)?;
                state = walk.state;
            }
            None => tell(&format!("  nothing happens: {}", unmoved(chart, state, trigger)))?,
        }
    }
    Ok(())
}

fn trace(
    chart: &Chart,
    walk: &Walk,
    actions: &[String],
    tell: &mut impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    for crossing in &walk.trace {
        tell(&match crossing {
            Crossing::Left(state) => format!("  left {}", chart.states[*state].name),
            Crossing::Entered(state) => format!("  entered {}", chart.states[*state].name),
        })?;
    }
    if !actions.is_empty() {
        tell(&format!("  did {}", actions.join(", ")))?;
    }
    let row = &chart.states[walk.state];
    let doing = match row.activity {
        _ if row.is_final => "the end".to_owned(),
        Some(activity) => format!("working: {}", chart.activities[activity]),
        None => "resting".to_owned(),
    };
    tell(&format!("  in {}, {doing}", row.name))
}

fn unmoved(chart: &Chart, state: usize, trigger: Trigger) -> String {
    let row = &chart.states[state];
    if row.is_final {
        return format!("{} is the end", row.name);
    }
    let known =
        chart.ancestry(state).any(|at| chart.edges_of(at).any(|edge| edge.trigger == trigger));
    let why = if known { "no guard allows it" } else { "it is for no edge here" };
    format!("in {}, {why}", row.name)
}

/// Answers guards from the command line, then from the terminal.
struct Operator<'a, A> {
    chart: &'a Chart,
    answers: BTreeMap<String, bool>,
    ask: A,
    unanswered: Option<String>,
    actions: Vec<String>,
}

impl<A> Operator<'_, A> {
    fn answered(&self) -> Result<()> {
        match &self.unanswered {
            Some(guard) => {
                bail!("the guard `{guard}` has no answer: add --guard {guard}=yes or =no")
            }
            None => Ok(()),
        }
    }

    fn take_actions(&mut self) -> Vec<String> {
        std::mem::take(&mut self.actions)
    }
}

impl<A: FnMut(&str) -> Option<bool>> Interpreter for Operator<'_, A> {
    fn allows(&mut self, guard: usize) -> bool {
        let name = self.chart.guards[guard].as_ref();
        if let Some(&answer) = self.answers.get(name) {
            return answer;
        }
        let answer = (self.ask)(name);
        if answer.is_none() && self.unanswered.is_none() {
            self.unanswered = Some(name.to_owned());
        }
        answer.unwrap_or(false)
    }

    fn apply(&mut self, action: usize) {
        self.actions.push(self.chart.actions[action].to_string());
    }
}
