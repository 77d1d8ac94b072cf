//! `host::postgres` against a real PostgreSQL. Says so and passes where none is installed, unless
//! SURUS_REQUIRE_POSTGRES is set.
mod copies;
mod data;
mod doors;
mod login;
mod moved;
mod place;
mod room;
mod server;
mod shutdown;

use std::time::Duration;

use rustix::process::Signal as Unix;
use surus::host::postgres::start::Ready;

use place::*;

/// Not a test of its own: the daemon that the next test kills. It starts what it is told of.
#[tokio::test]
async fn daemon_that_is_killed() {
    let Some(home) = std::env::var_os("DAEMON_DIR") else { return };
    let mut place = Place::new().expect("PostgreSQL is there");
    let port = std::env::var("DAEMON_PORT").expect("told").parse().expect("a port");
    let mut server = place.server("daemon");
    server.connection.port = port;
    server.state_dir = home.into();
    server.data_dir = server.state_dir.join("data");
    let begun = server.start(&files(&server, None), LONG, Ready::ReadWrite).await;
    std::fs::write(server.state_dir.join("told"), format!("{begun:?}\n")).expect("write");
    tokio::time::sleep(LONG).await;
}

#[tokio::test]
async fn postgresql_outlives_its_daemon() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let password = server.connection.password.clone();
    server.initdb(&[], "boss", password.as_ref()).await.expect("initdb");
    let mut daemon = std::process::Command::new(std::env::current_exe().expect("our path"))
        .args(["--exact", "daemon_that_is_killed"])
        .env("DAEMON_DIR", &server.state_dir)
        .env("DAEMON_PORT", server.connection.port.to_string())
        .env("TMPDIR", place.dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("started");
    let told = server.state_dir.join("told");
    for _ in 0..3000 {
        if told.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    daemon.kill().expect("killed");
    daemon.wait().expect("reaped");
    let told = std::fs::read_to_string(told).expect("told");
    assert!(told.starts_with("Ok("), "{told}");
    assert_eq!(server.kill_leftovers().await, Ok(0), "PostgreSQL is no leftover");
    let found = server.inspect().await.expect("look");
    let pid = found.postmaster.expect("it lives on");
    assert!(found.started_by_us && told.contains(&pid.to_string()));
    assert_eq!(facts(&server).await.timeline, 1);
    // And its end is noticed by a life that did not start it.
    let watch = server.watch_postmaster();
    kill(pid, Unix::KILL);
    let died = tokio::time::timeout(Duration::from_secs(2), watch).await;
    assert!(died.is_ok());
}
