//! A server's life: created, started, copied, promoted, stopped, rewound.
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal as Unix;
use surus::host::postgres::query::Monitor;
use surus::host::postgres::replica::News;
use surus::host::postgres::replica::Remote;
use surus::host::postgres::start::Ready;
use surus::host::postgres::stop::StoppedBy;
use surus::pure::cluster::facts::{DataDirectory, SqlFacts};
use surus::pure::operation::StopMode;

use crate::place::*;

/// Spec: B-2, B-4.
#[tokio::test]
async fn a_cluster_is_created_started_and_stopped() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Empty);
    let password = server.connection.password.clone();
    let refused = server.initdb(&["--pgdata=/x".into()], "boss", None).await;
    assert!(refused.expect_err("forbidden").contains("pgdata"));
    server.initdb(&[], "boss", password.as_ref()).await.expect("initdb");
    let pid = server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    let base = std::fs::read_to_string(server.data_dir.join("postgresql.base.conf"));
    assert!(base.expect("kept").contains("shared_buffers"));

    let found = server.inspect().await.expect("look");
    assert_eq!(found.postmaster, Some(pid));
    assert!(found.started_by_us && found.running_as_primary);
    let sql_facts = facts(&server).await;
    let control = found.control.expect("control");
    assert_eq!(sql_facts.system_identifier, control.system_identifier);
    assert_eq!((sql_facts.timeline, sql_facts.in_recovery), (1, false));
    assert!(sql_facts.flush_lsn >= control.checkpoint);
    assert!(sql_facts.postmaster_start_time.ends_with("+00:00"));
    assert_eq!(sql_facts.server_version / 10_000, server.major().await.expect("version"));

    let mut by_socket = server.connection.clone();
    by_socket.host = server.state_dir.display().to_string();
    Monitor::default().facts(&by_socket).await.expect("facts by socket");
    let mut changed = files(&server, None);
    let conf = changed.postgresql_conf.get_or_insert_default();
    conf.push_str("synchronous_standby_names = 'somebody'\n");
    server.reload_with(&changed).await.expect("reloaded");
    let name = "synchronous_standby_names";
    server.await_setting(name, "somebody", LONG).await.expect("in force");
    let short = Duration::from_millis(50);
    assert!(server.await_setting(name, "nobody", short).await.is_err());

    let again = server.start(&files(&server, None), LONG, Ready::ReadWrite).await;
    assert!(again.expect_err("runs").contains("already runs"));
    let stopped = server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    assert_eq!((stopped.clean, stopped.by, stopped.timeline), (true, StoppedBy::Fast, 1));
    let found = server.inspect().await.expect("look");
    let DataDirectory::Present { was_primary, clean, lsn, .. } = found.data else {
        panic!("{:?}", found.data)
    };
    assert!(was_primary && clean && lsn == stopped.checkpoint);
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    server.initdb(&[], "boss", None).await.expect("initdb");
    let mut wrong = files(&server, None);
    wrong.postgresql_conf = Some("no_such_setting = 1\n".into());
    let begun = std::time::Instant::now();
    let error = server.start(&wrong, LONG, Ready::ReadWrite).await.expect_err("wrong");
    assert!(error.contains("no_such_setting"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_replica_is_copied_streams_and_is_promoted() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let bulk = "CREATE TABLE bulk AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)";
    sql(&primary, bulk).await;
    let replica = place.server("two");
    let odd = ["--no-such-option".to_owned()];
    let from = remote(&primary, "replicator");
    let error = replica.basebackup(&from, &odd, &mut |_| {}).await.expect_err("unknown");
    assert!(error.contains("no-such-option") && !replica.data_dir.exists());
    let mut seen = Vec::new();
    std::fs::create_dir_all(replica.data_dir.join("lost+found")).expect("mkdir");
    let mut hear = |news| {
        if let News::Bytes(progress) = news {
            seen.push(progress);
        }
    };
    replica.basebackup(&from, &[], &mut hear).await.expect("copied");
    let last = seen.last().expect("progress was told");
    assert!(last.bytes_done > 20_000_000 && last.bytes_total >= last.bytes_done, "{last:?}");
    let system_identifier = facts(&primary).await.system_identifier;
    assert!(replica.verify_copy(Some("1")).await.expect_err("another").contains("cluster"));
    assert_eq!(replica.verify_copy(Some(&system_identifier)).await, Ok(system_identifier));

    let wanted = files(&replica, Some(&primary));
    replica.start(&wanted, LONG, Ready::Accepting).await.expect("start");
    let streaming = |f: &SqlFacts| f.replication_state.as_deref() == Some("streaming");
    let before = facts_when(&replica, streaming).await;
    assert!(before.in_recovery && before.receive_lsn.0 > 0 && before.timeline == 1);
    let sender = facts_when(&primary, |f| !f.replication.is_empty()).await;
    assert_eq!(sender.replication[0].usename, "replicator");
    assert!(!replica.inspect().await.expect("look").running_as_primary);

    let (timeline, lsn) = replica.promote(LONG).await.expect("promoted");
    assert_eq!(timeline, 2);
    assert!(lsn >= before.receive_lsn);
    sql(&replica, "CREATE TABLE written (x int)").await;
    let after = facts(&replica).await;
    assert_eq!((after.in_recovery, after.timeline), (false, 2));
    assert!(replica.inspect().await.expect("look").running_as_primary);
    assert_eq!(replica.promote(LONG).await.expect("again").0, 2);
}

/// No order to promote is looked at while the archive is asked; PostgreSQL ends when that program does.
#[tokio::test]
async fn a_restore_command_that_hangs_is_found_and_got_rid_of() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.replica("two", &primary).await;
    let stuck = place.dir.path().join("stuck");
    let mut asks = files(&replica, Some(&primary));
    let command = format!("if test -e {}; then exec sleep 600; fi; exit 1", stuck.display());
    let conf = asks.postgresql_conf.get_or_insert_default();
    conf.push_str(&format!(
        "restore_command = '{command}'\nwal_retrieve_retry_interval = '100ms'\n"
    ));
    replica.reload_with(&asks).await.expect("reloaded");
    primary.stop(StopMode::Fast, Some(LONG)).await.expect("stopped");
    let second = Duration::from_secs(1);
    let asked = tokio::time::timeout(3 * second, replica.restore_command_hangs(second)).await;
    assert!(asked.is_err(), "many that end are not one that hangs");
    std::fs::write(&stuck, "").expect("written");
    let child = tokio::select! {
        promoted = replica.promote(LONG) => panic!("{promoted:?}"),
        child = replica.restore_command_hangs(second) => child,
    };
    let name = std::fs::read_to_string(format!("/proc/{child}/comm")).expect("it lives");
    assert_eq!(name.trim(), "sleep");
    let stopped = replica.stop(StopMode::Fast, Some(LONG)).await.expect("stopped");
    assert_eq!((stopped.by, stopped.clean), (StoppedBy::Fast, true));
    replica.start(&files(&replica, Some(&primary)), LONG, Ready::Accepting).await.expect("start");
    assert_eq!(replica.promote(LONG).await.expect("promoted").0, 2);
}

