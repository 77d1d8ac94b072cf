//! The rules of the house, compiled.
//!
//! Each rule is a function from a file's name and text to complaints, tried on a small sinner below,
//! and then on every file. A rule that a file may break names the file, the place and the reason.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/text.rs"]
mod text;

use text::{code, functions, paths, without_tests, words};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer: file, function, why.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// What may not be named in `src/pure`, and why.
const BANNED: &[(&str, &str)] = &[
    ("actix", "decisions know no actors"),
    ("tokio", "decisions know no runtime"),
    ("sled", "decisions know no disk"),
    ("std::fs", "decisions know no disk"),
    ("std::net", "decisions know no network"),
    ("std::process", "decisions start nothing"),
    ("std::thread", "decisions wait for nobody"),
    ("std::env", "the environment arrives as a value"),
    ("Instant", "time arrives as a value"),
    ("SystemTime", "time arrives as a value"),
    ("rand", "randomness arrives as a value"),
    ("HashMap", "maps are ordered, or runs differ"),
    ("HashSet", "sets are ordered, or runs differ"),
    ("tracing", "records are the log"),
    ("println", "records are the log"),
];

/// Who in `src/pure` may name whom. A module may always name itself.
/// A file's own row (`module/file`) goes before its module's.
const LAYERS: &[(&str, &[&str])] = &[
    ("chart", &[]),
    ("postgres", &["config"]),
    ("config", &["postgres"]),
    ("cluster", &["postgres", "config"]),
    ("operation", &["chart", "machine", "postgres", "cluster"]),
    ("machine", &["chart", "operation", "postgres", "cluster"]),
    ("machine/any", &["chart", "operation", "node", "cluster"]),
    ("machine/stack", &["chart", "operation", "flow", "cluster"]),
    ("node/known", &["flow", "machine", "operation"]),
    ("node/requests", &["flow"]),
    ("node/status", &["flow", "postgres", "cluster"]),
    ("node", &["machine", "operation", "postgres", "cluster", "config"]),
    ("flow/any", &["chart", "machine", "operation", "postgres", "cluster", "config"]),
    ("flow", &["chart", "machine", "operation", "node", "postgres", "cluster", "random"]),
    ("guard", &["cluster"]),
    ("consensus", &["machine", "postgres", "cluster", "config", "view", "random"]),
    ("view", &["postgres", "cluster", "config"]),
    ("patroni", &["postgres", "cluster", "config", "view"]),
    ("dump", &["postgres", "cluster", "config", "view", "patroni"]),
    ("replay", &["flow", "machine"]),
];

/// What the programs outside the daemon may name of `host`, and of each other: a module, or one name in it.
const DOORS: &[(&str, &[&str])] = &[
    (
        "ctl",
        &[
            "host::config",
            "host::dump",
            "host::postgres::Connection",
            "host::postgres::account",
            "host::postgres::bootstrap_marker",
            "host::postgres::create",
            "host::postgres::files",
            "host::postgres::processes",
            "host::rest_client",
            "host::run::local_host",
        ],
    ),
    ("demo", &["host::postgres::account", "host::programs"]),
    ("tools", &["ctl", "host::clock", "host::journal", "host::restored", "host::store"]),
];

/// What is left over from work and may not stay; the text is put together so as not to find itself.
fn leftovers() -> Vec<String> {
    ["dbg", "todo", "unimplemented"].map(|name| format!("{name}!")).to_vec()
}

// ---------------------------------------------------------------------------------------------
// The rules

fn has_a_head(file: &str, source: &str) -> Vec<String> {
    let head = source.starts_with("//!");
    if head {
        vec![]
    } else {
        vec![format!("{file}: begins without `//!`: say what it is and why")]
    }
}

