//! What comes from outside and does not belong: bytes, nodes, data, requests.
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use super::cluster::{Cluster, Spec, wait_until};
use super::origin::tool;
use super::{http, process};

/// Spec: I-15, EX-44.
#[test]
fn strangers_are_kept_out() {
    let spec = Spec { nodes: 5, ..Spec::default() };
    let Some(mut cluster) = Cluster::plan(spec) else { return };
    let raft = |k: usize| format!("127.0.0.1:{}", cluster.nodes[k].at.raft);
    for k in 0..3 {
        let partners: Vec<String> = (0..3).filter(|j| *j != k).map(raft).collect();
        cluster.edit(k, &json!({"raft": {"partner_addrs": partners}}));
    }
    (0..3).for_each(|k| cluster.start(k));
    let leader = cluster.wait_settled(60);
    cluster.make_table();
    let writers = cluster.writers();

    garbage_on_the_raft_port(&cluster, leader);
    odd_requests(&cluster.nodes[leader].rest());
    cluster.edit(3, &json!({"scope": "another"}));
    cluster.edit(4, &json!({"name": cluster.nodes[(leader + 1) % 3].name}));
    cluster.start(3);
    cluster.start(4);
    std::thread::sleep(Duration::from_secs(5));
    only_three_belong(&cluster, leader);
    cluster.nodes[3].kill();
    cluster.nodes[4].kill();

    assert_eq!(cluster.wait_settled(10), leader);
    let failures = writers.failures(leader, cluster.began());
    assert!(failures.is_empty(), "{} writes failed, first {:?}", failures.len(), failures[0]);
    a_port_in_use_is_named(&mut cluster);
}

fn garbage_on_the_raft_port(cluster: &Cluster, k: usize) {
    let connect = || TcpStream::connect(("127.0.0.1", cluster.nodes[k].at.raft)).expect("open");
    let idle: Vec<TcpStream> = (0..50).map(|_| connect()).collect();
    let messages: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 100_000],
        &[0; 100_000],
        b"\x00\x00\x00\x10surus",
        b"\x7f\xff\xff\xff",
    ];
    for message in messages {
        let mut stream = connect();
        stream.write_all(message).ok();
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let _said = stream.read(&mut [0; 4096]).unwrap_or(0);
    }
    assert_eq!(http::get(&cluster.nodes[k].rest(), "/primary").map(|a| a.0), Some(200));
    drop(idle);
}

fn odd_requests(rest: &str) {
    let patch = |body: &str| raw(rest, "PATCH", "/config", body);
    for body in ["", "{", "[]", "\"x\"", "{\"ttl\": {\"ttl\": [1]}", "\u{0}\u{1}"] {
        assert!(patch(body).starts_with("HTTP/1.1 4"), "{body:?}: {}", patch(body));
    }
    let big = format!("{{\"x\": \"{}\"}}", "y".repeat(20 << 20));
    let answer = patch(&big);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(patch(&"[".repeat(100_000)).starts_with("HTTP/1.1 4"));
    assert!(raw(rest, "POST", "/switchover", "{").starts_with("HTTP/1.1 4"));
    assert!(raw(rest, "BREW", "/coffee", "").starts_with("HTTP/1.1 5"));
    let long = raw(rest, "GET", &format!("/{}", "x".repeat(1 << 20)), "");
    assert!(!long.starts_with("HTTP/1.1 2"), "{long}");
    let config = http::get_json(rest, "/config").expect("it still answers");
    assert_eq!(config["ttl"], 6, "{config}");
}

fn raw(rest: &str, method: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(rest).expect("open");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

fn only_three_belong(cluster: &Cluster, leader: usize) {
    let dump = cluster.nodes[leader].dump().expect("it answers");
    let members = dump["cluster"]["members"].as_object().cloned().unwrap_or_default();
    assert_eq!(members.len(), 3, "{members:?}");
    assert_eq!(dump["raft"]["voters"].as_array().map(Vec::len), Some(3));
    for k in [3, 4] {
        assert_eq!(cluster.nodes[k].postmaster(), None, "{k} may not start anything");
    }
}

fn a_port_in_use_is_named(cluster: &mut Cluster) {
    let _taken = TcpListener::bind(("127.0.0.1", cluster.nodes[3].at.rest)).expect("it is free");
    cluster.start(3);
    assert_eq!(cluster.nodes[3].wait_exit(10), Some(1));
    assert!(cluster.nodes[3].said("restapi.listen") > 0, "the sentence names the key");
}

/// A data directory that somebody else has made, as PostgreSQL's user.
fn foreign_data(cluster: &Cluster, k: usize) {
    let data = cluster.nodes[k].data();
    fs::remove_dir(&data).expect("it is empty");
    tool("initdb", &["-D", &data.display().to_string(), "--auth=trust", "--no-sync"]);
}

/// Spec: I-10, EX-40.
#[test]
fn data_of_another_cluster_is_left_alone() {
    let Some(mut cluster) = Cluster::plan(Spec::default()) else { return };
    foreign_data(&cluster, 2);
    cluster.start(0);
    cluster.start(1);
    cluster.wait_settled(60);
    cluster.start(2);
    let control = cluster.nodes[2].data().join("global/pg_control");
    let before = fs::read(&control).expect("it is there");
    let says = |cluster: &Cluster| {
        let dump = cluster.nodes[2].dump().unwrap_or_default();
        let node = dump["machines"].as_array().cloned().unwrap_or_default();
        node.iter().any(|m| m["flow"] == "node" && m["state"] == "blocked")
    };
    wait_until("the node to stand aside", 20, || says(&cluster));
    std::thread::sleep(Duration::from_secs(3));
    assert!(says(&cluster));
    assert_eq!(fs::read(&control).expect("it is there"), before, "nothing was touched");
    assert_eq!(cluster.nodes[2].postmaster(), None);
    let text = cluster.nodes[2].dump().expect("it answers").to_string();
    assert!(
        text.contains("the data directory has the system identifier"),
        "the dump says what is wrong"
    );
}

/// Spec: I-14.
#[test]
fn a_postgresql_of_somebody_else_is_left_alone() {
    let Some(mut cluster) = Cluster::plan(Spec { nodes: 1, ..Spec::default() }) else { return };
    foreign_data(&cluster, 0);
    let data = cluster.nodes[0].data().display().to_string();
    // Nobody can tell what it is: it does not let us in.
    let hba = "local all all reject\nhost all all all reject\n";
    fs::write(cluster.nodes[0].data().join("pg_hba.conf"), hba).expect("it can be written");
    let options = format!(
        "-c port={} -c listen_addresses=127.0.0.1 -c unix_socket_directories=",
        cluster.nodes[0].at.postgresql
    );
    let log = cluster.nodes[0].dir.join("foreign.log").display().to_string();
    tool("pg_ctl", &["-D", &data, "-o", &options, "-l", &log, "-W", "start"]);
    wait_until("it to start", 20, || cluster.nodes[0].postmaster().is_some());
    let pid = cluster.nodes[0].postmaster().expect("it was started");
    let conf = fs::read(cluster.nodes[0].data().join("postgresql.conf")).expect("it is there");

    cluster.start(0);
    wait_until("the daemon to answer", 20, || cluster.nodes[0].dump().is_some());
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(cluster.nodes[0].postmaster(), Some(pid), "it was not stopped");
    let now = fs::read(cluster.nodes[0].data().join("postgresql.conf")).expect("it is there");
    assert_eq!(now, conf, "its files were not touched");
    cluster.nodes[0].stop(20);
    assert!(process::title(pid).contains("postgres"), "nor by an orderly stop of the daemon");
}
