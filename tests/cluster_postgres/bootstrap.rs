//! A cluster that is restored, not created: real backups, real recovery, scripts that lie.
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::cluster::{Cluster, Spec, bin_dir, wait_until};
use super::origin::{Origin, tried};
use super::scripts::{lines, script, scripts};
use super::single::{alone, leads};
use super::sql::PASSWORD;
use super::{http, process};

/// One node whose only method restores `origin`, with the section's further keys.
fn restoring(origin: &Origin, dir: &Path, more: &str, section: &Value) -> (Spec, String) {
    let command = origin.restore_script(dir, "restore", more);
    let psql = bin_dir().expect("found before").join("psql").display().to_string();
    let roles = "SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolname ~ '^(post|repl|rew)'";
    let born = script(dir, "born", &format!("{psql} -XAt -c \"{roles}\" \"$1\" >> $0.log"));
    let mut pitr = json!({"command": format!("{command} 'first word'")});
    for (key, value) in section.as_object().expect("a map") {
        pitr[key] = value.clone();
    }
    let file = json!({"bootstrap": {"method": "pitr", "pitr": pitr, "post_bootstrap": born}});
    (alone(file), born)
}

fn own(cluster: &Cluster) -> Value {
    http::get_json(&cluster.nodes[0].rest(), "/patroni").unwrap_or_default()
}

fn rows(cluster: &Cluster) -> Option<String> {
    cluster.nodes[0].sql("SELECT string_agg(x::text, ',' ORDER BY x) FROM t")
}

/// The configuration of a cluster that was managed, too: commits waited for a standby of its own.
const OF_ANOTHER: &str = "sleep 3\nmv $data/postgresql.conf $data/postgresql.base.conf\n\
    echo \"include 'postgresql.base.conf'\" > $data/postgresql.conf\n\
    echo \"synchronous_standby_names = 'gone'\" >> $data/postgresql.conf";

/// Restored to a restore point: the argument words, the settings during recovery, the superuser's
/// password, the order of roles and script, the usual settings afterwards, and nothing of the old
/// cluster's cached configuration.
/// Spec: B-10, B-11, B-12, B-13, B-16, B-17, B-18, B-20, B-21, B-22, B-23, B-26, P-1, P-2, P-3.
/// Spec: P-6, P-9, P-10, D-2, D-3, D-4, R-1, R-2, EX-28, EX-29, EX-31.
#[test]
fn a_backup_is_restored_to_its_target() {
    let dir = scripts();
    let Some(origin) = Origin::plain(31_010) else { return };
    let section = json!({"recovery_conf": {"restore_command": origin.restore_command(),
        "recovery_target_name": "here"}, "scope": "evil", "datadir": "/evil", "list": [1, 2],
        "flag": true});
    let (mut spec, born) = restoring(&origin, dir.path(), OF_ANOTHER, &section);
    spec.file["bootstrap"]["dcs"] = json!({"member_slots_ttl": 2, "synchronous_mode": true});
    let Some(mut cluster) = Cluster::plan(spec) else { return };
    cluster.start(0);
    wait_until("the state of the method", 20, || {
        own(&cluster)["state"] == "running custom bootstrap script"
    });
    let rest = cluster.nodes[0].rest();
    assert_eq!(http::get(&rest, "/config").map(|a| a.0), Some(502), "D-4");
    let patched = http::patch(&rest, "/config", "{\"ttl\": 5}").map(|a| a.0);
    assert_eq!(patched, Some(503), "D-4, EX-31");
    let seen = http::get_json(&rest, "/cluster").expect("a body");
    assert_eq!(seen["members"][0]["state"], "running custom bootstrap script", "R-1: {seen}");
    let code = |path: &str| http::get(&rest, path).map(|answer| answer.0);
    assert_eq!(
        (code("/liveness"), code("/readiness"), code("/primary")),
        (Some(200), Some(503), Some(503))
    );
    assert_eq!(own(&cluster)["cluster_unlocked"], true);
    wait_until("the cluster", 60, || leads(&cluster));
    let data = cluster.nodes[0].data();
    let arguments = lines(&dir.path().join("restore").display().to_string());
    let wanted =
        format!("first word --scope=e2e --datadir={} --list=[1, 2] --flag=True", data.display());
    assert_eq!(arguments, [wanted]);
    assert_eq!(rows(&cluster).as_deref(), Some("1,2"));
    assert_eq!(cluster.timeline(0), 2);
    let told = lines(&born);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("dbname=postgres user=postgres host=127.0.0.1 port="), "{told:?}");
    assert_eq!(told[1], "postgres", "the script runs before the other roles are made");
    let node = &cluster.nodes[0];
    let show = |name: &str| node.sql(&format!("SHOW {name}")).unwrap_or_default();
    assert_eq!((show("max_connections"), show("hot_standby")), ("40".into(), "on".into()));
    assert_eq!(show("recovery_target_name"), "");
    assert_eq!(show("synchronous_standby_names"), "", "another cluster's standbys");
    assert!(show("hba_file").ends_with("/pg_hba.conf"), "{}", show("hba_file"));
    let left = ["surus_recovery_hba.conf", "recovery.signal", "standby.signal"];
    assert!(left.iter().all(|name| !data.join(name).exists()));
    assert!(!node.dir.join("data.surus-incomplete").exists());
    let config = http::get_json(&rest, "/config").expect("a configuration");
    assert_eq!(config["ttl"], 3, "bootstrap.dcs counts, not what was cached: {config}");
    assert!(
        node.said("at restore point \\\"here\\\"") + node.said("at restore point \"here\"") > 0
    );
    assert!(node.said(PASSWORD) == 0 && node.said("of long ago") == 0);
    what_it_does_not_know(&cluster);
}

