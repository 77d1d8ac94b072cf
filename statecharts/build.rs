//! Charts → names and tables, at compile time.
//!
//! For every `statecharts/<id>.json` this writes `$OUT_DIR/<id>.rs`: the enums `State`,
//! `EventName`, `Guard`, `Action`, `Activity` and `Delay`, the type `Names` and the table `CHART`;
//! `src/pure/flow/<id>.rs` includes it. Names and data, never logic. A broken chart fails the build
//! with a sentence. `$OUT_DIR/built_in.rs` holds the JSON texts for `surus chart`.
#[allow(dead_code)]
#[path = "../src/pure/chart/mod.rs"]
mod chart;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use chart::{Chart, Edge, StateRow, Text};

fn main() {
    let home = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("statecharts");
    let out = PathBuf::from(variable("OUT_DIR"));
    println!("cargo::rerun-if-changed=statecharts");
    println!("cargo::rerun-if-changed=src/pure/chart");
    let mut faults = vec![];
    let mut built_in = String::from("&[\n");
    for file in charts_in(&home) {
        let json = read(&file);
        match checked(&file, &json) {
            Ok(chart) => {
                write(&out.join(format!("{}.rs", chart.id)), &code(&chart));
                let _ = writeln!(built_in, "({:?}, include_str!({file:?})),", chart.id);
            }
            Err(more) => faults.extend(more),
        }
    }
    built_in.push_str("]\n");
    write(&out.join("built_in.rs"), &built_in);
    for fault in &faults {
        println!("cargo::error={fault}");
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"))
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()))
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).unwrap_or_else(|error| panic!("writing {}: {error}", file.display()));
}

fn charts_in(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home).unwrap_or_else(|error| panic!("{}: {error}", home.display()));
    let files = entries.map(|entry| entry.expect("the directory can be listed").path());
    let mut charts: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|end| end == "json")).collect();
    charts.sort();
    charts
}

/// The chart, or a sentence for each fault that names the file and the state.
fn checked(file: &Path, json: &str) -> Result<Chart, Vec<String>> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let sentence = |fault: &dyn std::fmt::Display| format!("statecharts/{name}.json: {fault}");
    let chart = Chart::parse(json)
        .map_err(|faults| faults.iter().map(|fault| sentence(fault)).collect::<Vec<_>>())?;
    let words: Vec<_> = chart.vocabulary_faults().iter().map(|fault| sentence(fault)).collect();
    if chart.id == name {
        return if words.is_empty() { Ok(chart) } else { Err(words) };
    }
    Err(vec![sentence(&format!("its id is `{}`, but file and id must agree", chart.id))])
}

fn code(chart: &Chart) -> String {
    let mut code = format!("// From statecharts/{}.json, by statecharts/build.rs.\n\n", chart.id);
    let states: Vec<Text> = chart.states.iter().map(|row| row.name.clone()).collect();
    let docs: Vec<Text> = chart.states.iter().map(|row| row.description.clone()).collect();
    names(&mut code, "State", &states, &docs);
    let kinds = [
        ("EventName", &chart.events),
        ("Guard", &chart.guards),
        ("Action", &chart.actions),
        ("Activity", &chart.activities),
        ("Delay", &chart.delays),
    ];
    for (kind, words) in kinds {
        let meant = |word: &Text| Text::Owned(chart.sentence(word).unwrap_or_default().to_owned());
        names(&mut code, kind, words, &words.iter().map(meant).collect::<Vec<_>>());
    }
    code.push_str(
        "/// The chart's vocabulary.\n#[derive(Clone, Copy, Debug)]\npub struct Names;\n\n\
         impl crate::pure::chart::Names for Names {\n\
         type State = State;\ntype EventName = EventName;\ntype Guard = Guard;\n\
         type Action = Action;\ntype Activity = Activity;\ntype Delay = Delay;\n\
         const CHART: &'static crate::pure::chart::Chart = &CHART;\n}\n\n",
    );
    table(&mut code, chart);
    code
}

