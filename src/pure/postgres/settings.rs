//! The server's parameters, worked out from configuration and facts, and the text of
//! postgresql.conf. The file is always written whole.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::owned::{is_on_command_line, is_owned, owned_values};
use super::version::Version;
use crate::pure::config::PostgresSettings;
use crate::pure::config::scalar::setting_text;

/// Parameters by name, each with the text that PostgreSQL reads.
pub type Parameters = BTreeMap<String, String>;

/// Everything that decides what one server runs with.
#[derive(Clone, Debug)]
pub struct Server<'a> {
    pub scope: &'a str,
    /// `listen_addresses` as text, `*` allowed.
    pub listen_addresses: &'a str,
    pub port: u16,
    /// Where pg_hba.conf and pg_ident.conf are; without a trailing slash.
    pub config_dir: &'a str,
    pub version: Version,
    /// The result of [`crate::pure::config::effective()`].
    pub settings: &'a PostgresSettings,
    /// The control file's `settings` under PostgreSQL's names; empty before initdb.
    pub control: &'a BTreeMap<String, String>,
    /// Anything but a primary: then the values of the control file are lower bounds.
    pub standby: bool,
    /// While Surus decides about synchronous standbys, its text; otherwise the user's own counts.
    pub synchronous_standby_names: Option<&'a str>,
    /// Logical slots here or below need the primary to keep rows.
    pub hot_standby_feedback: bool,
    /// `postgres --describe-config` knows these; absent when nobody asked.
    pub known: Option<&'a BTreeSet<String>>,
}

/// Whoever sets these would run another cluster than the one that is watched.
const NEVER: [&str; 2] = ["data_directory", "config_file"];

/// The parameters and what had to be done to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    pub parameters: Parameters,
    /// Raised to what the control file demands: (name, configured, raised). A restart is pending.
    pub raised: Vec<(String, String, String)>,
    /// What was dropped or replaced, one sentence each.
    pub warnings: Vec<String>,
}

/// What of the control file a standby must not undercut.
const CONTROL_BOUNDS: [&str; 5] = [
    "max_connections",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "max_worker_processes",
    "max_wal_senders",
];

/// The parameters of `server`. Recovery's own are not among them (see `recovery`).
pub fn parameters(server: &Server) -> Rendered {
    let mut rendered = Rendered::default();
    let given = &server.settings.parameters;
    for (name, value) in given.iter().filter(|(name, _)| !is_owned(name)) {
        users_own(server, name, value, &mut rendered);
    }
    let look = |wanted: &str| {
        given.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    for (name, value) in owned_values(look, server.version, &mut rendered.warnings) {
        rendered.parameters.insert(name.to_string(), value);
    }
    force(server, &mut rendered.parameters);
    if server.standby {
        rendered.raised = raise_to_control(&mut rendered.parameters, server.control);
    }
    rendered
}

/// One of the user's parameters, if PostgreSQL can be given it.
fn users_own(server: &Server, name: &str, value: &Value, rendered: &mut Rendered) {
    let Some(text) = parameter_text(value) else {
        if !value.is_null() {
            let message = "must be a single value; it is left out";
            rendered.warnings.push(format!("postgresql.parameters.{name}: {message}"));
        }
        return;
    };
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$');
    let known = name.contains('.') || server.known.is_none_or(|known| has(known, name));
    if NEVER.iter().any(|never| never.eq_ignore_ascii_case(name)) {
        let message = "would lead PostgreSQL away from postgresql.data_dir and is left out";
        rendered.warnings.push(format!("postgresql.parameters.{name}: {message}"));
        return;
    }
    if name.is_empty() || !name.chars().all(letters) || !known {
        let message = "is not a parameter of this PostgreSQL and is left out; check its spelling";
        rendered.warnings.push(format!("postgresql.parameters.{name}: {message}"));
        return;
    }
    rendered.parameters.insert(name.to_string(), text);
}

fn has(known: &BTreeSet<String>, name: &str) -> bool {
    known.contains(name) || known.iter().any(|other| other.eq_ignore_ascii_case(name))
}

/// A scalar, or a list of them as PostgreSQL's lists are written.
pub fn parameter_text(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(setting_text).collect();
            texts.map(|texts| texts.join(", "))
        }
        other => setting_text(other),
    }
}

/// Read otherwise than written: older names and values are translated before PostgreSQL sees them.
const TRANSLATED: [&str; 3] = ["wal_keep_segments", "wal_keep_size", "wal_level"];