/// What it has received decides who leads next; its control file is written later.
#[tokio::test]
async fn a_standby_that_streams_no_more_knows_its_timeline() {
    let Some(mut place) = Place::new() else { return };
    let first = place.primary("one").await;
    let next = place.replica("two", &first).await;
    let third = place.replica("three", &first).await;
    assert_eq!(next.promote(LONG).await.expect("promoted").0, 2);
    third.write_passfile(&remote(&next, "replicator").passfile).await.expect("written");
    third.reload_with(&files(&third, Some(&next))).await.expect("reload");
    sql(&next, "CREATE TABLE written AS SELECT 1").await;
    let end = facts(&next).await.flush_lsn;
    let took = facts_when(&third, |f| f.receive_lsn >= end && f.timeline == 2).await;
    assert_eq!(took.replication_state.as_deref(), Some("streaming"));
    next.stop(StopMode::Immediate, None).await.expect("stopped");
    let alone = facts_when(&third, |f| f.replication_state.is_none()).await;
    assert_eq!((alone.timeline, alone.in_recovery), (2, true));
}

#[tokio::test]
async fn a_killed_postmaster_is_noticed_and_restarted() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let watched = tokio::spawn({
        let server = server.clone();
        async move { server.watch_postmaster().await }
    });
    let pid = server.postmaster_pid().await.expect("look").expect("runs");
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Frozen backends outlive their postmaster.
    let presence = server.presence().expect("a look");
    assert!(presence.others.len() >= 4);
    presence.others.iter().for_each(|pid| kill(*pid, Unix::STOP));
    kill(pid, Unix::KILL);
    let died = tokio::time::timeout(Duration::from_secs(1), watched).await;
    assert_eq!(died.expect("at once").expect("joined"), Some(pid));
    let left = server.presence().expect("a look");
    assert_eq!((left.postmaster, left.others.len()), (None, presence.others.len()));
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    for orphan in presence.others {
        let gone = !Path::new(&format!("/proc/{orphan}/cwd")).is_symlink()
            || std::fs::read_link(format!("/proc/{orphan}/cwd")).is_err();
        assert!(gone, "{orphan} lives");
    }
    assert_eq!(facts(&server).await.timeline, 1);
}

