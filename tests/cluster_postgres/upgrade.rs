//! Another major version, by pg_upgrade: the steps of docs/operations.md.
use std::fs;

use serde_json::json;

use super::cluster::{Cluster, Spec, bin_dir, wait_until};
use super::origin::{as_postgres, tool};
use super::sql::PASSWORD;

/// The upgraded primary has another system identifier. Until the cluster's old state is put away it
/// is left alone, and why is said; then it is adopted with all that was in it, nothing is created,
/// and the replica is copied anew.
/// Spec: A-4, I-10.
#[test]
fn an_upgraded_primary_begins_the_cluster_anew() {
    let spec = Spec { nodes: 2, ttl_s: 3, ..Spec::default() };
    let Some(mut cluster) = Cluster::start_all(spec) else { return };
    let (leader, replica) = (cluster.leader(), cluster.others(cluster.leader())[0]);
    cluster.nodes[leader].column("INSERT INTO acked VALUES (1, 0), (2, 0)").expect("written");
    let before = cluster.system_identifier(leader).expect("it answers");
    assert_eq!(cluster.nodes[replica].stop(30), Some(0));
    assert_eq!(cluster.nodes[leader].stop(30), Some(0));
    upgrade(&cluster, leader);

    cluster.start(leader);
    let aside = "the data directory has the system identifier";
    wait_until("it to be left alone", 20, || {
        cluster.nodes[leader].dump().is_some_and(|d| d.to_string().contains(aside))
    });
    assert!(cluster.nodes[leader].dump().expect("a dump").to_string().contains(&before));
    assert_eq!(cluster.nodes[leader].postmaster(), None);
    assert_eq!(cluster.nodes[leader].stop(20), Some(0));

    for k in cluster.numbers() {
        fs::remove_dir_all(cluster.nodes[k].state()).expect("it is there");
    }
    cluster.nodes[replica].wipe_data();
    cluster.edit(leader, &json!({"bootstrap": {"post_bootstrap": "false"}}));
    cluster.start(leader);
    cluster.start(replica);
    assert_eq!(cluster.wait_settled(60), leader);
    let after = cluster.system_identifier(leader).expect("it answers");
    assert_ne!(after, before);
    assert_eq!(cluster.system_identifier(replica), Some(after));
    assert_eq!(cluster.stored(replica).len(), 2);
}

/// pg_upgrade into a directory beside, which then takes the old one's place.
fn upgrade(cluster: &Cluster, k: usize) {
    let (dir, data) = (cluster.nodes[k].dir.clone(), cluster.nodes[k].data());
    let word = dir.join("word");
    fs::write(&word, PASSWORD).expect("it can be written");
    cluster.give_away(&word);
    let (new, word) = (dir.join("new"), word.display().to_string());
    let shown = |path: &std::path::Path| path.display().to_string();
    let pwfile = format!("--pwfile={word}");
    let options = ["-U", "postgres", "-E", "UTF8", "--locale=C", "--data-checksums", "--no-sync"];
    tool("initdb", &[&["-D", &shown(&new), &pwfile][..], &options].concat());
    let bin = bin_dir().expect("found before");
    // It writes where it stands.
    let script = format!(
        "cd {} && {}/pg_upgrade -U postgres -b {} -B {} -d {} -D {} -p {} -P {}",
        dir.display(),
        bin.display(),
        bin.display(),
        bin.display(),
        data.display(),
        new.display(),
        cluster.nodes[k].at.postgresql,
        cluster.nodes[k].at.rest,
    );
    as_postgres("sh", &["-c", &script]);
    fs::copy(data.join("pg_hba.conf"), new.join("pg_hba.conf")).expect("copied");
    fs::rename(&data, dir.join("old")).expect("moved");
    fs::rename(&new, &data).expect("moved");
}
