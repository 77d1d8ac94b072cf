//! Keys that nobody reads: misspelt ones get the nearest known name, Patroni's that Surus has no
//! use for are named once.
use super::faults::{Fault, Report};
use super::reader::Section;
use super::tree::{Kind, Node, join};

/// What becomes of a known key.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// Read; a map below it has its own rows.
    Read,
    /// Read; whatever is below is the user's.
    Open,
    /// Patroni's, accepted, without effect.
    Unused,
}

/// Stores and extensions of Patroni's that Surus does not use.
const STORES: [&str; 8] =
    ["etcd", "etcd3", "consul", "zookeeper", "exhibitor", "kubernetes", "citus", "mpp"];

const ROWS: &[(&str, Use, &str)] = &[
    ("", Use::Read, "scope namespace name log restapi ctl raft bootstrap postgresql tags watchdog"),
    ("", Use::Unused, "thread_pool_size thread_stack_size"),
    ("log", Use::Read, "level type dir file_size file_num mode"),
    (
        "log",
        Use::Unused,
        "traceback_level format dateformat static_fields max_queue_size loggers \
         deduplicate_heartbeat_logs",
    ),
    (
        "restapi",
        Use::Read,
        "listen connect_address authentication allowlist allowlist_include_members server_tokens \
         verify_client certfile",
    ),
    ("restapi", Use::Open, "http_extra_headers"),
    (
        "restapi",
        Use::Unused,
        "https_extra_headers keyfile keyfile_password cafile ciphers thread_pool_size \
         request_queue_size",
    ),
    ("restapi.authentication", Use::Read, "username password"),
    ("ctl", Use::Read, "authentication"),
    ("ctl", Use::Unused, "insecure cacert certfile keyfile keyfile_password"),
    ("ctl.authentication", Use::Read, "username password"),
    ("raft", Use::Read, "data_dir self_addr bind_addr partner_addrs password insecure voters_max"),
    (
        "raft",
        Use::Unused,
        "min_timeout max_timeout connection_timeout append_entries_period connection_retry_time \
         leader_fallback_timeout",
    ),
    ("bootstrap", Use::Open, "dcs initdb"),
    (
        "bootstrap",
        Use::Read,
        "method methods pg_hba post_bootstrap post_init users method_timeout recovery_timeout \
         post_bootstrap_timeout",
    ),
    (
        "postgresql",
        Use::Read,
        "listen connect_address data_dir config_dir database bin_dir pgpass authentication pg_hba \
         pg_ident custom_conf use_unix_socket use_pg_rewind callbacks pre_promote \
         remove_data_directory_on_rewind_failure remove_data_directory_on_diverged_timelines \
         before_stop create_replica_methods create_replica_method use_slots",
    ),
    ("postgresql", Use::Open, "parameters recovery_conf basebackup rewind"),
    (
        "postgresql",
        Use::Unused,
        "pg_ctl_timeout proxy_address config_base_name bin_name use_unix_socket_repl krbsrvname \
         parameters_primary parameters_replica parameters_standby_leader pg_hba_primary \
         pg_hba_replica pg_hba_standby_leader pg_ident_primary pg_ident_replica \
         pg_ident_standby_leader",
    ),
    ("postgresql.authentication", Use::Read, "superuser replication rewind"),
    ("postgresql.callbacks", Use::Read, "on_start on_stop on_restart on_reload on_role_change"),
    ("watchdog", Use::Read, "mode device safety_margin"),
    ("watchdog", Use::Unused, "driver"),
];

/// The keys of `postgresql` that count in the dynamic configuration.
const DYNAMIC: [&str; 11] = [
    "parameters",
    "pg_hba",
    "pg_ident",
    "recovery_conf",
    "use_pg_rewind",
    "use_slots",
    "remove_data_directory_on_rewind_failure",
    "remove_data_directory_on_diverged_timelines",
    "callbacks",
    "pre_promote",
    "before_stop",
];

