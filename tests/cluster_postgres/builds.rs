//! Replicas by other means than pg_basebackup alone, and what is seen of a build.
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::http;
use super::origin::{as_postgres, there};
use super::process;
use super::scripts::{plain, scripts};

fn pair(file: Value) -> Spec {
    Spec { nodes: 2, ttl_s: 3, file, ..Spec::default() }
}

fn build(cluster: &Cluster, k: usize) -> Value {
    http::get_json(&cluster.nodes[k].rest(), "/replica-build").unwrap_or_default()
}

/// Stops in an orderly way, so that the other goes on, and comes back with nothing.
fn anew(cluster: &mut Cluster, k: usize, change: impl FnOnce(&Cluster)) {
    assert_eq!(cluster.nodes[k].stop(30), Some(0));
    cluster.nodes[k].wipe_data();
    change(cluster);
    cluster.start(k);
}

/// Rebuilds the replica and waits, as the operator of the leader would.
fn force(cluster: &Cluster, leader: usize, words: &[&str]) -> (i32, String) {
    let name = &cluster.nodes[cluster.others(leader)[0]].name;
    let all = [&["reinit", "e2e", name, "--force", "--wait"], words].concat();
    cluster.ctl(leader, &all)
}

/// Spec: S-6, M-1, M-5, M-18, M-19, M-20, T-1, T-5, T-6, RI-1, RI-2, RI-4, RI-5, EX-9, EX-60,
/// EX-61, EX-66.
#[test]
fn methods_that_lie_or_fail_are_followed_by_the_next() {
    let dir = scripts();
    let liar = plain(dir.path(), "liar.sh", "for i in 1 2 3; do echo all is well $i; done");
    let slow = plain(dir.path(), "slow.sh", "echo waits; sleep 600");
    let file = json!({"postgresql": {
        "create_replica_methods": ["/nonexistent/tool --fast", "liar", "slow", "basebackup"],
        "liar": {"command": liar}, "slow": {"command": slow},
    }});
    let Some(mut cluster) = Cluster::start_all(pair(json!({}))) else { return };
    let (leader, replica) = (cluster.leader(), cluster.others(cluster.leader())[0]);
    let to = cluster.nodes[replica].name.clone();
    anew(&mut cluster, replica, |cluster| cluster.edit(replica, &file));
    seen_everywhere(&cluster, leader, replica);
    one_task_at_a_time(&cluster, leader, replica);
    // Not like this, says the operator, but like that; and hears how it ended.
    let (code, said) = force(&cluster, leader, &["--from-leader"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("Reinitialize is completed on: {to}")), "{said}");
    cluster.wait_settled(30);
    asked_for_until_called_off(&mut cluster, leader, replica);
}

/// What is under way is seen everywhere, also from the other node.
fn seen_everywhere(cluster: &Cluster, leader: usize, replica: usize) {
    let (to, from) = (&cluster.nodes[replica].name, &cluster.nodes[leader].name);
    wait_until("the slow method", 60, || build(cluster, replica)["build"]["method"] == "slow");
    wait_until("its output", 10, || {
        build(cluster, replica)["build"]["last_lines"] == json!(["waits"])
    });
    let shown = build(cluster, replica);
    assert_eq!(
        (&shown["build"]["method_number"], &shown["build"]["methods"]),
        (&json!(3), &json!(4))
    );
    assert_eq!(
        (&shown["state"], &shown["build"]["source"]),
        (&json!("creating replica"), &json!(from))
    );
    let problems: Vec<&str> = shown["failures"]
        .as_array()
        .expect("two")
        .iter()
        .filter_map(|failure| failure["problem"].as_str())
        .collect();
    assert!(problems[0].contains("no program `/nonexistent/tool`"), "{problems:?}");
    assert!(problems[1].contains("PG_VERSION"), "{problems:?}");
    wait_until("the listing", 10, || {
        cluster.ctl(leader, &["list"]).1.contains(&format!("slow (3 of 4) from {from}"))
    });
    let slot = format!(
        "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = '{to}'"
    );
    let held = cluster.nodes[leader].sql(&slot);
    assert_eq!(held.as_deref(), Some("t"), "the leader keeps the WAL while the copy is made");
    let status = http::get_json(&cluster.nodes[replica].rest(), "/patroni").expect("a status");
    assert_eq!(status["surus"]["build"]["phase"], "copying");
    let metrics = http::get(&cluster.nodes[replica].rest(), "/metrics").expect("metrics").1;
    assert!(
        metrics.contains(&format!("surus_replica_build{{scope=\"e2e\",name=\"{to}\"}} 1")),
        "{metrics}"
    );
}

