//! What lies on the disk and who may use it: moving aside, copies, slots, roles, mounts.
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal as Unix;
use surus::host::postgres::Server;
use surus::host::postgres::query::Monitor;
use surus::host::postgres::replica::Remote;
use surus::host::postgres::start::Ready;
use surus::pure::cluster::facts::{DataDirectory, SqlFacts};
use surus::pure::operation::StopMode;

use crate::place::*;

/// Spec: X-2.
#[tokio::test]
async fn a_cluster_moves_aside_with_wal_and_tablespace() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let (wal, space) = (server.state_dir.join("wal"), server.state_dir.join("space"));
    let waldir = format!("--waldir={}", wal.display());
    let password = server.connection.password.clone();
    server.initdb(&[waldir], "boss", password.as_ref()).await.expect("initdb");
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    std::fs::create_dir(&space).expect("mkdir");
    if let Some(account) = &server.run_as {
        account.own(&space).expect("chown");
    }
    std::fs::write(space.join("precious"), "not ours").expect("write");
    sql(&server, &format!("CREATE TABLESPACE s LOCATION '{}'", space.display())).await;
    sql(&server, "CREATE TABLE t TABLESPACE s AS SELECT 42 AS x").await;
    assert!(server.move_aside("failed").await.expect_err("runs").contains("stop it"));
    server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");

    let aside = server.move_aside("failed").await.expect("moved");
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Empty);
    assert!(space.join("precious").exists());
    let moved_wal = std::fs::read_link(aside.join("pg_wal")).expect("a link");
    assert_eq!(moved_wal, PathBuf::from(format!("{}.failed", wal.display())));
    // What was moved aside is still a whole cluster.
    let old = Server { data_dir: aside.clone(), ..server.clone() };
    place.servers.push(old.clone());
    old.start(&files(&old, None), LONG, Ready::ReadWrite).await.expect("start");
    assert_eq!(sql(&old, "SELECT x::text FROM t").await.as_deref(), Some("42"));
    old.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    old.clear_data_directory().await.expect("cleared");
    assert!(moved_wal.is_dir() && space.join("precious").exists());
    assert_eq!(std::fs::read_dir(&moved_wal).expect("there").count(), 0);
    let spaces = std::fs::read_dir(format!("{}.failed", space.display())).expect("there");
    assert_eq!(spaces.count(), 0);
}

/// Spec: W-3.
#[tokio::test]
async fn strangers_data_is_not_cleared() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    std::fs::create_dir(&server.data_dir).expect("mkdir");
    std::fs::write(server.data_dir.join("thesis.txt"), "years").expect("write");
    own(&server, &server.data_dir);
    let error = server.clear_data_directory().await.expect_err("refused");
    assert!(error.contains("not PostgreSQL's"), "{error}");
    server.mark_unfinished("method").expect("marked");
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Incomplete);
    server.clear_data_directory().await.expect("an unfinished copy may be cleared");
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Empty);
}

/// Spec: T-2, EX-67.
#[tokio::test]
async fn a_cancelled_copy_stops_and_counts_as_unfinished() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    let slow = ["--max-rate=32k".to_owned()];
    let from = remote(&primary, "replicator");
    let mut ignore = |_| {};
    let copying = replica.basebackup(&from, &slow, &mut ignore);
    assert!(tokio::time::timeout(Duration::from_secs(3), copying).await.is_err());
    assert_eq!(replica.inspect().await.expect("look").data, DataDirectory::Incomplete);
    facts_when(&primary, |f| f.replication.is_empty()).await;
    replica.clear_data_directory().await.expect("cleared");
    assert_eq!(replica.inspect().await.expect("look").data, DataDirectory::Empty);
}

