//! Charts: what is refused and how it is said, how a chart is walked, and that drawings are true.
//!
//! The walker is tried on random charts against a second, slower reading of the same rules; the
//! refusals are tried one by one, each on the smallest chart that has the fault.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Value, json};
use surus::host::ctl::chart::walk;
use surus::pure::chart::step::{self, Crossing, Mind};
use surus::pure::chart::{Chart, Trigger, draw};
use surus::pure::flow::BUILT_IN;

/// A sound chart that the refusal tests break in one place each.
fn sound() -> Value {
    json!({
        "id": "door", "description": "A door.", "initial": "inside",
        "states": {
            "inside": {
                "description": "Somewhere in the house.", "initial": "closed",
                "on": { "burn": "gone" },
                "states": {
                    "closed": { "description": "Shut.", "on": { "push": "opening" } },
                    "opening": {
                        "description": "On its way.",
                        "invoke": { "src": "turn_hinge", "onDone": "open", "onError": "closed" },
                        "after": { "stuck_timeout": "closed" }
                    },
                    "open": { "description": "Wide.", "after": { "draught_delay": "deciding" } },
                    "deciding": {
                        "description": "Which way does the wind blow?",
                        "always": [ { "guard": "windy", "target": "closed" }, { "target": "open" } ]
                    }
                }
            },
            "gone": { "description": "Ashes.", "type": "final" }
        }
    })
}

/// The sound chart with the value at this JSON pointer replaced, or removed by `null`.
fn broken(pointer: &str, value: Value) -> String {
    let mut chart = sound();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
    let parent = chart.pointer_mut(parent).expect("the parent exists").as_object_mut();
    let parent = parent.expect("the parent is an object");
    if value.is_null() {
        parent.shift_remove(key).expect("there is something to remove");
    } else {
        parent.insert(key.to_owned(), value);
    }
    chart.to_string()
}

