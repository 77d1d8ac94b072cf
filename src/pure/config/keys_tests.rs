//! Spec: ha-parity §12, CK-1 to CK-3. Every key of Patroni's is honoured, told or refused.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Config, Dynamic, Fault, load::read_parts};

const BASE: &str = r#"{"scope": "s", "name": "n",
    "restapi": {"listen": "10.0.0.1:8008"},
    "raft": {"data_dir": "/r", "self_addr": "10.0.0.1:2222", "password": "a long random word of ours"},
    "bootstrap": {"dcs": {"ttl": 30}},
    "postgresql": {"listen": "10.0.0.1:5432", "data_dir": "/d", "authentication": {
        "superuser": {"username": "p", "password": "p"},
        "replication": {"username": "r", "password": "r"}}}}"#;

/// Keys that count, each with a value that is not the default.
const COUNTED: &str = r#"{"namespace": "/x", "log.level": "DEBUG", "log.type": "json", "log.dir": "/l",
    "log.file_size": 5, "log.file_num": 1, "log.mode": "0640",
    "restapi.connect_address": "10.0.0.9:1",
    "restapi.authentication": {"username": "u", "password": "p"},
    "restapi.allowlist": ["10.0.0.0/8"], "restapi.allowlist_include_members": true,
    "restapi.http_extra_headers": {"a": "b"}, "restapi.server_tokens": "minimal",
    "ctl.authentication": {"username": "u", "password": "p"},
    "raft.bind_addr": "0.0.0.0:1", "raft.partner_addrs": ["10.0.0.2:1"], "raft.voters_max": 3,
    "bootstrap.initdb": ["data-checksums"], "bootstrap.pg_hba": ["local all all trust"],
    "bootstrap.post_bootstrap": "x", "bootstrap.post_init": "y",
    "postgresql.connect_address": "10.0.0.9:5432", "postgresql.bin_dir": "/b",
    "postgresql.config_dir": "/c", "postgresql.database": "d", "postgresql.pgpass": "/p",
    "postgresql.parameters": {"work_mem": "1MB"}, "postgresql.pg_hba": ["local all all trust"],
    "postgresql.pg_ident": ["a b c"], "postgresql.recovery_conf": {"restore_command": "c"},
    "postgresql.custom_conf": "/x", "postgresql.callbacks": {"on_start": "c"},
    "postgresql.pre_promote": "c", "postgresql.before_stop": "c",
    "postgresql.use_pg_rewind": true, "postgresql.use_unix_socket": true,
    "postgresql.rewind": ["debug"], "postgresql.basebackup": ["verbose"],
    "postgresql.create_replica_methods": ["m"],
    "postgresql.remove_data_directory_on_rewind_failure": true,
    "postgresql.remove_data_directory_on_diverged_timelines": true,
    "watchdog": {"mode": "required", "device": "/w", "safety_margin": 9},
    "tags": {"nofailover": true, "clonefrom": true, "noloadbalance": true, "nosync": true,
        "nostream": true, "replicatefrom": "x", "mine": 1}}"#;

/// Faults and warnings of the base with `value` at `path`.
fn read_with(path: &str, value: &Value, env: &[(&str, &str)]) -> (Option<Config>, Vec<String>) {
    let mut tree: Value = serde_json::from_str(BASE).expect("JSON");
    if !path.is_empty() {
        let pointer = path.split('.').fold(String::new(), |all, key| format!("{all}/{key}"));
        let (parent, key) = pointer.rsplit_once('/').expect("a slash");
        let mut place = &mut tree;
        for step in parent.split('/').filter(|step| !step.is_empty()) {
            place = &mut place[step];
        }
        place[key] = value.clone();
    }
    let env: BTreeMap<_, _> = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let text = tree.to_string();
    let reading = read_parts(Path::new("f"), &[("f".into(), text)], &env);
    let said = reading.faults.iter().chain(&reading.warnings).map(Fault::to_string).collect();
    (reading.config, said)
}

fn said_of(said: &[String], key: &str) -> bool {
    said.iter().any(|sentence| sentence.contains(key))
}

