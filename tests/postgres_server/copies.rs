//! Copies of a real server: what a method is called with, what its result must be, what it may
//! touch, and that nothing of it outlives its purpose.
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use surus::host::postgres::method::{self, MethodCall};
use surus::host::postgres::replica::{COPIED, Call, News, Remote, STARTED};
use surus::host::postgres::start::Ready;
use surus::pure::cluster::facts::DataDirectory;
use surus::pure::config::ReplicaMethod;
use surus::pure::operation::StopMode;

use crate::data::Mount;
use crate::place::*;

/// A script that anybody may run.
fn script(place: &Place, name: &str, body: &str) -> String {
    let path = place.dir.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("write");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
    path.display().to_string()
}

fn call<'a>(command: &'a str, keep_data: bool) -> Call<'a> {
    Call { name: "method", command, arguments: vec![], keep_data }
}

/// Spec: M-6, M-10, M-13, M-15, M-16, M-19, EX-61, EX-77.
#[tokio::test]
async fn a_replica_method_is_called_and_its_copy_judged() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    let said = replica.state_dir.join("said");
    let copy = format!("{}/pg_basebackup -w -D \"$dir\" -d \"$conn\"", primary.bin_dir.display());
    let command = script(
        &place,
        "method.sh",
        &format!(
            "echo \"$@\" PGPASSFILE=$PGPASSFILE > {}\nfor a; do case $a in \
             --datadir=*) dir=${{a#*=}};; --connstring=*) conn=${{a#*=}};; --empty=*) exit 0;; \
             esac; done\n{copy}\n",
            said.display()
        ),
    );
    let from = remote(&primary, "replicator");
    // A method without a section: its name is the command line.
    let mut restore = ReplicaMethod {
        name: command.clone(),
        extra: vec![("empty".into(), "1".into())],
        ..ReplicaMethod::default()
    };
    let told =
        MethodCall { scope: "demo", data_dir: &replica.data_dir, connstring: &from.conninfo };
    let run = async |restore: &ReplicaMethod| {
        let arguments = method::arguments(restore, &told);
        let call = Call { arguments, ..call(method::command(restore), false) };
        replica.run_method(&call, &from, &mut |_| {}).await
    };
    run(&restore).await.expect("exit 0 without a copy");
    assert!(replica.verify_copy(None).await.expect_err("nothing there").contains("PG_VERSION"));
    restore.extra.clear();
    run(&restore).await.expect("copied");
    let text = std::fs::read_to_string(&said).expect("said");
    let expected = format!(
        "--scope=demo --role=replica --datadir={} --connstring={} PGPASSFILE={}\n",
        replica.data_dir.display(),
        from.conninfo,
        replica.pgpass.display()
    );
    assert_eq!(text, expected);
    assert!(!text.contains("secret"), "no password in the arguments");
    let primarys = primary.control().await.expect("control").system_identifier;
    replica.verify_copy(Some(&primarys)).await.expect("a cluster, and the right one");
    assert!(replica.verify_copy(Some("7")).await.expect_err("another's").contains("this one is 7"));
    // Until a server was seen to run on it, it counts as unfinished.
    assert_eq!(replica.unfinished(), Ok(Some(COPIED.into())));
    assert_eq!(replica.inspect().await.expect("look").data, DataDirectory::Incomplete);
    assert!(run(&restore).await.expect_err("full").contains("not empty"));
    replica.start(&files(&replica, Some(&primary)), LONG, Ready::Accepting).await.expect("start");
    assert!(matches!(replica.inspect().await.expect("look").data, DataDirectory::Present { .. }));
    // From then on it is whole whatever happens, and only its build may still remove it.
    replica.mark_started().expect("marked");
    replica.stop(StopMode::Immediate, Some(LONG)).await.expect("stop");
    assert_eq!(replica.unfinished(), Ok(Some(STARTED.into())));
    assert!(matches!(replica.inspect().await.expect("look").data, DataDirectory::Present { .. }));
}

