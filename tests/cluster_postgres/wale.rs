//! A replica out of a store of the real WAL-E, by the recipe as it stands.
//!
//! The backup is taken of a stopped server: what WAL-E calls to take one of a running server is gone from
//! PostgreSQL 15. The store is a directory.
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::http;
use super::origin::{as_postgres, there};

fn recipe(envdir: &Path) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recipes/replica-wale.yml");
    let text = fs::read_to_string(path).expect("the recipe");
    let text = text
        .replace("/etc/wal-e.d/env", &envdir.display().to_string())
        .replace("command: surus", concat!("command: ", env!("CARGO_BIN_EXE_surus")));
    serde_saphyr::from_str(&text).expect("YAML")
}

/// A directory with WAL-E's variables, and one for its store.
fn with_store(cluster: &Cluster) -> std::path::PathBuf {
    let place = cluster.nodes[0].dir.parent().expect("a place").to_owned();
    let (envdir, store) = (place.join("env"), place.join("store"));
    for dir in [&envdir, &store] {
        fs::create_dir(dir).expect("it is new");
        cluster.give_away(dir);
    }
    let prefix = format!("file://localhost{}", store.display());
    for (name, value) in [("WALE_FILE_PREFIX", prefix.as_str()), ("WALE_LOG_DESTINATION", "stderr")]
    {
        fs::write(envdir.join(name), value).expect("it can be written");
    }
    envdir
}

fn failures(cluster: &Cluster, k: usize) -> String {
    let build = http::get_json(&cluster.nodes[k].rest(), "/replica-build").unwrap_or_default();
    build["failures"].to_string()
}

/// WAL-E leaves pg_hba.conf out of its backups: the copy that Surus keeps beside it is put back.
/// Spec: M-10, M-16, M-20, M-21, WE-1, WE-2, WE-3, WE-4.
#[test]
fn wal_e_builds_a_replica() {
    if !there("wal-e") {
        return;
    }
    let spec = Spec { nodes: 2, ttl_s: 4, file: json!({}), ..Spec::default() };
    let Some(mut cluster) = Cluster::plan(spec) else { return };
    let envdir = with_store(&cluster);
    let own = recipe(&envdir);
    cluster.numbers().into_iter().for_each(|k| cluster.edit(k, &own));
    cluster.numbers().into_iter().for_each(|k| cluster.start(k));
    let first = cluster.wait_settled(60);
    let second = 1 - first;
    let said = failures(&cluster, second);
    assert!(said.contains("wal_e"), "no backup yet: {said}");
    cluster.make_table();
    cluster.nodes[first].column("INSERT INTO acked VALUES (1)").expect("it takes writes");
    cluster.nodes[first].column("SELECT pg_switch_wal()").expect("it takes writes");
    assert_eq!(cluster.nodes[second].stop(30), Some(0));
    assert_eq!(cluster.nodes[first].stop(30), Some(0));
    let (env, data) = (envdir.display().to_string(), cluster.nodes[first].data());
    let push = [env.as_str(), "wal-e", "backup-push", "--while-offline"];
    as_postgres("envdir", &[&push[..], &[&data.display().to_string()]].concat());
    cluster.nodes[second].wipe_data();
    cluster.start(first);
    cluster.start(second);
    cluster.wait_settled(60);
    assert_eq!(failures(&cluster, second), "[]", "WAL-E did it");
    let insert = "INSERT INTO acked VALUES (2)";
    cluster.nodes[cluster.leader()].column(insert).expect("it takes writes");
    wait_until("both rows", 20, || cluster.stored(second).len() == 2);
    let fetched = envdir.with_file_name("store").join("wal_005");
    assert!(fs::read_dir(fetched).is_ok_and(|files| files.count() > 0), "wal-push was used");
}