#[tokio::test]
async fn divergence_is_told_from_the_leaders_history() {
    let Some(mut place) = Place::new() else { return };
    let one = place.primary("one").await;
    let two = place.replica("two", &one).await;
    let mut three = place.replica("three", &one).await;
    let streaming = |f: &SqlFacts| f.replication_state.as_deref() == Some("streaming");
    facts_when(&two, streaming).await;
    facts_when(&three, streaming).await;
    let before = three.lineage(&remote(&one, "replicator")).await.expect("lineage");
    assert_eq!((before.timeline, before.history.len()), (1, 0));
    // An orderly exchange: everything reaches the standbys before the primary is down.
    let end = one.stop(StopMode::Fast, Some(LONG)).await.expect("stop").checkpoint;
    facts_when(&two, |f| f.replay_lsn > end).await;
    three.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    two.promote(LONG).await.expect("promoted");
    let leader = one.lineage(&remote(&two, "replicator")).await.expect("lineage");
    assert_eq!((leader.timeline, leader.history.len()), (2, 1));
    assert!(leader.history[0].at > end && leader.position >= leader.history[0].at);
    assert_eq!(leader.system_identifier, before.system_identifier);
    let verdict = one.check_divergence(&leader, None).await.expect("verdict");
    assert!(!verdict.yes, "{verdict:?}");
    let verdict = three.check_divergence(&leader, None).await.expect("verdict");
    assert!(!verdict.yes, "{verdict:?}");

    // One that went on alone on the old timeline has diverged.
    one.start(&files(&one, None), LONG, Ready::ReadWrite).await.expect("start");
    sql(&one, "CREATE TABLE alone AS SELECT 1 AS x").await;
    one.stop(StopMode::Immediate, None).await.expect("stop");
    let verdict = one.check_divergence(&leader, None).await.expect("verdict");
    assert!(verdict.yes && verdict.because.contains("crashed"), "{verdict:?}");
    one.start(&files(&one, None), LONG, Ready::ReadWrite).await.expect("start");
    one.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    let verdict = one.check_divergence(&leader, None).await.expect("verdict");
    assert!(verdict.yes && verdict.because.contains("before our end"), "{verdict:?}");

    three.connection.password = None;
    let wrong = Remote { passfile: String::new(), ..remote(&two, "replicator") };
    let error = place.server("four").lineage(&wrong).await.expect_err("no password");
    assert!(error.contains("password"), "{error}");
}

#[tokio::test]
async fn slots_are_made_and_only_named_ones_dropped() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let names = ["two".to_owned(), "three".to_owned()];
    let changes = server.ensure_slots(&names, &[]).await.expect("slots");
    assert_eq!((changes.created.len(), changes.problems.len()), (2, 0));
    let changes = server.ensure_slots(&names[..1], &[]).await.expect("slots");
    assert_eq!(changes, Default::default());
    let slots = facts(&server).await.slots;
    assert!(slots.iter().all(|slot| slot.physical && slot.restart_lsn.0 > 0));
    assert_eq!(slots.len(), 2);
    let changes = server.ensure_slots(&names[..1], &names).await.expect("slots");
    assert_eq!(changes.dropped, ["three"]);
    let odd = ["Not A Slot".to_owned()];
    let changes = server.ensure_slots(&odd, &[]).await.expect("slots");
    assert!(changes.problems[0].contains("Not A Slot"), "{changes:?}");
}

