//! The configuration as a whole: a Patroni file is read, every fault is found, nothing panics.
use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use surus::pure::config::redact::redacted;
use surus::pure::config::{
    Config, CreateMethod, Dynamic, Fault, PeerAccess, effective, load, read_parts,
};

const SAMPLE: &str = include_str!("fixtures/patroni.yml");

/// The smallest file that works: a witness.
const WITNESS: &str = "scope: s\nname: w\nrestapi: {listen: 10.0.0.1:8008}\n\
                       raft: {data_dir: /r, self_addr: 10.0.0.1:2222}\n";

fn read(text: &str) -> Result<Config, Vec<Fault>> {
    let env = BTreeMap::from([("HOME".to_string(), "/home/p".to_string())]);
    load(Path::new("surus.yml"), text, &env)
}

fn faults(text: &str) -> Vec<String> {
    read(text).err().unwrap_or_default().iter().map(Fault::to_string).collect()
}

fn line_of(needle: &str) -> usize {
    1 + SAMPLE.lines().position(|line| line.contains(needle)).expect("a line of the sample")
}

/// The sample with its first line that contains `needle` replaced.
fn changed(needle: &str, line: &str) -> String {
    let at = line_of(needle) - 1;
    let lines = SAMPLE.lines().enumerate().map(|(i, old)| if i == at { line } else { old });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_patroni_file_is_read_whole() {
    let config = read(SAMPLE).expect("the sample is valid");
    assert_eq!((config.scope.as_str(), config.namespace.as_str()), ("batman", "/db/"));
    assert_eq!(config.restapi.allowlist, ["10.0.0.0/8", "127.0.0.1"]);
    assert_eq!(config.raft.bind_addr.to_string(), "0.0.0.0:2222");
    let partners: Vec<_> = config.raft.partner_addrs.iter().map(ToString::to_string).collect();
    assert_eq!(partners, ["10.0.0.11:2222", "10.0.0.12:2222"]);
    assert_eq!((config.raft.voters_max, config.watchdog.mode.as_str()), (5, "off"));
    assert_eq!(config.ctl.authentication, config.restapi.authentication);
    assert_eq!(config.tags.shown()["datacenter"], "east");
}

#[test]
fn its_bootstrap_and_postgresql_sections_mean_what_patroni_means() {
    let config = read(SAMPLE).expect("the sample is valid");
    let bootstrap = config.bootstrap.expect("a bootstrap section");
    let options: Vec<_> = bootstrap.initdb.iter().map(|option| option.argument()).collect();
    assert_eq!(options, ["--encoding=UTF8", "--data-checksums", "--wal-segsize=64"]);
    assert_eq!(bootstrap.methods, [CreateMethod::Initdb]);
    assert!(bootstrap.post_bootstrap.expect("post_init counts").contains("setup_cluster"));
    let postgresql = config.postgresql.expect("a postgresql section");
    assert_eq!(postgresql.listen_addresses, "10.0.0.10,127.0.0.1");
    assert_eq!((postgresql.port, postgresql.database.as_str()), (5432, "postgres"));
    assert_eq!(postgresql.replication.options, [("sslmode".into(), "prefer".into())]);
    let method = &postgresql.create_replica_methods[0];
    assert_eq!(method.command, "pgbackrest --stanza=main restore");
    assert!(method.keep_data && method.no_params && !method.no_leader);
    assert_eq!(method.extra[0], ("keep_data".into(), "True".into()));
    assert_eq!(method.extra[2], ("threads".into(), "4".into()));
    let basebackup: Vec<_> = postgresql.basebackup.iter().map(|o| o.argument()).collect();
    assert_eq!(basebackup, ["--max-rate=100M", "--progress"]);
}

#[test]
fn what_has_no_effect_is_said_with_its_line() {
    let warnings = read(SAMPLE).expect("the sample is valid").warnings;
    let expected = [
        ("traceback_level", "log.traceback_level"),
        ("insecure", "ctl.insecure"),
        ("- 10.0.0.10:2222", "raft.partner_addrs"),
        ("password: raft-geheim", "raft.password"),
        ("proxy_address", "postgresql.proxy_address"),
        ("max_connections: 50", "postgresql.parameters.max_connections"),
    ];
    assert_eq!(warnings.len(), expected.len(), "{warnings:#?}");
    for (warning, (needle, key)) in warnings.iter().zip(expected) {
        let line =
            if key == "raft.partner_addrs" { line_of("partner_addrs") } else { line_of(needle) };
        assert!(warning.starts_with(&format!("surus.yml:{line}: {key}: ")), "{warning}");
    }
}

#[test]
fn dynamic_and_local_settings_become_one() {
    let config = read(SAMPLE).expect("the sample is valid");
    let dynamic = Dynamic::from_value(config.bootstrap.as_ref().map(|b| &b.dcs));
    assert_eq!((dynamic.ttl_ms, dynamic.warnings.len()), (30_000, 0));
    let settings = effective(config.postgresql.as_ref().expect("postgresql"), &dynamic);
    assert_eq!(settings.parameters["max_connections"], 200);
    assert_eq!(settings.parameters["shared_buffers"], "256MB");
    assert_eq!(settings.use_pg_rewind, Some(true));
}

#[test]
fn no_secret_is_in_a_dump() {
    let config = read(SAMPLE).expect("the sample is valid");
    let dump = redacted(&config).to_string();
    assert!(!dump.contains("geheim") && dump.contains("<secret>"), "{dump}");
    assert!(!format!("{config:?}").contains("geheim"));
}

#[test]
fn without_postgresql_a_node_is_a_witness() {
    let config = read(WITNESS).expect("valid");
    assert!(config.postgresql.is_none() && config.bootstrap.is_none());
    assert_eq!(config.raft.bind_addr, config.raft.self_addr);
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// Spec: EX-33.
#[test]
fn all_faults_come_at_once_each_with_its_line() {
    let text = "scope: [x]\nname: n\nrestapi:\n  listen: a:b\nraft:\n  data_dir: /r\n\
                postgresql:\n  listen: 0.0.0.0:5432\n  data_dir: pgdata\n  use_pg_rewind: maybe\n";
    let found = faults(text);
    let keys = [
        "surus.yml:1: scope: ",
        "surus.yml:4: restapi.listen: ",
        "surus.yml:5: raft.self_addr: ",
        "surus.yml:7: postgresql.authentication.replication.username: ",
        "surus.yml:7: postgresql.authentication.superuser.username: ",
        "surus.yml:7: postgresql.connect_address: ",
        "surus.yml:9: postgresql.data_dir: ",
        "surus.yml:10: postgresql.use_pg_rewind: ",
    ];
    assert_eq!(found.len(), keys.len(), "{found:#?}");
    for (fault, key) in found.iter().zip(keys) {
        assert!(fault.starts_with(key), "{fault} should start with {key}");
    }
}

#[test]
fn raft_is_asked_for() {
    let found = faults("scope: s\nname: n\nrestapi: {listen: 1.1.1.1:8008}\netcd: {host: x}\n");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("raft: is missing"));
}

/// Spec: B-1, B-11, B-13, B-19, EX-1, EX-4, I-16.
#[test]
fn a_method_that_is_named_must_work() {
    let base = format!("{WITNESS}bootstrap:\n  method: pitr\n");
    assert!(faults(&base)[0].starts_with("surus.yml:6: bootstrap.method: names the section"));
    let no_command = format!("{base}  pitr:\n    scope: x\n");
    assert!(faults(&no_command)[0].starts_with("surus.yml:7: bootstrap.pitr.command: is missing"));
    let whole = format!(
        "{base}  pitr:\n    command: restore -x 'a b'\n    keep: [1, 2]\n    datadir: /x\n    \
         recovery_conf: {{recovery_target_time: '2026-01-01'}}\n"
    );
    let config = read(&whole).expect("valid");
    let bootstrap = config.bootstrap.expect("bootstrap");
    let method = bootstrap.custom("pitr").expect("a method").clone();
    assert_eq!((bootstrap.dcs, method.name.as_str()), (json!({}), "pitr"));
    assert_eq!(method.extra, [("keep".into(), "[1, 2]".into())]);
    assert_eq!(method.recovery_conf.expect("given")["recovery_target_time"], "2026-01-01");
    let null = format!("{base}  pitr:\n    command: c\n    recovery_conf:\n");
    assert!(faults(&null)[0].contains("bootstrap.pitr.recovery_conf: is empty"), "{null}");
}

/// Flags are Python's: the text "false" is true. Strings that a target's end would contradict are
/// refused before anything is restored.
/// Spec: B-13, B-18.
#[test]
fn a_methods_flags_and_targets_are_read_as_patroni_reads_them() {
    let file = |rest: &str| {
        format!("{WITNESS}bootstrap:\n  method: pitr\n  pitr:\n    command: c\n{rest}")
    };
    let config = read(&file("    no_params: 'false'\n    n: null\n    t: true\n")).expect("valid");
    let bootstrap = config.bootstrap.expect("bootstrap");
    let method = bootstrap.custom("pitr").expect("a method");
    assert!(method.no_params, "a text that is not empty is true");
    let extra: Vec<String> = method.extra.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(extra, ["n=None", "t=True"]);
    let conf = |text: &str| file(&format!("    recovery_conf: {{{text}}}\n"));
    let stops = faults(&conf("recovery_target_name: x, recovery_target_action: shutdown"));
    assert!(stops[0].contains("after which there is no new cluster"), "{stops:?}");
    let two = faults(&conf("recovery_target_name: x, recovery_target_xid: 7"));
    assert!(two[0].contains("takes one target"), "{two:?}");
    assert!(read(&conf("pause_at_recovery_target: false, recovery_target_name: x")).is_ok());
}

/// A section that is no map is named before anything is copied.
/// Spec: M-7.
#[test]
fn a_replica_methods_section_must_be_a_map() {
    for section in ["[command, x]", "restore.sh", "5"] {
        let text = SAMPLE.replace("    - pgbackrest\n", "    - odd\n");
        let text = text
            .replace("  listen: 10.0.0.10,", &format!("  odd: {section}\n  listen: 10.0.0.10,"));
        let found = faults(&text);
        assert_eq!(found.len(), 1, "{section}: {found:?}");
        assert!(found[0].contains("postgresql.odd: must be a map"), "{found:?}");
    }
}

/// Spec: D-5, EX-35.
#[test]
fn users_are_warned_of_and_an_empty_password_is_none() {
    let text = format!("{WITNESS}bootstrap:\n  users: {{a: {{password: x}}}}\n");
    let config = read(&text).expect("valid");
    let warned = config.warnings.iter().any(|w| w.to_string().contains("use post_bootstrap"));
    assert!(warned, "{:?}", config.warnings);
    let empty = SAMPLE.replace("password: super-geheim", "password: ''");
    let config = read(&empty).expect("valid").postgresql.expect("a section");
    assert_eq!(config.superuser.password, None);
}

/// Surus's own ordered list; initdb only where it is named.
#[test]
fn methods_are_tried_in_the_order_of_the_file() {
    let file = |list: &str| {
        format!(
            "{WITNESS}bootstrap:\n  methods: {list}\n  method_timeout: 7\n  \
             one: {{command: a}}\n  two: {{command: b}}\n"
        )
    };
    let config = read(&file("[two, one, initdb]")).expect("valid").bootstrap.expect("bootstrap");
    let names: Vec<&str> = config.methods.iter().map(CreateMethod::name).collect();
    assert_eq!(names, ["two", "one", "initdb"]);
    assert_eq!(config.method_timeout_s, Some(7));
    assert!(faults(&file("[three]"))[0].contains("names the section bootstrap.three"));
    assert!(faults(&file("[one, one]"))[0].contains("twice"));
    assert!(faults(&file("[]"))[0].contains("is empty"));
    let both = format!("{}  method: one\n", file("[one]"));
    assert!(faults(&both)[0].contains("keep one of the two"));
}

/// Spec: B-4, EX-2.
#[test]
fn forbidden_options_name_key_and_option() {
    let cases = [
        ("- data-checksums", "    - pgdata=/x", "bootstrap.initdb", "`pgdata`"),
        ("progress: true", "    format: tar", "postgresql.basebackup", "`format`"),
    ];
    for (needle, line, key, option) in cases {
        let found = faults(&changed(needle, line));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains(key) && found[0].contains(option), "{found:?}");
    }
}

