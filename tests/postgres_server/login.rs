//! How Surus's own sessions log in: TLS by libpq's keywords, the socket as the server's account, and
//! independent of what users set for their sessions.
use std::path::{Path, PathBuf};
use std::process::Command;

use surus::host::postgres::Server;
use surus::host::postgres::connect::Socket;
use surus::host::postgres::query::Monitor;
use surus::host::postgres::session::{Refusal, Session};
use surus::host::postgres::start::Ready;

use super::place::*;

const TLS_ONLY: &str = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n\
    hostssl all all ::1/128 scram-sha-256\n";

/// A key and a certificate that is its own root, for the address 127.0.0.1.
fn certificate(server: &Server, name: &str, subject: &str) -> PathBuf {
    let (cert, key) = (server.state_dir.join(name), server.state_dir.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-new", "-x509", "-days", "30", "-nodes", "-subj", "/CN=other"])
        .args(["-addext", subject, "-out"])
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    if let Some(account) = &server.run_as {
        account.own(&cert).expect("chown");
        account.own(&key).expect("chown");
    }
    cert
}

async fn encrypted(place: &mut Place) -> (Server, PathBuf) {
    let server = place.primary("one").await;
    let cert = certificate(&server, "server.crt", "subjectAltName=IP:127.0.0.1");
    let mut wanted = files(&server, None);
    wanted.pg_hba = Some(TLS_ONLY.into());
    let conf = wanted.postgresql_conf.get_or_insert_default();
    let at = cert.display();
    conf.push_str(&format!("ssl = on\nssl_cert_file = '{at}'\nssl_key_file = '{at}.key'\n"));
    server.reload_with(&wanted).await.expect("reload");
    (server, cert)
}

fn with(server: &Server, mode: &str, root: Option<&Path>) -> Server {
    let mut server = server.clone();
    server.connection.options.push(("sslmode".into(), mode.into()));
    let root = root.map(|root| ("sslrootcert".into(), root.display().to_string()));
    server.connection.options.extend(root);
    server
}

/// Source: zalando/patroni#172.
#[tokio::test]
async fn sslmode_counts_for_own_sessions() {
    let Some(mut place) = Place::new() else { return };
    let (server, cert) = encrypted(&mut place).await;
    let stranger = certificate(&server, "stranger.crt", "subjectAltName=IP:127.0.0.1");
    wait_until_encrypted(&server).await;
    for (mode, root) in [("prefer", None), ("require", None), ("verify-ca", Some(&cert))] {
        let asked = with(&server, mode, root.map(PathBuf::as_path)).session("test").await;
        let session = asked.unwrap_or_else(|error| panic!("{mode}: {error}"));
        let used = session.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await;
        assert_eq!(used.expect("answered").as_deref(), Some("t"), "{mode}");
    }
    let full = with(&server, "verify-full", Some(&cert));
    drop(full.session("test").await.expect("the name is right"));
    let mut elsewhere = full.clone();
    elsewhere.connection.host = "localhost".into();
    let refused = |asked: Result<Session, String>| asked.err().expect("refused");
    assert!(refused(elsewhere.session("test").await).contains("certificate"));
    let other = with(&server, "verify-ca", Some(&stranger)).session("test").await;
    assert!(refused(other).contains("certificate"));
    let plain = with(&server, "disable", None).session("test").await;
    assert!(refused(plain).contains("SQLSTATE 28000"));
    let missing = with(&server, "verify-full", None).session("test").await;
    assert!(refused(missing).contains("sslrootcert"));
}

async fn wait_until_encrypted(server: &Server) {
    for _ in 0..200 {
        if with(server, "require", None).session("test").await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Source: patroni/patroni#928, #457.
#[tokio::test]
async fn the_socket_shows_the_servers_own_account() {
    let Some(mut place) = Place::new() else { return };
    let mut server = place.server("one");
    let account = surus::host::postgres::account::Account::by_name("postgres").expect("it exists");
    server.connection.user = "postgres".into();
    server.initdb(&["--auth-local=peer".into()], "postgres", None).await.expect("initdb");
    let mut wanted = files(&server, None);
    wanted.pg_hba = Some("local all postgres peer\n".into());
    server.connection.password = None;
    server.connection.socket =
        Some(Socket { pid_file: server.data_dir.join("postmaster.pid"), account: Some(account) });
    server.start(&wanted, LONG, Ready::ReadWrite).await.expect("start");
    let who = sql(&server, "SELECT current_user").await;
    assert_eq!(who.as_deref(), Some("postgres"));
    assert!(rustix::process::geteuid().is_root() || server.run_as.is_none(), "we are who we were");
    assert!(server.script_connection().await.expect("it runs").host.starts_with('/'));
}

/// Source: ubicloud/ubicloud#5433; CVE-2026-55769.
#[tokio::test]
async fn own_sessions_do_not_inherit_what_users_set() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    for text in [
        "CREATE SCHEMA trap",
        "CREATE FUNCTION trap.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'",
        "ALTER DATABASE postgres SET search_path TO trap, pg_catalog",
        "ALTER ROLE boss SET default_transaction_isolation TO serializable",
        "ALTER ROLE boss SET default_transaction_read_only TO on",
        "ALTER ROLE boss SET idle_session_timeout TO 700",
        "ALTER SYSTEM SET datestyle TO german",
    ] {
        sql(&primary, text).await;
    }
    let replica = place.replica("two", &primary).await;
    let seen = facts_when(&replica, |facts| facts.replication_state.is_some()).await;
    assert!(seen.in_recovery);
    assert_eq!(sql(&primary, "SELECT pg_is_in_recovery()").await.as_deref(), Some("f"));
    assert_eq!(sql(&primary, "SHOW transaction_read_only").await.as_deref(), Some("off"));
    let session = primary.session("test").await.expect("connected");
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let path = session.value("SHOW search_path").await.expect("answered");
    assert_eq!(path.as_deref(), Some("pg_catalog, pg_temp"));
}

#[tokio::test]
async fn a_refused_login_is_named_and_asked_again_with_a_pause() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let mut wrong = server.clone();
    wrong.connection.password = Some(surus::pure::config::Secret("wrong".into()));
    let mut monitor = Monitor::default();
    for _ in 0..20 {
        let refused = monitor.facts(&wrong.connection).await.expect_err("refused");
        let Refusal::Denied(text) = refused else { panic!("{refused:?}") };
        assert!(text.contains("SQLSTATE 28P01") && !text.contains("wrong"), "{text}");
    }
    let log = std::fs::read_to_string(server.log_path()).expect("a log");
    let attempts = log.matches("password authentication failed").count();
    assert!((1..10).contains(&attempts), "{attempts} attempts of 20");
    monitor.facts(&server.connection).await.expect("another password is tried at once");
    // A start does not wait for our own login.
    server.stop(surus::pure::operation::StopMode::Fast, Some(LONG)).await.expect("stop");
    wrong.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("it is up");
}
