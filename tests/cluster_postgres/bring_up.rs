//! Three fresh nodes become a cluster.
use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::http;
use super::scripts::{lines, script, scripts};

/// Spec: I-1, I-7, B-8, EX-20.
#[test]
fn three_fresh_nodes_become_a_cluster() {
    let Some(cluster) = Cluster::start_all(Spec::default()) else { return };
    let leader = cluster.leader();
    let identifier = cluster.system_identifier(leader).expect("the leader answers");
    for k in cluster.numbers() {
        assert_eq!(cluster.system_identifier(k).as_ref(), Some(&identifier));
        let (code, said) = cluster.ctl(k, &["dcs-get", "initialize"]);
        assert_eq!((code, said.trim()), (0, identifier.as_str()));
        answers_by_role(&cluster, k, k == leader);
    }
    lists_every_member(&cluster, leader);
}

/// Health paths: 200 where the role is right, 503 elsewhere.
fn answers_by_role(cluster: &Cluster, k: usize, leads: bool) {
    let matrix = [
        ("/", leads),
        ("/primary", leads),
        ("/master", leads),
        ("/leader", leads),
        ("/read-write", leads),
        ("/replica", !leads),
        ("/replica?lag=16MB", !leads),
        ("/async", !leads),
        ("/asynchronous", !leads),
        ("/replica?replication_state=streaming", !leads),
        ("/read-only", true),
        ("/health", true),
        ("/liveness", true),
        ("/readiness", true),
        ("/sync", false),
        ("/quorum", false),
        ("/standby-leader", false),
    ];
    for (path, healthy) in matrix {
        let code = http::get(&cluster.nodes[k].rest(), path).map(|answer| answer.0);
        let wanted = if healthy { 200 } else { 503 };
        assert_eq!(code, Some(wanted), "{path} of {} (leads: {leads})", cluster.nodes[k].name);
    }
    let status = http::get_json(&cluster.nodes[k].rest(), "/patroni").expect("a status");
    assert_eq!(status["role"], if leads { "primary" } else { "replica" }, "{status}");
    assert_eq!(status["state"], "running");
    let metrics = http::get(&cluster.nodes[k].rest(), "/metrics").expect("metrics").1;
    let line = format!("patroni_primary{{scope=\"e2e\",name=\"{}\"}}", cluster.nodes[k].name);
    assert!(metrics.contains(&format!("{line} {}", u8::from(leads))), "{metrics}");
}

fn lists_every_member(cluster: &Cluster, leader: usize) {
    let (code, said) = cluster.ctl(leader, &["list", "-f", "json"]);
    assert_eq!(code, 0, "{said}");
    let rows: Vec<Value> = serde_json::from_str(&said).expect("JSON");
    let roles: Vec<&str> = rows.iter().filter_map(|row| row["Role"].as_str()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(roles.iter().filter(|role| **role == "Leader").count(), 1, "{said}");
}

/// Alone a node waits for the others. Two of three are a cluster, but neither may create its data:
/// one is never to lead, and the other's file does not say how; that it has a method which needs no
/// leader makes it no founder. They wait, and say why, until somebody comes who may.
/// Spec: EX-5, EX-6, EX-45, I-4.
#[test]
fn nobody_creates_who_may_not() {
    let dir = scripts();
    let seed = script(dir.path(), "seed", "exit 1");
    let Some(mut cluster) = Cluster::plan(Spec { ttl_s: 3, ..Spec::default() }) else { return };
    cluster.edit(0, &json!({"tags": {"nofailover": true}}));
    let methods = json!({"create_replica_methods": ["seed", "basebackup"],
        "seed": {"command": seed, "no_leader": true}});
    cluster.edit(1, &json!({"postgresql": methods}));
    cluster.leave_out(1, "bootstrap");
    cluster.start(0);
    let says = |cluster: &Cluster, text: &str| {
        cluster.nodes[0].dump().is_some_and(|dump| dump.to_string().contains(text))
    };
    wait_until("the first to say whom it misses", 10, || says(&cluster, "partners to answer"));
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(cluster.nodes[0].is_running() && says(&cluster, "partners to answer"));
    cluster.start(1);
    wait_until("the first's reason", 20, || says(&cluster, "is tagged nofailover"));
    wait_until("the second's reason", 20, || says(&cluster, "its file has no bootstrap section"));
    std::thread::sleep(std::time::Duration::from_secs(3));
    let empty = |k: usize| !cluster.nodes[k].data().join("PG_VERSION").exists();
    assert!(empty(0) && empty(1) && lines(&seed).is_empty(), "{:?}", lines(&seed));
    cluster.start(2);
    assert_eq!(cluster.wait_settled(60), 2);
    assert!(lines(&seed)[0].contains("--connstring=dbname="), "{:?}", lines(&seed));
}