#[test]
fn the_environment_wins_and_is_named_when_it_is_wrong() {
    let env = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    };
    let right = env(&[
        ("PATRONI_NAME", "other"),
        ("PATRONI_RAFT_PARTNER_ADDRS", "10.0.0.2:1,10.0.0.3:1"),
        ("PATRONI_RAFT_PASSWORD", "a long random word"),
        ("PATRONI_RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "on"),
    ]);
    let config = load(Path::new("f"), WITNESS, &right).expect("valid");
    assert_eq!((config.name.as_str(), config.raft.partner_addrs.len()), ("other", 2));
    assert!(config.restapi.allowlist_include_members);
    let wrong = env(&[("PATRONI_RAFT_BIND_ADDR", "x:y")]);
    let found = load(Path::new("f"), WITNESS, &wrong).expect_err("a fault")[0].to_string();
    let start = "environment variable PATRONI_RAFT_BIND_ADDR: raft.bind_addr: `x:y`";
    assert!(found.starts_with(start), "{found}");
}

#[test]
fn later_files_win_and_faults_name_their_own_file() {
    let parts = [
        ("a.yml".to_string(), WITNESS.to_string()),
        ("b.yml".to_string(), "name: later\nlog: {level: LOUD}\n".to_string()),
    ];
    let reading = read_parts(Path::new("dir"), &parts, &BTreeMap::new());
    assert_eq!(reading.faults.len(), 1);
    assert!(reading.faults[0].to_string().starts_with("b.yml:2: log.level: "));
    assert!(reading.config.is_none());
}

