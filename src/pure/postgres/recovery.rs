//! Recovery: what a standby, or a restored cluster on its way to a target, is told.
//!
//! Since PostgreSQL 12 these are ordinary parameters beside a signal file; older ones are not
//! served.
use serde_json::{Map, Value};

use super::settings::Parameters;
use super::target::PARAMETERS as TARGETS;
use crate::pure::config::scalar::{python_truth, setting_text};
use crate::pure::config::{CustomMethod, StandbyCluster};

/// The file whose presence switches recovery on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Follow for ever.
    Standby,
    /// Stop at a target.
    Recovery,
}

impl Signal {
    /// The file's name in the data directory.
    pub fn file_name(self) -> &'static str {
        match self {
            Signal::Standby => "standby.signal",
            Signal::Recovery => "recovery.signal",
        }
    }
}

/// Every parameter that belongs to recovery, for scrubbing postgresql.auto.conf.
pub const NAMES: [&str; 18] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
    "pause_at_recovery_target",
    "standby_mode",
    "trigger_file",
];

/// Whether `name` belongs to recovery.
pub fn is_recovery(name: &str) -> bool {
    NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whom a standby follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upstream<'a> {
    /// Empty: nobody; only the archive counts.
    pub primary_conninfo: &'a str,
    pub primary_slot_name: Option<&'a str>,
    /// A slot is meant, but in use by another: one of its own holds the WAL meanwhile.
    pub lacks_its_slot: bool,
    /// The standby cluster's settings.
    pub standby_cluster: Option<&'a StandbyCluster>,
    /// Only its leader waits before it replays; whoever follows it is late anyhow.
    pub leads_standby_cluster: bool,
}

/// What a standby is told: the user's recovery_conf, no target, the newest timeline, the upstream.
pub fn standby_parameters(recovery_conf: &Map<String, Value>, upstream: Upstream) -> Parameters {
    let mut parameters = Parameters::new();
    for (name, value) in recovery_conf {
        let name = name.to_lowercase();
        let ours = name.starts_with("recovery_target") || name.starts_with("primary_");
        if let Some(text) = setting_text(value).filter(|_| !ours && is_parameter(&name)) {
            parameters.insert(name, text);
        }
    }
    if let Some(cluster) = upstream.standby_cluster {
        let own = [
            ("restore_command", &cluster.restore_command),
            ("archive_cleanup_command", &cluster.archive_cleanup_command),
            ("recovery_min_apply_delay", &cluster.recovery_min_apply_delay),
        ];
        let shown = if upstream.leads_standby_cluster { 3 } else { 2 };
        let own =
            own.into_iter().take(shown).filter_map(|(name, text)| Some((name, text.clone()?)));
        parameters.extend(own.map(|(name, text)| (name.to_string(), text)));
    }
    parameters.extend(TARGETS.map(|name| (name.to_string(), String::new())));
    let slot = upstream.primary_slot_name.unwrap_or("");
    parameters.insert("recovery_target_timeline".into(), "latest".into());
    parameters.insert("primary_conninfo".into(), upstream.primary_conninfo.into());
    parameters.insert("primary_slot_name".into(), slot.into());
    if upstream.lacks_its_slot {
        parameters.insert("wal_receiver_create_temp_slot".into(), "on".into());
    }
    parameters
}

/// Still a parameter in the versions served: not the switches and files of recovery.conf.
fn is_parameter(name: &str) -> bool {
    let gone = ["standby_mode", "trigger_file", "promote_trigger_file", "pause_at_recovery_target"];
    is_recovery(name) && !gone.contains(&name)
}

/// What a restored cluster is told (`bootstrap.<method>.recovery_conf`), and its signal file.
pub fn target_parameters(recovery_conf: &Map<String, Value>) -> (Parameters, Signal) {
    let mut parameters = Parameters::new();
    let mut signal = Signal::Recovery;
    for (name, value) in recovery_conf {
        let name = name.to_lowercase();
        match name.as_str() {
            "standby_mode" if is_on(value) => signal = Signal::Standby,
            "pause_at_recovery_target" => {
                let action = if is_on(value) { "pause" } else { "promote" };
                parameters.entry("recovery_target_action".into()).or_insert(action.into());
            }
            name if is_parameter(name) => {
                parameters.extend(setting_text(value).map(|text| (name.to_string(), text)));
            }
            _ => {}
        }
    }
    (parameters, signal)
}

