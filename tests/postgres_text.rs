//! What we write, read by a real PostgreSQL. Where none is installed these tests say so and pass.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};
use surus::ctl::validate;
use surus::host::config::{check_host, check_ports, find_bin_dir, load_file};
use surus::host::programs::{program_version, refused_parameters};
use surus::pure::config::{Config, HostPort, PgUser, PostgresSettings, Postgresql, load};
use surus::pure::postgres::conninfo::user_conninfo;
use surus::pure::postgres::recovery::{Upstream, standby_parameters};
use surus::pure::postgres::settings::{Parameters, Server, command_line, conf_text, parameters};
use surus::pure::postgres::sync_names::{any_names, first_names};
use tempfile::TempDir;

fn config(text: &str) -> Config {
    load(Path::new("surus.yml"), text, &BTreeMap::new()).expect("valid")
}

fn node(dir: &Path, more: &str) -> String {
    let dir = dir.display();
    format!(
        "scope: s\nname: n\nrestapi:\n  listen: 127.0.0.1:8008\nraft:\n  data_dir: {dir}/raft\n  \
         self_addr: 127.0.0.1:2222\npostgresql:\n  listen: 127.0.0.1:5432\n  \
         data_dir: {dir}/data\n  pgpass: {dir}/pgpass\n  authentication:\n    \
         superuser: {{username: postgres}}\n    replication: {{username: rep}}\n{more}"
    )
}

fn postgresql(text: &str) -> Postgresql {
    config(text).postgresql.expect("a postgresql section")
}

/// The programs of the newest PostgreSQL here.
fn bin_dir(dir: &Path) -> Option<PathBuf> {
    let found = find_bin_dir(&postgresql(&node(dir, "")));
    if let Err(message) = &found {
        eprintln!("not run: {message}");
    }
    found.ok()
}