/// The parameters of a change about which PostgreSQL has to be asked: those that are not as they were,
/// and that it reads as they are written.
pub fn to_vet(given: &Map<String, Value>, before: Option<&Value>) -> Parameters {
    let was = |name: &str| before.and_then(|all| all.get(name)).and_then(parameter_text);
    let ours =
        |name: &str| TRANSLATED.iter().chain(&NEVER).any(|other| other.eq_ignore_ascii_case(name));
    let read = given.iter().filter(|(name, _)| !ours(name));
    let texts = read.filter_map(|(name, value)| Some((name.clone(), parameter_text(value)?)));
    texts.filter(|(name, text)| was(name).as_ref() != Some(text)).collect()
}

/// What follows from the node itself and cycles whatever the user wrote.
fn force(server: &Server, parameters: &mut Parameters) {
    let mut set = |name: &str, value: String| {
        parameters.retain(|other, _| !other.eq_ignore_ascii_case(name));
        parameters.insert(name.to_string(), value);
    };
    set("listen_addresses", server.listen_addresses.to_string());
    set("port", server.port.to_string());
    set("cluster_name", server.scope.to_string());
    if let Some(names) = server.synchronous_standby_names {
        set("synchronous_standby_names", names.to_string());
    }
    if server.hot_standby_feedback {
        set("hot_standby_feedback", "on".to_string());
    }
    for (name, file) in [("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")] {
        let users = parameters.keys().any(|other| other.eq_ignore_ascii_case(name));
        if !users {
            parameters.insert(name.to_string(), format!("{}/{file}", server.config_dir));
        }
    }
}

/// Raises each value that the control file says must be higher; answers what was raised.
fn raise_to_control(
    parameters: &mut Parameters,
    control: &BTreeMap<String, String>,
) -> Vec<(String, String, String)> {
    let mut raised = Vec::new();
    for name in CONTROL_BOUNDS {
        let bound = control.get(name).and_then(|text| text.trim().parse::<u64>().ok());
        let current = parameters.get(name).and_then(|text| text.parse::<u64>().ok());
        if let (Some(bound), Some(current)) = (bound, current)
            && bound > current
        {
            parameters.insert(name.to_string(), bound.to_string());
            raised.push((name.to_string(), current.to_string(), bound.to_string()));
        }
    }
    raised
}

/// Arguments that raise those of `given` which the control file says must be higher.
pub fn raised_arguments(given: &[String], control: &BTreeMap<String, String>) -> Vec<String> {
    let pair = |argument: &String| {
        let (name, value) = argument.strip_prefix("--")?.split_once('=')?;
        Some((name.to_string(), value.to_string()))
    };
    let mut parameters: Parameters = given.iter().filter_map(pair).collect();
    let raised = raise_to_control(&mut parameters, control);
    raised.into_iter().map(|(name, _, value)| format!("--{name}={value}")).collect()
}

/// The postmaster's arguments `--name=value` for all that ALTER SYSTEM must not win.
pub fn command_line(parameters: &Parameters) -> Vec<String> {
    let owned = parameters.iter().filter(|(name, _)| is_on_command_line(name));
    owned.map(|(name, value)| format!("--{name}={value}")).collect()
}

/// The whole text of postgresql.conf: the included file first, so that everything below it wins.
/// `include` is `postgresql.base.conf` or the user's custom_conf; `recovery` comes last.
pub fn conf_text(include: &str, parameters: &Parameters, recovery: &Parameters) -> String {
    let mut text = String::from(
        "# Written by Surus and overwritten at the next change: set parameters in the dynamic\n\
         # configuration (edit-config) or in postgresql.parameters instead.\n",
    );
    text.push_str(&format!("include {}\n\n", quoted(include)));
    let recovery_wins = |name: &str| recovery.keys().any(|r| r.eq_ignore_ascii_case(name));
    for (name, value) in parameters.iter().filter(|(name, _)| !recovery_wins(name)) {
        text.push_str(&format!("{name} = {}\n", quoted(value)));
    }
    if !recovery.is_empty() {
        text.push_str("\n# recovery\n");
    }
    for (name, value) in recovery {
        text.push_str(&format!("{name} = {}\n", quoted(value)));
    }
    text
}

/// Settings that hide what is said about those read after them.
const MUTING: [&str; 3] = ["log_destination", "log_min_messages", "log_error_verbosity"];

/// Only the settings, one a line, those that would hide complaints last.
pub fn conf_settings(parameters: &Parameters) -> String {
    let mutes = |name: &str| MUTING.iter().any(|other| other.eq_ignore_ascii_case(name));
    let (last, first): (Vec<_>, Vec<_>) = parameters.iter().partition(|(name, _)| mutes(name));
    let lines = first.into_iter().chain(last);
    lines.map(|(name, value)| format!("{name} = {}\n", quoted(value))).collect()
}

/// A value as the configuration file's scanner reads it back: between single quotes, with quotes
/// and backslashes doubled and line ends spelt out.
pub fn quoted(value: &str) -> String {
    let mut out = String::from("'");
    for c in value.chars() {
        match c {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\0' => {}
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