fn is_short(file: &str, source: &str) -> Vec<String> {
    let lines = source.lines().count();
    let mut complaints = vec![];
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{file}: {lines} lines; {FILE_LINES_MAX} do not pass: split it"));
    }
    for (name, line, lines) in functions(&code(source)) {
        let exempt = LONG_FUNCTIONS.iter().any(|(at, long, _)| (*at, *long) == (file, &name));
        if lines > FUNCTION_LINES_MAX && !exempt {
            complaints.push(format!("{file}:{line}: fn {name} has {lines} lines: divide it"));
        }
    }
    complaints
}

fn names_nothing_banned(file: &str, source: &str) -> Vec<String> {
    let code = code(source);
    let mut complaints = vec![];
    for &(word, because) in BANNED {
        let say = |line: usize| format!("{file}:{line}: `{word}` in src/pure: {because}");
        if let Some(module) = word.strip_prefix("std::") {
            let named = |path: &Vec<String>| path.first().is_some_and(|first| first == module);
            if std_paths(&code).iter().any(named) {
                complaints.push(say(1));
            }
        } else {
            complaints
                .extend(words(&code).filter(|&(_, it)| it == word).map(|(line, _)| say(line)));
        }
    }
    complaints
}

/// Paths below `std`, import lists included.
fn std_paths(code: &str) -> Vec<Vec<String>> {
    let ours = code.replace("crate::", "other::").replace("super::", "other::");
    paths(&ours.replace("std::", "crate::"), &[])
}

fn keeps_to_its_layer(file: &str, source: &str) -> Vec<String> {
    let module = module_of(file);
    let code = code(without_tests(source));
    let named = paths(&code, &module);
    let complaints = named.iter().filter_map(|path| {
        let why = forbidden(&module, path)?;
        Some(format!("{file}: names {}: {why}", path.join("::")))
    });
    complaints.collect::<BTreeSet<_>>().into_iter().collect()
}

/// `src/pure/flow/mod.rs` → pure flow; `src/pure/operation.rs` → pure operation.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').filter(|part| *part != "lib" && *part != "main").map(str::to_owned).collect()
}

fn forbidden(module: &[String], path: &[String]) -> Option<String> {
    let part = |path: &[String], at: usize| path.get(at).cloned().unwrap_or_default();
    let (home, from) = (part(module, 0), part(module, 1));
    let (there, to) = (part(path, 0), part(path, 1));
    match (home.as_str(), there.as_str()) {
        ("ctl" | "demo" | "tools", "pure") => return None,
        ("ctl" | "demo" | "tools", _) if home != there => return no_door(&home, path),
        ("pure" | "host" | "sim", "ctl" | "demo" | "tools") => {
            return Some("ctl, demo and tools stand outside: nothing inside needs them".into());
        }
        ("pure", "host" | "sim") => return Some("what is decided knows no world".into()),
        ("host", "sim") => return Some("the product knows no simulator".into()),
        ("sim", "host") => return Some("the simulator replaces the real world".into()),
        ("pure", "pure") => {}
        _ => return None,
    }
    if from.is_empty() || to.is_empty() {
        return None;
    }
    if from == to {
        let (one, other) = (part(module, 2), part(path, 2));
        let flows =
            from == "flow" && !one.is_empty() && one != "any" && is_module(&other) && one != other;
        return flows.then(|| "a flow runs another only by an operation".into());
    }
    let own = format!("{from}/{}", part(module, 2));
    let row = |wanted: &str| LAYERS.iter().find(|(name, _)| *name == wanted);
    let Some((_, allowed)) = row(&own).or_else(|| row(&from)) else {
        return Some(format!("`{from}` has no row in LAYERS of tests/tidy.rs: give it one"));
    };
    (!allowed.contains(&to.as_str())).then(|| format!("`{from}` may only name {allowed:?}"))
}

/// Why a program outside the daemon may not name this path.
fn no_door(program: &str, path: &[String]) -> Option<String> {
    let named = path.join("::");
    let (_, doors) = DOORS.iter().find(|(name, _)| *name == program)?;
    let open = |door: &&str| named == **door || named.starts_with(&format!("{door}::"));
    (!doors.iter().any(open)).then(|| format!("`{program}` may only name {doors:?}"))
}