/// The value a server would have that starts from `dir`'s postgresql.conf.
fn asked(bin: &Path, dir: &Path, arguments: &[String], name: &str) -> String {
    let output = Command::new(bin.join("postgres"))
        .args(["-C", name, "-D", "/", "-c"])
        .arg(format!("config_file={}", dir.join("postgresql.conf").display()))
        .args(arguments)
        .output()
        .expect("postgres runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_string()
}

fn written(dir: &Path, bin: &Path, given: Value, recovery: &Parameters) -> Parameters {
    let settings = PostgresSettings {
        parameters: given.as_object().cloned().expect("a map"),
        ..PostgresSettings::default()
    };
    let rendered = parameters(&Server {
        scope: "it's \\ a 'scope'",
        listen_addresses: "127.0.0.1",
        port: 5999,
        config_dir: "/data",
        version: program_version(bin).expect("a version"),
        settings: &settings,
        control: &BTreeMap::new(),
        standby: true,
        synchronous_standby_names: None,
        hot_standby_feedback: true,
        known: None,
    });
    fs::write(dir.join("postgresql.base.conf"), "max_connections = 7\nwork_mem = '9MB'\n")
        .expect("the base file is written");
    let text = conf_text("postgresql.base.conf", &rendered.parameters, recovery);
    fs::write(dir.join("postgresql.conf"), text).expect("the file is written");
    rendered.parameters
}

#[test]
fn the_server_reads_every_value_as_it_was_meant() {
    let dir = TempDir::new().expect("a directory");
    let Some(bin) = bin_dir(dir.path()) else { return };
    let command = "cp '%p' \"/a b/%f\" \\ && printf 'x\\n'\nexit";
    let conf = Map::from_iter([("restore_command".to_string(), json!(command))]);
    let upstream = Upstream {
        primary_conninfo: "host=h application_name=it\\'s\\ me",
        primary_slot_name: Some("n"),
        lacks_its_slot: true,
        leads_standby_cluster: true,
        ..Upstream::default()
    };
    let recovery = standby_parameters(&conf, upstream);
    let names = ["a-b", "any", "c\"d"].map(String::from).into();
    let sync = first_names(2, &names);
    let given = json!({"archive_command": command, "synchronous_standby_names": sync, "x.y": "z",
        "max_connections": 150, "wal_keep_segments": 3});
    let parameters = written(dir.path(), &bin, given, &recovery);
    assert_eq!(refused_parameters(&bin, &dir.path().join("postgresql.conf")).expect("runs"), []);
    let from_file = |name: &str| asked(&bin, dir.path(), &[], name);
    for name in ["archive_command", "restore_command"] {
        assert_eq!(from_file(name), command, "{name}");
    }
    assert_eq!(from_file("primary_conninfo"), recovery["primary_conninfo"]);
    assert_eq!(from_file("synchronous_standby_names"), sync);
    assert_eq!(from_file("recovery_target_timeline"), "latest");
    assert_eq!(from_file("work_mem"), "9216");
    assert_eq!(from_file("cluster_name"), parameters["cluster_name"]);
    let arguments = command_line(&parameters);
    assert_eq!(asked(&bin, dir.path(), &arguments, "cluster_name"), parameters["cluster_name"]);
    assert_eq!(asked(&bin, dir.path(), &arguments, "max_connections"), "150");
    assert_eq!(asked(&bin, dir.path(), &[], "port"), "5999");
}

#[test]
fn the_server_says_which_parameters_it_refuses() {
    let dir = TempDir::new().expect("a directory");
    let Some(bin) = bin_dir(dir.path()) else { return };
    let file = dir.path().join("c.conf");
    let refused = |text: &str| {
        fs::write(&file, text).expect("written");
        let found = refused_parameters(&bin, &file).expect("runs");
        found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(refused("wrok_mem = '1MB'\nwal_level = 'replica'\n"), ["wrok_mem"]);
    assert_eq!(refused("max_connections = 'x'\n"), ["max_connections"]);
    let names = ["a".to_string(), "b-c".to_string()].into();
    let text = format!("synchronous_standby_names = '{}'\n", any_names(1, &names));
    assert_eq!(refused(&text), Vec::<String>::new());
}

#[test]
fn libpq_reads_our_connection_strings() {
    let dir = TempDir::new().expect("a directory");
    let Some(bin) = bin_dir(dir.path()) else { return };
    let user = PgUser { username: "a 'b\\".into(), ..PgUser::default() };
    let address = HostPort { host: "127.0.0.1".into(), port: 1 };
    let version = program_version(&bin).expect("a version");
    let text = user_conninfo(&user, &address, Some("x y"), version);
    let output = Command::new(bin.join("pg_isready")).args(["-d", &text]).output().expect("runs");
    // 2 is: no answer. A string that cannot be read is 3.
    assert_eq!(output.status.code(), Some(2), "{text}");
}

/// Spec: A-5, EX-7.
#[test]
fn the_host_is_checked_and_faults_have_lines() {
    let dir = TempDir::new().expect("a directory");
    fs::write(dir.path().join("data"), "a file").expect("written");
    fs::create_dir(dir.path().join("pgpass")).expect("made");
    fs::write(dir.path().join("raft"), "a file").expect("written");
    let file = dir.path().join("surus.yml");
    fs::write(&file, node(dir.path(), "  bin_dir: /nowhere\n")).expect("written");
    let faults = check_host(&load_file(&file).expect("valid"));
    let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let start = |line: usize, key: &str| format!("{}:{line}: {key}: ", file.display());
    assert!(shown[0].starts_with(&start(6, "raft.data_dir")), "{shown:#?}");
    for program in ["postgres", "pg_ctl", "initdb", "pg_controldata", "pg_basebackup"] {
        let named = |f: &&String| f.contains(&format!("`{program}`"));
        let fault = shown.iter().find(named).expect("every program is named");
        assert!(fault.starts_with(&start(15, "postgresql.bin_dir")), "{fault}");
    }
    assert!(shown.iter().any(|f| f.starts_with(&start(10, "postgresql.data_dir"))), "{shown:#?}");
    assert!(shown.iter().any(|f| f.starts_with(&start(11, "postgresql.pgpass"))), "{shown:#?}");
    assert_eq!(validate::run(&file, true), 1);
}

/// Spec: A-5.
#[test]
fn a_data_directory_must_be_empty_or_whole() {
    let dir = TempDir::new().expect("a directory");
    let Some(bin) = bin_dir(dir.path()) else { return };
    let data = dir.path().join("data");
    let faults = || {
        let config = config(&node(dir.path(), &format!("  bin_dir: {}\n", bin.display())));
        check_host(&config).iter().map(|fault| fault.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(faults(), Vec::<String>::new());
    fs::create_dir(&data).expect("made");
    fs::create_dir(data.join("lost+found")).expect("made");
    assert_eq!(faults(), Vec::<String>::new());
    fs::write(data.join("x"), "").expect("written");
    assert!(faults()[0].contains("has no PG_VERSION"));
    fs::write(data.join("PG_VERSION"), "9.6\n").expect("written");
    assert!(faults()[0].contains("has no pg_wal"));
    fs::create_dir(data.join("pg_wal")).expect("made");
    assert!(faults()[0].contains("is of version 9"), "{:?}", faults());
}

#[test]
fn a_port_in_use_is_a_fault() {
    let dir = TempDir::new().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let text = node(dir.path(), "").replace("8008", &port.to_string());
    let faults = check_ports(&config(&text));
    assert_eq!(faults.iter().filter(|fault| fault.key == "restapi.listen").count(), 1);
    let elsewhere =
        node(dir.path(), "").replace("listen: 127.0.0.1:8008", "listen: 192.0.2.1:8008");
    let faults = check_ports(&config(&elsewhere));
    let found = faults.iter().find(|fault| fault.key == "restapi.listen").expect("a fault");
    assert!(found.message.contains("not an address of this host"), "{found}");
}

#[test]
fn a_directory_of_files_is_read_in_order_and_a_missing_one_is_a_fault() {
    let dir = TempDir::new().expect("a directory");
    let conf = dir.path().join("conf");
    fs::create_dir(&conf).expect("made");
    fs::write(conf.join("b.yaml"), "name: later\n").expect("written");
    fs::write(conf.join("a.yml"), node(dir.path(), "")).expect("written");
    fs::write(conf.join("c.txt"), "name: not read\n").expect("written");
    assert_eq!(load_file(&conf).expect("valid").name, "later");
    let faults = load_file(&dir.path().join("none.yml")).expect_err("no file");
    assert!(faults[0].to_string().contains("none.yml: cannot be read"), "{}", faults[0]);
}
