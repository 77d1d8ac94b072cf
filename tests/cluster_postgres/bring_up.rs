//! Three fresh nodes become a cluster.
use serde_json::Value;

use super::cluster::{Cluster, Spec};
use super::http;

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
