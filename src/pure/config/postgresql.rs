//! The `postgresql` section: where the server is, who may connect, how copies are made.
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::option::{BASEBACKUP_FORBIDDEN, REWIND_FORBIDDEN, command_options};
use super::reader::Section;
use super::scalar::python_text;
use super::sections::{listen, reachable};
use super::tree::{Kind, Node};
use super::{Callbacks, HostPort, PgUser, PostgresSettings, Postgresql, ReplicaMethod, Secret};
use crate::pure::postgres::owned::is_owned;

pub(super) fn read(section: &Section, env: &BTreeMap<String, String>) -> Postgresql {
    let example = "10.0.0.1:5432";
    section.required_text("listen", example);
    let (listen_addresses, port) = listen(section, "listen");
    let listening = HostPort { host: listen_addresses.clone(), port };
    let connect = section.address("connect_address", 5432);
    let users = section.child("authentication");
    name_owned(&section.child("parameters"));
    if section.get("use_slots").is_some() {
        section.warn("use_slots", "has no effect here; set it in the dynamic configuration");
    }
    Postgresql {
        connect_address: reachable(section, connect, &listening, example),
        listen_addresses,
        port,
        data_dir: absolute(section, "data_dir", true).unwrap_or_default(),
        bin_dir: absolute(section, "bin_dir", false),
        config_dir: absolute(section, "config_dir", false),
        database: section.text("database").unwrap_or_else(|| "postgres".into()),
        pgpass: section.text("pgpass").map_or_else(|| home(env).join("pgpass"), PathBuf::from),
        superuser: user(&users.child("superuser"), "postgres"),
        replication: user(&users.child("replication"), "replicator"),
        rewind: users.get("rewind").map(|_| user(&users.child("rewind"), "rewind_user")),
        settings: settings(section),
        use_unix_socket: section.flag("use_unix_socket").unwrap_or(false),
        custom_conf: section.text("custom_conf").map(PathBuf::from),
        basebackup: command_options(section, "basebackup", &BASEBACKUP_FORBIDDEN),
        rewind_options: command_options(section, "rewind", &REWIND_FORBIDDEN),
        create_replica_methods: methods(section),
        spare_methods: spare_methods(section),
    }
}

/// A parameter that must agree on all nodes has no effect in one node's file.
fn name_owned(parameters: &Section) {
    for (name, _) in parameters.entries().iter().filter(|(name, _)| is_owned(name)) {
        let message = "has no effect here, because it must agree on all nodes; set it in the \
                       dynamic configuration (bootstrap.dcs before the first start)";
        parameters.warn(name, message);
    }
}

fn home(env: &BTreeMap<String, String>) -> PathBuf {
    PathBuf::from(env.get("HOME").filter(|home| !home.is_empty()).map_or("/", String::as_str))
}

fn absolute(section: &Section, key: &str, required: bool) -> Option<PathBuf> {
    if required {
        section.required_text(key, "/var/lib/postgresql/data");
    }
    let path = section.text(key).filter(|text| !text.is_empty()).map(PathBuf::from)?;
    if !path.is_absolute() {
        let shown = path.display();
        section.fault(key, format!("`{shown}` is a relative path; write it from the root"));
    }
    Some(path)
}

fn user(section: &Section, example: &str) -> PgUser {
    let keywords = super::LIBPQ_KEYWORDS.into_iter();
    if section.text("password").is_some_and(|text| text.contains(['\n', '\r', '\0'])) {
        section.fault("password", "must not hold line ends; the password file cannot carry them");
    }
    PgUser {
        username: section.required_text("username", example),
        // An empty one is none: initdb refuses it.
        password: section.text("password").filter(|text| !text.is_empty()).map(Secret),
        options: keywords.filter_map(|k| Some((k.to_string(), section.text(k)?))).collect(),
    }
}

/// The keys that may stand in the local file and in the dynamic configuration alike.
pub(super) fn settings(section: &Section) -> PostgresSettings {
    let callbacks = section.child("callbacks");
    let timeout = section.integer("pg_ctl_timeout", Some("s"), 0);
    PostgresSettings {
        parameters: section.map("parameters").unwrap_or_default(),
        pg_hba: section.lines("pg_hba").filter(|lines| !lines.is_empty()),
        pg_ident: section.lines("pg_ident").filter(|lines| !lines.is_empty()),
        recovery_conf: section.map("recovery_conf").unwrap_or_default(),
        use_pg_rewind: section.flag("use_pg_rewind"),
        use_slots: section.flag("use_slots"),
        remove_data_directory_on_rewind_failure: section
            .flag("remove_data_directory_on_rewind_failure"),
        remove_data_directory_on_diverged_timelines: section
            .flag("remove_data_directory_on_diverged_timelines"),
        callbacks: Callbacks {
            on_start: command(&callbacks, "on_start"),
            on_stop: command(&callbacks, "on_stop"),
            on_restart: command(&callbacks, "on_restart"),
            on_reload: command(&callbacks, "on_reload"),
            on_role_change: command(&callbacks, "on_role_change"),
        },
        pre_promote: command(section, "pre_promote"),
        before_stop: command(section, "before_stop"),
        pg_ctl_timeout: timeout.and_then(|s| u64::try_from(s).ok()),
    }
}

/// A command line that can be split into words as a shell would.
pub(super) fn command(section: &Section, key: &str) -> Option<String> {
    let text = section.text(key).filter(|text| !text.trim().is_empty())?;
    if shlex::split(&text).is_none() {
        section.fault(key, "is not a command line; close the quote that is open");
    }
    Some(text)
}

/// The ways to make a replica, in order; `basebackup` when nothing is said.
fn methods(section: &Section) -> Vec<ReplicaMethod> {
    let names = section
        .texts("create_replica_methods")
        .or_else(|| section.texts("create_replica_method"))
        .filter(|names| !names.is_empty())
        .unwrap_or_else(|| vec!["basebackup".into()]);
    names.into_iter().map(|name| method(section, name)).collect()
}

/// Every section that has a command of its own.
fn spare_methods(section: &Section) -> Vec<ReplicaMethod> {
    let has_command = |(key, node): &&(String, Node)| {
        key != "basebackup" && matches!(node.kind, Kind::Map(_)) && node.get("command").is_some()
    };
    let spare = section.entries().iter().filter(has_command);
    spare.map(|(key, _)| method(section, key.clone())).collect()
}

fn method(section: &Section, name: String) -> ReplicaMethod {
    if name == "basebackup" {
        return ReplicaMethod { name, ..ReplicaMethod::default() };
    }
    if section.get(&name).is_some() && !is_map(section, &name) {
        section.fault(&name, "must be a map: `command` and the method's own keys");
        return ReplicaMethod { name, ..ReplicaMethod::default() };
    }
    let own = section.child(&name);
    let told = |key: &str| !["command", "keep_existing_recovery_conf"].contains(&key);
    let extra = own.entries().iter().filter(|(key, _)| told(key));
    ReplicaMethod {
        command: command(&own, "command").unwrap_or_else(|| name.clone()),
        keep_data: own.truthy("keep_data"),
        no_params: own.truthy("no_params"),
        no_leader: own.truthy("no_leader") || own.truthy("no_master"),
        keep_existing_recovery_conf: own.truthy("keep_existing_recovery_conf"),
        extra: extra.map(|(key, node)| (key.clone(), python_text(&node.value()))).collect(),
        name,
    }
}

/// Whether a key holds a map, for sections with free names.
pub(super) fn is_map(section: &Section, key: &str) -> bool {
    section.get(key).is_some_and(|node| matches!(node.kind, Kind::Map(_)))
}
