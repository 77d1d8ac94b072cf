//! The `bootstrap` section: how a cluster is created. It counts once and never again.
use serde_json::{Map, Value};

use super::option::{INITDB_FORBIDDEN, command_options};
use super::postgresql::{command, is_map};
use super::reader::Section;
use super::scalar::python_text;
use super::{Bootstrap, CreateMethod, CustomMethod};
use crate::pure::postgres::recovery::{is_recovery, target_action, target_parameters};
use crate::pure::postgres::target::PARAMETERS as TARGETS;

fn seconds(section: &Section, key: &str) -> Option<u64> {
    section.integer(key, None, 1).and_then(|seconds| u64::try_from(seconds).ok())
}

/// Keys of a custom method that are Surus's to read; its program never sees them.
const METHOD_KEYS: [&str; 6] =
    ["command", "no_params", "keep_existing_recovery_conf", "recovery_conf", "scope", "datadir"];

pub(super) fn read(section: &Section) -> Bootstrap {
    if section.get("users").is_some() {
        section.warn("users", "creates no users (Patroni dropped it too); use post_bootstrap");
    }
    if let Some(dcs) = section.get("dcs") {
        let (_, odd) = super::dynamic::from_node(dcs, &format!("{}.dcs", section.path));
        odd.into_iter().for_each(|warning| section.pass_on(warning));
    }
    Bootstrap {
        dcs: Value::Object(section.map("dcs").unwrap_or_default()),
        initdb: command_options(section, "initdb", &INITDB_FORBIDDEN),
        pg_hba: section.lines("pg_hba").unwrap_or_default(),
        post_bootstrap: command(section, "post_bootstrap")
            .or_else(|| command(section, "post_init")),
        methods: methods(section),
        method_timeout_s: seconds(section, "method_timeout"),
        recovery_timeout_s: seconds(section, "recovery_timeout"),
        post_bootstrap_timeout_s: seconds(section, "post_bootstrap_timeout"),
    }
}

/// `methods`, Surus's own ordered list, else Patroni's `method`, else initdb.
fn methods(section: &Section) -> Vec<CreateMethod> {
    if !section.mentions("methods") {
        let name = section.text("method").unwrap_or_else(|| String::from("initdb"));
        return method(section, "method", &name).into_iter().collect();
    }
    if section.mentions("method") {
        section.fault("method", "stands beside bootstrap.methods; keep one of the two");
    }
    let names = section.texts("methods").unwrap_or_default();
    if names.is_empty() {
        section.fault("methods", "is empty; name the methods in the order of trying, or remove it");
    }
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            section.fault("methods", format!("names `{name}` twice; name it once"));
        }
    }
    names.iter().filter_map(|name| method(section, "methods", name)).collect()
}

/// A method that is named must work: falling back to initdb would make an empty cluster of what
/// was meant to be restored.
fn method(section: &Section, key: &str, name: &str) -> Option<CreateMethod> {
    if name == "initdb" {
        return Some(CreateMethod::Initdb);
    }
    if !is_map(section, name) {
        let message = format!(
            "names the section bootstrap.{name}, which is missing; add it with a `command`, or \
             write `initdb`"
        );
        section.fault(key, message);
        return None;
    }
    let own = section.child(name);
    let recovery_conf = own.map("recovery_conf");
    if own.mentions("recovery_conf") && recovery_conf.is_none() {
        own.fault("recovery_conf", "is empty; give its settings or remove it");
    }
    if let Some(conf) = &recovery_conf {
        check_recovery(&own, conf);
    }
    let extra = own.entries().iter().filter(|(key, _)| !METHOD_KEYS.contains(&key.as_str()));
    let command = command(&own, "command");
    if command.is_none() {
        own.fault("command", "is missing; say which program fills the data directory");
    }
    Some(CreateMethod::Custom(CustomMethod {
        command: command.unwrap_or_default(),
        no_params: own.truthy("no_params"),
        keep_existing_recovery_conf: own.truthy("keep_existing_recovery_conf"),
        recovery_conf,
        extra: extra.map(|(key, node)| (key.clone(), python_text(&node.value()))).collect(),
        name: name.to_string(),
    }))
}

/// What would end the new cluster before it began, or could never be told apart.
fn check_recovery(own: &Section, conf: &Map<String, Value>) {
    let (parameters, _) = target_parameters(conf);
    if target_action(&parameters) == "shutdown" {
        let message = "has recovery_target_action: shutdown, after which there is no new cluster; \
                       write promote, or pause to look at it first";
        own.fault("recovery_conf", message);
    }
    let targets: Vec<&str> =
        TARGETS.into_iter().filter(|name| parameters.contains_key(*name)).collect();
    if targets.len() > 1 {
        let message = format!("names {}; PostgreSQL takes one target", targets.join(" and "));
        own.fault("recovery_conf", message);
    }
    for key in conf.keys().filter(|key| !is_recovery(key)) {
        own.warn("recovery_conf", format!("`{key}` is no recovery setting and is left out"));
    }
}
