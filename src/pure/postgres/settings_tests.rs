//! Tests of the server's parameters and of postgresql.conf.
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pure::postgres::control;

fn settings(parameters: Value) -> PostgresSettings {
    let parameters = parameters.as_object().cloned().expect("a map");
    PostgresSettings { parameters, ..PostgresSettings::default() }
}

fn render(given: Value, change: impl Fn(&mut Server)) -> Rendered {
    render_known(given, None, change)
}

fn render_known(
    parameters_given: Value,
    known: Option<&BTreeSet<String>>,
    change: impl Fn(&mut Server),
) -> Rendered {
    let settings = settings(parameters_given);
    // Through the parser of pg_controldata: the two must agree on the names.
    let control = control::parse(control::tests::SAMPLE).expect("the sample is whole").settings;
    let mut server = Server {
        scope: "batman",
        listen_addresses: "127.0.0.1",
        port: 5433,
        config_dir: "/data",
        version: Version(150_018),
        settings: &settings,
        control: &control,
        standby: false,
        synchronous_standby_names: None,
        hot_standby_feedback: false,
        known,
    };
    change(&mut server);
    parameters(&server)
}

/// A parameter that was there before kept people from changing anything else.
#[test]
fn only_what_changes_is_vetted_and_only_what_postgresql_reads_as_written() {
    let given = json!({"old_one": 1, "work_mem": "8MB", "wal_keep_segments": 8,
        "wal_level": "hot_standby", "new_one": true});
    let before = json!({"old_one": "1", "work_mem": "4MB"});
    let names = |before: Option<&Value>| -> Vec<String> {
        to_vet(given.as_object().expect("a map"), before).into_keys().collect()
    };
    assert_eq!(names(Some(&before)), ["new_one", "work_mem"]);
    assert_eq!(names(None), ["new_one", "old_one", "work_mem"]);
}

#[test]
fn the_node_decides_address_port_and_name() {
    let given = json!({"Port": 1, "cluster_name": "x", "listen_addresses": "*"});
    let found = render(given, |_| ()).parameters;
    assert_eq!(found["port"], "5433");
    assert_eq!(found["cluster_name"], "batman");
    assert_eq!(found["listen_addresses"], "127.0.0.1");
    assert!(!found.contains_key("Port"));
    assert_eq!(found["hba_file"], "/data/pg_hba.conf");
}

#[test]
fn the_users_hba_file_and_lists_and_flags_are_kept() {
    let given = json!({"hba_file": "/x/hba", "shared_preload_libraries": ["a", "b"], "fsync": true,
        "app.x": 1.5});
    let found = render(given, |_| ());
    assert_eq!(found.parameters["hba_file"], "/x/hba");
    assert_eq!(found.parameters["shared_preload_libraries"], "a, b");
    assert_eq!(found.parameters["fsync"], "on");
    assert_eq!(found.parameters["app.x"], "1.5");
    assert!(found.warnings.is_empty());
}

#[test]
fn a_standby_is_raised_to_the_control_file_and_a_primary_is_not() {
    let lowered = json!({"max_connections": 77, "max_prepared_transactions": 3});
    let standby = render(lowered.clone(), |server| server.standby = true);
    assert_eq!(standby.parameters["max_connections"], "100");
    assert_eq!(standby.parameters["max_prepared_transactions"], "7");
    let raised = |name: &str, from: &str, to: &str| (name.into(), from.into(), to.into());
    assert_eq!(
        standby.raised,
        [raised("max_connections", "77", "100"), raised("max_prepared_transactions", "3", "7")]
    );
    assert_eq!(render(lowered, |_| ()).parameters["max_connections"], "77");
}

#[test]
fn synchronous_names_of_surus_beat_the_users() {
    let given = json!({"synchronous_standby_names": "mine"});
    let ours = render(given.clone(), |server| server.synchronous_standby_names = Some(""));
    assert_eq!(ours.parameters["synchronous_standby_names"], "");
    let users = render(given, |_| ());
    assert_eq!(users.parameters["synchronous_standby_names"], "mine");
}

#[test]
fn what_postgresql_cannot_read_is_left_out_with_a_sentence() {
    let known = BTreeSet::from(["work_mem".to_string(), "DateStyle".to_string()]);
    let given = json!({"work_mem": "1MB", "datestyle": "iso", "wrok_mem": 1, "a\nb": 1, "x": {}});
    let found = render_known(given, Some(&known), |_| ());
    assert!(found.parameters.contains_key("work_mem"));
    assert!(found.parameters.contains_key("datestyle"));
    assert_eq!(found.warnings.len(), 3, "{:?}", found.warnings);
}

#[test]
fn the_command_line_carries_what_alter_system_must_not_win() {
    let arguments = command_line(&render(json!({"work_mem": "1MB"}), |_| ()).parameters);
    assert!(arguments.contains(&"--max_connections=100".to_string()));
    assert!(arguments.contains(&"--cluster_name=batman".to_string()));
    assert!(arguments.iter().all(|a| !a.contains("wal_keep") && !a.contains("work_mem")));
    assert_eq!(arguments.len(), 13);
}

#[test]
fn the_file_begins_with_the_include_and_ends_with_recovery() {
    let parameters = Parameters::from([
        ("archive_command".to_string(), "cp '%p' C:\\x".to_string()),
        ("restore_command".to_string(), "old".to_string()),
    ]);
    let recovery = Parameters::from([("restore_command".to_string(), "new".to_string())]);
    let text = conf_text("postgresql.base.conf", &parameters, &recovery);
    let lines: Vec<_> = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
    let expected = [
        "include 'postgresql.base.conf'",
        "archive_command = 'cp ''%p'' C:\\\\x'",
        "restore_command = 'new'",
    ];
    assert_eq!(lines, expected);
}

/// Reads a quoted value as PostgreSQL's scanner does.
fn unquoted(text: &str) -> String {
    let body = &text[1..text.len() - 1];
    let (mut out, mut chars) = (String::new(), body.chars());
    while let Some(c) = chars.next() {
        match c {
            '\'' => out.extend(chars.next()),
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                other => out.extend(other),
            },
            c => out.push(c),
        }
    }
    out
}

proptest! {
    #[test]
    fn any_value_stays_on_its_line_and_is_read_back(value in "(\\PC|[\n\r\\\\']){0,20}") {
        let text = quoted(&value);
        prop_assert!(!text.contains(['\n', '\r']));
        prop_assert_eq!(unquoted(&text), value);
    }
}
