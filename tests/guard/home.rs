//! A place for a cluster and its guard, a real PostgreSQL in it, and an end to both.
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use surus::host::clock;
use tempfile::TempDir;
use tokio::time::sleep;

const BINARIES: &str = "/usr/lib/postgresql/15/bin";

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a pid is not 0");
    kill_process(pid, signal).ok();
}

pub fn is_there(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

pub async fn until(what: &str, most: Duration, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < most, "{what} within {most:?}");
        sleep(ms(5)).await;
    }
}

/// A home for a cluster and a guard; whatever is left in it is killed at the end.
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Home {
        let home = TempDir::new().expect("a directory");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
        fs::create_dir(home.path().join("data")).expect("it is new");
        Home(home)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Every process that works in the data directory.
    pub fn processes(&self) -> Vec<u32> {
        let Ok(data) = self.path().join("data").canonicalize() else { return Vec::new() };
        let pids = fs::read_dir("/proc").expect("it is there").flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data))
            .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.path().join("guard.pid")).unwrap_or_default();
        let guard = pid.lines().next().and_then(|pid| pid.parse().ok());
        for pid in self.processes().into_iter().chain(guard) {
            signal(pid, Signal::KILL);
        }
    }
}

/// PostgreSQL in a home, as its own user when we are root.
pub struct Postgres<'a> {
    pub home: &'a Home,
    pub server: Child,
}

pub fn as_postgres(program: &str) -> Command {
    let mut command = Command::new(format!("{BINARIES}/{program}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some((uid, gid)) = owner() {
        command.uid(uid).gid(gid);
    }
    command
}

/// uid and gid of `postgres`, when we are root.
pub fn owner() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let fields: Vec<&str> = line.split(':').collect();
    let ids = (fields[2].parse().ok()?, fields[3].parse().ok()?);
    rustix::process::getuid().is_root().then_some(ids)
}

/// Without PostgreSQL these tests say so and pass, unless it is required.
pub fn is_installed() -> bool {
    let installed = Path::new(BINARIES).is_dir();
    assert!(installed || std::env::var_os("SURUS_REQUIRE_POSTGRES").is_none(), "no PostgreSQL 15");
    if !installed {
        eprintln!("SKIPPED: no PostgreSQL 15 in {BINARIES}");
    }
    installed
}

pub fn create_cluster(home: &Home) {
    let data = home.path().join("data");
    if let Some((uid, gid)) = owner() {
        chown(&data, Some(uid), Some(gid)).expect("we are root");
    }
    let mut initdb = as_postgres("initdb");
    initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync"]);
    assert!(initdb.current_dir("/").status().expect("initdb runs").success());
}

pub fn launch(home: &Home) -> Child {
    let mut server = as_postgres("postgres");
    server
        .current_dir("/")
        .arg("-D")
        .arg(home.path().join("data"))
        .args(["-c", "listen_addresses="]);
    server.arg("-c").arg(format!("unix_socket_directories={}", home.path().display()));
    server.process_group(0).spawn().expect("postgres runs")
}

impl Postgres<'_> {
    pub async fn start(home: &Home) -> Postgres<'_> {
        create_cluster(home);
        let postgres = Postgres { home, server: launch(home) };
        let began = Instant::now();
        while postgres.connect().await.is_err() {
            assert!(began.elapsed() < ms(20_000), "PostgreSQL starts");
            sleep(ms(20)).await;
        }
        let client = postgres.connect().await.expect("it accepts");
        client.batch_execute("CREATE TABLE t (n bigint)").await.expect("it writes");
        postgres
    }

    pub async fn connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let socket = self.home.path().display();
        let (client, connection) =
            tokio_postgres::connect(&format!("host={socket} user=postgres"), tokio_postgres::NoTls)
                .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Commits without a pause until it cannot; the time of the last acknowledged commit.
    pub async fn write(&self, last: Arc<AtomicU64>) {
        let client = self.connect().await.expect("it accepts");
        tokio::spawn(async move {
            while client.execute("INSERT INTO t VALUES (1)", &[]).await.is_ok() {
                last.fetch_max(clock::now(), SeqCst);
            }
        });
    }

    /// A backend that does nothing but count.
    pub async fn be_busy(&self) {
        let client = self.connect().await.expect("it accepts");
        tokio::spawn(async move {
            client
                .execute("SELECT count(*) FROM generate_series(1, 1000000000000) n", &[])
                .await
                .ok();
        });
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        self.home.processes().into_iter().for_each(|pid| signal(pid, Signal::KILL));
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