/// Whoever is counted on by name is counted on with the copy that it had; what is copied from it is another.
#[tokio::test]
async fn every_copy_has_a_number_of_its_own() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    assert_eq!(primary.copy_id().await, 0, "nobody copied it");
    let first = primary.name_copy().await.expect("named");
    assert_eq!(primary.copy_id().await, first);
    primary.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    let cp = format!("cp -a {}/. {}", primary.data_dir.display(), replica.data_dir.display());
    let command = script(&place, "cp.sh", &cp);
    replica.run_method(&call(&command, false), &Remote::default(), &mut |_| {}).await.expect("0");
    assert_eq!(replica.copy_id().await, first, "the file was copied, too");
    let second = replica.name_copy().await.expect("named");
    assert!(second != first && second != 0);
    assert_eq!((replica.copy_id().await, primary.copy_id().await), (second, first));
}

/// Only what this state directory saw given is a number of ours; an earlier life's is replaced.
#[tokio::test]
async fn a_number_that_an_earlier_state_directory_gave_is_not_ours() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let first = server.number_copy().await.expect("drawn");
    assert_eq!(server.knows_copy(first).await, Ok(true));
    assert_eq!(server.number_copy().await, Ok(first), "it keeps its own");
    std::fs::remove_file(server.state_dir.join("copy")).expect("there is a note");
    assert_eq!(server.knows_copy(first).await, Ok(false));
    let second = server.number_copy().await.expect("drawn anew");
    assert!(second != first && server.knows_copy(second).await == Ok(true));
}

/// What the method's command line names is not there yet; what it made gets the mode that PostgreSQL demands.
/// Spec: M-13.
#[tokio::test]
async fn a_method_makes_its_data_directory_itself() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let dir = server.data_dir.display();
    let command =
        script(&place, "makes.sh", &format!("umask 022; mkdir {dir} && echo 15 > {dir}/x"));
    let none = Remote::default();
    server.run_method(&call(&command, false), &none, &mut |_| {}).await.expect("mkdir succeeds");
    let mode = std::fs::metadata(&server.data_dir).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(server.data_dir.join("x").exists());
}

/// Spec: M-15, NL-2, EX-78.
#[tokio::test]
async fn without_a_source_a_method_gets_no_passfile() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let said = server.state_dir.join("said");
    let command =
        script(&place, "said.sh", &format!("echo \"[$PGPASSFILE] $@\" > {}", said.display()));
    let restore = ReplicaMethod { command, name: "restore".into(), ..ReplicaMethod::default() };
    let told = MethodCall { scope: "demo", data_dir: &server.data_dir, connstring: "" };
    let arguments = method::arguments(&restore, &told);
    let call = Call { arguments, ..call(&restore.command, false) };
    server.run_method(&call, &Remote::default(), &mut |_| {}).await.expect("exit 0");
    let text = std::fs::read_to_string(&said).expect("said");
    assert!(text.starts_with("[] --scope=demo"), "{text}");
    assert!(text.ends_with("--connstring=\n"), "{text}");
}

/// Spec: M-19, EX-61.
#[tokio::test]
async fn a_copy_of_a_running_server_without_its_label_is_refused() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    let rsync = format!("cp -a {}/. {}", primary.data_dir.display(), replica.data_dir.display());
    let command = script(&place, "cp.sh", &rsync);
    let from = Remote::default();
    replica.run_method(&call(&command, false), &from, &mut |_| {}).await.expect("exit 0");
    std::fs::remove_file(replica.data_dir.join("postmaster.pid")).expect("copied too");
    let error = replica.verify_copy(None).await.expect_err("it would be corrupt");
    assert!(error.contains("no backup_label") && error.contains("in production"), "{error}");
    // The same of a stopped server is as good as a backup.
    replica.clear_data_directory().await.expect("our own copy");
    primary.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    replica.run_method(&call(&command, false), &from, &mut |_| {}).await.expect("exit 0");
    replica.verify_copy(None).await.expect("a cold copy");
}

/// Spec: M-16, M-17, EX-10.
#[tokio::test]
async fn a_method_that_keeps_data_finds_it() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    std::fs::create_dir(&server.data_dir).expect("mkdir");
    std::fs::write(server.data_dir.join("half"), "a restore that was cut off").expect("write");
    own(&server, &server.data_dir);
    let dir = server.data_dir.display();
    let command = script(&place, "delta.sh", &format!("cat {dir}/half; exit 7"));
    let mut lines = vec![];
    let mut hear = |news| {
        if let News::Said(line) = news {
            lines.push(line);
        }
    };
    let from = Remote::default();
    let error = server.run_method(&call(&command, true), &from, &mut hear).await;
    assert!(error.expect_err("exit 7").contains("exit code 7: a restore that was cut off"));
    assert_eq!(lines, ["a restore that was cut off"]);
    assert!(server.data_dir.join("half").exists(), "a failure does not remove it either");
}

