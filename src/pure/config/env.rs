//! The `PATRONI_*` environment variables, laid over the file.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::faults::{Fault, Place, Report};
use super::tree::{Kind, Node};
use super::yaml;

/// How a variable's text becomes a value.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Text,
    /// `a,b` or a YAML list.
    List,
    /// `{k: v}` or bare `k: v` (also `k: v, l: w`).
    Map,
}

/// Variable (without the prefix) and the key it sets.
const VARIABLES: &[(&str, &str, Shape)] = &[
    ("NAME", "name", Shape::Text),
    ("SCOPE", "scope", Shape::Text),
    ("NAMESPACE", "namespace", Shape::Text),
    ("LOGLEVEL", "log.level", Shape::Text),
    ("LOG_TYPE", "log.type", Shape::Text),
    ("LOG_LEVEL", "log.level", Shape::Text),
    ("LOG_DIR", "log.dir", Shape::Text),
    ("LOG_FILE_SIZE", "log.file_size", Shape::Text),
    ("LOG_FILE_NUM", "log.file_num", Shape::Text),
    ("LOG_MODE", "log.mode", Shape::Text),
    ("RESTAPI_LISTEN", "restapi.listen", Shape::Text),
    ("RESTAPI_CONNECT_ADDRESS", "restapi.connect_address", Shape::Text),
    ("RESTAPI_CERTFILE", "restapi.certfile", Shape::Text),
    ("RESTAPI_KEYFILE", "restapi.keyfile", Shape::Text),
    ("RESTAPI_KEYFILE_PASSWORD", "restapi.keyfile_password", Shape::Text),
    ("RESTAPI_CAFILE", "restapi.cafile", Shape::Text),
    ("RESTAPI_CIPHERS", "restapi.ciphers", Shape::Text),
    ("RESTAPI_VERIFY_CLIENT", "restapi.verify_client", Shape::Text),
    ("RESTAPI_HTTP_EXTRA_HEADERS", "restapi.http_extra_headers", Shape::Map),
    ("RESTAPI_HTTPS_EXTRA_HEADERS", "restapi.https_extra_headers", Shape::Map),
    ("RESTAPI_ALLOWLIST", "restapi.allowlist", Shape::List),
    ("RESTAPI_ALLOWLIST_INCLUDE_MEMBERS", "restapi.allowlist_include_members", Shape::Text),
    ("RESTAPI_SERVER_TOKENS", "restapi.server_tokens", Shape::Text),
    ("RESTAPI_USERNAME", "restapi.authentication.username", Shape::Text),
    ("RESTAPI_PASSWORD", "restapi.authentication.password", Shape::Text),
    ("CTL_INSECURE", "ctl.insecure", Shape::Text),
    ("CTL_CACERT", "ctl.cacert", Shape::Text),
    ("CTL_CERTFILE", "ctl.certfile", Shape::Text),
    ("CTL_KEYFILE", "ctl.keyfile", Shape::Text),
    ("CTL_KEYFILE_PASSWORD", "ctl.keyfile_password", Shape::Text),
    ("CTL_USERNAME", "ctl.authentication.username", Shape::Text),
    ("CTL_PASSWORD", "ctl.authentication.password", Shape::Text),
    ("POSTGRESQL_LISTEN", "postgresql.listen", Shape::Text),
    ("POSTGRESQL_CONNECT_ADDRESS", "postgresql.connect_address", Shape::Text),
    ("POSTGRESQL_PROXY_ADDRESS", "postgresql.proxy_address", Shape::Text),
    ("POSTGRESQL_CONFIG_DIR", "postgresql.config_dir", Shape::Text),
    ("POSTGRESQL_DATA_DIR", "postgresql.data_dir", Shape::Text),
    ("POSTGRESQL_PGPASS", "postgresql.pgpass", Shape::Text),
    ("POSTGRESQL_BIN_DIR", "postgresql.bin_dir", Shape::Text),
    ("RAFT_DATA_DIR", "raft.data_dir", Shape::Text),
    ("RAFT_SELF_ADDR", "raft.self_addr", Shape::Text),
    ("RAFT_BIND_ADDR", "raft.bind_addr", Shape::Text),
    ("RAFT_PARTNER_ADDRS", "raft.partner_addrs", Shape::List),
    ("RAFT_PASSWORD", "raft.password", Shape::Text),
];

