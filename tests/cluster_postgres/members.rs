//! A node is lost for good: what the documents say to do leads to a cluster that bears the next failure.
use std::fs;

use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::http;

fn members(cluster: &Cluster, k: usize) -> Value {
    http::get_json(&cluster.nodes[k].rest(), "/members").unwrap_or_default()
}

/// Spec: CON-1, CON-5, CON-6.
/// n3 dies for good, n4 comes, n3 is removed, n2 dies: the primary goes on.
#[test]
fn a_lost_node_is_replaced_and_removed_and_the_next_failure_is_borne() {
    let login = json!({"restapi": {"authentication": {"username": "op", "password": "op-geheim"}}});
    let spec = Spec { nodes: 4, ttl_s: 2, file: login, ..Spec::default() };
    let Some(mut cluster) = Cluster::plan(spec) else { return };
    let founders: Vec<String> = (0..3).map(|k| raft_addr(&cluster, k)).collect();
    for k in 0..3 {
        let partners: Vec<&String> =
            founders.iter().filter(|a| **a != raft_addr(&cluster, k)).collect();
        cluster.edit(k, &json!({"raft": {"partner_addrs": partners}}));
        cluster.start(k);
    }
    let leader = cluster.wait_settled(60);
    cluster.make_table();
    let (second, lost) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    let lost_name = cluster.nodes[lost].name.clone();
    let (code, said) = cluster.ctl(leader, &["members", "remove", &lost_name, "--force"]);
    assert!(code == 1 && said.contains("answers: stop its daemon first"), "{said}");
    cluster.nodes[lost].kill();
    cluster.start(3);
    wait_until("the new node to vote", 60, || members(&cluster, leader)["voters"] == 4);
    wait_until("the dead voter to be told", 20, || {
        members(&cluster, leader)["dead"] == json!([lost_name])
    });
    let said = cluster.ctl(leader, &["members"]).1;
    let wanted = format!(
        "4 voters, majority 3: you can lose no further voter; {lost_name} is dead and still counts"
    );
    assert!(said.contains(&wanted), "{said}");
    let listed = cluster.ctl(leader, &["list"]).1;
    assert!(listed.contains(&wanted), "{listed}");
    assert!(cluster.surus(&["dump", "-c"], leader).1.contains(&wanted));
    let path = format!("/members/{lost_name}");
    let denied = http::delete(&cluster.nodes[leader].rest(), &path);
    assert_eq!(denied.map(|(code, _)| code), Some(401));
    let (code, said) = cluster.ctl(leader, &["members", "remove", &lost_name, "--force"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("3 voters, majority 2: you can lose 1 more"), "{said}");
    let (code, said) = cluster.ctl(leader, &["members", "remove", &lost_name, "--if-exists"]);
    assert_eq!(code, 0, "{said}");
    cluster.nodes[second].kill();
    let writers = cluster.writers();
    wait_until("writes after the second loss", 20, || writers.acked().len() > 200);
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(cluster.writable(), Some(leader), "the primary goes on");
    let seen = writers.stop();
    assert_eq!(seen.overlap_ms(), 0);
    returns_by_the_book(&mut cluster, lost, leader);
}

/// The removed node starts again with its old state: both sides say what to do, and that helps.
fn returns_by_the_book(cluster: &mut Cluster, lost: usize, leader: usize) {
    cluster.start(lost);
    let sentence = "was removed from the cluster: move its raft.data_dir aside";
    wait_until("the sentence on the removed node", 20, || cluster.nodes[lost].said(sentence) > 0);
    wait_until("the sentence on the leader", 20, || cluster.nodes[leader].said(sentence) > 0);
    cluster.nodes[lost].kill();
    fs::rename(cluster.nodes[lost].state(), cluster.nodes[lost].dir.join("raft.old"))
        .expect("moved");
    cluster.start(lost);
    wait_until("it to stream and vote", 60, || {
        let votes = members(cluster, leader);
        cluster.streaming_from(leader).contains(&lost) && votes["voters"] == 4
    });
}

fn raft_addr(cluster: &Cluster, k: usize) -> String {
    let at = cluster.address(k);
    format!("{}:{}", at.host, at.raft)
}

/// P3. The advice depends on what the others say, and followed on two of three it founds no second
/// cluster: the third, which still knows everything, is recovered, and the two join.
#[test]
fn state_moved_aside_on_two_of_three_founds_no_second_cluster() {
    let Some(mut cluster) = Cluster::start_all(Spec { ttl_s: 2, ..Spec::default() }) else {
        return;
    };
    let leader = cluster.leader();
    let identity = cluster.system_identifier(leader);
    let (one, two) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    cluster.nodes[leader].column("INSERT INTO acked VALUES (1, 0)").expect("it takes writes");
    cluster.nodes[one].kill();
    fs::remove_file(cluster.nodes[one].state().join("log/acknowledged")).expect("it is there");
    cluster.start(one);
    assert_eq!(cluster.nodes[one].wait_exit(30), Some(1));
    // The nodes of this test share an address, and the others' REST ports stand in no file of its own.
    assert!(cluster.nodes[one].said("no other node answers at http://127.0.0.1") > 0);
    [leader, two].into_iter().for_each(|k| cluster.nodes[k].kill());
    cluster.start(one);
    assert_eq!(cluster.nodes[one].wait_exit(60), Some(1));
    assert!(cluster.nodes[one].said("no other node answers at http://127.0.0.1") > 1);
    let founded = |cluster: &Cluster, k: usize| cluster.nodes[k].said("the cluster is founded");
    let before = [founded(&cluster, one), founded(&cluster, two)];
    for k in [one, two] {
        let aside = cluster.nodes[k].dir.join("raft.old");
        fs::rename(cluster.nodes[k].state(), aside).expect("moved");
        cluster.start(k);
    }
    let sentence = "does not found a cluster, and waits for";
    wait_until("the sentence", 30, || {
        [one, two].iter().any(|k| cluster.nodes[*k].said(sentence) > 0)
    });
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!([founded(&cluster, one), founded(&cluster, two)], before, "a second cluster");
    let (code, said) = cluster.surus(&["recover", "--yes", "-c"], leader);
    assert_eq!(code, 0, "{said}");
    cluster.start(leader);
    let leads = cluster.wait_settled(90);
    assert_eq!(cluster.system_identifier(leads), identity);
    assert_eq!(cluster.stored(one).len(), 1);
}
