//! The holes a chart may not have, looked for in the finished table.
//!
//! Each check is a question about one state. What they protect: a machine never stands still with
//! nothing running and nothing awaited (safety promise P5), and no edge is there for show.
use super::super::{Chart, Trigger};
use super::Fault;

/// Runs every check on a table whose words and targets are right.
pub fn all(chart: &Chart, faults: &mut Vec<Fault>) {
    let reached = reached(chart);
    for (state, row) in chart.states.iter().enumerate() {
        let problems = [
            compound(chart, state),
            resting_for_ever(chart, state),
            decision(chart, state),
            work(chart, state),
            no_way_in(chart, state, &reached),
            circle(chart, state),
        ];
        let problems = problems.into_iter().flatten();
        faults.extend(problems.map(|problem| Fault::state(&row.name, problem)));
        let problems = never_taken(chart, state).into_iter().chain(lost(chart, state));
        faults.extend(problems.map(|problem| Fault::state(&row.name, problem)));
    }
}

/// A compound state neither works nor waits: its children do. A final state does nothing at all.
fn compound(chart: &Chart, state: usize) -> Option<String> {
    let row = &chart.states[state];
    let busy = row.activity.is_some()
        || chart.edges_of(state).any(|edge| !matches!(edge.trigger, Trigger::Event(_)));
    if row.is_final && (row.initial.is_some() || busy || chart.edges_of(state).next().is_some()) {
        return Some(
            "is final, so nothing can happen in it: remove its edges, work and states".into(),
        );
    }
    if row.initial.is_some() && busy {
        return Some(
            "contains states, so it can only have `on`: move `invoke`, `after` and `always` into \
             the states in it"
                .into(),
        );
    }
    None
}

/// A state that is not final has an edge to another one, its own or that of a state around it.
fn resting_for_ever(chart: &Chart, state: usize) -> Option<String> {
    let row = &chart.states[state];
    let leaves =
        |at| chart.edges_of(at).any(|edge| edge.target.is_some_and(|to| chart.leaf(to) != state));
    (row.initial.is_none() && !row.is_final && !chart.ancestry(state).any(leaves))
        .then(|| "no way out: add an edge to another state or `\"type\": \"final\"`".into())
}

/// A decision is left at once: whatever else it has can never happen.
fn decision(chart: &Chart, state: usize) -> Option<String> {
    let decides = |trigger| trigger == Trigger::Always;
    let mixed = chart.edges_of(state).any(|edge| decides(edge.trigger))
        && (chart.states[state].activity.is_some()
            || chart.edges_of(state).any(|edge| !decides(edge.trigger)));
    mixed.then(|| "has `always`, so its `on`, `after` and `invoke` can never happen".into())
}

/// Work ends: by an answer, or by a timeout. Only a child flow keeps its own time.
fn work(chart: &Chart, state: usize) -> Option<String> {
    let activity = &chart.activities[chart.states[state].activity?];
    let child_flow = activity.starts_with("run_") && activity.ends_with("_flow");
    let timed = chart.delays_of(state).next().is_some();
    (!timed && !child_flow).then(|| {
        format!(
            "works (`{activity}`) but has no `after`: say when to give up (only a child flow, an \
             activity named `run_…_flow`, keeps its own time)"
        )
    })
}

fn no_way_in(chart: &Chart, state: usize, reached: &[bool]) -> Option<String> {
    let inside = |leaf: usize| chart.ancestry(leaf).any(|at| at == state);
    let entered = (0..chart.states.len()).any(|leaf| reached[leaf] && inside(leaf));
    (!entered).then(|| "no way in: no edge that can be reached leads here".into())
}

/// Which states one can rest in or pass through, guards taken as possibly true.
fn reached(chart: &Chart) -> Vec<bool> {
    let mut reached = vec![false; chart.states.len()];
    let mut todo = vec![chart.leaf(chart.initial)];
    while let Some(leaf) = todo.pop() {
        if !std::mem::replace(&mut reached[leaf], true) {
            let edges = chart.ancestry(leaf).flat_map(|at| chart.edges_of(at));
            todo.extend(edges.filter_map(|edge| edge.target).map(|to| chart.leaf(to)));
        }
    }
    reached
}

/// Decisions that lead back to themselves could go on for ever.
fn circle(chart: &Chart, state: usize) -> Option<String> {
    let next = |at: usize| {
        let decisions = chart.edges_of(at).filter(|edge| edge.trigger == Trigger::Always);
        decisions.filter_map(|edge| edge.target).map(|to| chart.leaf(to))
    };
    let mut seen = vec![false; chart.states.len()];
    let mut todo: Vec<usize> = next(state).collect();
    while let Some(at) = todo.pop() {
        if at == state {
            return Some("`always` goes in circles: some way round leads back here at once".into());
        }
        if !std::mem::replace(&mut seen[at], true) {
            todo.extend(next(at));
        }
    }
    None
}

/// Edges that an earlier one of the same state and trigger always precedes.
fn never_taken(chart: &Chart, state: usize) -> Vec<String> {
    let edges: Vec<_> = chart.edges_of(state).collect();
    let shadowed = edges.iter().enumerate().filter(|(place, edge)| {
        edges[..*place].iter().any(|earlier| {
            earlier.trigger == edge.trigger
                && (earlier.guard.is_none() || earlier.guard == edge.guard)
        })
    });
    shadowed
        .map(|(_, edge)| {
            let to = edge.target.map_or("nowhere", |to| &chart.states[to].name);
            let trigger = trigger_text(chart, edge.trigger);
            format!("{trigger} can never lead to {to}: an edge before it is always taken first")
        })
        .collect()
}

/// Answers, delays and decisions that may find no edge, or an edge that leads nowhere (a delay may, while work goes on).
fn lost(chart: &Chart, state: usize) -> Vec<String> {
    let mut triggers: Vec<_> = chart.edges_of(state).map(|edge| edge.trigger).collect();
    if chart.states[state].activity.is_some() {
        triggers.extend([Trigger::Done, Trigger::Error]);
    }
    triggers.retain(|trigger| !matches!(trigger, Trigger::Event(_)));
    triggers.sort_unstable();
    triggers.dedup();
    triggers.into_iter().filter_map(|trigger| lost_trigger(chart, state, trigger)).collect()
}

fn lost_trigger(chart: &Chart, state: usize, trigger: Trigger) -> Option<String> {
    let edges = || chart.edges_of(state).filter(|edge| edge.trigger == trigger);
    let text = trigger_text(chart, trigger);
    if edges().all(|edge| edge.guard.is_some()) {
        return Some(format!("{text} may match no edge and be lost: add a last one without guard"));
    }
    // What a state works at goes on when its time is up, and its end is still awaited.
    let works_on = matches!(trigger, Trigger::After(_)) && chart.states[state].activity.is_some();
    (!works_on && edges().any(|edge| edge.target.is_none())).then(|| {
        format!("{text} leads nowhere: nothing would be running and nothing awaited; add a target")
    })
}

fn trigger_text(chart: &Chart, trigger: Trigger) -> String {
    match trigger {
        Trigger::Always => "`always`".into(),
        Trigger::Event(_) | Trigger::Done | Trigger::Error | Trigger::After(_) => {
            chart.trigger_text(trigger)
        }
    }
}