/// Spec: T-2, T-3, EX-67.
#[tokio::test]
async fn a_method_that_is_called_off_takes_its_children_along() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let dir = server.data_dir.display();
    // The child would go on writing into the directory; its parent leaves it alone with it.
    let body = format!(
        "mkdir {dir}\n(while :; do date >> {dir}/orphan; sleep 0.05; done) &\ntrap 'exit 0' TERM\nsleep 60 & wait"
    );
    let command = script(&place, "parent.sh", &body);
    let from = Remote::default();
    let mut ignore = |_| {};
    let call = call(&command, false);
    let running = server.run_method(&call, &from, &mut ignore);
    assert!(tokio::time::timeout(Duration::from_secs(1), running).await.is_err());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let size = || std::fs::metadata(server.data_dir.join("orphan")).expect("it wrote").len();
    let before = size();
    assert!(before > 0);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(size(), before, "nobody writes any more");
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Incomplete);
}

/// Spec: BB-2, BB-3, BB-6, BB-7, EX-3, EX-71.
#[tokio::test]
async fn options_are_judged_before_anything_is_touched() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    let check = async |option: &str| replica.check_basebackup(&[option.to_owned()]).await;
    let error = check("--max-rat=1M").await.expect_err("unknown");
    assert!(error.contains("knows no `--max-rat`"), "{error}");
    for known in ["--max-rate=1M", "--no-verify-checksums", "--format=tar", "--compress=9"] {
        check(known).await.expect(known);
    }
    let wal = replica.state_dir.join("wal");
    let waldir = format!("--waldir={}", wal.display());
    check(&waldir).await.expect("absent");
    std::fs::create_dir(&wal).expect("mkdir");
    own(&replica, &wal);
    check(&waldir).await.expect("empty");
    std::fs::write(wal.join("thesis.txt"), "years").expect("write");
    let error = check(&waldir).await.expect_err("somebody's");
    assert!(error.contains("thesis.txt") && error.contains("empty it"), "{error}");
    std::fs::remove_file(wal.join("thesis.txt")).expect("removed");
    // What we left there ourselves is ours to replace.
    let from = remote(&primary, "replicator");
    let options = [waldir.clone(), "--compress=9".into(), "--format=tar".into()];
    replica.basebackup(&from, &options, &mut |_| {}).await.expect("copied, without the forbidden");
    check(&waldir).await.expect("only the WAL of the copy that goes");
    replica.clear_data_directory().await.expect("our own copy");
    assert_eq!(std::fs::read_dir(&wal).expect("it stays").count(), 0);
    let mut options = vec![waldir, "--max-rate=100M".into()];
    let version = sql(&primary, "SHOW server_version_num").await.and_then(|v| v.parse().ok());
    if version.is_some_and(|version: u32| version >= 150_000) {
        options.push("--compress=server-gzip:3".into());
    }
    replica.basebackup(&from, &options, &mut |_| {}).await.expect("copied again");
    replica.start(&files(&replica, Some(&primary)), LONG, Ready::Accepting).await.expect("start");
}

/// Spec: BB-1, BB-6, EX-72, W-3.
#[tokio::test]
async fn tablespaces_are_mapped_and_only_ours_removed() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    let (there, here) = (primary.state_dir.join("space"), replica.state_dir.join("space"));
    for (server, dir) in [(&primary, &there), (&replica, &here)] {
        std::fs::create_dir(dir).expect("mkdir");
        own(server, dir);
    }
    sql(&primary, &format!("CREATE TABLESPACE s LOCATION '{}'", there.display())).await;
    sql(&primary, "CREATE TABLE t TABLESPACE s AS SELECT 42 AS x").await;
    let from = remote(&primary, "replicator");
    // On one machine, without a mapping, the source's own directory is in the way.
    let error = replica.basebackup(&from, &[], &mut |_| {}).await.expect_err("in the way");
    assert!(error.contains("not empty"), "{error}");
    assert!(std::fs::read_dir(&there).expect("there").count() > 0);
    replica.clear_data_directory().await.expect("our own leftovers");
    assert_eq!(sql(&primary, "SELECT x::text FROM t").await.as_deref(), Some("42"));
    let mapping = format!("--tablespace-mapping={}={}", there.display(), here.display());
    replica.basebackup(&from, &[mapping], &mut |_| {}).await.expect("copied");
    replica.start(&files(&replica, Some(&primary)), LONG, Ready::Accepting).await.expect("start");
    assert_eq!(sql(&replica, "SELECT x::text FROM t").await.as_deref(), Some("42"));
    replica.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    std::fs::write(here.join("precious"), "not ours").expect("write");
    replica.clear_data_directory().await.expect("cleared");
    let left: Vec<PathBuf> =
        std::fs::read_dir(&here).expect("it stays").flatten().map(|e| e.path()).collect();
    assert_eq!(left, [here.join("precious")]);
    assert_eq!(sql(&primary, "SELECT x::text FROM t").await.as_deref(), Some("42"));
}