/// Whoever asks for another task is refused; whoever insists is answered when the first has ended.
fn one_task_at_a_time(cluster: &Cluster, leader: usize, replica: usize) {
    let post = |path: &str, body: &str| {
        http::post(&cluster.nodes[replica].rest(), path, body).expect("an answer")
    };
    let busy = (503, String::from("reinitialize already in progress"));
    assert_eq!(post("/reinitialize", "{}"), busy);
    assert_eq!(post("/reinitialize", "{\"from_leader\": true}"), busy);
    assert_eq!(post("/restart", "{}"), busy);
    let copies = || {
        let all = process::of(&cluster.nodes[replica].dir).into_iter();
        all.filter(|pid| process::title(*pid).contains("slow.sh")).count()
    };
    assert!(copies() > 0, "nothing was called off by that");
    let done = post("/reinitialize", "{\"force\": true, \"from_leader\": true}");
    assert_eq!(copies(), 0, "the answer came before its end");
    assert_eq!(done, (200, String::from("reinitialize started")));
    assert_eq!(cluster.wait_settled(30), leader);
}

/// RI-4: it goes on with what was asked for, also in the next life of the daemon.
fn asked_for_until_called_off(cluster: &mut Cluster, leader: usize, replica: usize) {
    let (to, from) = (cluster.nodes[replica].name.clone(), cluster.nodes[leader].name.clone());
    let (code, said) = force(cluster, leader, &["--method", "liar"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(&format!("Failed: reinitialize for member {to}: liar from {from}")),
        "{said}"
    );
    assert!(said.contains("PG_VERSION"), "{said}");
    cluster.nodes[replica].kill_daemon();
    cluster.start(replica);
    wait_until("the second attempt", 40, || {
        let build = build(cluster, replica)["build"].clone();
        build["attempt"].as_u64() >= Some(2) && build["method"] == "liar"
    });
    let (code, said) = cluster.ctl(leader, &["reinit", "e2e", &to, "--cancel"]);
    assert_eq!(code, 0, "{said}");
    wait_until("an ordinary build", 30, || build(cluster, replica)["build"]["methods"] == 4);
    for bad in [json!({"method": "nosuch"}), json!({"source": to}), json!({"source": "n7"})] {
        let (code, said) =
            http::post(&cluster.nodes[replica].rest(), "/reinitialize", &bad.to_string())
                .expect("an answer");
        assert_eq!(code, 400, "{bad}: {said}");
    }
    assert_eq!(force(cluster, leader, &["--method", "basebackup"]).0, 0);
    cluster.wait_settled(30);
}

/// A tool's restore_command is kept where its section says so, also over a restart; else it is
/// left out, with a word.
/// Spec: M-11, M-21.
#[test]
fn the_restore_command_of_a_tool_is_kept_where_that_is_wanted() {
    let dir = scripts();
    let body = "echo \"$@\" >> $0.log\nfor w in \"$@\"; do case $w in --datadir=*) d=${w#*=};; \
                --connstring=*) c=${w#*=};; esac; done\npg_basebackup -w -D $d -X stream -c fast \
                --dbname=\"$c\"\necho \"restore_command = 'cp ''/no where/%f'' \\\"%p\\\"'\" >> \
                $d/postgresql.auto.conf";
    let bin = super::cluster::bin_dir().map(|dir| dir.display().to_string()).unwrap_or_default();
    let tool = plain(dir.path(), "tool.sh", &format!("PATH={bin}:$PATH\n{body}"));
    let file = |keep: bool| {
        json!({"postgresql": {"create_replica_methods": ["tool"],
            "tool": {"command": tool, "keep_existing_recovery_conf": keep}}})
    };
    let Some(mut cluster) = Cluster::start_all(pair(json!({}))) else { return };
    let replica = cluster.others(cluster.leader())[0];
    let shown = |cluster: &Cluster| cluster.nodes[replica].sql("SHOW restore_command");
    anew(&mut cluster, replica, |cluster| cluster.edit(replica, &file(true)));
    cluster.wait_settled(60);
    let wanted = "cp '/no where/%f' \"%p\"";
    assert_eq!(shown(&cluster).as_deref(), Some(wanted));
    assert_eq!(cluster.nodes[replica].stop(30), Some(0));
    cluster.start(replica);
    cluster.wait_settled(60);
    assert_eq!(shown(&cluster).as_deref(), Some(wanted));
    let called = fs::read_to_string(format!("{tool}.log")).expect("it was called");
    assert!(!called.contains("keep_existing"), "{called}");
    anew(&mut cluster, replica, |cluster| cluster.edit(replica, &file(false)));
    cluster.wait_settled(60);
    assert_eq!(shown(&cluster).as_deref(), Some(""));
    assert!(cluster.nodes[replica].said("that the method wrote is left out") > 0);
}

// ---------------------------------------------------------------------------------------------
// pgBackRest

/// The recipe as it stands, with this node's pgbackrest.conf in place of /etc's.
fn recipe(conf: &Path) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/recipes/replica-pgbackrest.yml");
    let text = fs::read_to_string(path).expect("the recipe");
    let text = text.replace("/etc/pgbackrest.conf", &conf.display().to_string());
    serde_saphyr::from_str(&text).expect("YAML")
}