/// Users whose credentials may come from the environment, and libpq's keywords for them.
const USERS: [&str; 3] = ["superuser", "replication", "rewind"];

/// The programs of `postgresql.bin_name`.
const PROGRAMS: [&str; 7] =
    ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready", "pg_rewind"];

/// Lays every variable of `env` that Surus knows over `tree`; an empty one counts as unset.
pub fn apply(tree: &mut Node, env: &BTreeMap<String, String>, report: &Report) {
    for (suffix, path, shape) in VARIABLES {
        set(tree, env, suffix, path, *shape, report);
    }
    for user in USERS {
        for keyword in ["username", "password"].into_iter().chain(super::LIBPQ_KEYWORDS) {
            let suffix = format!("{}_{}", user.to_uppercase(), keyword.to_uppercase());
            let path = format!("postgresql.authentication.{user}.{keyword}");
            set(tree, env, &suffix, &path, Shape::Text, report);
        }
    }
    for program in PROGRAMS {
        let suffix = format!("POSTGRESQL_BIN_{}", program.to_uppercase());
        let path = format!("postgresql.bin_name.{program}");
        set(tree, env, &suffix, &path, Shape::Text, report);
    }
    name_strangers(env, report);
}

/// Stores of Patroni's; all their variables begin so.
const STORES: [&str; 7] =
    ["ETCD", "CONSUL", "ZOOKEEPER", "EXHIBITOR", "KUBERNETES", "CITUS", "DCS_"];

/// Warns of variables that were meant for us and that nobody reads.
fn name_strangers(env: &BTreeMap<String, String>, report: &Report) {
    let known: Vec<String> = known_names().collect();
    for variable in env.keys() {
        let Some(suffix) = variable.strip_prefix("PATRONI_") else { continue };
        if known.iter().any(|name| name == suffix) {
            continue;
        }
        let source: Arc<str> = Arc::from(format!("environment variable {variable}"));
        let scored = known.iter().map(|name| (strsim::jaro_winkler(suffix, name), name));
        let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.85);
        let message = match nearest {
            _ if STORES.iter().any(|store| suffix.starts_with(store)) => {
                "is accepted and unused: Surus keeps the cluster's state itself".to_string()
            }
            Some((_, name)) => format!("has no effect; did you mean PATRONI_{name}?"),
            None => "has no effect in Surus; it may stay or go".to_string(),
        };
        report.warn(Fault::new(&Place::new(&source, None), "", message));
    }
}

fn known_names() -> impl Iterator<Item = String> {
    let keywords = || ["username", "password"].into_iter().chain(super::LIBPQ_KEYWORDS);
    let users = USERS.iter().flat_map(move |user| keywords().map(move |k| format!("{user}_{k}")));
    let programs = PROGRAMS.iter().map(|program| format!("postgresql_bin_{program}"));
    let variables = VARIABLES.iter().map(|(suffix, ..)| suffix.to_string());
    variables.chain(users.chain(programs).map(|name| name.to_uppercase()))
}

fn set(
    tree: &mut Node,
    env: &BTreeMap<String, String>,
    suffix: &str,
    path: &str,
    shape: Shape,
    report: &Report,
) {
    let variable = format!("PATRONI_{suffix}");
    let Some(text) = env.get(&variable).filter(|text| !text.is_empty()) else { return };
    let source: Arc<str> = Arc::from(format!("environment variable {variable}"));
    let keys: Vec<&str> = path.split('.').collect();
    match node_of(text, shape, &source) {
        Some(node) => tree.set(&keys, node),
        None => report.fault(Fault::new(
            &Place::new(&source, None),
            path,
            "must be a map; write {key: value}",
        )),
    }
}

fn node_of(text: &str, shape: Shape, source: &Arc<str>) -> Option<Node> {
    match shape {
        Shape::Text => Some(scalar(text, source)),
        Shape::List => Some(list(text, source)),
        Shape::Map => {
            let braced = format!("{{{text}}}");
            [text, braced.as_str()]
                .into_iter()
                .find_map(|attempt| yaml(attempt, source).filter(is_full_map))
        }
    }
}

