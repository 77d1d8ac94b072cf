//! Which steps of which charts simulated runs have walked, and which are left.
//!
//! A step is from one state in which one can be to another: the decisions between them (`always`) are
//! walked through, and an edge of a surrounding state counts for every state within.
use std::collections::BTreeSet;

use crate::pure::chart::{Chart, Edge, Trigger};
use crate::pure::flow::BUILT_IN;

/// A step: flow, from, to.
pub type StepWalked = (&'static str, String, String);

/// What was counted, and what is missing.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    pub states: usize,
    pub states_entered: usize,
    pub steps: usize,
    pub steps_walked: usize,
    /// `flow: state`, never entered.
    pub states_missing: Vec<String>,
    /// `flow: from → to (why)`, never walked.
    pub steps_missing: Vec<String>,
}

/// Compares what was walked with all charts.
///
/// # Panics
/// A built-in chart is not sound; the build has checked them.
pub fn reach(walked: &BTreeSet<StepWalked>) -> Reach {
    let mut all = Reach::default();
    for (id, json) in BUILT_IN {
        let chart = Chart::parse(json).expect("the build has checked it");
        states(id, &chart, walked, &mut all);
        steps(id, &chart, walked, &mut all);
    }
    all
}

fn places(chart: &Chart) -> Vec<usize> {
    let decides = |at: usize| chart.edges_of(at).any(|edge| edge.trigger == Trigger::Always);
    (0..chart.states.len())
        .filter(|at| chart.states[*at].initial.is_none() && !decides(*at))
        .collect()
}

/// Where one can be after entering this state.
fn ends(chart: &Chart, state: usize) -> Vec<usize> {
    let leaf = chart.leaf(state);
    let onward = chart.edges_of(leaf).filter(|edge| edge.trigger == Trigger::Always);
    let mut found: Vec<usize> =
        onward.filter_map(|edge| edge.target).flat_map(|to| ends(chart, to)).collect();
    if found.is_empty() {
        found.push(leaf);
    }
    found
}

fn states(id: &str, chart: &Chart, walked: &BTreeSet<StepWalked>, all: &mut Reach) {
    let first = ends(chart, chart.initial);
    for at in places(chart) {
        let name = &chart.states[at].name;
        let entered = first.contains(&at) || walked.iter().any(|(f, _, to)| *f == id && to == name);
        all.states += 1;
        all.states_entered += usize::from(entered);
        if !entered {
            all.states_missing.push(format!("{id}: {name}"));
        }
    }
}

fn steps(id: &str, chart: &Chart, walked: &BTreeSet<StepWalked>, all: &mut Reach) {
    let mut known = BTreeSet::new();
    for from in places(chart).into_iter().filter(|at| !chart.states[*at].is_final) {
        for edge in edges_in_force(chart, from) {
            for to in edge.target.map(|to| ends(chart, to)).unwrap_or_default() {
                if known.insert((from, to)) {
                    let names = (&chart.states[from].name, &chart.states[to].name);
                    let done = walked
                        .iter()
                        .any(|(f, a, b)| (*f, a.as_str(), b.as_str()) == (id, names.0, names.1));
                    all.steps += 1;
                    all.steps_walked += usize::from(done);
                    if !done {
                        let why = chart.trigger_text(edge.trigger);
                        all.steps_missing.push(format!("{id}: {} → {} ({why})", names.0, names.1));
                    }
                }
            }
        }
    }
}

/// Those of a state and of the states around it, but for what it keeps to itself: an edge that is always taken,
/// or a stay, lets no outer edge of the same trigger happen.
fn edges_in_force(chart: &Chart, from: usize) -> Vec<&Edge> {
    let (mut found, mut kept) = (Vec::new(), BTreeSet::new());
    for edge in chart.ancestry(from).flat_map(|at| chart.edges_of(at)) {
        if !kept.contains(&edge.trigger) {
            found.push(edge);
        }
        if edge.guard.is_none() {
            kept.insert(edge.trigger);
        }
    }
    found
}
