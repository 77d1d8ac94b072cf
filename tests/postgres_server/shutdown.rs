//! A shutdown that is written and held up by somebody else ends, with everybody who was left.
use std::fs;
use std::path::Path;
use std::time::Duration;

use surus::host::postgres::start::Ready;
use surus::host::postgres::stop::StoppedBy;
use surus::pure::operation::StopMode;

use rustix::process::Signal;

use super::place::{LONG, Place, files, kill, sql};

/// Longer than this test is given.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn an_archive_command_that_hangs_holds_up_no_stop() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    let note = server.state_dir.join("archiving");
    let mut files = files(&server, None);
    files.postgresql_conf.get_or_insert_default().push_str(&format!(
        "archive_mode = on\narchive_command = 'echo $$ > {}; exec sleep 3600'\n",
        note.display()
    ));
    server.start(&files, LONG, Ready::ReadWrite).await.expect("start");
    sql(&server, "CREATE TABLE t AS SELECT 1 AS x").await;
    sql(&server, "SELECT pg_catalog.pg_switch_wal()").await;
    let command = loop {
        let text = fs::read_to_string(&note).unwrap_or_default();
        if let Some(pid) = text.strip_suffix('\n') {
            break pid.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let all = server.presence().expect("a look");
    let stopped = server.stop(StopMode::Fast, Some(NEVER)).await.expect("stop");
    assert!(stopped.clean, "{stopped:?}");
    assert!(stopped.by > StoppedBy::Fast, "{stopped:?}");
    assert_eq!(server.presence(), Ok(Default::default()));
    let pids = all.postmaster.into_iter().chain(all.others).map(|pid| pid.to_string());
    for pid in pids.chain([command]) {
        assert!(fs::read_link(Path::new("/proc").join(&pid).join("cwd")).is_err(), "{pid} lives");
    }
}

/// Its walsender waits for room in the connection, and the shutdown checkpoint for the walsender.
#[tokio::test]
async fn a_frozen_client_of_logical_decoding_holds_up_no_stop() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    let mut files = files(&server, None);
    let conf = files.postgresql_conf.get_or_insert_default();
    conf.push_str("wal_level = logical\nwal_sender_timeout = 0\n");
    server.start(&files, LONG, Ready::ReadWrite).await.expect("start");
    sql(&server, "SELECT pg_catalog.pg_create_logical_replication_slot('cdc', 'test_decoding')")
        .await;
    let to = &server.connection;
    let mut client = std::process::Command::new(server.bin_dir.join("pg_recvlogical"))
        .args(["--slot=cdc", "--start", "--file=/dev/null", "--dbname=postgres"])
        .args([format!("--host={}", to.host), format!("--port={}", to.port)])
        .arg(format!("--username={}", to.user))
        .env("PGPASSWORD", to.password.as_ref().map_or("", |password| password.0.as_str()))
        .spawn()
        .expect("pg_recvlogical");
    let active = "SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE active";
    while value(&server, active).await != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kill(client.id() as i32, Signal::STOP);
    sql(&server, "CREATE TABLE bulk (x text)").await;
    sql(&server, "INSERT INTO bulk SELECT repeat('x', 1000) FROM generate_series(1, 50000)").await;
    let stopped = server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    assert_eq!((stopped.clean, stopped.by), (true, StoppedBy::Fast));
    client.kill().expect("killed");
    client.wait().expect("reaped");
}

async fn value(server: &surus::host::postgres::Server, text: &str) -> String {
    let session = server.session("test").await.expect("a session");
    session.value(text).await.expect("an answer").unwrap_or_default()
}