fn is_module(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
}

fn leaves_nothing_over(file: &str, source: &str) -> Vec<String> {
    let all = code(source);
    let own = code(without_tests(source));
    let mut complaints = vec![];
    for leftover in leftovers() {
        if all.contains(&leftover) {
            complaints.push(format!("{file}: `{leftover}` is left over"));
        }
    }
    let unwraps = own.lines().enumerate().filter(|(_, line)| line.contains(".unwrap()"));
    complaints.extend(unwraps.map(|(line, _)| {
        format!("{file}:{}: `unwrap`: say why it cannot be, with `expect`", line + 1)
    }));
    complaints
}

/// Places of the machine that this was written on.
fn names_no_machine_path(file: &str, text: &str) -> Vec<String> {
    let mut complaints = vec![];
    for place in ["work", "root"] {
        let path = format!("/{place}/");
        let whole = |at: usize| {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            !before.is_alphanumeric() && !"._-/}*".contains(before)
        };
        for (at, _) in text.match_indices(&path).filter(|&(at, _)| whole(at)) {
            let line = text[..at].matches('\n').count() + 1;
            complaints.push(format!("{file}:{line}: `{path}` is a place of one machine"));
        }
    }
    complaints
}

// ---------------------------------------------------------------------------------------------
// The rules on every file

fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn below(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut todo = vec![home().join(directory)];
    while let Some(at) = todo.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|end| end == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn every(directories: &[&str], rule: impl Fn(&str, &str) -> Vec<String>) {
    let mut complaints = vec![];
    for path in directories.iter().flat_map(|directory| below(directory, "rs")) {
        let name = path.strip_prefix(home()).expect("it was found below").display().to_string();
        let source = fs::read_to_string(&path).expect("a source file can be read");
        complaints.extend(rule(&name, &source));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    every(&["src", "tests", "statecharts"], has_a_head);
}

#[test]
fn files_and_functions_are_short() {
    every(&["src", "tests", "statecharts"], is_short);
}

#[test]
fn exemptions_are_needed() {
    for (file, function, _) in LONG_FUNCTIONS {
        let source = fs::read_to_string(home().join(file)).unwrap_or_default();
        let long = |(name, _, lines): &(String, usize, usize)| {
            name == function && *lines > FUNCTION_LINES_MAX
        };
        assert!(functions(&code(&source)).iter().any(long), "{file}: {function} is short by now");
    }
}

#[test]
fn pure_is_pure() {
    every(&["src/pure"], names_nothing_banned);
}

#[test]
fn imports_go_one_way() {
    every(&["src"], keeps_to_its_layer);
}

#[test]
fn nothing_is_left_over() {
    every(&["src", "statecharts"], leaves_nothing_over);
}

/// What runs is what is proved: the rules among flows stand in `pure/machine/stack.rs` only.
fn leaves_supervision_to_the_stack(file: &str, source: &str) -> Vec<String> {
    let code = code(without_tests(source));
    let own = ["Machine::start(", "Machine::resume(", ".persist("];
    let found = own.iter().filter(|call| !file.contains("/fuzz/") && code.contains(**call));
    found.map(|call| format!("{file}: `{call}…)`: drivers run flows by a Frame")).collect()
}

#[test]
fn drivers_run_flows_by_the_stack() {
    every(&["src/host", "src/sim"], leaves_supervision_to_the_stack);
}

/// Words of the house's first dialect: whoever knows PostgreSQL, Patroni, Raft and XState could not
/// search for them. The text is put together so as not to find itself.
fn retired_words() -> Vec<String> {
    let halves = [
        ("de", "ed"),
        ("bri", "ef"),
        ("lu", "ck"),
        ("misfor", "tune"),
        ("wea", "ther"),
        ("still", "born"),
        ("trou", "bled"),
        ("doub", "ting"),
        ("resig", "ning"),
        ("adr", "ift"),
        ("estr", "anged"),
        ("astr", "ay"),
        ("declin", "ing"),
        ("fare", "well"),
        ("anoth", "ers"),
    ];
    halves.iter().flat_map(|(a, b)| [format!("{a}{b}"), format!("{a}{b}s")]).collect()
}

/// Parts of identifiers, file names and states; prose keeps its English.
fn speaks_the_fields_words(file: &str, source: &str) -> Vec<String> {
    let retired = retired_words();
    let code = format!("{} {}", file.replace(['/', '.'], " "), code(source));
    let mut complaints = BTreeSet::new();
    for (_, word) in words(&code) {
        let parts = snake(word);
        if let Some(part) = parts.split('_').find(|part| retired.iter().any(|old| old == part)) {
            complaints.insert(format!("{file}: `{word}`: the word `{part}` is retired"));
        }
    }
    complaints.into_iter().collect()
}

/// `FailOperations` → `fail_operations`.
fn snake(word: &str) -> String {
    let mut out = String::new();
    for letter in word.chars() {
        if letter.is_ascii_uppercase() && !out.ends_with('_') && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[test]
fn retired_words_do_not_come_back() {
    every(&["src", "tests", "statecharts"], speaks_the_fields_words);
    let charts = below("statecharts", "json");
    let texts = charts.iter().map(|path| fs::read_to_string(path).expect("a chart can be read"));
    let joined: String = texts.collect();
    let found = retired_words()
        .into_iter()
        .find(|word| joined.split(|c: char| !c.is_ascii_lowercase()).any(|part| part == word));
    assert_eq!(found, None, "in a chart");
}

#[test]
fn charts_and_flows_are_one_to_one() {
    let stems = |files: Vec<PathBuf>| -> BTreeSet<String> {
        let stem = |path: &PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        files
            .iter()
            .filter_map(stem)
            .filter(|stem| !["mod", "any", "tests"].contains(&&**stem))
            .collect()
    };
    assert_eq!(stems(below("statecharts", "json")), stems(below("src/pure/flow", "rs")));
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    let listing = Command::new("git").arg("ls-files").current_dir(home()).output();
    let Some(listing) = listing.ok().filter(|listing| listing.status.success()) else {
        eprintln!("skipped: not a git checkout");
        return;
    };
    let names = String::from_utf8_lossy(&listing.stdout).into_owned();
    let texts = names.lines().filter_map(|name| Some((name, fs::read(home().join(name)).ok()?)));
    let complaints: Vec<String> = texts
        .flat_map(|(name, text)| names_no_machine_path(name, &String::from_utf8_lossy(&text)))
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// ---------------------------------------------------------------------------------------------
// The rules on small sinners

#[track_caller]
fn caught(complaints: &[String], word: &str) {
    assert!(complaints.iter().any(|complaint| complaint.contains(word)), "{complaints:?}");
}

#[test]
fn sinners_are_caught() {
    caught(&has_a_head("x.rs", "// no head\n"), "without `//!`");
    caught(&is_short("x.rs", &"\n".repeat(FILE_LINES_MAX + 1)), "lines");
    let long = format!("fn short() {{}}\nfn f(a: [u8; 2]) {{\n{}}}\n", "a();\n".repeat(70));
    let complaints = is_short("x.rs", &long);
    assert_eq!(complaints, ["x.rs:2: fn f has 72 lines: divide it"]);
    caught(&leaves_nothing_over("x.rs", "fn f() { g().unwrap(); }"), "`unwrap`");
    caught(
        &leaves_nothing_over("x.rs", &format!("fn f() {{ {}() }}", leftovers()[1])),
        "left over",
    );
    let path = format!("see /{}/notes", "work");
    caught(&names_no_machine_path("x.md", &path), "one machine");
    assert!(names_no_machine_path("x.md", &format!("home/{}/x", "work")).is_empty());
}

#[test]
fn banned_words_are_caught_in_code_only() {
    caught(&names_nothing_banned("x.rs", "use std::collections::HashMap;"), "`HashMap`");
    caught(&names_nothing_banned("x.rs", "use std::{fmt, fs::File};"), "`std::fs`");
    caught(&names_nothing_banned("x.rs", "fn f() { std::env::var(\"A\"); }"), "`std::env`");
    let innocent = "// tokio\n/* rand /* sled */ */ let a = \"HashMap\"; let b = r#\"\" tracing\"#;\n\
                    let operand = '\"'; let c: &'static str = \"\\\" Instant\"; use std::fmt;";
    assert_eq!(names_nothing_banned("x.rs", innocent), Vec::<String>::new());
}

#[test]
fn imports_against_the_layers_are_caught() {
    let chart = "src/pure/chart/step.rs";
    caught(
        &keeps_to_its_layer(chart, "use crate::pure::operation::Operation;"),
        "pure::operation::Operation",
    );
    caught(&keeps_to_its_layer(chart, "use super::super::machine::Flow;"), "pure::machine::Flow");
    caught(&keeps_to_its_layer(chart, "use crate::{pure::{chart::x, flow::y}, z};"), "flow::y");
    assert!(keeps_to_its_layer(chart, "use super::{Chart, draw::mermaid as m, Edge};").is_empty());
    let flow = "src/pure/flow/demote.rs";
    caught(&keeps_to_its_layer(flow, "use super::promote::State;"), "only by an operation");
    caught(&keeps_to_its_layer(flow, "use crate::host::clock;"), "knows no world");
    assert!(
        keeps_to_its_layer(flow, "use crate::pure::operation::{Operation, StopMode};").is_empty()
    );
    caught(&keeps_to_its_layer("src/host/run.rs", "use crate::sim::world;"), "no simulator");
    caught(&keeps_to_its_layer("src/sim/world.rs", "use crate::host::clock;"), "real world");
    caught(
        &keeps_to_its_layer("src/pure/new.rs", "use super::operation::Operation;"),
        "no row in LAYERS",
    );
}

#[test]
fn doors_of_the_daemon_are_watched() {
    for inside in ["src/host/run.rs", "src/host/lost_state.rs", "src/sim/world.rs", "src/pure/x.rs"]
    {
        caught(&keeps_to_its_layer(inside, "use crate::ctl::client;"), "stand outside");
    }
    let ctl = |source: &str| keeps_to_its_layer("src/ctl/list.rs", source);
    caught(&ctl("use crate::sim::world;"), "`ctl` may only name");
    caught(&ctl("use crate::host::run::run;"), "`ctl` may only name");
    caught(&ctl("use crate::host::configs;"), "`ctl` may only name");
    caught(&ctl("use crate::demo::plan;"), "`ctl` may only name");
    let good = "use crate::{ctl::row, pure::x}; use crate::host::{dump, run::local_host};";
    assert!(ctl(good).is_empty());
}

/// A door that nobody uses is open for nothing.
#[test]
fn every_door_is_used() {
    for (program, doors) in DOORS {
        let sources = below(&format!("src/{program}"), "rs");
        let named: Vec<String> = sources
            .iter()
            .flat_map(|file| paths(&code(&fs::read_to_string(file).expect("a source file")), &[]))
            .map(|path| path.join("::"))
            .collect();
        for door in *doors {
            let used = named.iter().any(|n| n == door || n.starts_with(&format!("{door}::")));
            assert!(used, "`{program}` names {door} no more: shut the door");
        }
    }
}

/// A planted fault whose place is gone would be found out only by the next long run.
#[test]
fn every_planted_fault_has_its_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match Command::new("python3").arg(root.join("scripts/sabotage")).arg("--list").output() {
        Ok(done) => assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr)),
        Err(error) => assert!(
            std::env::var_os("SURUS_REQUIRE_POSTGRES").is_none(),
            "the list is read by python3: {error}"
        ),
    }
}
