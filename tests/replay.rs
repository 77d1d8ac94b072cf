//! Recorded transitions, walked again: today's code decides as it did, and says where it does not.
use serde_json::{Value, json};
use surus::pure::replay::Outcome;
use surus::pure::replay::history::History;
use surus::sim::plan::Plan;
use surus::sim::run;

fn recorded(seed: u64) -> Value {
    run::history(Plan::drawn(seed))
}

fn read(file: &Value) -> History {
    History::parse(&file.to_string()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_transition_of_a_run_is_decided_the_same_again() {
    let (mut walked, mut asked) = (0, 0);
    for seed in 0..24 {
        let history = read(&recorded(seed));
        for place in 0..history.transitions.len() {
            let again = history.again(place);
            let what = &history.transitions[place];
            match again.outcome {
                Outcome::Same => walked += 1,
                Outcome::Began => {}
                other => panic!("seed {seed} #{}: {other:?}\n{what:?}", place + 1),
            }
            asked += again.guards.len();
        }
    }
    assert!(walked > 500 && asked > 500, "{walked} transitions, {asked} guards asked");
}

#[test]
fn what_today_would_be_decided_otherwise_is_told() {
    let mut file = recorded(3);
    let rows = file["transitions"].as_array_mut().expect("a list");
    let is_step = |row: &Value| row["flow"] == "node" && row["record"]["to"] == "leading";
    let place = rows.iter().position(is_step).expect("somebody leads");
    rows[place]["record"]["to"] = json!("following");
    let again = read(&file).again(place);
    assert_eq!(again.outcome, Outcome::Otherwise("it would go to leading".into()));

    file["transitions"][place]["record"]["to"] = json!("leading");
    file["transitions"][place]["record"]["knowledge"]["writes"] = json!(false);
    file["transitions"][place]["record"]["knowledge"]["epoch"] = json!(77);
    let Outcome::Otherwise(what) = read(&file).again(place).outcome else { panic!("not seen") };
    assert!(what.contains("know something else"), "{what}");
}

#[test]
fn records_of_another_version_are_no_decision() {
    let mut file = recorded(3);
    let rows = file["transitions"].as_array_mut().expect("a list");
    let place = rows.iter().position(|row| row["record"]["input"]["Event"].is_object());
    let place = place.expect("somebody heard a cycle");
    let input = rows[place]["record"]["input"].take();
    let Outcome::Unknown(why) = read(&file).again(place).outcome else { panic!("it was walked") };
    assert_eq!(why, "the record was written without its input");
    file["transitions"][place]["record"]["input"] = json!({"Event": "sneezed"});
    let Outcome::Unknown(why) = read(&file).again(place).outcome else { panic!("it was walked") };
    assert!(why.starts_with("the input is of another version: "), "{why}");
    file["transitions"][place]["record"]["input"] = input;
    file["transitions"][place]["flow"] = json!("gardening");
    let Outcome::Unknown(why) = read(&file).again(place).outcome else { panic!("it was walked") };
    assert_eq!(why, "there is no flow `gardening`");
}

#[test]
fn damaged_files_are_refused_with_a_place() {
    let whole = recorded(3).to_string();
    let cut = &whole[..whole.len() / 2];
    let error = History::parse(cut).expect_err("it is cut off");
    assert!(error.starts_with("line 1, column "), "{error}");
    for (text, words) in [
        ("{\n  \"surus_history\": 1,\n", "line 3, column 0"),
        ("{\"surus_history\": 9, \"transitions\": []}", "this surus reads 1"),
        ("{\"surus_history\": 1, \"transitions\": [{}]}", "transitions[0] has no `node`"),
        ("{\"surus_history\": 1, \"transitions\": []}", "holds no transitions"),
        ("{\"x\": 1}", "neither a dump nor a history"),
        ("[1, 2]", "neither a dump nor a history"),
    ] {
        let error = History::parse(text).expect_err(text);
        assert!(error.contains(words), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn the_first_difference_of_two_recordings_is_found() {
    let file = recorded(3);
    let (one, mut other) = (read(&file), file.clone());
    assert_eq!(one.parts_from(&read(&file)), None);
    other["transitions"][7]["record"]["cause"] = json!("a whim");
    assert_eq!(one.parts_from(&read(&other)), Some(7));
    other["transitions"].as_array_mut().expect("a list").truncate(5);
    assert_eq!(one.parts_from(&read(&other)), Some(5));
}

/// A dump of a running node and one of a stopped node's journal say the same in other shapes.
#[test]
fn dumps_are_read_as_histories() {
    let file = recorded(3);
    let of_one = |row: &&Value| row["node"] == "n0" && row["flow"] == "node";
    let rows: Vec<Value> =
        file["transitions"].as_array().expect("a list").iter().filter(of_one).cloned().collect();
    let at = |row: &Value| format!("2026-01-01T00:{}", row["at"].as_str().unwrap_or_default());
    let live = |row: &Value| json!({"seq": 1, "at_wall": at(row), "record": row["record"]});
    let stopped = |row: &Value| {
        let mut record = row["record"].clone();
        record["at_wall"] = json!(at(row));
        record
    };
    let dump = |rows: Vec<Value>| {
        json!({"node": "n0", "cluster": {"decisions": []},
               "machines": [{"flow": "node", "transitions": rows}]})
    };
    let running = read(&dump(rows.iter().map(live).collect()));
    let from_disk = read(&json!({"dumps": [dump(rows.iter().map(stopped).collect())]}));
    assert_eq!(running.parts_from(&from_disk), None);
    let outcomes = |h: &History| (0..rows.len()).map(|at| h.again(at).outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(&running), outcomes(&from_disk));
    assert!(outcomes(&running).contains(&Outcome::Same));
}