#[test]
fn every_key_of_the_file_that_has_no_effect_is_told() {
    let keys = "thread_pool_size thread_stack_size etcd etcd3 consul zookeeper exhibitor kubernetes \
        citus log.traceback_level log.format log.dateformat log.static_fields log.max_queue_size \
        log.loggers log.deduplicate_heartbeat_logs restapi.certfile restapi.keyfile \
        restapi.keyfile_password restapi.cafile restapi.ciphers restapi.https_extra_headers \
        restapi.thread_pool_size restapi.request_queue_size ctl.insecure ctl.cacert ctl.certfile \
        ctl.keyfile ctl.keyfile_password raft.min_timeout raft.max_timeout raft.connection_timeout \
        raft.append_entries_period raft.connection_retry_time raft.leader_fallback_timeout \
        postgresql.proxy_address postgresql.config_base_name postgresql.bin_name \
        postgresql.use_unix_socket_repl postgresql.krbsrvname postgresql.use_slots \
        postgresql.pg_ctl_timeout postgresql.parameters_primary postgresql.pg_hba_replica \
        postgresql.pg_ident_standby_leader watchdog.driver bootstrap.users";
    for key in keys.split_whitespace() {
        let (_, said) = read_with(key, &json!(true), &[]);
        assert!(said_of(&said, key), "{key}: {said:?}");
    }
    let (config, said) = read_with("restapi.verify_client", &json!("required"), &[]);
    assert!(config.is_none() && said_of(&said, "restapi.verify_client"));
}

#[test]
fn every_key_of_the_file_that_counts_makes_a_difference_without_a_word() {
    let (base, none) = read_with("", &json!(null), &[]);
    assert_eq!(none, Vec::<String>::new());
    let base = format!("{:?}", base.expect("a good file"));
    let keys: Value = serde_json::from_str(COUNTED).expect("JSON");
    for (key, value) in keys.as_object().expect("a map") {
        let (config, said) = read_with(key, value, &[]);
        assert_eq!(said, Vec::<String>::new(), "{key}");
        assert_ne!(format!("{:?}", config.expect("a good file")), base, "{key}");
    }
}

/// CK-1: laid over the file after the check, these were silent.
#[test]
fn variables_are_told_with_their_own_place() {
    let silent = "POSTGRESQL_PROXY_ADDRESS POSTGRESQL_BIN_PG_CTL RESTAPI_KEYFILE RESTAPI_CAFILE \
        RESTAPI_KEYFILE_PASSWORD RESTAPI_CIPHERS CTL_CACERT CTL_CERTFILE CTL_KEYFILE \
        CTL_KEYFILE_PASSWORD CTL_INSECURE RESTAPI_CERTFILE LOG_FORMAT THREAD_POOL_SIZE \
        RESTAPI_REQUEST_QUEUE_SIZE ETCD3_HOSTS RAFT_MIN_TIMEOUT CITUS_GROUP";
    for variable in silent.split_whitespace().map(|suffix| format!("PATRONI_{suffix}")) {
        let (_, said) = read_with("", &json!(null), &[(&variable, "true")]);
        assert!(
            said_of(&said, &format!("environment variable {variable}")),
            "{variable}: {said:?}"
        );
    }
    let (config, said) = read_with("", &json!(null), &[("PATRONI_LOG_MODE", "0640")]);
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(config.expect("a good file").log.mode, Some(0o640));
}

/// CK-2.
#[test]
fn every_key_of_the_dynamic_configuration_that_has_no_effect_is_told() {
    let told = |value: Value, key: &str| {
        let warnings = Dynamic::from_value(Some(&value)).warnings;
        assert!(said_of(&warnings, key), "{key}: {warnings:?}");
    };
    for key in "failsafe_mode primary_race_backoff max_timelines_history pause tttl \
        primary_stop_timeout"
        .split_whitespace()
    {
        told(json!({ key: 1 }), key);
    }
    told(json!({"ignore_slots": ["x"]}), "ignore_slots");
    told(json!({"slots": {"a-b": {"type": "physical"}}}), "slots.a-b");
    for key in "pg_ctl_timeout create_replica_methods basebackup rewind custom_conf bin_name \
        use_unix_socket use_unix_socket_repl krbsrvname parameters_primary pg_hba_replica listen \
        connect_address proxy_address config_dir data_dir pgpass authentication databse"
        .split_whitespace()
    {
        told(json!({"postgresql": { key: "x" }}), &format!("postgresql.{key}"));
    }
    told(json!({"postgresql": {"wal_e": {"command": "x"}}}), "postgresql.wal_e");
    let honoured = json!({"postgresql": {"parameters": {}, "pg_hba": ["local all all trust"],
        "pg_ident": ["a b c"], "recovery_conf": {}, "use_pg_rewind": true, "use_slots": true,
        "remove_data_directory_on_rewind_failure": true, "callbacks": {}, "pre_promote": "x",
        "remove_data_directory_on_diverged_timelines": true, "before_stop": "x"},
        "ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": "1MB",
        "check_timeline": true, "primary_start_timeout": 300, "synchronous_mode": true,
        "synchronous_mode_strict": true, "synchronous_node_count": 1, "member_slots_ttl": "30min",
        "maximum_lag_on_syncnode": -1, "slots": {"a": null}, "ignore_slots": [{"name": "x"}]});
    assert_eq!(Dynamic::from_value(Some(&honoured)).warnings, Vec::<String>::new());
}
