//! `show-config` and `edit-config`.
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::{env, fs, io};

use serde_json::{Map, Value};
use similar::TextDiff;

use super::args::{Cluster, EditConfig};
use super::client::{ACTION_WAIT, Client};
use super::output::{line, yaml};
use super::{Outcome, members, prompt};
use crate::pure::cluster::apply::merge;
use crate::pure::config::yaml_value;

pub fn show(client: &Client, task: &Cluster) -> Outcome {
    let (scope, _) = members::cluster(client, task.cluster.as_deref())?;
    line(&yaml(&sorted(&current(client, &scope)?.0)));
    Ok(())
}

/// The configuration and the version under which it may be replaced.
fn current(client: &Client, scope: &str) -> Outcome<(Value, Option<String>)> {
    let answer = client.any("/config")?;
    if answer.code != 200 {
        return Err(format!("The config key does not exist in the cluster {scope}").into());
    }
    let value = serde_json::from_str(&answer.body);
    Ok((value.map_err(|error| format!("/config is not JSON: {error}"))?, answer.etag))
}

/// Keys in alphabetical order, all the way down.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut pairs: Vec<_> = object.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

pub fn edit(client: &Client, task: &EditConfig) -> Outcome {
    let (scope, _) = members::cluster(client, task.cluster.as_deref())?;
    let (before, version) = current(client, &scope)?;
    let after = changed(&before, task)?;
    if after == before {
        line("Not changed");
        return Ok(());
    }
    if !task.quiet {
        line(&difference(&before, &after));
    }
    let piped = [&task.apply, &task.replace].into_iter().flatten().any(|file| file == "-");
    if piped && !task.force {
        line("Use --force option to apply changes");
        return Ok(());
    }
    if !task.force && !prompt::yes("Apply these changes?")? {
        return Ok(());
    }
    let answer = client.replace_config(&after, version.as_deref(), ACTION_WAIT)?;
    match answer.code {
        200 => line("Configuration changed"),
        409 => return Err("Config modification aborted due to concurrent changes".into()),
        code => {
            let text = format!("Configuration not changed: {code}, {}", answer.body.trim());
            return Err(text.into());
        }
    }
    Ok(())
}

fn difference(before: &Value, after: &Value) -> String {
    let (before, after) = (text(before), text(after));
    let diff = TextDiff::from_lines(&before, &after);
    diff.unified_diff().header("", "").to_string().trim_end().to_owned()
}

fn text(value: &Value) -> String {
    yaml(&sorted(value)) + "\n"
}

fn changed(before: &Value, task: &EditConfig) -> Outcome<Value> {
    let mut after = before.clone();
    let by_option = task.apply.is_some()
        || task.replace.is_some()
        || !task.set.is_empty()
        || !task.pg.is_empty();
    if !by_option {
        return edited(before);
    }
    if let Some(file) = &task.replace {
        after = mapping(&read(file)?)?;
    }
    if let Some(file) = &task.apply {
        merge(&mut after, &mapping(&read(file)?)?);
    }
    for setting in &task.set {
        set(&mut after, setting, "")?;
    }
    for setting in &task.pg {
        set(&mut after, setting, "postgresql.parameters.")?;
    }
    Ok(after)
}

fn read(file: &str) -> Outcome<String> {
    let mut text = String::new();
    let done = match file {
        "-" => io::stdin().read_to_string(&mut text).map(|_| ()),
        file => fs::read_to_string(file).map(|read| text = read),
    };
    done.map_err(|error| format!("{file} cannot be read: {error}"))?;
    Ok(text)
}

fn mapping(text: &str) -> Outcome<Value> {
    match value_of(text)? {
        value @ Value::Object(_) => Ok(value),
        _ => Err("The configuration must be a mapping of keys".into()),
    }
}

fn value_of(text: &str) -> Outcome<Value> {
    yaml_value(text).map_err(Into::into)
}

/// `a.b=value`: null or nothing removes; below postgresql.parameters the rest is one name.
fn set(config: &mut Value, setting: &str, prefix: &str) -> Outcome {
    let wrong = || format!("Invalid parameter setting {setting}");
    let (path, text) = setting.split_once('=').ok_or_else(wrong)?;
    let path = format!("{prefix}{}", path.trim());
    let value = if text.trim().is_empty() { Value::Null } else { value_of(text)? };
    let keys: Vec<&str> = match path.strip_prefix("postgresql.parameters.") {
        Some(name) => vec!["postgresql", "parameters", name],
        None => path.split('.').collect(),
    };
    if keys.iter().any(|key| key.is_empty()) {
        return Err(wrong().into());
    }
    put(config, &keys, value);
    Ok(())
}