/// Spec: E-1, E-2, W-1, W-2, EX-69, EX-70.
#[tokio::test]
async fn links_and_mount_points_stay_what_they_are() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let from = remote(&primary, "replicator");
    let linked = place.server("two");
    let real = linked.state_dir.join("real");
    std::fs::create_dir(&real).expect("mkdir");
    own(&linked, &real);
    std::os::unix::fs::symlink(&real, &linked.data_dir).expect("symlink");
    for _ in 0..2 {
        linked.basebackup(&from, &[], &mut |_| {}).await.expect("copied");
        assert!(linked.data_dir.is_symlink() && real.join("PG_VERSION").exists());
        linked.clear_data_directory().await.expect("cleared");
        assert!(linked.data_dir.is_symlink() && real.is_dir());
    }
    let mounted = place.server("three");
    let Some(_mount) = Mount::tmpfs(&mounted.data_dir) else {
        eprintln!("SKIPPED: no right to mount");
        return;
    };
    std::fs::create_dir(mounted.data_dir.join("lost+found")).expect("mkdir");
    for _ in 0..2 {
        mounted.basebackup(&from, &[], &mut |_| {}).await.expect("copied");
        mounted.verify_copy(None).await.expect("a cluster");
        assert!(mounted.data_dir.join("lost+found").exists());
        mounted.clear_data_directory().await.expect("cleared");
    }
    mounted.basebackup(&from, &[], &mut |_| {}).await.expect("copied");
    mounted.start(&files(&mounted, Some(&primary)), LONG, Ready::Accepting).await.expect("start");
    mounted.stop(StopMode::Immediate, None).await.expect("stop");
}

/// Spec: EX-73.
#[tokio::test]
async fn a_full_disk_is_said_and_can_be_cleared() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    let Some(_mount) = Mount::tmpfs_of(&replica.data_dir, "16m") else {
        eprintln!("SKIPPED: no right to mount");
        return;
    };
    let from = remote(&primary, "replicator");
    let error = replica.basebackup(&from, &[], &mut |_| {}).await.expect_err("full");
    assert!(error.contains("No space left on device"), "{error}");
    let left = replica.inspect().await.expect("look").data;
    assert!(matches!(left, DataDirectory::Incomplete | DataDirectory::Empty), "{left:?}");
    replica.clear_data_directory().await.expect("cleared");
    assert_eq!(replica.inspect().await.expect("look").data, DataDirectory::Empty);
}

/// Spec: EX-63, EX-77.
#[tokio::test]
async fn a_source_that_dies_or_refuses_is_said() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    let wrong = Remote {
        passfile: format!("127.0.0.1:{}:*:replicator:wrong", primary.connection.port),
        ..remote(&primary, "replicator")
    };
    let error = replica.basebackup(&wrong, &[], &mut |_| {}).await.expect_err("refused");
    assert!(error.contains("password authentication failed"), "{error}");
    let from = remote(&primary, "replicator");
    let slow = ["--max-rate=32k".to_owned()];
    let mut seen = false;
    let mut hear = |news| seen |= matches!(news, News::Bytes(_));
    let copying = replica.basebackup(&from, &slow, &mut hear);
    let death = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        primary.stop(StopMode::Immediate, None).await.expect("stop");
    };
    let (copied, ()) = tokio::join!(copying, death);
    let error = copied.expect_err("the source is gone");
    assert!(error.contains("pg_basebackup"), "{error}");
    assert!(seen, "it told how far it was");
    assert_eq!(replica.presence(), Ok(Default::default()));
}
