//! The walker, on random charts, against a second and slower reading of the same rules.
//!
//! A walk must take the edges that the rules name, do their actions in order, cross borders in
//! order (left from inside out, entered from outside in) and come to rest in a leaf.
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Value, json};
use surus::pure::chart::step::{self, Crossing, Interpreter};
use surus::pure::chart::{Chart, Trigger};

/// Answers guards from bits and remembers the order of what it was asked to do.
#[derive(Clone, Default)]
struct Bits {
    bits: u64,
    done: Vec<usize>,
}

impl Interpreter for Bits {
    fn allows(&mut self, guard: usize) -> bool {
        self.bits >> (guard % 64) & 1 == 1
    }

    fn apply(&mut self, action: usize) {
        self.done.push(action);
    }
}

/// An edge of a random chart: guard and target by number, and whether it acts.
type RandomEdge = (u8, u8, bool);

/// A random state: parent by number, what kind it is, edges.
#[derive(Clone, Debug)]
struct RandomState {
    parent: u8,
    kind: u8,
    events: Vec<(u8, Vec<RandomEdge>)>,
    answers: Vec<RandomEdge>,
}

fn random_edge() -> impl Strategy<Value = RandomEdge> {
    (0..6u8, any::<u8>(), any::<bool>())
}

fn random_state() -> impl Strategy<Value = RandomState> {
    let edges = proptest::collection::vec(random_edge(), 1..3);
    let events = proptest::collection::vec((0..4u8, edges), 0..4);
    let answers = proptest::collection::vec(random_edge(), 4);
    (any::<u8>(), 0..8u8, events, answers).prop_map(|(parent, kind, events, answers)| RandomState {
        parent,
        kind,
        events,
        answers,
    })
}

/// Writes the chart down as JSON; compound states are those that got children.
fn random_chart(states: &[RandomState]) -> Value {
    let draft = Draft { states };
    let mut rows: Vec<Value> = (0..states.len()).map(|at| draft.row(at)).collect();
    // Children come after their parents, so whole rows can be moved into them from the back.
    let mut top = serde_json::Map::new();
    let mut first = None;
    for at in (0..states.len()).rev() {
        let row = rows[at].take();
        if let Some(above) = draft.parent(at) {
            rows[above]["initial"] = json!(name(at));
            rows[above]["states"][name(at)] = row;
        } else {
            first = Some(name(at));
            top.insert(name(at), row);
        }
    }
    json!({"id": "random", "description": "random", "initial": first, "states": top})
}

fn name(at: usize) -> String {
    format!("state_{}", char::from(b'a' + at as u8))
}

/// Random states on their way to JSON.
struct Draft<'a> {
    states: &'a [RandomState],
}

impl Draft<'_> {
    fn parent(&self, at: usize) -> Option<usize> {
        (usize::from(self.states[at].parent) % (at + 1)).checked_sub(1)
    }

    /// The full path of a state, any number taken around.
    fn path(&self, at: usize) -> String {
        let upwards = std::iter::successors(Some(at % self.states.len()), |&at| self.parent(at));
        let mut names: Vec<_> = upwards.map(name).collect();
        names.push("random".into());
        names.reverse();
        format!("#{}", names.join("."))
    }

    fn edge(&self, (guard, target, acts): &RandomEdge, guarded: bool) -> Value {
        let mut edge = json!({"target": self.path(usize::from(*target))});
        if guarded {
            edge["guard"] = json!(format!("guard_{}", char::from(b'a' + guard)));
        }
        if *acts {
            edge["actions"] = json!([format!("act_{}", char::from(b'a' + target % 8))]);
        }
        edge
    }

    fn row(&self, at: usize) -> Value {
        let state = &self.states[at];
        let compound = (0..self.states.len()).any(|child| self.parent(child) == Some(at));
        let [one, two, three, four] = &state.answers[..] else { unreachable!("four answers") };
        let two_edges = json!([self.edge(one, true), self.edge(two, false)]);
        match (compound, state.kind) {
            (true, _) | (false, 0..4) => self.resting(at),
            (false, 4) => json!({"description": "random", "type": "final", "tags": ["success"]}),
            (false, 5 | 6) => json!({"description": "random", "always": two_edges}),
            (false, _) => {
                let mut row = self.resting(at);
                let error = self.edge(three, false);
                row["invoke"] = json!({"src": "work", "onDone": two_edges, "onError": error});
                row["after"] = json!({"some_timeout": self.edge(four, false)});
                row
            }
        }
    }

    fn resting(&self, at: usize) -> Value {
        let mut row = json!({"description": "random"});
        for (event, edges) in &self.states[at].events {
            let event = format!("event_{}", char::from(b'a' + event));
            let mut edges = edges.clone();
            edges.dedup_by_key(|edge| edge.0); // a guard twice would shadow itself
            row["on"][event] = edges.iter().map(|it| self.edge(it, true)).collect();
        }
        // Without these most random charts would be islands.
        row["on"]["next"] = json!(self.path(at + 1));
        let stay = json!({"guard": "guard_a", "actions": ["act_a"]});
        row["on"]["skip"] = json!([stay, self.path(at + 2)]);
        row
    }
}

