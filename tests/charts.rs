//! Charts: what is refused and how it is said, and that drawings and the command line are true.
//!
//! The refusals are tried one by one, each on a sound chart that was broken in one place. How
//! charts are walked is the matter of `tests/walker.rs`.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use surus::ctl::chart::walk;
use surus::pure::chart::{Chart, draw};
use surus::pure::flow::BUILT_IN;
use surus::pure::flow::any::cause_sentence;

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
            "gone": { "description": "Ashes.", "type": "final", "tags": ["success"] }
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
    let twin = json!({"description": "x", "type": "final", "tags": ["success"]});
    refused("/states/open", twin, "open: two states share this name");
    let twice = sound().to_string().replace("\"push\":", "\"push\":\"open\",\"push\":");
    assert!(faults(&twice).contains("closed: the event `push` is listed twice"));
    let twice = sound()
        .to_string()
        .replace("\"stuck_timeout\":", "\"stuck_timeout\":\"open\",\"stuck_timeout\":");
    assert!(faults(&twice).contains("opening: the delay `stuck_timeout` is listed twice"));
}

#[test]
fn final_states_say_how_the_flow_ended() {
    let asks = "gone: is final and needs `tags` with either `success` or `failure`";
    refused("/states/gone/tags", Value::Null, asks);
    refused("/states/gone/tags", json!([]), asks);
    refused("/states/gone/tags", json!(["success", "failure"]), asks);
    refused("/states/gone/tags", json!(["done"]), asks);
    let resting = "open: has `tags`, which only a final state may have";
    refused(&format!("{OPEN}/tags"), json!(["success"]), resting);
    let chart = Chart::parse(&sound().to_string()).expect("the chart is sound");
    let gone = chart.state("gone").expect("it has that state");
    assert!(!chart.states[gone].is_failure);
    let failed = broken("/states/gone/tags", json!(["failure"]));
    let chart = Chart::parse(&failed).expect("the chart is sound");
    assert!(chart.states[gone].is_failure);
}

#[test]
fn every_name_has_a_sentence_and_no_sentence_is_left_over() {
    let said = |chart: &Chart| -> String {
        chart.vocabulary_faults().iter().map(|fault| format!("{fault}\n")).collect()
    };
    let bare = Chart::parse(&sound().to_string()).expect("the chart is sound");
    for name in ["event `burn`", "guard `windy`", "activity `turn_hinge`", "delay `stuck_timeout`"]
    {
        let asked = format!("the {name} has no sentence in `meta.vocabulary`");
        assert!(said(&bare).contains(&asked), "{asked}");
    }
    let words = ["burn", "push", "windy", "turn_hinge", "stuck_timeout", "draught_delay"];
    let mut vocabulary: serde_json::Map<String, Value> =
        words.iter().map(|word| (String::from(*word), json!("It is."))).collect();
    let with = |vocabulary: &serde_json::Map<String, Value>| {
        let mut chart = sound();
        chart["meta"] = json!({"vocabulary": vocabulary});
        Chart::parse(&chart.to_string()).expect("the chart is sound")
    };
    assert_eq!(said(&with(&vocabulary)), "");
    assert_eq!(with(&vocabulary).fingerprint, bare.fingerprint, "sentences move nobody");
    vocabulary.insert("pull".into(), json!("Nobody does."));
    assert!(said(&with(&vocabulary)).contains("explains `pull`, which the chart does not use"));
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
    refused(
        &format!("{OPENING}/invoke/onDone"),
        json!("opne"),
        "opening: done leads to no state: `opne`",
    );
    refused(
        &format!("{OPEN}/after/draught_delay"),
        json!("gone"),
        "after draught_delay leads to no",
    );
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
    let edges =
        json!([{"guard": "windy", "target": "opening"}, {"guard": "windy", "target": "open"}]);
    refused(&format!("{CLOSED}/on/push"), edges, "closed: push can never lead to open");
}

#[test]
fn answers_are_never_lost() {
    let guarded = json!([{"guard": "windy", "target": "open"}]);
    let lost = "may match no edge and be lost";
    refused(&format!("{OPENING}/invoke/onDone"), guarded.clone(), &format!("opening: done {lost}"));
    refused(&format!("{OPENING}/invoke/onError"), Value::Null, &format!("opening: error {lost}"));
    refused(
        &format!("{OPEN}/after/draught_delay"),
        guarded.clone(),
        &format!("draught_delay {lost}"),
    );
    refused(&format!("{DECIDING}/always"), guarded, &format!("deciding: `always` {lost}"));
}

#[test]
fn answers_lead_somewhere() {
    let stays = json!({"actions": ["note"]});
    refused(&format!("{OPENING}/invoke/onDone"), stays.clone(), "opening: done leads nowhere");
    refused(
        &format!("{OPEN}/after/draught_delay"),
        stays,
        "open: after draught_delay leads nowhere",
    );
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = Chart::parse(&text);
        let _ = Chart::parse(&sound().to_string().replace("closed", &text.replace(['"', '\\'], "")));
    }
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

/// Tables, replays and hovers print a sentence after its name: it stays on one line.
#[test]
fn sentences_of_built_in_charts_are_short() {
    for (name, json) in BUILT_IN {
        let chart = Chart::parse(json).unwrap_or_else(|_| panic!("{name} was checked by build.rs"));
        for (word, sentence) in chart.vocabulary.iter() {
            let fits = sentence.ends_with('.') && sentence.chars().count() < 110;
            assert!(fits, "{name}: the sentence for `{word}` has no full stop, or 110 characters");
        }
    }
}

/// A record's cause is explained by what it names, whatever a program's error says after it.
#[test]
fn causes_are_explained_by_what_they_name() {
    let named = |cause| cause_sentence("rejoin", cause).map(|(name, _)| name);
    assert_eq!(named("done rewind"), Some("rewind"));
    assert_eq!(named("failed rewind: no stop_postgres here"), Some("rewind"));
    assert_eq!(named("after rewind_timeout"), Some("rewind_timeout"));
    assert_eq!(cause_sentence("node", "postgres_died").map(|it| it.0), Some("postgres_died"));
    assert_eq!(named("start"), None);
}

/// `run_…_flow` names a flow; a chart that runs one which does not exist would wait for nobody.
/// Child flows that a chart starts under a second name, because what they are told differs: a
/// recovery restarts what crashed; the rest are demotions, told why and how fast.
const OTHER_INPUTS: &[(&str, &str)] = &[
    ("recovery", "restart"),
    ("release", "demote"),
    ("demotion", "demote"),
    ("shutdown", "demote"),
    ("step_down", "demote"),
];

#[test]
fn child_flows_exist() {
    for (name, json) in BUILT_IN {
        let chart = Chart::parse(json).unwrap_or_else(|_| panic!("{name} was checked by build.rs"));
        for activity in chart.activities.iter() {
            let child = activity.strip_prefix("run_").and_then(|it| it.strip_suffix("_flow"));
            let child = child.map(|child| match OTHER_INPUTS.iter().find(|(it, _)| *it == child) {
                Some((_, flow)) => flow,
                None => child,
            });
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
