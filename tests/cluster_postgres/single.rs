//! One node alone: its scripts, its settings, its own restarts.
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, wait_until};
use super::scripts::{lines, script, scripts};
use super::sql::PASSWORD;
use super::{http, process};

pub fn alone(file: Value) -> Spec {
    Spec { nodes: 1, ttl_s: 3, file, ..Spec::default() }
}

fn patch(cluster: &Cluster, change: &Value) -> (u16, String) {
    http::patch(&cluster.nodes[0].rest(), "/config", &change.to_string()).expect("an answer")
}

/// PostgreSQL accepts writes before the cluster is there: its roles and scripts are made by them.
pub fn leads(cluster: &Cluster) -> bool {
    http::get(&cluster.nodes[0].rest(), "/primary").is_some_and(|(code, _)| code == 200)
}

/// post_bootstrap once, then on_start with role primary once, nothing before.
/// Spec: P-4, P-9, I-7, CB-1.
#[test]
fn scripts_are_told_of_the_birth_and_of_a_restart() {
    let dir = scripts();
    let born = script(dir.path(), "born", "");
    let told = script(dir.path(), "told", "");
    let file = json!({"bootstrap": {"post_bootstrap": born}, "postgresql": {"callbacks":
        {"on_start": told, "on_stop": told, "on_restart": told, "on_role_change": told}}});
    let Some(cluster) = Cluster::start_all(alone(file)) else { return };
    wait_until("the first word", 10, || !lines(&told).is_empty());
    assert_eq!(lines(&told), ["on_start primary e2e"]);
    let born = lines(&born);
    assert!(born.len() == 1 && born[0].contains("dbname=postgres"), "{born:?}");
    assert!(!born[0].contains("password"), "{born:?}");
    let (code, text) = http::post(&cluster.nodes[0].rest(), "/restart", "{}").expect("it answers");
    assert_eq!((code, text.as_str()), (200, "restarted successfully"));
    wait_until("the second word", 10, || lines(&told).len() > 1);
    assert_eq!(lines(&told), ["on_start primary e2e", "on_restart primary e2e"]);
}

/// A failing post_bootstrap is an attempt that failed: set aside, said, and tried again.
/// The superuser's password, lent to the script, is not left in the passfile.
/// Spec: P-5, X-1, X-2, X-3, X-5, EX-26.
#[test]
fn a_failing_post_bootstrap_is_told_and_tried_again() {
    let dir = scripts();
    let flag = dir.path().join("now");
    let had = dir.path().join("had");
    let look = format!("cat $PGPASSFILE > {}; test -e {}", had.display(), flag.display());
    let born = script(dir.path(), "born", &look);
    let file = json!({"bootstrap": {"post_bootstrap": born}});
    let Some(mut cluster) = Cluster::plan(alone(file)) else { return };
    cluster.start(0);
    wait_until("a first attempt", 60, || !lines(&born).is_empty());
    let state = || http::get_json(&cluster.nodes[0].rest(), "/patroni").map(|b| b["state"].clone());
    wait_until("its failure to be shown", 20, || state() == Some(json!("initdb failed")));
    let aside = cluster.nodes[0].dir.join("data.failed");
    assert!(aside.join("PG_VERSION").exists(), "the attempt is kept");
    let passfile = || fs::read_to_string(cluster.nodes[0].dir.join("pgpass")).unwrap_or_default();
    assert!(fs::read_to_string(&had).is_ok_and(|text| text.contains(PASSWORD)), "it was lent");
    assert!(!passfile().contains(PASSWORD), "{}", passfile());
    fs::write(&flag, "").expect("it can be written");
    wait_until("the cluster", 60, || leads(&cluster));
    assert!(lines(&born).len() > 1);
    assert!(!passfile().contains(PASSWORD), "{}", passfile());
}