/// Other roles keep their passwords; a slot of the old cluster's replicas holds no WAL for ever.
fn what_it_does_not_know(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    let psql = bin_dir().expect("found before").join("psql").display().to_string();
    let enters = |password: &str| {
        let to = format!("host=127.0.0.1 port={} user=app dbname=postgres", node.at.postgresql);
        tried(&psql, &["-XAtc", "SELECT 1", &format!("{to} password='{password}'")])
    };
    assert!(enters("of the app") && !enters("another"));
    let slots = || node.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'old'");
    assert!(node.said("nobody uses this replication slot") > 0, "it is said before");
    wait_until("the old slot to be dropped", 20, || slots().as_deref() == Some("0"));
}

/// Recovery that ends before its target is refused: said on every node, kept for a look, tried
/// again later; the daemon stays up.
/// Spec, EX-22, EX-24, EX-25, B-15.
#[test]
fn a_missed_target_is_no_cluster() {
    let dir = scripts();
    let Some(origin) = Origin::plain(31_020) else { return };
    let section = json!({"recovery_conf": {"restore_command": origin.restore_command(),
        "recovery_target_name": "nowhere"}});
    let (mut spec, born) = restoring(&origin, dir.path(), "", &section);
    spec.nodes = 2;
    let Some(mut cluster) = Cluster::plan(spec) else { return };
    cluster.start(0);
    cluster.start(1);
    let failure = |k: usize| {
        let body = http::get_json(&cluster.nodes[k].rest(), "/cluster").unwrap_or_default();
        body["surus"]["initialize_failure"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    let missed = "recovery ended before configured recovery target was reached";
    for k in [0, 1] {
        wait_until("the reason on every node", 60, || failure(k).contains(missed));
    }
    let failed = |k: usize| {
        let body = http::get_json(&cluster.nodes[k].rest(), "/patroni").unwrap_or_default();
        body["state"] == "custom bootstrap failed"
    };
    wait_until("both to have tried", 60, || failed(0) && failed(1));
    let (code, text) = cluster.ctl(0, &["list"]);
    assert!(code == 0 && text.contains("Creating the cluster failed on n"), "{text}");
    for node in &mut cluster.nodes {
        let aside = node.dir.join("data.failed/PG_VERSION");
        wait_until("its data to be moved aside", 20, || aside.exists());
        assert!(node.is_running());
    }
    assert!(lines(&born).is_empty(), "nothing ran on what is no cluster");
}

/// Paused at its target it waits for a person and says so; a daemon that dies, and a machine that
/// dies, go on where they were: not past the target, and the script is not forgotten.
/// Told to read its file again meanwhile, it leaves PostgreSQL's configuration as it is, and says so.
/// Spec: B-23, B-24, B-25, B-27, X-4, X-6, I-5, EX-30.
#[test]
fn a_pause_at_the_target_outlives_the_daemon_and_the_machine() {
    let dir = scripts();
    let Some(origin) = Origin::plain(31_030) else { return };
    let section = json!({"recovery_conf": {"restore_command": origin.restore_command(),
        "recovery_target_name": "here", "recovery_target_action": "pause"}});
    let (spec, born) = restoring(&origin, dir.path(), "", &section);
    let Some(mut cluster) = Cluster::plan(spec) else { return };
    cluster.start(0);
    let pauses = |cluster: &Cluster| {
        wait_until("the pause to be shown", 40, || {
            let own = own(cluster);
            let hint = own["surus"]["recovery"]["hint"].as_str().unwrap_or_default().to_owned();
            own["state"] == "starting after custom bootstrap"
                && hint.contains("pg_wal_replay_resume")
        });
        assert_eq!(rows(cluster).as_deref(), Some("1,2"));
    };
    pauses(&cluster);
    reloads_nothing(&cluster);
    let pid = cluster.nodes[0].postmaster();
    cluster.nodes[0].kill_daemon();
    cluster.start(0);
    pauses(&cluster);
    assert_eq!(cluster.nodes[0].postmaster(), pid, "the same PostgreSQL");
    cluster.nodes[0].stop(30);
    assert_eq!(cluster.nodes[0].postmaster(), None, "an orderly stop stops it");
    cluster.start(0);
    pauses(&cluster);
    cluster.nodes[0].kill();
    cluster.start(0);
    pauses(&cluster);
    assert_ne!(cluster.nodes[0].postmaster(), pid);
    let runs = lines(&dir.path().join("restore").display().to_string());
    assert_eq!(runs.len(), 1, "what was restored is taken up again: {runs:?}");
    assert!(lines(&born).is_empty() && !leads(&cluster));
    cluster.nodes[0].sql("SELECT pg_wal_replay_resume()");
    wait_until("the cluster", 60, || leads(&cluster));
    assert_eq!(rows(&cluster).as_deref(), Some("1,2"));
    assert_eq!(lines(&born).len(), 2);
}

fn reloads_nothing(cluster: &Cluster) {
    let node = &cluster.nodes[0];
    let files = || {
        ["postgresql.conf", "pg_hba.conf", "surus_recovery_hba.conf"]
            .map(|name| fs::read(node.data().join(name)).unwrap_or_default())
    };
    let before = files();
    assert!(!before[0].is_empty() && !before[2].is_empty());
    cluster.edit(0, &json!({"postgresql": {"parameters": {"work_mem": "7MB"}}}));
    node.signal(rustix::process::Signal::HUP);
    wait_until("it to be said", 10, || node.said("its configuration is left alone until then") > 0);
    assert_eq!(files(), before);
    assert_ne!(node.sql("SHOW work_mem").as_deref(), Some("7MB"));
}

/// The method's own signal file and settings count, and extra words come without --scope and
/// --datadir; the daemon is killed at each phase in turn.
/// Spec: B-11, B-17, B-21, B-27, X-4.
#[test]
fn what_the_method_wrote_is_kept_and_every_phase_resumes() {
    let dir = scripts();
    let Some(origin) = Origin::plain(31_040) else { return };
    // Long enough that its claim outlives so many deaths.
    let Some(plan) = Cluster::plan(Spec { ttl_s: 20, ..alone(json!({})) }) else { return };
    let data = plan.nodes[0].data().display().to_string();
    let more = format!(
        "data={data}\ncp -R -p {}/. $data/\ntouch $data/recovery.signal\n\
         cat >> $data/postgresql.auto.conf <<EOF\nrestore_command = '{}'\n\
         recovery_target_name = 'here'\nEOF",
        origin.base().display(),
        origin.restore_command()
    );
    let command = script(dir.path(), "restore", &more);
    let born = script(dir.path(), "born", "");
    let file = json!({"bootstrap": {"method": "pitr", "post_bootstrap": born, "pitr":
        {"command": command, "no_params": "false", "keep_existing_recovery_conf": true,
         "stanza": "x"}}});
    let mut cluster = plan;
    cluster.edit(0, &file);
    let states = [
        "verifying",
        "launching",
        "recovering",
        "checking_target",
        "naming_superuser",
        "settling",
        "starting",
        "running_script",
        "creating_roles",
        "sealing",
        "bootstrapped",
    ];
    for state in states {
        cluster.start_with(0, &[("SURUS_CRASH_AT", &format!("bootstrap:{state}"))]);
        wait_until(&format!("the end at {state}"), 40, || {
            !cluster.nodes[0].is_running() || leads(&cluster)
        });
        if leads(&cluster) {
            // Sealed just when it lost its claim to so many deaths: a whole cluster, adopted.
            break;
        }
        cluster.nodes[0].wait_exit(1);
    }
    if !cluster.nodes[0].is_running() {
        cluster.start(0);
    }
    wait_until("the cluster", 60, || leads(&cluster));
    assert_eq!(rows(&cluster).as_deref(), Some("1,2"));
    assert_eq!(cluster.timeline(0), 2, "recovery was not begun anew");
    assert_eq!(lines(&command), ["--stanza=x"], "one restore, and no_params is Python's truth");
    assert_eq!(lines(&born).len(), 1);
    let auto = fs::read_to_string(cluster.nodes[0].data().join("postgresql.auto.conf"));
    assert!(!auto.expect("it is there").contains("recovery_target_name"));
}

/// The daemon comes back in time for its lease, but finds the server of each step dead, as its guard
/// leaves it when the deadline passes just then: the step goes on, nothing is begun anew.
/// Spec: B-27, X-4.
#[test]
fn a_step_whose_server_died_meanwhile_goes_on() {
    let dir = scripts();
    let Some(origin) = Origin::plain(31_045) else { return };
    let section = json!({"recovery_conf": {"restore_command": origin.restore_command(),
        "recovery_target_name": "here"}});
    let (spec, born) = restoring(&origin, dir.path(), "", &section);
    let Some(mut cluster) = Cluster::plan(spec) else { return };
    let states = [
        "recovering",
        "checking_target",
        "naming_superuser",
        "starting",
        "running_script",
        "creating_roles",
    ];
    for state in states {
        cluster.start_with(0, &[("SURUS_CRASH_AT", &format!("bootstrap:{state}"))]);
        let node = &mut cluster.nodes[0];
        node.wait_exit(60);
        if let Some(pid) = node.postmaster() {
            process::signal(pid, Signal::QUIT);
            wait_until("the server's end", 5, || node.postmaster().is_none());
        }
    }
    cluster.start(0);
    wait_until("the cluster", 60, || leads(&cluster));
    let runs = lines(&dir.path().join("restore").display().to_string());
    assert_eq!((runs.len(), lines(&born).len()), (1, 2), "{runs:?}");
    assert_eq!((rows(&cluster).as_deref(), cluster.timeline(0)), (Some("1,2"), 2));
    assert!(!cluster.nodes[0].dir.join("data.failed").exists());
}

/// Scripts that fail in every way, one after the other; then initdb, because it is named.
/// Spec: B-12, B-15, X-2, EX-22, EX-23.
#[test]
fn methods_that_lie_die_flood_hang_and_leave_children() {
    let dir = scripts();
    let dir_of = |name: &str| dir.path().join(name).display().to_string();
    let lies = script(dir.path(), "lies", "exit 0");
    let fails = script(dir.path(), "fails", "echo why it failed >&2; exit 3");
    let dies = script(dir.path(), "dies", "kill -9 $$");
    let flood = "yes a flood of words | head -c 5000000; echo the last word >&2; exit 4";
    let floods = script(dir.path(), "floods", flood);
    let hangs = script(dir.path(), "hangs", "sleep 1000");
    let child = format!("setsid sleep 1007 & echo $! > {}; exit 5", dir_of("child"));
    let leaves = script(dir.path(), "leaves", &child);
    let half = "for w in \"$@\"; do case $w in --datadir=*) d=${w#--datadir=};; esac; done\n\
        mkdir -p $d/global; echo 15 > $d/PG_VERSION; echo junk > $d/global/pg_control";
    let half = script(dir.path(), "half", half);
    let method = |command: &String| json!({"command": command});
    let names = ["lies", "fails", "dies", "floods", "hangs", "leaves", "half", "nobody", "initdb"];
    let file = json!({"bootstrap": {"methods": names, "method_timeout": 10,
        "lies": method(&lies), "fails": method(&fails), "dies": method(&dies),
        "floods": method(&floods), "hangs": method(&hangs), "leaves": method(&leaves),
        "half": method(&half), "nobody": {"command": "/no/such/program"}}});
    let Some(mut cluster) = Cluster::plan(alone(file)) else { return };
    cluster.start(0);
    wait_until("the cluster", 90, || leads(&cluster));
    let log = cluster.nodes[0].log_text();
    let reasons = [
        "lies ended well, but left no cluster",
        "ended with exit code 3: why it failed",
        "dies was killed by signal 9",
        "the last word",
        "after create_timeout",
        "leaves ended with exit code 5",
        "pg_controldata",
        "could not start /no/such/program",
    ];
    for reason in reasons {
        assert!(log.contains(reason), "the log lacks: {reason}");
    }
    let child: i32 =
        fs::read_to_string(dir_of("child")).expect("noted").trim().parse().expect("pid");
    assert!(!process::title(child).contains("1007"), "its child went on");
    assert!(cluster.nodes[0].dir.join("data.failed").exists(), "what half a method left is kept");
}

/// A method finds the data directory as it was: absent where there was none, with the names that
/// do not count where there were some.
/// Spec: B-14.
#[test]
fn a_method_finds_the_directory_as_it_was() {
    let dir = scripts();
    let look = "for w in \"$@\"; do case $w in --datadir=*) d=${w#--datadir=};; esac; done\n\
        stat -c %i $d >> $0.log 2>/dev/null || echo absent >> $0.log\n\
        ls -A $d >> $0.log 2>/dev/null; exit 1";
    let looks = script(dir.path(), "looks", look);
    let file = json!({"bootstrap": {"methods": ["looks", "initdb"], "looks": {"command": looks}}});
    let found = |prepare: &dyn Fn(&Path)| {
        let mut cluster = Cluster::plan(alone(file.clone()))?;
        prepare(&cluster.nodes[0].data());
        cluster.start(0);
        wait_until("the cluster", 60, || leads(&cluster));
        let mut said = lines(&looks);
        fs::remove_file(format!("{looks}.log")).expect("it was written");
        said.remove(0); // its arguments
        Some(said)
    };
    let absent = |data: &Path| fs::remove_dir(data).expect("it is empty");
    let Some(said) = found(&absent) else { return };
    assert_eq!(said, ["absent"]);
    let inode = std::cell::Cell::new(0);
    let furnished = |data: &Path| {
        fs::create_dir(data.join("lost+found")).expect("new");
        fs::write(data.join(".snapshot"), "").expect("new");
        let meta = fs::metadata(data).expect("it is there");
        inode.set(std::os::unix::fs::MetadataExt::ino(&meta));
    };
    let said = found(&furnished).expect("as before");
    assert_eq!(said, [inode.get().to_string(), ".snapshot".into(), "lost+found".into()]);
}

/// Says what would run and does nothing.
#[test]
fn a_plan_runs_nothing() {
    let dir = scripts();
    let command = script(dir.path(), "restore", "");
    let born = script(dir.path(), "born", "");
    let file = json!({"bootstrap": {"methods": ["pitr", "initdb"], "post_bootstrap": born,
        "pitr": {"command": format!("{command} --password=geheim"), "repo": "a b",
        "recovery_conf": {"recovery_target_name": "here", "restore_command": "cp a/%f %p"}}}});
    let Some(cluster) = Cluster::plan(alone(file)) else { return };
    let (code, text) = cluster.surus(&["bootstrap", "plan"], 0);
    assert_eq!(code, 0, "{text}");
    let data = cluster.nodes[0].data().display().to_string();
    let wanted = [
        format!("--scope=e2e --datadir={data}"),
        "'--repo=a b'".into(),
        "recovery_target_name = 'here'".into(),
        "--username=postgres --pwfile=".into(),
        "PGPASSFILE".into(),
        format!("{data}.failed"),
        "needed:".into(),
        "free:".into(),
        "dbname=postgres user=postgres".into(),
    ];
    for wanted in wanted {
        assert!(text.contains(&wanted), "{wanted} is missing in:\n{text}");
    }
    assert!(!text.contains("geheim"), "{text}");
    assert!(lines(&command).is_empty() && lines(&born).is_empty());
    let left = fs::read_dir(&data).expect("it is there").count();
    assert_eq!((left, cluster.nodes[0].state().exists()), (0, false));
}

/// Its guard was armed when it tried: it must let the replica live that this node becomes.
/// Spec: X-2.
#[test]
fn whoever_failed_to_create_the_cluster_becomes_a_replica() {
    let dir = scripts();
    let fails = script(dir.path(), "fails", "exit 3");
    let Some(mut cluster) = Cluster::plan(Spec { ttl_s: 3, ..Spec::default() }) else { return };
    cluster.edit(0, &json!({"bootstrap": {"post_bootstrap": fails}}));
    (0..3).for_each(|k| cluster.start(k));
    let leader = cluster.wait_settled(90);
    assert_ne!(leader, 0, "n1 cannot create a cluster");
    assert!(cluster.nodes[0].said("failed to create the cluster") > 0, "n1 tried first");
    assert!(cluster.nodes[0].dir.join("data.failed").exists());
}