#[test]
fn a_protection_that_cannot_be_given_is_refused_or_spoken_of() {
    let text = WITNESS.replace("8008}", "8008, verify_client: required}");
    assert!(faults(&text)[0].contains("restapi.verify_client"));
    let text = WITNESS.replace("8008}", "8008, certfile: /x.crt, verify_client: none}");
    let warnings = read(&text).expect("valid").warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("speaks plain HTTP"), "{warnings:?}");
}

/// SEC-5, SEC-13: whoever speaks Raft may change everything, so where others can connect a password is
/// asked for.
#[test]
fn a_raft_password_is_asked_for_where_others_can_connect() {
    let with = |raft: &str| WITNESS.replace("self_addr: 10.0.0.1:2222", raft);
    let others = with("self_addr: 10.0.0.1:2222, partner_addrs: ['10.0.0.2:2222']");
    assert!(faults(&others)[0].contains("raft.password: is missing"), "{:?}", faults(&others));
    let everywhere = "self_addr: 127.0.0.1:1, bind_addr: 0.0.0.0:1, partner_addrs: ['127.0.0.1:2']";
    assert!(faults(&with(everywhere))[0].contains("raft.password: is missing"));
    let access = |text: &str| {
        let config = read(text).expect("valid");
        (config.raft.access(), config.warnings.iter().any(|w| w.contains(": raft.")))
    };
    assert_eq!(access(WITNESS), (PeerAccess::Nobody, false), "nobody is named, nobody comes");
    let here = with("self_addr: 127.0.0.1:1, partner_addrs: ['[::1]:2', 'localhost:3']");
    assert_eq!(access(&here), (PeerAccess::Loopback, true));
    let insecure = others.replace("}", ", insecure: true}");
    assert_eq!(access(&insecure), (PeerAccess::Insecure, true));
    let empty = others.replace("}", ", password: ''}");
    assert_eq!(faults(&empty).len(), 1);
    let long = others.replace("}", ", insecure: true, password: sixteen-and-more}");
    assert_eq!(access(&long), (PeerAccess::Password, false));
}