/// An initdb that fails is said with its last words, kept for a look, and tried again.
/// Spec: B-7, X-2.
#[test]
fn a_failing_initdb_is_told_and_tried_again() {
    let dir = scripts();
    let flag = dir.path().join("now");
    let Some(mut cluster) = Cluster::plan(alone(json!({}))) else { return };
    let program = cluster.count_initdb().with_file_name("bin").join("initdb");
    let text = fs::read_to_string(&program).expect("it was written");
    let fails = format!(
        "test -e {} || {{ for to; do :; done; echo 15 > $to/PG_VERSION; \
         echo 'initdb: error: out of rng' >&2; exit 7; }}\necho begun",
        flag.display()
    );
    fs::write(&program, text.replacen("echo begun", &fails, 1)).expect("it can be written");
    cluster.start(0);
    let node = &cluster.nodes[0];
    let state = || http::get_json(&node.rest(), "/patroni").map(|b| b["state"].clone());
    wait_until("its failure to be shown", 20, || state() == Some(json!("initdb failed")));
    let seen = http::get_json(&node.rest(), "/cluster").expect("a body");
    let failure = seen["surus"]["initialize_failure"]["reason"].as_str().unwrap_or_default();
    let said = "initdb ended with exit code 7: initdb: error: out of rng";
    assert!(failure.contains(said), "{seen}");
    let metrics = http::get(&node.rest(), "/metrics").expect("metrics").1;
    assert!(metrics.contains("patroni_postgres_state{scope=\"e2e\",name=\"n1\"} 1\n"), "{metrics}");
    assert!(node.dir.join("data.failed/PG_VERSION").exists(), "the attempt is kept");
    fs::write(&flag, "").expect("it can be written");
    wait_until("the cluster", 60, || leads(&cluster));
}

/// Directories that PostgreSQL and its tools write to are made; where that cannot be, the daemon
/// ends before it begins anything, and names the key.
/// Spec: EX-8.
#[test]
fn directories_that_are_missing_are_made_or_named() {
    let Some(mut cluster) = Cluster::plan(alone(json!({}))) else { return };
    let (dir, data) = (cluster.nodes[0].dir.clone(), cluster.nodes[0].data());
    let (deep, sockets) = (dir.join("deep/er/pgpass"), dir.join("sock/et"));
    let with = |pgpass: &Path, sockets: &Path| {
        json!({"postgresql": {"pgpass": pgpass,
            "parameters": {"unix_socket_directories": sockets}}})
    };
    let under_a_file = cluster.nodes[0].config().join("x");
    let wrong = [
        ("postgresql.pgpass", with(&under_a_file, &sockets)),
        ("unix_socket_directories", with(&deep, &under_a_file)),
        ("unix_socket_directories", with(&deep, Path::new("/proc"))),
    ];
    for (key, file) in wrong {
        cluster.edit(0, &file);
        cluster.start(0);
        assert_eq!(cluster.nodes[0].wait_exit(10), Some(1));
        let text = cluster.nodes[0].log_text();
        let said = text.lines().last().unwrap_or_default();
        assert!(said.contains(&format!("{key}: /")), "{said}");
        assert!(fs::read_dir(&data).expect("it is there").next().is_none());
    }
    cluster.edit(0, &with(&deep, &sockets));
    cluster.start(0);
    wait_until("the cluster", 60, || leads(&cluster));
    assert!(deep.parent().is_some_and(Path::is_dir));
    let socket = format!(".s.PGSQL.{}", cluster.nodes[0].at.postgresql);
    assert!(sockets.join(socket).exists());
}

#[test]
fn what_postgresql_cannot_read_is_refused_or_left_out() {
    let file = json!({"postgresql": {"parameters": {"shared_bufers": "1GB", "work_mem": "banana",
        "data_directory": "/nowhere", "maintenance_work_mem": "20MB"}}});
    let Some(cluster) = Cluster::start_all(alone(file)) else { return };
    wait_until("the cluster", 60, || leads(&cluster));
    let node = &cluster.nodes[0];
    let show = |name: &str| node.sql(&format!("SHOW {name}"));
    assert_eq!(show("maintenance_work_mem").as_deref(), Some("20MB"));
    assert_eq!(show("work_mem").as_deref(), Some("4MB"));
    assert_eq!(show("data_directory").as_deref(), node.data().to_str());
    for name in ["shared_bufers", "work_mem", "data_directory"] {
        assert!(node.said(&format!("postgresql.parameters.{name}")) > 0, "{name}");
    }
    let bad = [
        json!({"postgresql": {"parameters": {"nosuch": 1}}}),
        json!({"postgresql": {"parameters": {"work_mem": "abc"}}}),
        json!({"postgresql": {"pg_hba": [1]}}),
        json!({"postgresql": {"pg_hba": ["hots all all all md5"]}}),
    ];
    for change in bad {
        let (code, text) = patch(&cluster, &change);
        assert_eq!(code, 400, "{change}: {text}");
    }
    let good =
        json!({"postgresql": {"parameters": {"deadlock_timeout": "2s", "max_connections": 50}}});
    assert_eq!(patch(&cluster, &good).0, 200);
    wait_until("the reload", 10, || show("deadlock_timeout").as_deref() == Some("2s"));
    let pending = || http::get_json(&node.rest(), "/patroni").map(|b| b["pending_restart"].clone());
    wait_until("the pending restart", 10, || pending() == Some(json!(true)));
    let body = json!({"restart_pending": true}).to_string();
    assert_eq!(http::post(&node.rest(), "/restart", &body).expect("an answer").0, 200);
    assert_eq!(show("max_connections").as_deref(), Some("50"));
}