/// How a custom bootstrap method's cluster recovers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Written below the usual settings.
    pub parameters: Parameters,
    /// The postmaster's arguments, which win over every file.
    pub arguments: Vec<String>,
    /// It recovers from an archive; otherwise only what lies in pg_wal is replayed.
    pub recovers: bool,
    /// standby.signal instead of recovery.signal.
    pub follows: bool,
    /// The signal files are the method's own.
    pub keeps_signals: bool,
    /// What was said of the end of recovery, by the file or by what the method wrote.
    pub action: Option<String>,
}

/// `auto_conf`: the text of the restored postgresql.auto.conf, where backup tools write.
///
/// Who says nothing about the end of recovery wants a cluster, so it is promoted there; only a
/// `pause` that somebody wrote pauses, and needs hot standby to be looked at.
pub fn restored(method: &CustomMethod, auto_conf: &str) -> Restored {
    let keeps = method.keep_existing_recovery_conf;
    let mut how = Restored { keeps_signals: keeps, recovers: keeps, ..Restored::default() };
    if keeps {
        how.action = value_in(auto_conf, "recovery_target_action");
    }
    if let Some(conf) = &method.recovery_conf {
        let (parameters, signal) = target_parameters(conf);
        how.follows = signal == Signal::Standby;
        (how.recovers, how.keeps_signals) = (true, false);
        how.action = parameters.get("recovery_target_action").cloned().or(how.action);
        how.parameters = parameters;
    }
    let pauses = how.action.as_deref() == Some("pause");
    if how.recovers && !pauses {
        how.arguments.push("--recovery_target_action=promote".into());
    }
    if how.recovers && !pauses && !how.follows {
        how.arguments.push("--hot_standby=off".into());
    }
    how
}

/// The value that a configuration file's last line for `name` gives it.
fn value_in(text: &str, name: &str) -> Option<String> {
    let of_line = |line: &str| {
        let line = line.trim();
        let end = line.find(|c: char| c == '=' || c.is_whitespace())?;
        let (key, rest) = line.split_at(end);
        let value = rest.trim_start_matches([' ', '\t', '=']).trim().trim_matches('\'');
        key.eq_ignore_ascii_case(name).then(|| value.to_lowercase())
    };
    text.lines().rev().find_map(of_line)
}

/// The same as PostgreSQL reads it: without its quotes, in its own case.
pub fn setting_in(text: &str, name: &str) -> Option<String> {
    let of_line = |line: &str| {
        let line = line.trim();
        let end = line.find(|c: char| c == '=' || c.is_whitespace())?;
        let (key, rest) = line.split_at(end);
        let value = rest.trim_start_matches([' ', '\t', '=']).trim();
        let quoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
        let plain = || value.split([' ', '\t', '#']).next().unwrap_or_default().to_string();
        let unquoted = quoted.map_or_else(plain, |text| text.replace("''", "'"));
        key.eq_ignore_ascii_case(name).then_some(unquoted)
    };
    text.lines().rev().find_map(of_line)
}

fn is_on(value: &Value) -> bool {
    crate::pure::config::scalar::parse_bool(value).unwrap_or_else(|| python_truth(value))
}

/// What happens at the target: `pause` unless something else is said.
pub fn target_action(parameters: &Parameters) -> &str {
    parameters.get("recovery_target_action").map_or("pause", String::as_str)
}