/// Warns of every key below `postgresql` of the dynamic configuration that no node reads, by the same
/// table as the file's.
pub fn check_dynamic(postgresql: &Section) {
    let known = names("postgresql");
    for (key, node) in postgresql.entries() {
        let usage = known.iter().find(|(name, _)| name == key).map(|(_, usage)| *usage);
        match usage {
            _ if DYNAMIC.contains(&key.as_str()) || node.is_null() => {}
            Some(Use::Unused) => postgresql.warn(key, UNUSED),
            Some(Use::Read | Use::Open) => postgresql.warn(key, LOCAL),
            None if node.get("command").is_some() => postgresql.warn(key, LOCAL),
            None => postgresql.warn(key, unknown(key, &known)),
        }
    }
}

const UNUSED: &str = "is Patroni's and has no effect in Surus; it may stay or go";
const LOCAL: &str = "belongs into each node's own file and is ignored here; remove it";

/// Warns of every key of `tree` that nobody reads.
pub fn check(tree: &Node, report: &Report) {
    walk(tree, "", report);
}

fn walk(node: &Node, path: &str, report: &Report) {
    let Kind::Map(entries) = &node.kind else { return };
    let known = names(path);
    if known.is_empty() {
        return;
    }
    for (key, child) in entries {
        let here = join(path, key);
        match known.iter().find(|(name, _)| name == key).map(|(_, usage)| *usage) {
            Some(Use::Read) => walk(child, &here, report),
            Some(Use::Open) => {}
            Some(Use::Unused) => {
                report.warn(Fault::new(&child.place, &here, UNUSED));
            }
            None if path.is_empty() && STORES.contains(&key.as_str()) => {
                let message = "is accepted and unused: Surus keeps the cluster's state itself \
                               (section raft)";
                report.warn(Fault::new(&child.place, &here, message));
            }
            None if is_users_own(path, child) => {}
            None => report.warn(Fault::new(&child.place, &here, unknown(key, &known))),
        }
    }
}

/// A section of a custom method stands under a name of the user's choice.
fn is_users_own(path: &str, node: &Node) -> bool {
    matches!(path, "bootstrap" | "postgresql") && node.get("command").is_some()
}

fn names(path: &str) -> Vec<(String, Use)> {
    if path.starts_with("postgresql.authentication.") {
        let keywords = ["username", "password"].into_iter().chain(super::LIBPQ_KEYWORDS);
        return keywords.map(|name| (name.to_string(), Use::Read)).collect();
    }
    let rows = ROWS.iter().filter(|(section, ..)| *section == path);
    rows.flat_map(|(_, usage, names)| names.split_whitespace().map(|n| (n.to_string(), *usage)))
        .collect()
}

fn unknown(key: &str, known: &[(String, Use)]) -> String {
    let scored = known.iter().map(|(name, _)| (strsim::jaro_winkler(key, name), name));
    let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.8);
    match nearest {
        Some((_, name)) => format!("is unknown and has no effect; did you mean `{name}`?"),
        None => "is unknown and has no effect; remove it".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn warnings(text: &str) -> Vec<String> {
        let report = Report::default();
        let node = super::super::yaml::parse(&Arc::from("f"), text, &report).expect("YAML");
        check(&node, &report);
        report.finish().1.iter().map(Fault::to_string).collect()
    }

    #[test]
    fn a_misspelt_key_gets_the_nearest_name_and_its_line() {
        let found = warnings("scope: a\npostgresql:\n  data_dri: /x\n  xyzzy: 1\n");
        let expected = [
            "f:3: postgresql.data_dri: is unknown and has no effect; did you mean `data_dir`?",
            "f:4: postgresql.xyzzy: is unknown and has no effect; remove it",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn other_stores_are_accepted_and_unused() {
        let found = warnings("etcd3:\n  hosts: [a]\nthread_pool_size: 7\n");
        assert!(found[0].starts_with("f:1: etcd3: is accepted and unused"));
        assert!(found[1].starts_with("f:3: thread_pool_size: is Patroni's"));
    }

    #[test]
    fn users_own_keys_are_left_alone() {
        let text = "tags: {any: 1}\nbootstrap:\n  dcs: {x: 1}\n  pitr: {command: c, a: b}\n\
                    postgresql:\n  parameters: {a.b: c}\n  wal_e: {command: x}\n";
        assert_eq!(warnings(text), Vec::<String>::new());
    }
}
