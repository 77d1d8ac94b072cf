//! `host::postgres` against a real PostgreSQL. Says so and passes where none is installed, unless
//! SURUS_REQUIRE_POSTGRES is set.
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal as Unix};
use surus::host::postgres::account::Account;
use surus::host::postgres::conf_files::{ConfFiles, Signal};
use surus::host::postgres::method::{self, MethodCall};
use surus::host::postgres::query::Monitor;
use surus::host::postgres::replica::Remote;
use surus::host::postgres::roles::{Role, RoleKind};
use surus::host::postgres::start::Ready;
use surus::host::postgres::stop::StoppedBy;
use surus::host::postgres::{Connection, Server};
use surus::pure::cluster::facts::{DataDirectory, SqlFacts};
use surus::pure::config::{ReplicaMethod, Secret};
use surus::pure::deed::StopMode;

const LONG: Duration = Duration::from_secs(60);
const HBA: &str = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n\
    host replication all 127.0.0.1/32 scram-sha-256\n";

/// A temporary place with one or more servers, all ended when it is dropped.
struct Place {
    dir: tempfile::TempDir,
    servers: Vec<Server>,
}

impl Place {
    fn new() -> Option<Place> {
        if let Err(why) = Server::find_bin_dir(None, None) {
            assert!(std::env::var_os("SURUS_REQUIRE_POSTGRES").is_none(), "{why}");
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        open_to_all(dir.path());
        Some(Place { dir, servers: Vec::new() })
    }

    fn server(&mut self, name: &str) -> Server {
        let home = self.dir.path().join(name);
        std::fs::create_dir(&home).expect("mkdir");
        open_to_all(&home);
        let data_dir = home.join("data");
        let run_as = Account::for_data_dir(&data_dir).expect("an account");
        if let Some(account) = &run_as {
            account.own(&home).expect("chown");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        let server = Server {
            data_dir,
            bin_dir: Server::find_bin_dir(None, None).expect("found before"),
            config_dir: None,
            run_as,
            pgpass: home.join("pgpass"),
            connection: Connection {
                host: "127.0.0.1".into(),
                port: port.expect("a free port").port(),
                user: "boss".into(),
                password: Some(Secret("it's:\\secret".into())),
                database: "postgres".into(),
            },
            state_dir: home,
        };
        self.servers.push(server.clone());
        server
    }

    /// An initialised, started primary with its roles.
    async fn primary(&mut self, name: &str) -> Server {
        let server = self.server(name);
        let options = ["--data-checksums".to_owned(), "--auth=scram-sha-256".to_owned()];
        let password = server.connection.password.clone();
        server.initdb(&options, "boss", password.as_ref()).await.expect("initdb");
        server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
        server.create_roles(&roles()).await.expect("roles");
        server
    }

    async fn replica(&mut self, name: &str, of: &Server) -> Server {
        let server = self.server(name);
        server.basebackup(&remote(of, "replicator"), &[], &mut |_| {}).await.expect("copied");
        server.start(&files(&server, Some(of)), LONG, Ready::Accepting).await.expect("start");
        server
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for server in &self.servers {
            for one in surus::host::postgres::processes::inhabitants(&server.data_dir) {
                kill(one.pid, Unix::KILL);
            }
        }
    }
}

fn open_to_all(dir: &Path) {
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("chmod");
}

fn kill(pid: i32, signal: Unix) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn roles() -> Vec<Role> {
    let role = |name: &str, kind| Role {
        name: name.into(),
        password: Some(Secret(format!("{name}'s \\ secret"))),
        kind,
    };
    vec![role("replicator", RoleKind::Replication), role("rewinder", RoleKind::Rewind)]
}

fn remote(of: &Server, user: &str) -> Remote {
    let port = of.connection.port;
    Remote {
        conninfo: format!("user={user} host=127.0.0.1 port={port} dbname=postgres"),
        passfile: format!("127.0.0.1:{port}:*:{user}:{user}'s \\\\ secret"),
    }
}

fn files(server: &Server, upstream: Option<&Server>) -> ConfFiles {
    let mut conf = format!(
        "include 'postgresql.base.conf'\nport = {}\nlisten_addresses = '127.0.0.1'\n\
         unix_socket_directories = '{}'\nwal_log_hints = on\nwal_keep_size = 128MB\nfsync = off\n\
         log_statement = 'all'\n",
        server.connection.port,
        server.state_dir.display()
    );
    if let Some(upstream) = upstream {
        conf.push_str(&format!(
            "primary_conninfo = 'user=replicator host=127.0.0.1 port={} passfile={}'\n",
            upstream.connection.port,
            server.pgpass.display()
        ));
    }
    ConfFiles {
        postgresql_conf: Some(conf),
        pg_hba: Some(HBA.into()),
        pg_ident: Some(String::new()),
        signal: if upstream.is_some() { Signal::Standby } else { Signal::None },
        arguments: vec!["--cluster_name=demo".into()],
        keep_auto_conf: false,
    }
}

async fn sql(server: &Server, text: &str) -> Option<String> {
    let session = server.session("test").await.expect("connected");
    session.value(text).await.expect("answered")
}

async fn facts(server: &Server) -> SqlFacts {
    Monitor::new(server.connection.clone()).facts().await.expect("facts")
}

/// Asks until the facts are as wanted.
async fn facts_when(server: &Server, wanted: impl Fn(&SqlFacts) -> bool) -> SqlFacts {
    let mut monitor = Monitor::new(server.connection.clone());
    for _ in 0..500 {
        if let Some(facts) = monitor.facts().await.ok().filter(&wanted) {
            return facts;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never as wanted: {:?}", monitor.facts().await);
}

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
    Monitor::new(by_socket).facts().await.expect("facts by socket");
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
    replica.basebackup(&from, &[], &mut |progress| seen.push(progress)).await.expect("copied");
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
    let presence = server.presence();
    assert!(presence.others.len() >= 4);
    presence.others.iter().for_each(|pid| kill(*pid, Unix::STOP));
    kill(pid, Unix::KILL);
    let died = tokio::time::timeout(Duration::from_secs(1), watched).await;
    assert_eq!(died.expect("at once").expect("joined"), Some(pid));
    let left = server.presence();
    assert_eq!((left.postmaster, left.others.len()), (None, presence.others.len()));
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    for orphan in presence.others {
        let gone = !Path::new(&format!("/proc/{orphan}/cwd")).is_symlink()
            || std::fs::read_link(format!("/proc/{orphan}/cwd")).is_err();
        assert!(gone, "{orphan} lives");
    }
    assert_eq!(facts(&server).await.timeline, 1);
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
    assert_eq!(server.presence(), surus::host::postgres::inspect::Presence::default());
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

#[tokio::test]
async fn strangers_data_is_not_cleared() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    std::fs::create_dir(&server.data_dir).expect("mkdir");
    std::fs::write(server.data_dir.join("thesis.txt"), "years").expect("write");
    let error = server.clear_data_directory().await.expect_err("refused");
    assert!(error.contains("not PostgreSQL's"), "{error}");
    server.mark_unfinished("method").expect("marked");
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Incomplete);
    server.clear_data_directory().await.expect("an unfinished copy may be cleared");
    assert_eq!(server.inspect().await.expect("look").data, DataDirectory::Empty);
}

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

#[tokio::test]
async fn a_replica_method_is_called_and_its_copy_judged() {
    let Some(mut place) = Place::new() else { return };
    let primary = place.primary("one").await;
    let replica = place.server("two");
    let said = replica.state_dir.join("said");
    let script = place.dir.path().join("method.sh");
    let copy = format!("{}/pg_basebackup -w -D \"$dir\" -d \"$conn\"", primary.bin_dir.display());
    let body = format!(
        "echo \"$@\" > {}\nfor a; do case $a in --datadir=*) dir=${{a#*=}};; \
         --connstring=*) conn=${{a#*=}};; --empty=*) exit 0;; esac; done\n{copy}\n",
        said.display()
    );
    std::fs::write(&script, body).expect("write");
    open_to_all(&script);
    let from = remote(&primary, "replicator");
    let mut restore = ReplicaMethod {
        name: "restore".into(),
        command: format!("sh {}", script.display()),
        extra: vec![("empty".into(), "1".into())],
        ..ReplicaMethod::default()
    };
    let call =
        MethodCall { scope: "demo", data_dir: &replica.data_dir, connstring: &from.conninfo };
    let run = async |restore: &ReplicaMethod| {
        let arguments = method::arguments(restore, &call);
        let command = method::command(restore);
        replica.run_method(command, arguments, &from, &restore.name, restore.keep_data).await
    };
    run(&restore).await.expect("exit 0 without a copy");
    assert!(replica.verify_copy(None).await.expect_err("nothing there").contains("PG_VERSION"));
    restore.extra.clear();
    run(&restore).await.expect("copied");
    let text = std::fs::read_to_string(&said).expect("said");
    assert!(text.starts_with("--scope=demo --role=replica --datadir="), "{text}");
    replica.verify_copy(None).await.expect("a cluster");
    assert_eq!(replica.unfinished(), Ok(None));
    assert!(run(&restore).await.expect_err("full").contains("not empty"));
}

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

#[tokio::test]
async fn a_symlinked_data_directory_stays_a_symlink() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    let real = server.state_dir.join("real");
    std::fs::create_dir(&real).expect("mkdir");
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
    let mut monitor = Monitor::new(server.connection.clone());
    let first = monitor.facts().await.expect("facts");
    let which = "SELECT pid FROM pg_stat_activity WHERE application_name = 'Surus heartbeat'";
    let backend = sql(&server, which).await.expect("a pid").parse().expect("a number");
    kill(backend, Unix::TERM);
    // Without the reactor: the monitor hears of its lost connection only when it asks.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(monitor.facts().await.expect("facts").timeline, first.timeline);
    server.stop(StopMode::Fast, Some(LONG)).await.expect("stop");
    assert!(monitor.facts().await.is_err());
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    let again = monitor.facts().await.expect("facts");
    assert!(again.postmaster_start_time > first.postmaster_start_time);
}

/// A file system that is unmounted when this is dropped.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path) -> Option<Mount> {
        std::fs::create_dir(at).expect("mkdir");
        let mut mount = std::process::Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "none"]).arg(at).output();
        done.is_ok_and(|output| output.status.success()).then(|| Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

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