fn faults(json: &str) -> String {
    let faults = Chart::parse(json).expect_err("this chart must be refused");
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

#[track_caller]
fn refused(pointer: &str, value: Value, because: &str) {
    let said = faults(&broken(pointer, value));
    assert!(said.contains(because), "`{because}` was not said:\n{said}");
}

#[test]
fn a_sound_chart_is_accepted() {
    let chart = Chart::parse(&sound().to_string()).expect("the chart is sound");
    assert_eq!(chart.states.len(), 6);
    assert_eq!(chart.states[chart.leaf(chart.initial)].name, "closed");
}

const INSIDE: &str = "/states/inside";
const CLOSED: &str = "/states/inside/states/closed";
const OPENING: &str = "/states/inside/states/opening";
const OPEN: &str = "/states/inside/states/open";
const DECIDING: &str = "/states/inside/states/deciding";

#[test]
fn what_is_not_of_the_form_is_refused_with_its_line() {
    let said = faults("{\n\"id\": \"x\",\n\"context\": 1 }");
    assert!(said.contains("unknown field `context`") && said.contains("line 3"), "{said}");
    refused(&format!("{CLOSED}/entry"), json!("ring"), "unknown field `entry`");
    refused(&format!("{CLOSED}/type"), json!("parallel"), "unknown variant `parallel`");
    refused(&format!("{CLOSED}/on"), json!({"push": {"cond": "x"}}), "unknown field `cond`");
    refused(&format!("{CLOSED}/on"), json!({"push": 7}), "a target, an edge or a list of edges");
    refused(&format!("{OPENING}/invoke/id"), json!("x"), "unknown field `id`");
}

#[test]
fn names_are_snake_case() {
    refused("/id", json!("Door"), "the chart's id `Door` is not snake_case");
    refused(&format!("{INSIDE}/states/step_2"), json!({"description": "x"}), "step_2: the name");
    refused(&format!("{CLOSED}/on/doPush"), json!("open"), "closed: the event `doPush`");
    let edge = json!({"target": "open", "guard": "is-it", "actions": ["Go"]});
    refused(&format!("{CLOSED}/on/push"), edge.clone(), "the guard `is-it`");
    refused(&format!("{CLOSED}/on/push"), edge, "the action `Go`");
    refused(&format!("{OPENING}/invoke/src"), json!("self"), "the activity `self`");
    refused(&format!("{OPEN}/after/100"), json!("closed"), "open: the delay `100`");
    refused(&format!("{OPEN}/after/pause"), json!("closed"), "must end in `_timeout` or `_delay`");
}

#[test]
fn names_are_unique() {
    let twin = json!({"description": "x", "type": "final"});
    refused("/states/open", twin, "open: two states share this name");
    let twice = sound().to_string().replace("\"push\":", "\"push\":\"open\",\"push\":");
    assert!(faults(&twice).contains("closed: the event `push` is listed twice"));
    let twice = sound().to_string().replace("\"stuck_timeout\":", "\"stuck_timeout\":\"open\",\"stuck_timeout\":");
    assert!(faults(&twice).contains("opening: the delay `stuck_timeout` is listed twice"));
}

#[test]
fn descriptions_are_asked_for() {
    refused("/description", Value::Null, "the chart has no description");
    refused(&format!("{OPEN}/description"), Value::Null, "open: has no description");
    refused(&format!("{OPEN}/description"), json!("  "), "open: has no description");
}

#[test]
fn the_initial_state_is_one_of_its_own() {
    refused("/initial", json!("closed"), "`initial` names no state of its own: `closed`");
    refused("/states", json!({}), "the chart has no states");
    refused(&format!("{INSIDE}/initial"), json!("gone"), "inside: `initial` names no state");
    refused(&format!("{INSIDE}/initial"), Value::Null, "inside: has `states` but no `initial`");
    refused(&format!("{OPEN}/initial"), json!("x"), "open: has `initial` but no `states`");
    refused(&format!("{OPEN}/states"), json!({}), "open: has `states` with nothing in it");
}

#[test]
fn targets_exist_and_are_written_as_xstate_resolves_them() {
    refused(&format!("{OPENING}/invoke/onDone"), json!("opne"), "opening: done leads to no state: `opne`");
    refused(&format!("{OPEN}/after/draught_delay"), json!("gone"), "after draught_delay leads to no");
    refused(&format!("{CLOSED}/on/push"), json!("#door.opening"), "push leads to no state");
    refused(&format!("{CLOSED}/on/push"), json!("#house.inside"), "push leads to no state");
    refused(&format!("{CLOSED}/on/push"), json!(".opening"), "push leads to no state");
    for target in ["#door.inside.opening", "opening"] {
        let chart = broken(&format!("{CLOSED}/on/push"), json!(target));
        Chart::parse(&chart).expect("this spelling is right");
    }
    let chart = broken(&format!("{INSIDE}/on/slam"), json!(".closed"));
    Chart::parse(&chart).expect("a child of its own may be named by a dot");
}

#[test]
fn every_state_has_a_way_in_and_a_way_out() {
    let island = json!({"description": "x", "on": {"push": "open"}});
    refused(&format!("{INSIDE}/states/island"), island, "island: no way in");
    let trap = broken(&format!("{OPEN}/after"), json!({}));
    let trap = trap.replace("\"on\":{\"burn\":\"gone\"},", "");
    assert!(faults(&trap).contains("open: no way out"), "{}", faults(&trap));
}

#[test]
fn an_edge_that_is_never_reached_is_refused() {
    let edges = json!(["opening", {"guard": "windy", "target": "open"}]);
    refused(&format!("{CLOSED}/on/push"), edges, "closed: push can never lead to open");
    let edges = json!([{"guard": "windy", "target": "opening"}, {"guard": "windy", "target": "open"}]);
    refused(&format!("{CLOSED}/on/push"), edges, "closed: push can never lead to open");
}

#[test]
fn answers_are_never_lost() {
    let guarded = json!([{"guard": "windy", "target": "open"}]);
    let lost = "may match no edge and be lost";
    refused(&format!("{OPENING}/invoke/onDone"), guarded.clone(), &format!("opening: done {lost}"));
    refused(&format!("{OPENING}/invoke/onError"), Value::Null, &format!("opening: error {lost}"));
    refused(&format!("{OPEN}/after/draught_delay"), guarded.clone(), &format!("draught_delay {lost}"));
    refused(&format!("{DECIDING}/always"), guarded, &format!("deciding: `always` {lost}"));
}

#[test]
fn answers_lead_somewhere() {
    let stays = json!({"actions": ["note"]});
    refused(&format!("{OPENING}/invoke/onDone"), stays.clone(), "opening: done leads nowhere");
    refused(&format!("{OPEN}/after/draught_delay"), stays, "open: after draught_delay leads nowhere");
}

#[test]
fn work_has_a_timeout_unless_it_is_a_flow() {
    let pointer = format!("{OPENING}/after");
    refused(&pointer, Value::Null, "opening: works (`turn_hinge`) but has no `after`");
    let child = broken(&pointer, Value::Null).replace("turn_hinge", "run_hinge_flow");
    Chart::parse(&child).expect("a child flow keeps its own time");
}

#[test]
fn compound_decisions_and_ends_do_nothing_else() {
    let work = json!({"src": "x", "onDone": "gone", "onError": "gone"});
    refused(&format!("{INSIDE}/invoke"), work.clone(), "inside: contains states");
    refused(&format!("{INSIDE}/after"), json!({"x_delay": "gone"}), "inside: contains states");
    refused("/states/gone/invoke", work, "gone: is final");
    refused("/states/gone/on", json!({"push": "inside"}), "gone: is final");
    refused(&format!("{DECIDING}/on"), json!({"push": "open"}), "deciding: has `always`, so");
}

#[test]
fn decisions_do_not_go_in_circles() {
    let back = json!({"always": ["deciding"], "description": "x"});
    let chart = broken(OPEN, back);
    let said = faults(&chart);
    assert!(said.contains("open: `always` goes in circles"), "{said}");
    assert!(said.contains("deciding: `always` goes in circles"), "{said}");
}

#[test]
fn all_faults_are_told_at_once() {
    let chart = broken(&format!("{OPENING}/invoke/onDone"), json!("opne")).replace("Wide.", "");
    assert_eq!(faults(&chart).lines().count(), 2, "{}", faults(&chart));
}

// ---------------------------------------------------------------------------------------------
// The walker

/// Answers guards from bits and remembers the order of what it was asked to do.
#[derive(Clone, Default)]
struct Bits {
    bits: u64,
    done: Vec<usize>,
}

impl Mind for Bits {
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
    (any::<u8>(), 0..8u8, events, answers)
        .prop_map(|(parent, kind, events, answers)| RandomState { parent, kind, events, answers })
}

/// Writes the chart down as JSON; compound states are those that got children.
fn random_chart(states: &[RandomState]) -> Value {
    let count = states.len();
    let parent = |at: usize| match usize::from(states[at].parent) % (at + 1) {
        0 => None,
        above => Some(above - 1),
    };
    let name = |at: usize| format!("state_{}", char::from(b'a' + at as u8));
    let path = |at: usize| {
        let mut names: Vec<_> = std::iter::successors(Some(at), |&at| parent(at)).map(name).collect();
        names.push("random".into());
        names.reverse();
        format!("#{}", names.join("."))
    };
    let edge = |(guard, target, acts): &RandomEdge, guarded: bool| {
        let mut edge = json!({"target": path(usize::from(*target) % count)});
        if guarded {
            edge["guard"] = json!(format!("guard_{}", char::from(b'a' + guard)));
        }
        if *acts {
            edge["actions"] = json!([format!("act_{}", char::from(b'a' + target % 8))]);
        }
        edge
    };
    let mut rows = vec![];
    for (at, state) in states.iter().enumerate() {
        let compound = (0..count).any(|child| parent(child) == Some(at));
        let mut row = json!({"description": "random"});
        for (event, edges) in &state.events {
            let event = format!("event_{}", char::from(b'a' + event));
            let mut edges = edges.clone();
            edges.dedup_by_key(|edge| edge.0); // a guard twice would shadow itself
            row["on"][event] = edges.iter().map(|it| edge(it, true)).collect();
        }
        // Without these most random charts would be islands.
        row["on"]["next"] = json!(path((at + 1) % count));
        row["on"]["skip"] = json!([{"guard": "guard_a", "actions": ["act_a"]}, path((at + 2) % count)]);
        let [one, two, three, four] = &state.answers[..] else { unreachable!("four answers") };
        match (compound, state.kind) {
            (true, _) | (false, 0..4) => {}
            (false, 4) => row = json!({"description": "random", "type": "final"}),
            (false, 5 | 6) => {
                row = json!({"description": "random", "always": [edge(one, true), edge(two, false)]});
            }
            (false, _) => {
                row["invoke"] = json!({"src": "work", "onDone": [edge(one, true), edge(two, false)],
                    "onError": edge(three, false)});
                row["after"] = json!({"some_timeout": edge(four, false)});
            }
        }
        rows.push(row);
    }
    // Children come after their parents, so whole rows can be moved into them from the back.
    let mut top = serde_json::Map::new();
    let mut first = None;
    for at in (0..count).rev() {
        let row = rows[at].take();
        match parent(at) {
            Some(above) => {
                rows[above]["initial"] = json!(name(at));
                rows[above]["states"][name(at)] = row;
            }
            None => {
                first = Some(name(at));
                top.insert(name(at), row);
            }
        }
    }
    json!({"id": "random", "description": "random", "initial": first, "states": top})
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
        prop_assert!(expected(chart, state, Trigger::Always, &mind).is_none(), "rests in a decision");
        prop_assert_eq!(inside.last(), Some(&state));
        prop_assert!(chart.states[state].initial.is_none(), "rests in a compound state");
        let trigger = triggers[usize::from(choice) % triggers.len()];
        mind.done.clear();
        let walk = step::step(chart, state, trigger, &mut mind);
        let first = expected(chart, state, trigger, &mind);
        prop_assert_eq!(walk.as_ref().map(|walk| walk.edges[0]), first);
        let Some(walk) = walk else { continue };
        let acted = walk.edges.iter().flat_map(|&edge| chart.edges[edge].actions.iter().copied());
        prop_assert_eq!(acted.collect::<Vec<_>>(), mind.done.clone(), "actions in the edges' order");
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

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = Chart::parse(&text);
        let _ = Chart::parse(&sound().to_string().replace("closed", &text.replace(['"', '\\'], "")));
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

// ---------------------------------------------------------------------------------------------
// Built-in charts

#[test]
fn the_readme_of_the_charts_is_current() {
    let mut text = String::from(
        "# The flows\n\nWritten by `UPDATE=1 cargo test --test charts` from the charts next to this \
         file; never edited. A chart is a\nsubset of XState v5; `surus chart list|check|draw|step` \
         works on these and on any other file.\n",
    );
    for (name, json) in BUILT_IN {
        let chart = Chart::parse(json).unwrap_or_else(|_| panic!("{name} was checked by build.rs"));
        text += &format!("\n{}", draw::section(&chart));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("statecharts/README.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &text).expect("the README can be written");
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == text, "statecharts/README.md is stale: run UPDATE=1 cargo test --test charts");
}

/// `run_…_flow` names a flow; a chart that runs one which does not exist would wait for nobody.
#[test]
fn child_flows_exist() {
    for (name, json) in BUILT_IN {
        let chart = Chart::parse(json).unwrap_or_else(|_| panic!("{name} was checked by build.rs"));
        for activity in chart.activities.iter() {
            let child = activity.strip_prefix("run_").and_then(|it| it.strip_suffix("_flow"));
            let known = child.is_none_or(|child| BUILT_IN.iter().any(|(name, _)| *name == child));
            assert!(known, "{name}: `{activity}` names no chart");
        }
    }
}

#[test]
fn a_chart_is_walked_from_the_command_line() {
    let chart = Chart::parse(&sound().to_string()).expect("the chart is sound");
    let events = ["push", "done", "push", "after:draught_delay", "burn", "push"];
    let events = events.map(String::from);
    let answers = BTreeMap::from([("windy".to_owned(), true)]);
    let mut lines = String::new();
    let tell = |line: &str| {
        lines += line;
        lines.push('\n');
        Ok(())
    };
    walk(&chart, &events, answers, |_| None, tell).expect("all is answered");
    assert_eq!(
        lines,
        "start\n  entered inside\n  entered closed\n  in closed, resting\n\
         push\n  left closed\n  entered opening\n  in opening, working: turn_hinge\n\
         done\n  left opening\n  entered open\n  in open, resting\n\
         push\n  nothing happens: in open, it is for no edge here\n\
         after:draught_delay\n  left open\n  entered deciding\n  left deciding\n  entered closed\n  \
         in closed, resting\n\
         burn\n  left closed\n  left inside\n  entered gone\n  in gone, the end\n\
         push\n  nothing happens: gone is the end\n"
    );
}

#[test]
fn an_unanswered_guard_and_an_unknown_event_are_told() {
    let chart = Chart::parse(&sound().to_string()).expect("the chart is sound");
    let go = |events: &[&str]| {
        let events: Vec<String> = events.iter().map(|&event| event.to_owned()).collect();
        let outcome = walk(&chart, &events, BTreeMap::new(), |_| None, |_| Ok(()));
        outcome.expect_err("this cannot be walked").to_string()
    };
    let unanswered = go(&["push", "done", "after:draught_delay"]);
    assert_eq!(unanswered, "the guard `windy` has no answer: add --guard windy=yes or =no");
    assert_eq!(go(&["psuh"]), "the chart has no event `psuh`: did you mean `push`?");
}
