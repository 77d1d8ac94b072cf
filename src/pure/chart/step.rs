//! The one function that walks a chart.
//!
//! SCXML's algorithm for the subset we have: the innermost state's edges come first, within a state
//! document order decides, the first edge whose guard allows it is taken; then edges without a
//! trigger (`always`) are followed until we rest. An edge with a target always arrives anew, also
//! when it leads where we are: work starts again. An edge without one changes knowledge only.
//!
//! Absent on purpose: effects. The walker says where we went; the machine says what follows.
use super::{Chart, Trigger};

/// Whoever answers for the names of a chart: guards are questions, actions change what is known.
pub trait Interpreter {
    /// Is the guard at this place in the chart's table true now?
    fn allows(&mut self, guard: usize) -> bool;

    /// Carry out the action at this place in the chart's table.
    fn apply(&mut self, action: usize);
}

/// A walk from one resting place to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The edges taken, in order, by their place in the chart's table.
    pub edges: Vec<usize>,
    /// Where we rest now.
    pub state: usize,
    /// We arrived (perhaps where we were before): work starts anew.
    pub arrived: bool,
    /// States left, the innermost first, and entered, the outermost first, in the order it happened.
    pub trace: Vec<Crossing>,
}

/// A border crossed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    Left(usize),
    Entered(usize),
}

/// Enters the chart at its initial state and follows `always` edges until we rest.
pub fn enter(chart: &Chart, mind: &mut impl Interpreter) -> Walk {
    let mut walk = Walk { edges: vec![], state: chart.initial, arrived: true, trace: vec![] };
    walk.descend(chart, chart.initial, None);
    walk.settle(chart, mind);
    walk
}

/// What the trigger does in this state; `None` when no edge is for it or no guard allows one.
pub fn step(
    chart: &Chart,
    state: usize,
    trigger: Trigger,
    mind: &mut impl Interpreter,
) -> Option<Walk> {
    let edge = choose(chart, state, trigger, mind)?;
    let mut walk = Walk { edges: vec![], state, arrived: false, trace: vec![] };
    walk.take(chart, edge, mind);
    if walk.arrived {
        walk.settle(chart, mind);
    }
    Some(walk)
}

/// The first allowed edge, from the innermost state outwards, in document order within each.
fn choose(
    chart: &Chart,
    state: usize,
    trigger: Trigger,
    mind: &mut impl Interpreter,
) -> Option<usize> {
    chart.ancestry(state).find_map(|at| {
        chart.edges.iter().position(|edge| {
            edge.source == at
                && edge.trigger == trigger
                && edge.guard.is_none_or(|guard| mind.allows(guard))
        })
    })
}

impl Walk {
    fn take(&mut self, chart: &Chart, edge: usize, mind: &mut impl Interpreter) {
        let row = &chart.edges[edge];
        self.edges.push(edge);
        if let Some(target) = row.target {
            let around = around_both(chart, row.source, target);
            let left = chart.ancestry(self.state).take_while(|&at| Some(at) != around);
            self.trace.extend(left.map(Crossing::Left));
            row.actions.iter().for_each(|&action| mind.apply(action));
            self.arrived = true;
            self.descend(chart, target, around);
        } else {
            row.actions.iter().for_each(|&action| mind.apply(action));
        }
    }

    /// Enters `target` and its first children, from below the state `around`.
    fn descend(&mut self, chart: &Chart, target: usize, around: Option<usize>) {
        self.state = chart.leaf(target);
        let inwards: Vec<_> =
            chart.ancestry(self.state).take_while(|&at| Some(at) != around).collect();
        self.trace.extend(inwards.into_iter().rev().map(Crossing::Entered));
    }

    /// Follows decisions until we rest. `source` refuses charts in which this could go on for ever.
    fn settle(&mut self, chart: &Chart, mind: &mut impl Interpreter) {
        for _ in 0..=chart.states.len() {
            let Some(edge) = choose(chart, self.state, Trigger::Always, mind) else { return };
            self.take(chart, edge, mind);
        }
        panic!("chart {}: `always` goes in circles; Chart::parse refuses that", chart.id);
    }
}

/// The innermost state that contains both, and is left by neither.
///
/// An edge from a compound state into itself stays inside it; an edge from a state to itself, or
/// out of a state to one around it, leaves the state it names.
fn around_both(chart: &Chart, source: usize, target: usize) -> Option<usize> {
    chart
        .ancestry(source)
        .find(|&at| at != target && chart.ancestry(target).any(|above| above == at))
}