/// Spec: P-1, P-2, P-3, P-5.
#[tokio::test]
async fn roles_are_mended_and_the_script_finishes_the_cluster() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    server.create_roles(&roles()).await.expect("again");
    let log = std::fs::read_to_string(server.log_path()).expect("a log");
    assert!(log.contains("SET log_statement") && !log.contains("SCRAM"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    let script = place.dir.path().join("post.sh");
    let body = "[ \"$PGOPTIONS\" = '-c synchronous_commit=local -c statement_timeout=0' ] || exit 3\n\
        psql -w -c 'CREATE DATABASE made' \"$1\"\n";
    std::fs::write(&script, body).expect("write");
    open_to_all(&script);
    let dsn = format!("dbname=postgres user=boss host=127.0.0.1 port={}", server.connection.port);
    let line = "127.0.0.1:*:*:boss:it's\\:\\\\secret";
    let command = format!("sh {}", script.display());
    server.post_bootstrap(&command, &dsn, line).await.expect("finished");
    let made = sql(&server, "SELECT 1 FROM pg_database WHERE datname = 'made'").await;
    assert_eq!(made.as_deref(), Some("1"));
    let error = server.post_bootstrap("sh -c 'exit 5'", &dsn, line).await.expect_err("exit 5");
    assert!(error.contains("exit code 5"), "{error}");
}

/// Spec: W-1.
#[tokio::test]
async fn a_symlinked_data_directory_stays_a_symlink() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let real = server.state_dir.join("real");
    std::fs::create_dir(&real).expect("mkdir");
    own(&server, &real);
    std::os::unix::fs::symlink(&real, &server.data_dir).expect("symlink");
    server.initdb(&[], "boss", None).await.expect("initdb");
    let aside = server.move_aside("failed").await.expect("moved");
    assert_eq!(aside, server.state_dir.join("real.failed"));
    assert!(aside.join("PG_VERSION").exists() && server.data_dir.is_symlink());
    server.initdb(&[], "boss", None).await.expect("initdb");
    let second = server.move_aside("failed").await.expect("moved");
    assert_eq!(second, server.state_dir.join("real.failed.2"));
    server.initdb(&[], "boss", None).await.expect("initdb");
    server.clear_data_directory().await.expect("cleared");
    assert!(server.data_dir.is_symlink() && real.is_dir());
}

#[tokio::test]
async fn facts_survive_a_lost_connection() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let mut monitor = Monitor::default();
    let first = monitor.facts(&server.connection).await.expect("facts");
    let which = "SELECT pid FROM pg_stat_activity WHERE application_name = 'Surus heartbeat'";
    let backend = sql(&server, which).await.expect("a pid").parse().expect("a number");
    kill(backend, Unix::TERM);
    // Without the reactor: the monitor hears of its lost connection only when it asks.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(monitor.facts(&server.connection).await.expect("facts").timeline, first.timeline);
    server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    assert!(monitor.facts(&server.connection).await.is_err());
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    let again = monitor.facts(&server.connection).await.expect("facts");
    assert!(again.postmaster_start_time > first.postmaster_start_time);
}

/// A file system that is unmounted when this is dropped.
pub struct Mount(PathBuf);

impl Mount {
    pub fn tmpfs(at: &Path) -> Option<Mount> {
        Mount::tmpfs_of(at, "50%")
    }

    pub fn tmpfs_of(at: &Path, size: &str) -> Option<Mount> {
        std::fs::create_dir(at).expect("mkdir");
        let mut mount = std::process::Command::new("mount");
        let size = format!("size={size}");
        let done = mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(at).output();
        done.is_ok_and(|output| output.status.success()).then(|| Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Spec, EX-27, E-2, W-2.
#[tokio::test]
async fn on_a_mount_point_the_content_moves() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let Some(_mount) = Mount::tmpfs(&server.data_dir) else {
        eprintln!("SKIPPED: no right to mount");
        return;
    };
    std::fs::create_dir(server.data_dir.join("lost+found")).expect("mkdir");
    server.initdb(&[], "boss", None).await.expect("initdb");
    let first = server.control().await.expect("control").system_identifier;
    let aside = server.move_aside("failed").await.expect("moved");
    assert!(aside.starts_with(&server.data_dir) && aside.join("global/pg_control").exists());
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Empty);
    server.initdb(&[], "boss", None).await.expect("initdb");
    // A move that was interrupted is finished by whoever comes next, never removed.
    let target = server.data_dir.join(".surus-aside/data.second");
    std::fs::create_dir(&target).expect("mkdir");
    own(&server, &target);
    server.mark_unfinished(&format!("move-aside {}", target.display())).expect("marked");
    std::fs::rename(server.data_dir.join("global"), target.join("global")).expect("moved");
    server.clear_data_directory().await.expect("finished");
    assert!(target.join("global/pg_control").exists() && target.join("PG_VERSION").exists());
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Empty);
    server.initdb(&[], "boss", None).await.expect("initdb");
    server.clear_data_directory().await.expect("cleared");
    let old = Server { data_dir: aside, ..server };
    assert_eq!(old.control().await.expect("control").system_identifier, first);
}
