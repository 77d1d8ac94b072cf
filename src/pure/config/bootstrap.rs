//! The `bootstrap` section: how a cluster is born. It counts once and never again.
use serde_json::Value;

use super::option::{INITDB_FORBIDDEN, command_options};
use super::postgresql::{command, is_map};
use super::reader::Section;
use super::scalar::python_text;
use super::{Bootstrap, CustomMethod};

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
        method: method(section),
    }
}

/// A method that is named must work: falling back to initdb would make an empty cluster of what
/// was meant to be restored.
fn method(section: &Section) -> Option<CustomMethod> {
    let name = section.text("method").filter(|name| name != "initdb")?;
    if !is_map(section, &name) {
        let message = format!(
            "names the section bootstrap.{name}, which is missing; add it with a `command`, or \
             write `method: initdb`"
        );
        section.fault("method", message);
        return None;
    }
    let own = section.child(&name);
    let recovery_conf = own.map("recovery_conf");
    if own.mentions("recovery_conf") && recovery_conf.is_none() {
        own.fault("recovery_conf", "is empty; give its settings or remove it");
    }
    let extra = own.entries().iter().filter(|(key, _)| !METHOD_KEYS.contains(&key.as_str()));
    let command = command(&own, "command");
    if command.is_none() {
        own.fault("command", "is missing; say which program fills the data directory");
    }
    Some(CustomMethod {
        command: command.unwrap_or_default(),
        no_params: own.truthy("no_params"),
        keep_existing_recovery_conf: own.truthy("keep_existing_recovery_conf"),
        recovery_conf,
        extra: extra.map(|(key, node)| (key.clone(), python_text(&node.value()))).collect(),
        name,
    })
}