/// After a reboot the pid in a socket's lock may be another program's of the same account.
#[tokio::test]
async fn a_lock_of_a_socket_with_a_pid_of_another_program_is_removed() {
    use std::os::unix::process::CommandExt;
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let socket = server.state_dir.join(format!(".s.PGSQL.{}", server.connection.port));
    let lock = server.state_dir.join(format!(".s.PGSQL.{}.lock", server.connection.port));
    let text = std::fs::read_to_string(&lock).expect("PostgreSQL's lock");
    server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    let mut other = std::process::Command::new("sleep");
    if let Some(account) = &server.run_as {
        other.uid(account.uid).gid(account.gid);
    }
    let mut other = other.arg("600").spawn().expect("sleep");
    let rest = text.split_once('\n').expect("lines").1;
    std::fs::write(&lock, format!("{}\n{rest}", other.id())).expect("written");
    std::fs::write(&socket, "").expect("written");
    let owner = server.run_as.as_ref().map(|account| account.uid);
    std::os::unix::fs::chown(&lock, owner, None).expect("given");
    std::os::unix::fs::chown(&socket, owner, None).expect("given");
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    other.kill().expect("killed");
    other.wait().expect("reaped");
}

#[tokio::test]
async fn a_stop_escalates() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let stopped = server.stop(StopMode::Immediate, None).await.expect("stop");
    assert_eq!((stopped.clean, stopped.by), (false, StoppedBy::Immediate));
    let pid = server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    // A frozen postmaster obeys nothing but SIGKILL.
    kill(pid, Unix::STOP);
    let short = Some(Duration::from_millis(200));
    let stopped = server.stop(StopMode::Fast, short).await.expect("stop");
    assert_eq!(stopped.by, StoppedBy::Kill);
    assert_eq!(server.presence(), Ok(Default::default()));
    assert_eq!(server.stop(StopMode::Fast, None).await.expect("no-op").by, StoppedBy::Nothing);
}

#[tokio::test]
async fn a_diverged_primary_is_rewound() {
    let Some(mut place) = Place::new() else { return };
    let one = place.primary("one").await;
    let two = place.replica("two", &one).await;
    let streaming = |f: &SqlFacts| f.replication_state.as_deref() == Some("streaming");
    facts_when(&two, streaming).await;
    two.promote(LONG).await.expect("promoted");
    two.checkpoint().await.expect("checkpoint");
    sql(&one, "CREATE TABLE lost AS SELECT 1 AS x").await;
    sql(&two, "CREATE TABLE kept AS SELECT 1 AS x").await;
    // A crashed primary that was already told to become a standby: the harder case.
    one.stop(StopMode::Immediate, None).await.expect("stop");
    std::fs::write(one.data_dir.join("standby.signal"), "").expect("write");
    let leader = one.lineage(&remote(&two, "replicator")).await.expect("lineage");
    assert!(one.check_divergence(&leader, None).await.expect("verdict").yes);

    let nobody = Remote { conninfo: "host=127.0.0.1 port=1".into(), ..Remote::default() };
    assert!(one.rewind(&nobody, &[]).await.is_err());
    assert_eq!(one.unfinished(), Ok(None), "nothing was changed, so it is not unfinished");
    one.rewind(&remote(&two, "rewinder"), &[]).await.expect("rewound");
    let from = remote(&two, "replicator");
    one.write_passfile(&from.passfile).await.expect("passfile");
    one.start(&files(&one, Some(&two)), LONG, Ready::Accepting).await.expect("start");
    let after = facts_when(&one, |f| streaming(f) && f.timeline == 2).await;
    assert!(after.in_recovery);
    let found = sql(&one, "SELECT to_regclass('lost') IS NULL AND to_regclass('kept') IS NOT NULL");
    assert_eq!(found.await.as_deref(), Some("t"));
}

