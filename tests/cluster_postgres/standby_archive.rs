//! Standby clusters that follow an archive alone, or cannot follow at all.
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, bin_dir, wait_until};
use super::http;
use super::scripts::{plain, scripts};

fn one_node(scope: &str, file: Value) -> Option<Cluster> {
    let mut all = json!({"scope": scope});
    for (key, value) in file.as_object().expect("an object") {
        all[key] = value.clone();
    }
    let mut cluster = Cluster::plan(Spec { nodes: 1, ttl_s: 4, file: all, ..Spec::default() })?;
    cluster.start(0);
    Some(cluster)
}

fn code(cluster: &Cluster, path: &str) -> u16 {
    http::get(&cluster.nodes[0].rest(), path).map_or(0, |(code, _)| code)
}

fn state(cluster: &Cluster) -> Value {
    http::get_json(&cluster.nodes[0].rest(), "/cluster").unwrap_or_default()["members"][0]["state"]
        .clone()
}

/// Spec: SC-2, SC-5, SC-8, SC-10, SC-30, M-2, EX-93.
#[test]
fn an_archive_alone_is_followed_and_left() {
    let place = scripts();
    let archive = place.path().join("wal");
    fs::create_dir(&archive).expect("it is new");
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o777)).expect("chmod");
    let keep = format!("cp %p {}/%f", archive.display());
    let file = json!({"bootstrap": {"dcs": {"postgresql": {"parameters": {
        "archive_mode": "on", "archive_command": keep}}}}});
    let Some(there) = one_node("site-a", file) else { return };
    wait_until("the primary cluster", 60, || code(&there, "/primary") == 200);
    there.make_table();
    let at = there.address(0).postgresql;
    let bin = bin_dir().expect("found before");
    let copy = format!(
        "for a in \"$@\"; do case $a in --datadir=*) to=${{a#*=}};; --connstring=?*) exit 9;; esac; \
         done\nPGPASSWORD=repl-geheim {}/pg_basebackup -h 127.0.0.1 -p {at} -U replicator -X none \
         -c fast -D \"$to\"",
        bin.display()
    );
    let restore = plain(place.path(), "restore.sh", &copy);
    let section = json!({"restore_command": format!("cp {}/%f %p", archive.display()),
        "create_replica_methods": ["from_backup"], "recovery_min_apply_delay": 0,
        "archive_cleanup_command": "/bin/true"});
    let method = json!({"command": restore, "no_leader": true});
    let file = json!({"bootstrap": {"dcs": {"standby_cluster": section}},
        "postgresql": {"from_backup": method}});
    let here = one_node("site-b", file).expect("the other one was planned");
    wait_until("the standby leader", 60, || code(&here, "/standby_leader") == 200);
    wait_until("replay from the archive", 20, || state(&here) == "in archive recovery");
    assert_eq!(here.nodes[0].sql("SHOW archive_cleanup_command").as_deref(), Some("/bin/true"));
    assert_eq!(here.nodes[0].sql("SHOW primary_conninfo").as_deref(), Some(""));
    there.nodes[0].column("INSERT INTO acked VALUES (1), (2)").expect("written");
    there.nodes[0].sql("SELECT pg_switch_wal()").expect("switched");
    wait_until("the rows here", 30, || here.stored(0).len() == 2);
    let change = json!({"standby_cluster": null}).to_string();
    let answer = http::patch(&here.nodes[0].rest(), "/config", &change).expect("an answer");
    assert_eq!(answer.0, 200);
    wait_until("the promotion: nobody can be asked", 20, || code(&here, "/primary") == 200);
    wait_until("a timeline of its own", 10, || here.timeline(0) == 2);
}

/// Spec: SC-1, SC-11, EX-93.
#[test]
fn what_cannot_be_followed_is_said() {
    let archive = json!({"restore_command": "false"});
    let file = json!({"bootstrap": {"dcs": {"standby_cluster": archive}}});
    let Some(here) = one_node("site-b", file) else { return };
    let failure = |cluster: &Cluster| {
        let body = http::get_json(&cluster.nodes[0].rest(), "/cluster").unwrap_or_default();
        body["surus"]["initialize_failure"]["reason"].to_string()
    };
    wait_until("the reason", 40, || failure(&here).contains("none of its create_replica_methods"));
    assert_eq!(here.writable(), None);
    drop(here);
    let port = json!({"port": 1});
    let file = json!({"bootstrap": {"dcs": {"standby_cluster": port}}});
    let here = one_node("site-b", file).expect("the other one was planned");
    wait_until("the reason", 40, || failure(&here).contains("has no host to copy from"));
    assert_eq!(here.writable(), None);
}