/// The rules once more, told slowly: all candidates are listed and sorted, then the first is taken.
fn expected(chart: &Chart, from: usize, trigger: Trigger, bits: &Bits) -> Option<usize> {
    let mut candidates: Vec<(usize, usize)> = vec![];
    for (place, edge) in chart.edges.iter().enumerate() {
        let mut depth = 0;
        let mut at = Some(from);
        while let Some(state) = at {
            let open = edge.guard.is_none_or(|guard| bits.clone().allows(guard));
            if state == edge.source && edge.trigger == trigger && open {
                candidates.push((depth, place));
            }
            (depth, at) = (depth + 1, chart.states[state].parent);
        }
    }
    candidates.into_iter().min().map(|(_, place)| place)
}

fn obeys_the_rules(chart: &Chart, bits: u64, choices: &[u8]) -> Result<(), TestCaseError> {
    let mut triggers: Vec<Trigger> = chart.edges.iter().map(|edge| edge.trigger).collect();
    triggers.retain(|&trigger| trigger != Trigger::Always);
    let mut mind = Bits { bits, done: vec![] };
    let mut inside: Vec<usize> = vec![];
    let entered = step::enter(chart, &mut mind);
    cross(&mut inside, &entered.trace, chart)?;
    let mut state = entered.state;
    for &choice in choices.iter().filter(|_| !triggers.is_empty()) {
        prop_assert!(
            expected(chart, state, Trigger::Always, &mind).is_none(),
            "rests in a decision"
        );
        prop_assert_eq!(inside.last(), Some(&state));
        prop_assert!(chart.states[state].initial.is_none(), "rests in a compound state");
        let trigger = triggers[usize::from(choice) % triggers.len()];
        mind.done.clear();
        let walk = step::step(chart, state, trigger, &mut mind);
        let first = expected(chart, state, trigger, &mind);
        prop_assert_eq!(walk.as_ref().map(|walk| walk.edges[0]), first);
        let Some(walk) = walk else { continue };
        let acted = walk.edges.iter().flat_map(|&edge| chart.edges[edge].actions.iter().copied());
        prop_assert_eq!(
            acted.collect::<Vec<_>>(),
            mind.done.clone(),
            "actions in the edges' order"
        );
        for pair in walk.edges.windows(2) {
            let rest = chart.edges[pair[0]].target.map(|target| chart.leaf(target));
            let next = rest.and_then(|rest| expected(chart, rest, Trigger::Always, &mind));
            prop_assert_eq!(next, Some(pair[1]), "decisions follow the same rules");
        }
        let last = walk.edges.last().and_then(|&edge| chart.edges[edge].target);
        prop_assert_eq!(walk.arrived, last.is_some());
        prop_assert_eq!(walk.state, last.map_or(state, |target| chart.leaf(target)));
        prop_assert_eq!(walk.arrived, !walk.trace.is_empty(), "whoever arrives crosses a border");
        cross(&mut inside, &walk.trace, chart)?;
        state = walk.state;
    }
    Ok(())
}

/// Borders are crossed in order: one is left from inside out and entered from outside in.
fn cross(inside: &mut Vec<usize>, trace: &[Crossing], chart: &Chart) -> Result<(), TestCaseError> {
    for crossing in trace {
        match *crossing {
            Crossing::Left(state) => prop_assert_eq!(inside.pop(), Some(state)),
            Crossing::Entered(state) => {
                prop_assert_eq!(inside.last().copied(), chart.states[state].parent);
                inside.push(state);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_charts_are_walked_by_the_rules_or_refused(
        states in proptest::collection::vec(random_state(), 2..9),
        bits in any::<u64>(),
        choices in proptest::collection::vec(any::<u8>(), 0..30),
    ) {
        if let Ok(chart) = Chart::parse(&random_chart(&states).to_string()) {
            obeys_the_rules(&chart, bits, &choices)?;
        }
    }
}

/// The property above would hold if all random charts were refused.
#[test]
fn random_charts_are_sound_often_enough() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec(random_state(), 2..9);
    let mut sound = 0;
    for _ in 0..500 {
        let states = strategy.new_tree(&mut runner).expect("a tree").current();
        sound += usize::from(Chart::parse(&random_chart(&states).to_string()).is_ok());
    }
    assert!(sound > 100, "only {sound} of 500 random charts are sound");
}
