//! Options of initdb, pg_basebackup and pg_rewind: Patroni's list and map shapes, made one.
//!
//! A list holds names and one-key maps, a map holds pairs; any scalar may be a value. A forbidden
//! option is a fault in every spelling, also as the single token `name=value`.
use serde_json::Value;

use super::CommandOption;
use super::reader::Section;
use super::scalar::setting_text;
use super::tree::{Kind, Node};

/// What initdb may not be told: Surus says it.
pub const INITDB_FORBIDDEN: [&str; 5] = ["pgdata", "nosync", "pwfile", "sync-only", "version"];

/// What pg_basebackup may not be told: Surus says it, or no data directory would come of it.
pub const BASEBACKUP_FORBIDDEN: [&str; 12] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
    "target",
];

/// What pg_rewind may not be told: Surus says it, or the outcome would be something else.
pub const REWIND_FORBIDDEN: [&str; 10] = [
    "target-pgdata",
    "source-pgdata",
    "source-server",
    "write-recovery-conf",
    "dry-run",
    "restore-target-wal",
    "config-file",
    "no-ensure-shutdown",
    "version",
    "help",
];

/// The options below `key` of `section`, in file order.
pub fn command_options(section: &Section, key: &str, forbidden: &[&str]) -> Vec<CommandOption> {
    let Some(node) = section.get(key) else { return Vec::new() };
    let mut options = Vec::new();
    match &node.kind {
        Kind::List(items) => {
            for item in items {
                match of_item(item) {
                    Ok(option) => options.push(option),
                    Err(message) => section.fault(key, message),
                }
            }
        }
        Kind::Map(entries) => {
            for (name, value) in entries {
                match of_pair(name, value) {
                    Ok(option) => options.extend(option),
                    Err(message) => section.fault(key, message),
                }
            }
        }
        Kind::Scalar(_) => section.fault(key, "must be a list of options or a map"),
    }
    options.retain(|option| allowed(section, key, option, forbidden));
    options
}

/// An item of a list: `name`, `name=value`, or `{name: value}`.
fn of_item(item: &Node) -> Result<CommandOption, String> {
    match &item.kind {
        Kind::Scalar(Value::String(text)) => Ok(of_token(text)),
        Kind::Map(entries) => match entries.as_slice() {
            [(name, value)] => of_pair(name, value)?
                .ok_or_else(|| format!("the option `{name}` has no value; write only its name")),
            _ => {
                Err("an option of a list is one `name: value`; start each with its own `-`".into())
            }
        },
        _ => Err("an option of a list is its name, or `name: value`".into()),
    }
}

/// A single token; dashes in front are tolerated, as people write them.
fn of_token(text: &str) -> CommandOption {
    let text = text.trim().trim_start_matches("--");
    match text.split_once('=') {
        Some((name, value)) => {
            CommandOption { name: name.trim().into(), value: Some(unquoted(value)) }
        }
        None => CommandOption { name: text.into(), value: None },
    }
}

/// A pair; `true` is the bare option, `false`, null and the empty text leave it out.
fn of_pair(name: &str, value: &Node) -> Result<Option<CommandOption>, String> {
    let name = name.trim().trim_start_matches("--").to_string();
    let Kind::Scalar(value) = &value.kind else {
        return Err(format!("the option `{name}` must have one plain value"));
    };
    Ok(match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(CommandOption { name, value: None }),
        other => {
            let text = unquoted(&setting_text(other).unwrap_or_default());
            if text.is_empty() { None } else { Some(CommandOption { name, value: Some(text) }) }
        }
    })
}

/// Takes off one pair of shell quotes if the whole text is one quoted word.
fn unquoted(text: &str) -> String {
    let quoted = text.len() >= 2 && (text.starts_with('"') || text.starts_with('\''));
    match shlex::split(text) {
        Some(words) if quoted && words.len() == 1 => words.concat(),
        _ => text.to_string(),
    }
}

fn allowed(section: &Section, key: &str, option: &CommandOption, forbidden: &[&str]) -> bool {
    let wrong = if option.name.is_empty() {
        Some("an option has no name; remove it".to_string())
    } else if !option.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        Some(format!("`{}` is not the name of an option; use its long name", option.name))
    } else if forbidden.contains(&option.name.replace('_', "-").as_str()) {
        Some(format!("the option `{}` is set by Surus itself; remove it", option.name))
    } else {
        None
    };
    if let Some(message) = &wrong {
        section.fault(key, message.clone());
    }
    wrong.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::config::faults::Report;
    use std::sync::Arc;

    fn read(text: &str) -> (Vec<String>, usize) {
        let report = Report::default();
        let node = super::super::yaml::parse(&Arc::from("f"), text, &report).expect("YAML");
        let top = Section::top(&node, &report);
        let options = command_options(&top, "o", &INITDB_FORBIDDEN);
        (options.iter().map(CommandOption::argument).collect(), report.finish().0.len())
    }

    /// Spec: B-3, B-5, B-6, BB-3, BB-4, EX-3.
    #[test]
    fn lists_and_maps_of_any_scalar_are_accepted() {
        let list = "o:\n- encoding: UTF8\n- data-checksums\n- wal-segsize: 64\n- locale=C\n";
        let expected = ["--encoding=UTF8", "--data-checksums", "--wal-segsize=64", "--locale=C"];
        assert_eq!(read(list), (expected.map(String::from).to_vec(), 0));
        let map = "o: {encoding: UTF8, data-checksums: true, wal-segsize: 64, debug: false}\n";
        let expected = ["--encoding=UTF8", "--data-checksums", "--wal-segsize=64"];
        assert_eq!(read(map), (expected.map(String::from).to_vec(), 0));
    }

    /// Spec: B-3.
    #[test]
    fn one_quoted_word_loses_its_quotes() {
        assert_eq!(read("o:\n- text-search-config: '\"a b\"'\n").0, ["--text-search-config=a b"]);
        assert_eq!(read("o:\n- x: it's\n").0, ["--x=it's"]);
    }

    /// Spec: B-4, BB-2.
    #[test]
    fn forbidden_options_are_faults_in_every_spelling() {
        for text in ["- pgdata: /x", "- pgdata=/x", "- nosync", "- --pwfile=/x", "- sync_only"] {
            assert_eq!(read(&format!("o:\n{text}\n")), (vec![], 1), "{text}");
        }
        assert_eq!(read("o: {version: true}\n"), (vec![], 1));
    }

    /// Spec: RW-4.
    #[test]
    fn pg_rewind_keeps_what_is_ours() {
        let report = Report::default();
        let text = "r:\n- debug\n- restore-target-wal\n- source-server=x\n- sync-method: fsync\n";
        let node = super::super::yaml::parse(&Arc::from("f"), text, &report).expect("YAML");
        let options = command_options(&Section::top(&node, &report), "r", &REWIND_FORBIDDEN);
        let options: Vec<String> = options.iter().map(CommandOption::argument).collect();
        assert_eq!(options, ["--debug", "--sync-method=fsync"]);
        assert_eq!(report.finish().0.len(), 2);
    }

    /// Spec: B-4, B-5.
    #[test]
    fn odd_shapes_are_faults_and_never_panic() {
        for text in ["- {a: 1, b: 2}", "- {}", "- [x]", "- a: [1]", "- 5", "- ''", "- 'a b'"] {
            assert_eq!(read(&format!("o:\n{text}\n")).1, 1, "{text}");
        }
        assert_eq!(read("o: encoding\n").1, 1);
    }
}
