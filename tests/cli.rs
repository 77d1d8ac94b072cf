//! `surus sim`, `replay` and `what-if` as a person runs them: exit codes and sentences.
use std::path::{Path, PathBuf};
use std::process::Command;

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn surus(dir: &Path, words: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_surus"));
    let output = command.args(words).current_dir(dir).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    let code = output.status.code().expect("it ends by itself");
    Said { code, out: text(output.stdout), err: text(output.stderr) }
}

fn place() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("it is written");
    path
}

#[test]
fn a_seed_is_run_recorded_and_replayed() {
    let dir = place();
    let said = surus(dir.path(), &["sim", "--seed", "3", "--history", "h.json"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("1 seeds, "), "{}", said.out);
    let said = surus(dir.path(), &["replay", "h.json"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("node: deciding → "), "{}", said.out);
    assert!(said.out.contains("    asked: "), "{}", said.out);
    assert!(said.out.ends_with("today's code decides the same wherever it can be asked\n"));
    let said = surus(dir.path(), &["replay", "h.json", "--until", "2", "--node", "n1"]);
    assert!(said.out.contains("#2 ") && !said.out.contains("#3 "), "{}", said.out);
    let said = surus(dir.path(), &["replay", "h.json", "--diff", "h.json"]);
    assert_eq!((said.code, said.out.contains("both are the same")), (0, true), "{}", said.out);
    surus(dir.path(), &["sim", "--seed", "4", "--history", "other.json"]);
    let said = surus(dir.path(), &["replay", "h.json", "--diff", "other.json"]);
    assert_eq!((said.code, said.out.contains("transitions are the same; then:")), (1, true));
}

#[test]
fn an_expectation_that_fails_ends_with_1_and_the_command_that_repeats_it() {
    let dir = place();
    let story =
        "  - {at_ms: 9000, expect: {leader: some}}\n  - {at_ms: 10000, fault: switchover}\n";
    let text =
        format!("scenario: moves\nstory:\n{story}  - {{at_ms: 20000, expect: {{leader: same}}}}\n");
    file(dir.path(), "s.yaml", &text);
    let said = surus(dir.path(), &["sim", "--scenario", "s.yaml"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(said.out.contains("leads, not same"), "{}", said.out);
    assert!(said.out.ends_with("again: surus sim --scenario s.yaml\n"), "{:?}", said.out);
}

#[test]
fn what_cannot_be_read_ends_with_2_and_a_sentence() {
    let dir = place();
    file(dir.path(), "s.yaml", "scenario: x\nstory:\n  - {at_ms: 1, fault: swichover}\n");
    file(dir.path(), "cut.json", "{\"cluster\":\n");
    for (words, sentence) in [
        (&["sim", "--scenario", "s.yaml"][..], "s.yaml: line 3 column 23: unknown variant"),
        (&["sim", "--scenario", "absent.yaml"], "absent.yaml: No such file"),
        (&["sim", "--seeds", "9"], "write 0..2000"),
        (&["sim", "--for", "soon"], "write 90s, 10m or 1h30m"),
        (&["sim", "--clustered", "--scenario", "s.yaml"], "cannot be used with"),
        (&["sim", "--faults", "earthquake"], "possible values: kill_daemon"),
        (&["sim", "--seeds", "0..2", "--history", "h"], "--history is one run's"),
        (&["replay", "cut.json"], "cut.json: line 2, column 0: no JSON, or cut off"),
        (&["replay", "absent.json"], "absent.json: No such file"),
        (&["what-if", "--dump", "cut.json", "kill n1"], "cut.json: line 2, column 0"),
    ] {
        let said = surus(dir.path(), words);
        assert_eq!(said.code, 2, "{words:?}: {}{}", said.out, said.err);
        assert!(said.err.contains(sentence), "{words:?}: {}", said.err);
    }
}