/// One enum whose variants stand in the table's order.
fn names(code: &mut String, kind: &str, names: &[Text], docs: &[Text]) {
    let _ = write!(
        code,
        "/// `{kind}` in the chart.\n#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, \
         Hash, serde::Serialize, serde::Deserialize)]\npub enum {kind} {{\n"
    );
    let mut all = String::new();
    for (place, name) in names.iter().enumerate() {
        let variant = pascal(name);
        let doc = docs.get(place).unwrap_or(name);
        let _ = writeln!(code, "#[doc = {doc:?}]\n#[serde(rename = {name:?})]\n{variant},");
        let _ = write!(all, "({kind}::{variant}, {name:?}), ");
    }
    let _ = write!(
        code,
        "}}\n\nimpl crate::pure::chart::Name for {kind} {{\n\
         const ALL: &'static [({kind}, &'static str)] = &[{all}];\n}}\n\n\
         impl {kind} {{\n/// The name as the chart writes it.\n\
         pub fn name(self) -> &'static str {{\ncrate::pure::chart::Name::text(self)\n}}\n}}\n\n\
         impl std::fmt::Display for {kind} {{\n\
         fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n\
         out.pad(self.name())\n}}\n}}\n\n"
    );
}

fn pascal(name: &str) -> String {
    let words = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.collect()
}

fn table(code: &mut String, chart: &Chart) {
    let types =
        "use crate::pure::chart::{Chart, Edge, StateRow, Trigger};\nuse std::borrow::Cow;\n";
    let texts = |words: &[Text]| words.iter().map(|word| text(word) + ", ").collect::<String>();
    let _ = write!(
        code,
        "/// The chart as a table.\npub static CHART: crate::pure::chart::Chart = table::CHART;\n\n\
         mod table {{\n{types}\
         static STATES: &[StateRow] = &[\n{states}];\nstatic EDGES: &[Edge] = &[\n{edges}];\n\
         static WORDS: [&[Cow<'static, str>]; 5] = [&[{events}], &[{guards}], &[{actions}], \
         &[{activities}], &[{delays}]];\n\
         pub const CHART: Chart = Chart {{\nid: {id},\ndescription: {description},\n\
         fingerprint: {fingerprint},\ninitial: {initial},\nstates: Cow::Borrowed(STATES),\n\
         edges: Cow::Borrowed(EDGES),\nevents: Cow::Borrowed(WORDS[0]),\n\
         guards: Cow::Borrowed(WORDS[1]),\nactions: Cow::Borrowed(WORDS[2]),\n\
         activities: Cow::Borrowed(WORDS[3]),\ndelays: Cow::Borrowed(WORDS[4]),\n\
         vocabulary: Cow::Borrowed(&[{vocabulary}]),\n}};\n}}\n",
        states = chart.states.iter().map(state).collect::<String>(),
        edges = chart.edges.iter().map(edge).collect::<String>(),
        events = texts(&chart.events),
        guards = texts(&chart.guards),
        actions = texts(&chart.actions),
        activities = texts(&chart.activities),
        delays = texts(&chart.delays),
        vocabulary = chart.vocabulary.iter().map(pair).collect::<String>(),
        id = text(&chart.id),
        description = text(&chart.description),
        fingerprint = chart.fingerprint,
        initial = chart.initial,
    );
}

fn text(text: &str) -> String {
    format!("Cow::Borrowed({text:?})")
}

fn pair((name, sentence): &(Text, Text)) -> String {
    format!("({}, {}), ", text(name), text(sentence))
}

fn state(row: &StateRow) -> String {
    format!(
        "StateRow {{ name: {}, description: {}, parent: {:?}, initial: {:?}, is_final: {}, \
         is_failure: {}, activity: {:?} }},\n",
        text(&row.name),
        text(&row.description),
        row.parent,
        row.initial,
        row.is_final,
        row.is_failure,
        row.activity
    )
}

fn edge(edge: &Edge) -> String {
    let description = edge.description.as_deref();
    let description = description.map_or("None".into(), |words| format!("Some({})", text(words)));
    format!(
        "Edge {{ source: {}, trigger: Trigger::{:?}, guard: {:?}, target: {:?}, \
         actions: Cow::Borrowed(&{:?}), description: {description} }},\n",
        edge.source, edge.trigger, edge.guard, edge.target, edge.actions
    )
}