/// A map in which every key has a value: `{x}` is one for YAML, but nobody means it.
fn is_full_map(node: &Node) -> bool {
    matches!(&node.kind, Kind::Map(entries) if entries.iter().all(|(_, value)| !value.is_null()))
}

fn scalar(text: &str, source: &Arc<str>) -> Node {
    Node::from_value(&Value::from(text), source)
}

fn list(text: &str, source: &Arc<str>) -> Node {
    let trimmed = text.trim();
    let yaml_list = trimmed.starts_with('[') || trimmed.starts_with("- ");
    let parsed = if yaml_list { yaml(text, source) } else { None };
    parsed.filter(|node| matches!(node.kind, Kind::List(_))).unwrap_or_else(|| {
        let parts = text.split(',').map(|part| part.trim().trim_matches(['"', '\'']));
        let items = parts.filter(|p| !p.is_empty()).map(|p| scalar(p, source)).collect();
        Node { place: Place::new(source, None), kind: Kind::List(items) }
    })
}

/// YAML of a variable; its lines mean nothing to the reader, so they go.
fn yaml(text: &str, source: &Arc<str>) -> Option<Node> {
    let node = yaml::parse(source, text, &Report::default()).ok()?;
    Some(Node::from_value(&node.value(), source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn applied(file: Value, pairs: &[(&str, &str)]) -> (Value, Vec<String>) {
        let report = Report::default();
        let mut tree = Node::from_value(&file, &Arc::from("f"));
        let env = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        apply(&mut tree, &env, &report);
        (tree.value(), report.finish().0.iter().map(Fault::to_string).collect())
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let (value, faults) = applied(
            json!({"scope": "a", "postgresql": {"listen": "x:1"}}),
            &[
                ("PATRONI_SCOPE", "b"),
                ("PATRONI_NAME", ""),
                ("PATRONI_REPLICATION_PASSWORD", "p:#x"),
                ("PATRONI_POSTGRESQL_BIN_PG_CTL", "pg_ctl15"),
            ],
        );
        let expected = json!({"scope": "b", "postgresql": {"listen": "x:1",
            "authentication": {"replication": {"password": "p:#x"}},
            "bin_name": {"pg_ctl": "pg_ctl15"}}});
        assert_eq!((value, faults), (expected, vec![]));
    }

    #[test]
    fn variables_that_nobody_reads_are_named() {
        let report = Report::default();
        let mut tree = Node::from_value(&json!({}), &Arc::from("f"));
        let names = [
            "PATRONI_NAEM",
            "PATRONI_ETCD3_HOSTS",
            "PATRONI_SCOPE",
            "HOME",
            "PATRONI_REPLICATION_SSLMODE",
            "PATRONI_QWERTZ",
        ];
        let env = names.iter().map(|name| (name.to_string(), "x".to_string())).collect();
        apply(&mut tree, &env, &report);
        let warned: Vec<String> = report.finish().1.iter().map(Fault::to_string).collect();
        assert_eq!(warned.len(), 3, "{warned:?}");
        assert!(warned.iter().any(|w| w.contains("PATRONI_NAEM") && w.contains("PATRONI_NAME?")));
    }

    #[test]
    fn lists_and_maps_have_two_spellings_each() {
        for text in ["a:1,b:2", "['a:1', \"b:2\"]", "'a:1','b:2'", "- a:1\n- b:2"] {
            let (value, _) = applied(json!({}), &[("PATRONI_RAFT_PARTNER_ADDRS", text)]);
            assert_eq!(value["raft"]["partner_addrs"], json!(["a:1", "b:2"]), "{text}");
        }
        for text in ["{a: b, c: d}", "a: b, c: d"] {
            let (value, _) = applied(json!({}), &[("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", text)]);
            assert_eq!(value["restapi"]["http_extra_headers"], json!({"a": "b", "c": "d"}));
        }
        let (_, faults) = applied(json!({}), &[("PATRONI_RESTAPI_HTTP_EXTRA_HEADERS", "x")]);
        assert!(faults[0].starts_with("environment variable PATRONI_RESTAPI_HTTP_EXTRA_HEADERS"));
    }
}