#[test]
fn odd_dynamic_values_are_warned_of_where_they_stand() {
    let config = read(&changed("loop_wait: 10", "    loop_wiat: 10")).expect("still valid");
    let line = line_of("loop_wait: 10");
    let start = format!("surus.yml:{line}: bootstrap.dcs.loop_wiat: is unknown");
    assert!(config.warnings.iter().any(|w| w.starts_with(&start)), "{:#?}", config.warnings);
}

#[test]
fn the_pgpass_file_is_at_home_unless_named() {
    let text: String =
        SAMPLE.lines().filter(|l| !l.contains("pgpass:")).collect::<Vec<_>>().join("\n");
    let postgresql = read(&text).expect("valid").postgresql.expect("postgresql");
    assert_eq!(postgresql.pgpass, Path::new("/home/p/pgpass"));
}

/// The sample with some lines dropped, doubled, cut, indented or overwritten.
fn mutated() -> impl Strategy<Value = String> {
    let lines: Vec<&str> = SAMPLE.lines().collect();
    let count = lines.len();
    let values = prop::sample::select(vec![
        "", "~", "[]", "{}", "[1]", "x", "-1", "on", "'", "1e9", "*a", "- -", "{a: [}",
    ]);
    prop::collection::vec((0..count, 0..6u8, values), 1..6).prop_map(move |changes| {
        let mut lines: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
        for (at, kind, value) in changes {
            let line = lines[at].clone();
            lines[at] = match kind {
                0 => String::new(),
                1 => format!("{line}\n{line}"),
                2 => line.chars().take(line.len() / 2).collect(),
                3 => format!("  {line}"),
                4 => format!("{}: {value}", line.split(':').next().unwrap_or_default()),
                _ => format!("{line}{value}"),
            };
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_text_never_panics_and_faults_are_sentences(
        text in "(\\PC|[\n:\\-{}\\[\\]&*#'\" ]){0,200}"
    ) {
        for fault in faults(&text) {
            prop_assert!(fault.starts_with("surus.yml:") && !fault.contains('\n'), "{}", fault);
        }
    }

    #[test]
    fn a_damaged_file_never_panics_and_never_shows_a_secret(text in mutated()) {
        let shown = match read(&text) {
            Ok(config) => format!("{} {:?}", redacted(&config), config.warnings),
            Err(faults) => format!("{faults:?}"),
        };
        prop_assert!(!shown.contains("super-geheim") && !shown.contains("raft-geheim"), "{}", shown);
    }

    #[test]
    fn any_dynamic_configuration_yields_times_that_fit(
        ttl in any::<i32>(), loop_wait in any::<i32>(), retry in any::<i32>()
    ) {
        let value = json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry});
        let dynamic = Dynamic::from_value(Some(&value));
        prop_assert!(dynamic.ttl_ms >= 2000 && dynamic.loop_wait_ms >= 1000);
        prop_assert!(dynamic.retry_timeout_ms >= 1000);
        prop_assert!(dynamic.loop_wait_ms + dynamic.retry_timeout_ms <= dynamic.ttl_ms);
    }
}
