//! A temporary place with servers in it, and what the tests ask of them.
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal as Unix};
use surus::host::postgres::account::Account;
use surus::host::postgres::conf_files::{ConfFiles, Signal};
use surus::host::postgres::query::Monitor;
use surus::host::postgres::replica::Remote;
use surus::host::postgres::roles::{Role, RoleKind};
use surus::host::postgres::start::Ready;
use surus::host::postgres::{Connection, Server};
use surus::pure::cluster::facts::SqlFacts;
use surus::pure::config::Secret;

pub const LONG: Duration = Duration::from_secs(60);
pub const HBA: &str = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n\
    host replication all 127.0.0.1/32 scram-sha-256\n";

/// A temporary place with one or more servers, all ended when it is dropped.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub servers: Vec<Server>,
}

impl Place {
    pub fn new() -> Option<Place> {
        if let Err(why) = Server::find_bin_dir(None, None) {
            assert!(std::env::var_os("SURUS_REQUIRE_POSTGRES").is_none(), "{why}");
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        open_to_all(dir.path());
        Some(Place { dir, servers: Vec::new() })
    }

    pub fn server(&mut self, name: &str) -> Server {
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
                ..Connection::default()
            },
            state_dir: home,
            held: Default::default(),
        };
        self.servers.push(server.clone());
        server
    }

    /// An initialised, started primary with its roles.
    pub async fn primary(&mut self, name: &str) -> Server {
        let server = self.server(name);
        let options = ["--data-checksums".to_owned(), "--auth=scram-sha-256".to_owned()];
        let password = server.connection.password.clone();
        server.initdb(&options, "boss", password.as_ref()).await.expect("initdb");
        server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
        server.create_roles(&roles()).await.expect("roles");
        server
    }

    pub async fn replica(&mut self, name: &str, of: &Server) -> Server {
        let server = self.server(name);
        server.basebackup(&remote(of, "replicator"), &[], &mut |_| {}).await.expect("copied");
        server.start(&files(&server, Some(of)), LONG, Ready::Accepting).await.expect("start");
        server
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for server in &self.servers {
            let left = server.presence().expect("a look");
            left.postmaster.into_iter().chain(left.others).for_each(|pid| kill(pid, Unix::KILL));
        }
    }
}

pub fn own(server: &Server, path: &Path) {
    if let Some(account) = &server.run_as {
        account.own(path).expect("chown");
    }
}

pub fn open_to_all(dir: &Path) {
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("chmod");
}

pub fn kill(pid: i32, signal: Unix) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

pub fn roles() -> Vec<Role> {
    let role = |name: &str, kind| Role {
        name: name.into(),
        password: Some(Secret(format!("{name}'s \\ secret"))),
        kind,
    };
    vec![role("replicator", RoleKind::Replication), role("rewinder", RoleKind::Rewind)]
}

pub fn remote(of: &Server, user: &str) -> Remote {
    let port = of.connection.port;
    Remote {
        conninfo: format!("user={user} host=127.0.0.1 port={port} dbname=postgres"),
        passfile: format!("127.0.0.1:{port}:*:{user}:{user}'s \\\\ secret"),
    }
}

pub fn files(server: &Server, upstream: Option<&Server>) -> ConfFiles {
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
        hba_where_missing: Vec::new(),
        signal: if upstream.is_some() { Signal::Standby } else { Signal::None },
        arguments: vec!["--cluster_name=demo".into()],
        keep_auto_conf: false,
    }
}

pub async fn sql(server: &Server, text: &str) -> Option<String> {
    let session = server.session("test").await.expect("connected");
    session.run("SET search_path TO public").await.expect("set");
    session.value(text).await.expect("answered")
}

pub async fn facts(server: &Server) -> SqlFacts {
    Monitor::default().facts(&server.connection).await.expect("facts")
}

/// Asks until the facts are as wanted.
pub async fn facts_when(server: &Server, wanted: impl Fn(&SqlFacts) -> bool) -> SqlFacts {
    let mut monitor = Monitor::default();
    for _ in 0..500 {
        if let Some(facts) = monitor.facts(&server.connection).await.ok().filter(&wanted) {
            return facts;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never as wanted: {:?}", monitor.facts(&server.connection).await);
}