/// Sets or removes; an object that became empty goes with its last key.
fn put(config: &mut Value, keys: &[&str], value: Value) {
    let Some((key, rest)) = keys.split_first() else {
        *config = value;
        return;
    };
    if !config.is_object() {
        if value.is_null() {
            return;
        }
        *config = Value::Object(Map::new());
    }
    let Some(object) = config.as_object_mut() else { return };
    let removing = value.is_null();
    let inner = object.entry((*key).to_owned()).or_insert(Value::Null);
    put(inner, rest, value);
    let empty = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
    if removing && empty {
        object.shift_remove(*key);
    }
}

/// Opens an editor on the configuration. One that is named needs no terminal: it may be a script.
fn edited(before: &Value) -> Outcome<Value> {
    if named_editor().is_none() && !io::stdin().is_terminal() {
        return Err("No terminal to edit in: use -s, -p, --apply or --replace, or name a program \
                    by EDITOR"
            .into());
    }
    let path = env::temp_dir().join(format!("surus-config-{}.yaml", std::process::id()));
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    // Never through somebody else's file or link of the same name.
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    opened.and_then(|mut file| file.write_all(text(before).as_bytes())).map_err(failed)?;
    let after = open_editor(&path).and_then(|()| {
        let text = fs::read_to_string(&path).map_err(failed)?;
        mapping(&text)
    });
    let _ = fs::remove_file(&path);
    after
}

fn named_editor() -> Option<String> {
    env::var("EDITOR").ok().filter(|editor| !editor.trim().is_empty())
}

fn open_editor(path: &std::path::Path) -> Outcome {
    for editor in named_editor().into_iter().chain(["editor".to_owned(), "vi".to_owned()]) {
        let mut words = shlex::split(&editor).unwrap_or_default().into_iter();
        let Some(program) = words.next() else { continue };
        match Command::new(program).args(words).arg(path).status() {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => return Err(format!("{editor} ended with {status}").into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{editor} cannot be started: {error}").into()),
        }
    }
    Err("EDITOR environment variable is not set. editor or vi are not available".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(settings: &[&str], prefix: &str) -> Value {
        let mut config = json!({"ttl": 30, "postgresql": {"parameters": {"work_mem": "4MB"}}});
        for setting in settings {
            set(&mut config, setting, prefix).expect("a good setting");
        }
        config
    }

    #[test]
    fn settings_reach_into_the_tree() {
        let pg = json!({"ttl": 30, "postgresql": {"parameters": {"work_mem": "8MB", "a.b": 1}}});
        assert_eq!(after(&["work_mem=8MB", "a.b=1"], "postgresql.parameters."), pg);
        assert_eq!(after(&["synchronous_mode=true"], "")["synchronous_mode"], json!(true));
        assert_eq!(after(&["standby_cluster.host=h"], "")["standby_cluster"], json!({"host": "h"}));
    }

    /// A number that begins with a zero is octal for PostgreSQL: it was read as decimal, and stored so.
    #[test]
    fn numbers_keep_how_they_were_written() {
        let pg = "postgresql.parameters.";
        let mode = |config: Value| config["postgresql"]["parameters"]["log_file_mode"].clone();
        assert_eq!(mode(after(&["log_file_mode=0640"], pg)), json!("0640"));
        let text = "postgresql: {parameters: {log_file_mode: 0400}}";
        assert_eq!(mode(mapping(text).expect("a mapping")), json!("0400"));
        assert_eq!(after(&["hot_standby=on"], pg)["postgresql"]["parameters"]["hot_standby"], true);
    }

    #[test]
    fn null_removes_and_empty_objects_go_too() {
        assert_eq!(after(&["postgresql.parameters.work_mem=null"], ""), json!({"ttl": 30}));
        assert_eq!(after(&["ttl="], "")["ttl"], Value::Null);
        assert_eq!(after(&["nothing.at.all=null"], ""), after(&[], ""));
    }

    #[test]
    fn wrong_settings_are_named() {
        for bad in ["ttl", "=3", "a..b=1", ".a=1"] {
            let error = set(&mut json!({}), bad, "").expect_err("refused");
            assert_eq!(error, format!("Invalid parameter setting {bad}").into());
        }
    }

    #[test]
    fn the_difference_is_unified() {
        let shown = difference(&json!({"ttl": 30, "a": 1}), &json!({"ttl": 20, "a": 1}));
        assert!(shown.contains("\n-ttl: 30\n+ttl: 20"), "{shown}");
        assert!(shown.starts_with("--- \n+++ \n@@ "), "{shown}");
    }
}
