//! A member's replication slot is removed or given up under it.
use serde_json::json;

use super::cluster::{Cluster, Spec, wait_until};
use super::http;

/// A dropped slot is made again. One that PostgreSQL gave up is, too; its member runs, does not
/// stream, and is copied anew when the operator says so.
/// Spec: EX-74.
#[test]
fn a_members_slot_is_made_again() {
    let little = json!({"max_slot_wal_keep_size": "1MB", "wal_keep_size": 0,
        "min_wal_size": "32MB", "max_wal_size": "32MB"});
    let file = json!({"bootstrap": {"dcs": {"postgresql": {"parameters": little}}}});
    let spec = Spec { nodes: 2, ttl_s: 3, file, ..Spec::default() };
    let Some(mut cluster) = Cluster::start_all(spec) else { return };
    let leader = cluster.leader();
    let replica = cluster.others(leader)[0];
    let name = cluster.nodes[replica].name.clone();
    let follows = || {
        let seen = http::get_json(&cluster.nodes[leader].rest(), "/cluster").unwrap_or_default();
        seen["surus"]["members"][&name]["node_state"] == "following"
    };
    wait_until("it to follow", 20, follows);
    assert_eq!(cluster.nodes[replica].stop(30), Some(0));

    let on = &cluster.nodes[leader];
    let slot = |what: &str| {
        on.sql(&format!("SELECT {what} FROM pg_replication_slots WHERE slot_name = '{name}'"))
    };
    wait_until("the slot to be free", 10, || slot("active").as_deref() == Some("f"));
    on.sql(&format!("SELECT pg_drop_replication_slot('{name}')"));
    wait_until("another", 10, || slot("restart_lsn IS NOT NULL").as_deref() == Some("t"));

    let wal = "INSERT INTO acked SELECT generate_series(1, 50000)";
    wait_until("the slot to be given up", 60, || {
        on.column(wal);
        on.column("SELECT pg_switch_wal()");
        on.column("CHECKPOINT");
        on.said("slots were given up by PostgreSQL") > 0
    });
    wait_until("another that holds", 10, || slot("wal_status").as_deref() == Some("reserved"));

    cluster.start(replica);
    let state = || {
        let seen = http::get_json(&cluster.nodes[leader].rest(), "/cluster").unwrap_or_default();
        let members = seen["members"].as_array().cloned().unwrap_or_default();
        let row = members.iter().find(|member| member["name"] == *name).cloned();
        row.unwrap_or_default()["state"].clone()
    };
    wait_until("it to run", 30, || state() == "running");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(state(), "running", "what it needs is gone");
    let (code, said) = cluster.ctl(leader, &["reinit", "e2e", &name, "--force", "--wait"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cluster.wait_settled(30), leader);
}
