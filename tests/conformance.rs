//! `docs/conformance.md` is true: what it says of the tests is what the tests say of themselves.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const TABLE: &str = "docs/conformance.md";
const OPEN: &str = "not yet";

/// Rule and the tests that name it, `file::function`.
type Marks = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("it is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// `/// Spec: B-10, EX-22.` stands in the comment of the function that follows.
fn marks() -> Marks {
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|dir| sources(&root().join(dir), &mut files));
    let mut marks = Marks::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("it reads");
        let path = file.strip_prefix(root()).expect("below the root").display().to_string();
        let mut rules: Vec<String> = Vec::new();
        let mut going_on = false;
        for line in text.lines().map(str::trim) {
            let said = line.strip_prefix("/// Spec:").or(if going_on {
                line.strip_prefix("///")
            } else {
                None
            });
            if let Some(said) = said {
                going_on = said.trim().ends_with(',');
                rules.extend(
                    said.trim()
                        .trim_end_matches('.')
                        .split(',')
                        .map(|id| id.trim().to_owned())
                        .filter(|id| !id.is_empty()),
                );
            } else if let Some(name) = function(line).filter(|_| !rules.is_empty()) {
                for rule in rules.drain(..) {
                    marks.entry(rule).or_default().insert(format!("`{path}::{name}`"));
                }
            }
        }
        assert!(rules.is_empty(), "{path}: no function follows `Spec: {}`", rules.join(", "));
    }
    marks
}

fn function(line: &str) -> Option<&str> {
    let bare = line.trim_start_matches("pub ").trim_start_matches("async ");
    bare.strip_prefix("fn ")?.split(['(', '<']).next()
}

fn row(line: &str) -> Option<[&str; 4]> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let cells: [&str; 4] = cells.try_into().ok()?;
    cells[0].contains('-').then_some(cells)
}

/// The table as the tests want it.
fn made(table: &str, marks: &Marks) -> String {
    let mut lines = Vec::new();
    let (mut held, mut all) = (0, 0);
    for line in table.lines() {
        let Some([id, rule, _, remark]) = row(line) else {
            lines.push(line.to_owned());
            continue;
        };
        let tests: Vec<&str> = marks.get(id).into_iter().flatten().map(String::as_str).collect();
        let remark = if tests.is_empty() || remark != OPEN { remark } else { "" };
        all += 1;
        held += usize::from(!tests.is_empty());
        lines.push(format!("| {id} | {rule} | {} | {remark} |", tests.join("<br>")));
    }
    let counted = format!("{held} of {all} rules are held by tests.");
    let is_count = |line: &String| line.ends_with(" rules are held by tests.");
    if let Some(line) = lines.iter_mut().find(|line| is_count(line)) {
        *line = counted;
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_table_of_rules_and_tests_is_true() {
    let path = root().join(TABLE);
    let before = fs::read_to_string(&path).expect("it is there");
    let marks = marks();
    let after = made(&before, &marks);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &after).expect("it can be written");
    } else if let Some((old, new)) = before.lines().zip(after.lines()).find(|(a, b)| a != b) {
        panic!(
            "{TABLE} is not true: UPDATE=1 cargo nextest run --test conformance\n{old}\nhas to be\n{new}"
        );
    }
    let known: BTreeSet<&str> = after.lines().filter_map(row).map(|[id, ..]| id).collect();
    let unknown: Vec<_> = marks.iter().filter(|(id, _)| !known.contains(id.as_str())).collect();
    assert!(unknown.is_empty(), "no rules of these names: {unknown:?}");
    for [id, _, tests, remark] in after.lines().filter_map(row) {
        assert!(!tests.is_empty() || !remark.is_empty(), "{id} has neither a test nor a reason");
    }
}

#[test]
fn a_row_that_lies_is_noticed() {
    let table = "| B-1 | a rule | `tests/x.rs::gone` |  |\n";
    let marks =
        Marks::from([(String::from("B-1"), BTreeSet::from([String::from("`tests/x.rs::here`")]))]);
    assert_eq!(made(table, &marks), "| B-1 | a rule | `tests/x.rs::here` |  |\n");
    assert_ne!(made(table, &Marks::new()), table);
}
