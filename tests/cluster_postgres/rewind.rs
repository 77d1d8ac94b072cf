//! pg_rewind, seen from outside: what it is called with, and where the WAL comes from that is gone.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::json;

use super::cluster::{Cluster, Spec, bin_dir, wait_until};
use super::process;
use super::scripts::{plain, scripts};

/// PostgreSQL's programs, with a pg_rewind that writes down how it was called; and that file.
fn observed(dir: &Path) -> (PathBuf, PathBuf) {
    let (bin, log) = (dir.join("bin"), dir.join("rewind.log"));
    let real = bin_dir().expect("found before");
    fs::create_dir(&bin).expect("it is new");
    for entry in fs::read_dir(&real).expect("it is there").flatten() {
        if entry.file_name() != "pg_rewind" {
            symlink(entry.path(), bin.join(entry.file_name())).expect("it is new");
        }
    }
    fs::write(&log, "").expect("it can be written");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).expect("chmod");
    let (to, real) = (log.display(), real.display());
    let body = format!(
        "case \"$*\" in *--help*|*--version*) ;; *) echo \"$@\" >> {to}; env | grep -E \
         '^(LANG|LC_ALL|PG)' >> {to};; esac\nexec {real}/pg_rewind \"$@\""
    );
    plain(&bin, "pg_rewind", &body);
    (bin, log)
}

fn run(cluster: &Cluster, k: usize, statements: &[&str]) {
    for statement in statements {
        cluster.nodes[k].column(statement).expect("it takes writes");
    }
}

/// Removes what PostgreSQL would have recycled: all WAL before its last checkpoint.
fn forget_old_wal(cluster: &Cluster, k: usize, needed: &str) -> usize {
    let dir = cluster.nodes[k].data().join("pg_wal");
    let names = fs::read_dir(&dir).expect("it is there").flatten().map(|e| e.file_name());
    let old = names.filter_map(|name| name.into_string().ok());
    let old: Vec<String> = old.filter(|n| n.len() == 24 && n.as_str() < needed).collect();
    old.iter().for_each(|name| fs::remove_file(dir.join(name)).expect("it was there"));
    old.len()
}

/// Spec: RW-5, RW-6.
#[test]
fn missing_wal_is_fetched_from_the_archive() {
    let dir = scripts();
    let Some(_) = bin_dir() else { return };
    let (bin, log) = observed(dir.path());
    let archive = dir.path().display();
    let file = json!({"postgresql": {
        "bin_dir": bin,
        "parameters": {"archive_mode": "on", "archive_command": format!("cp %p {archive}/%f")},
        "recovery_conf": {"restore_command": format!("cp {archive}/%f %p")},
    }});
    let spec = Spec { ttl_s: 2, file, ..Spec::default() };
    let Some(mut cluster) = Cluster::start_all(spec) else { return };
    let old = cluster.leader();
    // The last checkpoint that all share lies in a WAL file of its own.
    run(&cluster, old, &["CHECKPOINT", "SELECT pg_switch_wal()", "INSERT INTO acked VALUES (1)"]);
    let shared = |k: &usize| cluster.stored(*k).len() == 1;
    wait_until("the row everywhere", 10, || cluster.numbers().iter().all(shared));
    for pid in process::of(&cluster.nodes[old].data()) {
        if process::title(pid).contains("walsender") {
            process::signal(pid, Signal::STOP);
        }
    }
    run(&cluster, old, &["INSERT INTO acked VALUES (2)", "SELECT pg_switch_wal()", "CHECKPOINT"]);
    let redo = "SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()";
    let needed = cluster.nodes[old].sql(redo).expect("it answers");
    let archived = "SELECT last_archived_wal >= last_failed_wal OR last_failed_wal IS NULL FROM \
                    pg_stat_archiver WHERE last_archived_wal IS NOT NULL";
    wait_until("the archive", 10, || cluster.nodes[old].sql(archived).as_deref() == Some("t"));
    cluster.nodes[old].kill();
    wait_until("another to lead", 30, || cluster.writable().is_some_and(|k| k != old));
    assert!(forget_old_wal(&cluster, old, &needed) > 0, "before {needed}");
    cluster.start(old);
    cluster.wait_settled(60);
    cluster.wait_same_rows();
    let said = fs::read_to_string(log).expect("it was written");
    let called = said.lines().filter(|line| line.contains("--target-pgdata=")).count();
    assert_eq!(called, 1, "it succeeded at once: {said}");
    let conf = cluster.nodes[old].data().join("postgresql.conf");
    let config = format!("--config-file={}", conf.display());
    let wanted = [
        "--restore-target-wal",
        &config,
        "LANG=C",
        "LC_ALL=C",
        "PGOPTIONS=",
        "-c statement_timeout=0",
        "PGPASSFILE=",
    ];
    for wanted in wanted {
        assert!(said.contains(wanted), "{wanted} is missing in {said}");
    }
    assert!(!said.contains("geheim"), "{said}");
}