/// One repository for all, and on every node a pgbackrest.conf that names its own data.
fn with_repository(cluster: &Cluster, repo: &Path) {
    fs::create_dir(repo).expect("it is new");
    cluster.give_away(repo);
    for node in &cluster.nodes {
        let (dir, repo, data) = (node.dir.display(), repo.display(), node.data());
        let conf = format!(
            "[global]\nrepo1-path={repo}\nlog-path={dir}\nlock-path={dir}/lock\n\
             spool-path={dir}/spool\nlog-level-console=info\nstart-fast=y\narchive-timeout=30\n\
             [main]\npg1-path={}\npg1-port={}\npg1-socket-path={dir}\n",
            data.display(),
            node.at.postgresql
        );
        fs::write(node.dir.join("pgbackrest.conf"), conf).expect("it can be written");
        cluster.give_away(&node.dir.join("pgbackrest.conf"));
    }
    for k in cluster.numbers() {
        let conf = cluster.nodes[k].dir.join("pgbackrest.conf");
        cluster.edit(k, &recipe(&conf));
        let socket = json!({"unix_socket_directories": cluster.nodes[k].dir});
        cluster.edit(k, &json!({"postgresql": {"parameters": socket}}));
    }
}

/// The recipe docs/recipes/replica-pgbackrest.yml.
/// Spec: M-11, M-16, M-17, M-21, RI-3.
#[test]
fn pgbackrest_builds_a_replica_and_brings_only_what_differs() {
    if !there("pgbackrest") {
        return;
    }
    let Some(mut cluster) = Cluster::plan(pair(json!({}))) else { return };
    let repo = cluster.nodes[0].dir.parent().expect("a place").join("repo");
    with_repository(&cluster, &repo);
    cluster.numbers().into_iter().for_each(|k| cluster.start(k));
    // There is no backup yet: the method after it had its turn.
    let leader = cluster.wait_settled(90);
    let replica = cluster.others(leader)[0];
    let failures = build(&cluster, replica)["failures"].to_string();
    assert!(failures.contains("pgbackrest"), "{failures}");
    let conf = cluster.nodes[leader].dir.join("pgbackrest.conf").display().to_string();
    for what in ["stanza-create", "backup"] {
        as_postgres("pgbackrest", &[&format!("--config={conf}"), "--stanza=main", what]);
    }
    let bulk = "CREATE TABLE bulk AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 20000)";
    cluster.nodes[leader].column(bulk).expect("it takes writes");
    anew(&mut cluster, replica, |_| {});
    cluster.wait_settled(60);
    assert!(
        build(&cluster, replica)["failures"].as_array().is_none_or(Vec::is_empty),
        "pgBackRest did it"
    );
    let rows = || cluster.nodes[replica].sql("SELECT count(*) FROM bulk");
    wait_until("what came after the backup", 20, || rows().as_deref() == Some("20000"));
    let restored = |k: usize| {
        let logs = fs::read_dir(&cluster.nodes[k].dir).expect("it is there").flatten();
        let log = logs.map(|e| e.path()).find(|p| p.ends_with("main-restore.log")).expect("a log");
        fs::read_to_string(log).expect("readable")
    };
    let first = restored(replica).len();
    // Rebuilt in place: pgBackRest finds its files and brings what differs.
    let (code, said) = force(&cluster, leader, &[]);
    assert_eq!(code, 0, "{said}");
    cluster.wait_settled(60);
    let second = restored(replica)[first..].to_owned();
    assert!(second.contains("--delta") && second.contains("remove invalid files"), "{second}");
    assert!(
        build(&cluster, replica)["failures"].as_array().is_none_or(Vec::is_empty),
        "pgBackRest did it"
    );

    // Without the repository the next method has its turn.
    fs::rename(&repo, repo.with_extension("away")).expect("moved");
    let (code, said) = force(&cluster, leader, &[]);
    assert_eq!(code, 0, "{said}");
    cluster.wait_settled(60);
}