/// A directory without PG_VERSION is not started and not taken for a whole one; what the version
/// decides is decided by the binaries'.
/// Spec: EX-48.
#[tokio::test]
async fn without_pg_version_the_binaries_say_which_it_is() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    assert!(server.major().await.expect("without any data") >= 13);
    server.initdb(&[], "boss", None).await.expect("initdb");
    std::fs::remove_file(server.data_dir.join("PG_VERSION")).expect("it was there");
    let DataDirectory::Broken { problem } = server.inspect().await.expect("look").data else {
        panic!("it is not whole");
    };
    assert!(problem.contains("PG_VERSION is missing"), "{problem}");
    assert!(server.major().await.expect("the binaries'") >= 13);
    let error = server.start(&files(&server, None), LONG, Ready::ReadWrite).await;
    assert!(error.expect_err("PostgreSQL refuses").contains("PG_VERSION"));
}

/// What was taken of a running server and never recovered looks like one that crashed. Crash
/// recovery, which pg_rewind begins with, would make it a primary of half a copy.
/// Spec: M-22.
#[tokio::test]
async fn a_backup_is_never_crash_recovered() {
    let Some(mut place) = Place::new() else { return };
    let one = place.primary("one").await;
    let two = place.replica("two", &one).await;
    let three = place.server("three");
    let from = remote(&one, "replicator");
    three.basebackup(&from, &[], &mut |_| {}).await.expect("copied");
    // As if somebody had put it there: no mark of ours.
    three.mark_finished().expect("no mark");
    std::fs::write(three.data_dir.join("standby.signal"), "").expect("write");
    let control = three.data_dir.join("global/pg_control");
    let before = std::fs::read(&control).expect("it is there");
    facts_when(&two, |f| f.replication_state.as_deref() == Some("streaming")).await;
    two.promote(LONG).await.expect("promoted");
    two.checkpoint().await.expect("checkpoint");
    let error = three.rewind(&remote(&two, "rewinder"), &[]).await.expect_err("no crash");
    assert!(error.contains("backup_label"), "{error}");
    for name in ["backup_label", "standby.signal"] {
        assert!(three.data_dir.join(name).exists(), "{name}");
    }
    assert_eq!(std::fs::read(&control).expect("it is there"), before, "nothing was touched");
    assert_eq!(three.unfinished(), Ok(None));
    three.start(&files(&three, Some(&one)), LONG, Ready::Accepting).await.expect("as a standby");
}

/// Two replicas that know nothing of each other both begin timeline 2. pg_rewind sees nothing to do
/// while nobody begins another, and mixes the WAL files of the two afterwards.
#[tokio::test]
async fn a_timeline_of_the_same_number_is_told_apart() {
    let Some(mut place) = Place::new() else { return };
    let one = place.primary("one").await;
    let two = place.replica("two", &one).await;
    let three = place.replica("three", &one).await;
    let streaming = |f: &SqlFacts| f.replication_state.as_deref() == Some("streaming");
    facts_when(&two, streaming).await;
    two.promote(LONG).await.expect("promoted");
    sql(&two, "CREATE TABLE lost AS SELECT 1 AS x").await;
    two.checkpoint().await.expect("checkpoint");
    sql(&one, "CREATE TABLE kept AS SELECT 1 AS x").await;
    let end = facts(&one).await.flush_lsn;
    facts_when(&three, |f| f.receive_lsn >= end).await;
    three.promote(LONG).await.expect("promoted");
    three.checkpoint().await.expect("checkpoint");
    two.stop(StopMode::Fast, None).await.expect("stop");

    two.mark_finished().expect("the copy has long run");
    let leader = two.lineage(&remote(&three, "replicator")).await.expect("lineage");
    assert_eq!(leader.timeline, 2);
    let verdict = two.check_divergence(&leader, None).await.expect("verdict");
    assert!(verdict.yes && verdict.because.contains("is another one"), "{verdict:?}");
    assert!(two.namesake(&leader).await.expect("asked").is_some(), "not to be rewound");

    let four = place.replica("four", &three).await;
    facts_when(&four, streaming).await;
    assert_eq!(four.promote(LONG).await.expect("promoted").0, 3);
    four.checkpoint().await.expect("checkpoint");
    let leader = two.lineage(&remote(&four, "replicator")).await.expect("lineage");
    assert!(two.check_divergence(&leader, None).await.expect("verdict").yes);
    assert!(two.namesake(&leader).await.expect("asked").is_some(), "not to be rewound");
    assert_eq!(three.namesake(&leader).await, Ok(None));
}
