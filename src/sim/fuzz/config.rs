//! Configuration: the file with the environment over it, and what the cluster stores.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::pure::cluster::apply::merge;
use crate::pure::config::{Config, Dynamic, effective, load};
use crate::pure::patroni::dynamic;
use crate::pure::postgres::settings::{Server, conf_text, parameters};
use crate::pure::postgres::version::Version;

/// YAML, then a zero byte, then `NAME=value` lines of the environment.
pub fn file(bytes: &[u8]) {
    let text = super::text(bytes);
    let (yaml, env) = text.split_once('\0').unwrap_or((&text, ""));
    let pairs = env.lines().filter_map(|line| line.split_once('='));
    let env: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match load("surus.yml".as_ref(), yaml, &env) {
        Ok(config) => use_it(&config),
        Err(faults) => {
            assert!(!faults.is_empty(), "what is refused is refused for a reason");
            faults.iter().for_each(|fault| drop(fault.to_string()));
        }
    }
}

fn use_it(config: &Config) {
    serde_json::to_value(config).expect("a configuration can be shown");
    let dynamic = Dynamic::from_value(config.bootstrap.as_ref().map(|b| &b.dcs));
    if let Some(own) = &config.postgresql {
        render(&effective(own, &dynamic));
    }
}

fn render(settings: &crate::pure::config::PostgresSettings) {
    let control = BTreeMap::from([("max_connections".to_owned(), "100".to_owned())]);
    for (version, standby) in [(90_600, false), (180_000, true)] {
        let rendered = parameters(&Server {
            scope: "batman",
            listen_addresses: "*",
            port: 5432,
            config_dir: "/etc/postgresql",
            version: Version(version),
            settings,
            control: &control,
            standby,
            synchronous_standby_names: None,
            hot_standby_feedback: false,
            known: None,
        });
        drop(conf_text("postgresql.base.conf", &rendered.parameters, &BTreeMap::new()));
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().any(has_null),
        _ => false,
    }
}

/// JSON that a cluster stores, and JSON that changes it.
pub fn dynamic(bytes: &[u8]) {
    let text = super::text(bytes);
    let mut parts = text.splitn(2, '\0').map(|part| serde_json::from_str::<Value>(part).ok());
    let Some(stored) = parts.next().flatten() else { return };
    let read = Dynamic::from_value(Some(&stored));
    assert!(read.ttl_ms > 0 && read.loop_wait_ms > 0, "{read:?} would stand still");
    drop((render(&read.postgresql), serde_json::to_value(&read)));
    let Some(Value::Object(patch)) = parts.next().flatten() else { return };
    if dynamic::check(&patch).is_err() {
        return;
    }
    let patch = Value::Object(patch);
    let mut merged = dynamic::patched(&stored, &patch);
    let once = merged.clone();
    merge(&mut merged, &patch);
    // A null in a new object is stored the first time and deletes the second time, as in Patroni.
    assert!(merged == once || has_null(&patch), "merged twice it changes more: {patch}");
    drop(Dynamic::from_value(Some(&merged)));
}