/// The text of postgresql.auto.conf without recovery's parameters, which would cycle ours there.
pub fn without_recovery(auto_conf: &str) -> String {
    let names_recovery = |line: &str| {
        let line = line.trim_start();
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
        is_recovery(&line[..end.unwrap_or(line.len())])
    };
    auto_conf.split_inclusive('\n').filter(|line| !names_recovery(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("a map")
    }

    #[test]
    fn a_standby_has_no_target_and_follows_the_newest_timeline() {
        let conf = map(json!({"restore_command": "cp %f %p", "recovery_target_time": "x",
            "primary_conninfo": "evil", "standby_mode": "on", "recovery_min_apply_delay": 5}));
        let upstream = Upstream {
            primary_conninfo: "host=a",
            primary_slot_name: Some("b"),
            ..Upstream::default()
        };
        let found = standby_parameters(&conf, upstream);
        assert_eq!(found["restore_command"], "cp %f %p");
        assert_eq!(found["recovery_target_time"], "");
        assert_eq!(found["recovery_target_timeline"], "latest");
        assert_eq!(found["primary_conninfo"], "host=a");
        assert_eq!(found["primary_slot_name"], "b");
        assert_eq!(found["recovery_min_apply_delay"], "5");
        assert!(!found.contains_key("standby_mode"));
    }

    #[test]
    fn a_standby_without_upstream_says_so_explicitly() {
        let found = standby_parameters(&Map::new(), Upstream::default());
        assert_eq!(
            (found["primary_conninfo"].as_str(), found["primary_slot_name"].as_str()),
            ("", "")
        );
    }

    /// Spec: SC-5.
    #[test]
    fn the_standby_clusters_commands_win() {
        let cluster = StandbyCluster {
            restore_command: Some("r".into()),
            recovery_min_apply_delay: Some("5min".into()),
            ..StandbyCluster::default()
        };
        let mut upstream = Upstream { standby_cluster: Some(&cluster), ..Upstream::default() };
        let conf = map(json!({"restore_command": "x"}));
        let found = standby_parameters(&conf, upstream);
        assert_eq!(found["restore_command"], "r");
        assert!(!found.contains_key("recovery_min_apply_delay"), "its leader waits, nobody else");
        upstream.leads_standby_cluster = true;
        assert_eq!(standby_parameters(&conf, upstream)["recovery_min_apply_delay"], "5min");
    }

    /// Spec: B-18.
    #[test]
    fn a_target_keeps_what_the_user_wrote() {
        let conf = json!({"recovery_target_time": "2026-01-01", "pause_at_recovery_target": false});
        let (found, signal) = target_parameters(&map(conf));
        assert_eq!((signal, target_action(&found)), (Signal::Recovery, "promote"));
        assert_eq!(found["recovery_target_time"], "2026-01-01");
        let (found, signal) = target_parameters(&map(json!({"standby_mode": "on"})));
        assert_eq!((signal, target_action(&found)), (Signal::Standby, "pause"));
    }

    /// Spec: B-17, B-18, B-21.
    #[test]
    fn what_was_restored_is_promoted_unless_somebody_wrote_pause() {
        let method = |conf: Option<Value>, keep| CustomMethod {
            recovery_conf: conf.map(map),
            keep_existing_recovery_conf: keep,
            ..CustomMethod::default()
        };
        let plain = restored(&method(None, false), "recovery_target_action = 'pause'");
        assert_eq!(plain, Restored::default(), "what is not kept does not count");
        let target = restored(&method(Some(json!({"recovery_target_name": "x"})), false), "");
        assert!(target.recovers && !target.keeps_signals && !target.follows);
        assert_eq!(target.arguments, ["--recovery_target_action=promote", "--hot_standby=off"]);
        let kept = restored(&method(None, true), "Recovery_Target_Action = 'pause'\n");
        assert!(kept.keeps_signals && kept.arguments.is_empty());
        assert_eq!(kept.action.as_deref(), Some("pause"));
        let kept = restored(&method(None, true), "restore_command = 'x'\n");
        assert_eq!(kept.arguments.len(), 2);
        let both = restored(&method(Some(json!({"recovery_target_action": "promote"})), true), "");
        assert!(!both.keeps_signals, "recovery_conf wins over what was kept");
        let follows = restored(&method(Some(json!({"standby_mode": "on"})), false), "");
        assert!(follows.follows && !follows.arguments.contains(&"--hot_standby=off".into()));
    }

    /// Spec: M-21.
    #[test]
    fn what_a_tool_wrote_is_read_as_postgresql_reads_it() {
        let text = "restore_command = 'old'\nRestore_Command='x --a=''b c'' \"%p\"'\n# end\n";
        assert_eq!(setting_in(text, "restore_command").as_deref(), Some("x --a='b c' \"%p\""));
        assert_eq!(setting_in("port = 5 # five", "port").as_deref(), Some("5"));
        assert_eq!(setting_in(text, "port"), None);
    }

    /// Spec: B-18.
    #[test]
    fn recovery_settings_leave_auto_conf() {
        let text = "# do not edit\nwork_mem = '4MB'\n Primary_conninfo = 'host=a'\n\
            recovery_target_time='x'\nrestore_commands = 'kept'\n";
        assert_eq!(
            without_recovery(text),
            "# do not edit\nwork_mem = '4MB'\nrestore_commands = 'kept'\n"
        );
        assert_eq!(without_recovery("standby_mode = on\nPause_At_Recovery_Target=1\n"), "");
    }
}