#[test]
fn a_scheduled_restart_keeps_its_conditions() {
    let Some(cluster) = Cluster::start_all(alone(json!({}))) else { return };
    wait_until("the cluster", 60, || leads(&cluster));
    let node = &cluster.nodes[0];
    let before = node.postmaster();
    let in_s = |s: u64| {
        let at = SystemTime::now() + Duration::from_secs(s);
        jiff::Timestamp::try_from(at).expect("a time").to_string()
    };
    let ask =
        |body: Value| http::post(&node.rest(), "/restart", &body.to_string()).expect("answer");
    let shown = || http::get_json(&node.rest(), "/patroni").map(|b| b["scheduled_restart"].clone());
    let never = json!({"schedule": in_s(4), "role": "replica"});
    assert_eq!(ask(never.clone()), (202, "Restart scheduled".into()));
    assert_eq!(ask(never).0, 409);
    wait_until("it to be shown", 3, || shown().is_some_and(|s| s["role"] == "replica"));
    wait_until("it to be over", 15, || shown().is_some_and(|s| s.is_null()));
    assert_eq!(node.postmaster(), before, "a primary is no replica");
    assert_eq!(ask(json!({"schedule": in_s(2), "role": "primary"})).0, 202);
    wait_until("the restart", 20, || {
        node.postmaster().is_some_and(|pid| Some(pid) != before) && node.sql("SELECT 1").is_some()
    });
}

#[test]
fn a_daemon_killed_while_it_stops_lives_again() {
    let Some(mut cluster) = Cluster::start_all(alone(json!({}))) else { return };
    wait_until("the cluster", 60, || leads(&cluster));
    cluster.nodes[0].signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(30));
    cluster.nodes[0].kill_daemon();
    cluster.start(0);
    cluster.wait_writable(30);
    std::thread::sleep(Duration::from_secs(2));
    assert!(cluster.nodes[0].is_running(), "it was told to run");
}

#[test]
fn an_idle_cluster_writes_nothing() {
    let Some(cluster) = Cluster::start_all(Spec::default()) else { return };
    std::thread::sleep(Duration::from_secs(4)); // the arbiter steps apart from the holder
    let commit = || cluster.nodes[0].dump().map(|dump| dump["raft"]["commit"].clone());
    let before = commit().expect("a dump");
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(commit(), Some(before));
}

/// Passwords are in the file, and nowhere else that anybody reads.
#[test]
fn no_password_gets_out() {
    let Some(cluster) = Cluster::start_all(alone(json!({}))) else { return };
    let node = &cluster.nodes[0];
    let dump = node.dump().expect("a dump").to_string();
    let answers = ["/patroni", "/cluster", "/config", "/metrics"]
        .map(|path| http::get(&node.rest(), path).expect("an answer").1);
    let argv: String = super::process::of(&node.dir)
        .into_iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
        .collect();
    let texts = [node.log_text(), dump, argv, answers.concat()];
    for secret in [super::sql::PASSWORD, "repl-geheim", "rewind-geheim", "raft-geheim"] {
        for text in &texts {
            assert!(!text.contains(secret), "{secret} is in: {text}");
        }
    }
}

/// A child that a postmaster forked just before it was killed looks like a postmaster until it ends.
/// Whoever took it for one would wait for a server that never comes.
#[test]
fn a_child_of_the_dead_postmaster_is_not_taken_for_one() {
    let Some(cluster) = Cluster::start_all(alone(json!({}))) else { return };
    let node = &cluster.nodes[0];
    for lives_s in ["0.05", "0.4", "1.2"] {
        wait_until("the lead", 20, || leads(&cluster));
        let postmaster = node.postmaster().expect("it runs");
        let mut child = looks_like_a_postmaster(&node.data(), &node.dir, lives_s);
        process::signal(postmaster, Signal::KILL);
        wait_until("another postmaster", 20, || {
            leads(&cluster) && node.postmaster().is_some_and(|pid| pid != postmaster)
        });
        wait_until("writes", 5, || {
            node.sql("INSERT INTO acked VALUES (1, 0) RETURNING id").is_some()
        });
        child.wait().expect("it is ours");
    }
}

/// A process of the server program's name that stands in the data directory and has no title.
fn looks_like_a_postmaster(data: &Path, dir: &Path, lives_s: &str) -> Child {
    let program = dir.join("postgres");
    fs::copy("/bin/sleep", &program).expect("it can be copied");
    let mut command = Command::new(program);
    command.arg(lives_s).current_dir(data).spawn().expect("it starts")
}
