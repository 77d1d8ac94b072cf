//! The nodes of one test: their files, their daemons, and questions to them.
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use surus::host::postgres::Server;
use surus::host::postgres::account::Account;

pub use super::node::{Address, Node};
use super::sql::PASSWORD;
use super::writers::Writers;
use super::{http, process};

/// What the clusters of the tests differ in.
#[derive(Clone, Debug)]
pub struct Spec {
    pub nodes: usize,
    pub ttl_s: u32,
    pub use_pg_rewind: bool,
    /// Merged into every node's file.
    pub file: Value,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec { nodes: 3, ttl_s: 6, use_pg_rewind: true, file: json!({}) }
    }
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    place: tempfile::TempDir,
    spec: Spec,
    began: Instant,
}

/// The programs' directory, or `None` when the test is to be skipped.
pub fn bin_dir() -> Option<PathBuf> {
    match Server::find_bin_dir(None, None) {
        Ok(dir) => Some(dir),
        Err(why) => {
            assert!(std::env::var_os("SURUS_REQUIRE_POSTGRES").is_none(), "{why}");
            eprintln!("SKIPPED: {why}");
            None
        }
    }
}

/// Waits for `holds`, at most `seconds`.
#[track_caller]
pub fn wait_until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(seconds), "waited {seconds} s for: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Cluster {
    /// Files and ports, nothing runs yet. `None`: no PostgreSQL here, the test is skipped.
    pub fn plan(spec: Spec) -> Option<Cluster> {
        let hosts = vec![String::from("127.0.0.1"); spec.nodes];
        Cluster::plan_at(spec, hosts, |_| Vec::new())
    }

    /// The same with an address of its own for every node.
    pub fn plan_at(
        spec: Spec,
        hosts: Vec<String>,
        prefix: impl Fn(usize) -> Vec<String>,
    ) -> Option<Cluster> {
        let bin_dir = bin_dir()?;
        let place = tempfile::Builder::new().prefix("surus-e2e-").tempdir().expect("a directory");
        open_to_all(place.path());
        let ports = free_ports(3 * spec.nodes);
        let root = place.path().canonicalize().expect("it is there");
        let node = |k: usize| Node {
            name: format!("n{}", k + 1),
            at: Address {
                host: hosts[k].clone(),
                postgresql: ports[3 * k],
                rest: ports[3 * k + 1],
                raft: ports[3 * k + 2],
            },
            dir: root.join(format!("n{}", k + 1)),
            prefix: prefix(k),
            child: None,
        };
        let nodes: Vec<Node> = (0..spec.nodes).map(node).collect();
        let cluster = Cluster { nodes, place, spec, began: Instant::now() };
        for k in 0..cluster.nodes.len() {
            cluster.write_files(k, &bin_dir);
        }
        Some(cluster)
    }

    /// A cluster whose nodes all stream, with the table that the writers need.
    pub fn start_all(spec: Spec) -> Option<Cluster> {
        let mut cluster = Cluster::plan(spec)?;
        (0..cluster.nodes.len()).for_each(|k| cluster.start(k));
        cluster.wait_settled(60);
        cluster.make_table();
        Some(cluster)
    }

    fn write_files(&self, k: usize, bin_dir: &Path) {
        let node = &self.nodes[k];
        fs::create_dir(&node.dir).expect("it is new");
        fs::create_dir(node.data()).expect("it is new");
        fs::write(
            node.config(),
            serde_json::to_string_pretty(&self.file_of(k, bin_dir)).expect("JSON"),
        )
        .expect("it can be written");
        if let Some(account) = Account::for_data_dir(&node.data()).expect("an account") {
            for path in [node.dir.clone(), node.data(), node.config()] {
                account.own(&path).expect("chown");
            }
        }
        fs::set_permissions(node.data(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .expect("chmod");
    }

    /// Makes a path the property of whom the daemons run as.
    pub fn give_away(&self, path: &Path) {
        if let Some(account) = Account::for_data_dir(&self.nodes[0].data()).expect("an account") {
            account.own(path).expect("chown");
        }
    }

    /// A node's file; JSON is YAML too.
    fn file_of(&self, k: usize, bin_dir: &Path) -> Value {
        let (node, spec) = (&self.nodes[k], &self.spec);
        let at = |port: u16| format!("{}:{port}", node.at.host);
        let partners: Vec<String> = self
            .nodes
            .iter()
            .filter(|other| other.name != node.name)
            .map(|other| format!("{}:{}", other.at.host, other.at.raft))
            .collect();
        let login = |user: &str, word: &str| json!({"username": user, "password": word});
        let mut file = json!({
            "scope": "e2e",
            "name": node.name,
            "restapi": { "listen": at(node.at.rest), "connect_address": at(node.at.rest) },
            "raft": {
                "self_addr": at(node.at.raft),
                "partner_addrs": partners,
                "data_dir": node.state(),
                "password": "raft-geheim",
            },
            "bootstrap": {
                "dcs": {
                    "ttl": spec.ttl_s, "loop_wait": 1, "retry_timeout": 1,
                    "maximum_lag_on_failover": 100_000_000,
                    "postgresql": {
                        "use_pg_rewind": spec.use_pg_rewind,
                        "use_slots": true,
                        "parameters": {
                            "shared_buffers": "16MB", "max_wal_size": "128MB", "fsync": "off",
                            "max_connections": 40,
                        },
                    },
                },
                "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }, "data-checksums"],
                "pg_hba": [
                    "host replication replicator all scram-sha-256",
                    "host all all all scram-sha-256",
                ],
            },
            "postgresql": {
                "listen": at(node.at.postgresql),
                "connect_address": at(node.at.postgresql),
                "data_dir": node.data(),
                "bin_dir": bin_dir,
                "pgpass": node.dir.join("pgpass"),
                "authentication": {
                    "superuser": login("postgres", PASSWORD),
                    "replication": login("replicator", "repl-geheim"),
                    "rewind": login("rewinder", "rewind-geheim"),
                },
                "parameters": { "unix_socket_directories": "" },
            },
            "watchdog": { "mode": "off" },
        });
        merge(&mut file, &spec.file);
        file
    }

    /// Changes a node's file before its next start.
    pub fn edit(&self, k: usize, change: &Value) {
        let path = self.nodes[k].config();
        let text = fs::read_to_string(&path).expect("it was written");
        let mut file: Value = serde_json::from_str(&text).expect("JSON");
        merge(&mut file, change);
        fs::write(path, file.to_string()).expect("it can be written");
    }

    /// Takes a section out of a node's file before its next start.
    pub fn leave_out(&self, k: usize, section: &str) {
        let path = self.nodes[k].config();
        let text = fs::read_to_string(&path).expect("it was written");
        let mut file: Value = serde_json::from_str(&text).expect("JSON");
        file.as_object_mut().expect("a map").remove(section).expect("it was there");
        fs::write(path, file.to_string()).expect("it can be written");
    }

    /// From now on every initdb leaves a line in this file when it is `begun` and `finished`.
    pub fn count_initdb(&self) -> PathBuf {
        let bin = self.place.path().join("bin");
        let log = self.place.path().join("initdb.log");
        let real = bin_dir().expect("found before");
        fs::create_dir(&bin).expect("it is new");
        for entry in fs::read_dir(&real).expect("it is there").flatten() {
            if entry.file_name() != "initdb" {
                std::os::unix::fs::symlink(entry.path(), bin.join(entry.file_name())).expect("new");
            }
        }
        let (real, to) = (real.display(), log.display());
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--version*|*--help*) exec {real}/initdb \"$@\";; esac\n\
             echo begun >>{to}\n{real}/initdb \"$@\" || exit\necho finished >>{to}\n"
        );
        fs::write(bin.join("initdb"), script).expect("it can be written");
        open_to_all(&bin.join("initdb"));
        fs::write(&log, "").expect("it can be written");
        fs::set_permissions(&log, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .expect("chmod");
        (0..self.nodes.len()).for_each(|k| self.edit(k, &json!({"postgresql": {"bin_dir": bin}})));
        log
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    /// The directory of all nodes; kept for a person to look at after `keep`.
    pub fn root(&self) -> PathBuf {
        self.place.path().canonicalize().unwrap_or_default()
    }

    pub fn keep(&mut self) {
        self.place.disable_cleanup(true);
    }

    pub fn start(&mut self, k: usize) {
        self.start_with(k, &[]);
    }

    pub fn start_with(&mut self, k: usize, env: &[(&str, &str)]) {
        let node = &mut self.nodes[k];
        assert!(!node.is_running(), "{} runs already", node.name);
        let log = File::options().create(true).append(true).open(node.log()).expect("a log");
        let mut words = node.prefix.clone();
        // Told to stop when this test is ended from outside and cannot clean up.
        words.extend(["setpriv", "--pdeathsig=TERM"].map(String::from));
        if rustix::process::geteuid().is_root() {
            let drop = ["--reuid=postgres", "--regid=postgres", "--init-groups"];
            words.extend(drop.map(String::from));
        }
        words.push(String::from(env!("CARGO_BIN_EXE_surus")));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("run").arg(node.config()).envs(env.iter().copied());
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a log")).stdout(log);
        node.child = Some(command.current_dir("/").spawn().expect("the daemon starts"));
    }

    pub fn address(&self, k: usize) -> &Address {
        &self.nodes[k].at
    }

    pub fn addresses(&self) -> Vec<Address> {
        self.nodes.iter().map(|node| node.at.clone()).collect()
    }

    pub fn writers(&self) -> Writers {
        Writers::start(&self.addresses())
    }

    pub fn numbers(&self) -> Vec<usize> {
        (0..self.nodes.len()).collect()
    }

    pub fn others(&self, k: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| *other != k).collect()
    }

    fn number_of(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The node that takes writes, as PostgreSQL itself says; `None` unless it is exactly one.
    pub fn writable(&self) -> Option<usize> {
        let writes =
            |k: &usize| self.nodes[*k].sql("SELECT pg_is_in_recovery()").as_deref() == Some("f");
        let found: Vec<usize> = self.numbers().into_iter().filter(writes).collect();
        (found.len() == 1).then(|| found[0])
    }

    #[track_caller]
    pub fn leader(&self) -> usize {
        self.writable().expect("one node takes writes")
    }

    #[track_caller]
    pub fn wait_writable(&self, seconds: u64) -> usize {
        wait_until("a node that takes writes", seconds, || self.writable().is_some());
        self.leader()
    }

    /// Whom the leader streams to, as its PostgreSQL says.
    pub fn streaming_from(&self, leader: usize) -> BTreeSet<usize> {
        let question = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'";
        let names = self.nodes[leader].column(question).unwrap_or_default();
        names.iter().flatten().filter_map(|name| self.number_of(name)).collect()
    }

    /// Every node that runs streams from the one leader, and REST says the same.
    #[track_caller]
    pub fn wait_settled(&self, seconds: u64) -> usize {
        wait_until("all nodes to stream", seconds, || self.settled().is_some());
        self.leader()
    }

    /// The leader, if every node that runs streams from it, and REST says the same.
    pub fn settled(&self) -> Option<usize> {
        let running = self.nodes.iter().filter(|n| n.child.is_some()).count();
        let leader = self.writable()?;
        let all = self.streaming_from(leader).len() + 1 == running;
        (all && self.rest_agrees(leader)).then_some(leader)
    }

    fn rest_agrees(&self, leader: usize) -> bool {
        let Some(cluster) = http::get_json(&self.nodes[leader].rest(), "/cluster") else {
            return false;
        };
        let members = cluster["members"].as_array().cloned().unwrap_or_default();
        self.nodes.iter().enumerate().filter(|(_, node)| node.child.is_some()).all(|(k, node)| {
            members.iter().any(|member| {
                let wanted = if k == leader { "running" } else { "streaming" };
                member["name"] == *node.name && member["state"] == wanted
            })
        })
    }

    pub fn make_table(&self) {
        let leader = self.leader();
        let made =
            self.nodes[leader].column("CREATE TABLE IF NOT EXISTS acked (id bigint, node int)");
        made.expect("the leader takes writes");
    }

    /// Ids that this node's PostgreSQL holds.
    pub fn stored(&self, k: usize) -> BTreeSet<u64> {
        let rows = self.nodes[k].column("SELECT id FROM acked").unwrap_or_default();
        rows.iter().flatten().filter_map(|id| id.parse().ok()).collect()
    }

    /// Fails if the node lacks any of `wanted`.
    #[track_caller]
    pub fn assert_holds(&self, k: usize, wanted: &BTreeSet<u64>) {
        let missing: Vec<u64> = wanted.difference(&self.stored(k)).copied().collect();
        assert!(!wanted.is_empty(), "nothing was written");
        assert!(missing.is_empty(), "{} lost {} acknowledged rows: {missing:?}", k, missing.len());
    }

    /// Every node that runs holds them, as soon as replication brought them.
    #[track_caller]
    pub fn wait_holds_everywhere(&self, wanted: &BTreeSet<u64>) {
        for k in self.numbers() {
            let began = Instant::now();
            while !wanted.is_subset(&self.stored(k)) && began.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(100));
            }
            self.assert_holds(k, wanted);
        }
    }

    /// All nodes hold the same rows: nothing that only one of them had is left.
    #[track_caller]
    pub fn wait_same_rows(&self) {
        wait_until("the same rows on all nodes", 20, || {
            let all: BTreeSet<BTreeSet<u64>> =
                self.numbers().into_iter().map(|k| self.stored(k)).collect();
            all.len() == 1
        });
    }

    pub fn timeline(&self, k: usize) -> u32 {
        let text = self.nodes[k].sql("SELECT timeline_id FROM pg_control_checkpoint()");
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    pub fn system_identifier(&self, k: usize) -> Option<String> {
        self.nodes[k].sql("SELECT system_identifier FROM pg_control_system()")
    }

    /// `surus ctl` on this node; exit code and both outputs.
    pub fn ctl(&self, k: usize, words: &[&str]) -> (i32, String) {
        self.run_surus(&["ctl", "-c"], k, words)
    }

    /// Another command of `surus` that takes this node's file last.
    pub fn surus(&self, before: &[&str], k: usize) -> (i32, String) {
        self.run_surus(before, k, &[])
    }

    fn run_surus(&self, before: &[&str], k: usize, after: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_surus"))
            .args(before)
            .arg(self.nodes[k].config())
            .args(after)
            .output()
            .expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:?}:", self.began.elapsed());
            self.nodes.iter().for_each(Node::print_log);
        }
        let place = self.place.path().canonicalize().unwrap_or_default();
        process::kill_all(&place);
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                child.wait().ok();
            }
        }
        if std::env::var_os("SURUS_KEEP").is_some() {
            self.place.disable_cleanup(true);
            eprintln!("kept: {}", place.display());
        }
    }
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
}

/// Below the range that the kernel gives to outgoing connections, so that none takes them.
fn free_ports(count: usize) -> Vec<u16> {
    let mut bytes = [0u8; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).expect("rng");
    let first = 10_000 + u16::from_ne_bytes(bytes) % 20_000;
    let free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let ports: Vec<u16> = (first..32_000).filter(free).take(count).collect();
    assert_eq!(ports.len(), count, "no free ports above {first}");
    ports
}
