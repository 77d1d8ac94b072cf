//! The guard on a real PostgreSQL: nothing commits after the deadline, whatever became of the daemon.
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use surus::host::clock;
use surus::host::guard::Guard;
use tempfile::TempDir;
use tokio::time::sleep;

const ROLE: &str = "SURUS_GUARD_DAEMON";
const BINARIES: &str = "/usr/lib/postgresql/15/bin";

fn guard(home: &Path) -> Guard {
    let binary = Path::new(env!("CARGO_BIN_EXE_surus"));
    Guard::ensure(&home.join("data"), home, Some(binary)).expect("a guard stands")
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a pid is not 0");
    kill_process(pid, signal).ok();
}

fn is_there(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

async fn until(what: &str, most: Duration, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < most, "{what} within {most:?}");
        sleep(ms(5)).await;
    }
}

/// A home for a cluster and a guard; whatever is left in it is killed at the end.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        let home = TempDir::new().expect("a directory");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
        fs::create_dir(home.path().join("data")).expect("it is new");
        Home(home)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Every process that works in the data directory.
    fn processes(&self) -> Vec<u32> {
        let data = self.path().join("data").canonicalize().expect("it is there");
        let pids = fs::read_dir("/proc").expect("it is there").flatten();
        pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data))
            .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.path().join("guard.pid")).unwrap_or_default();
        for pid in self.processes().into_iter().chain(pid.trim().parse().ok()) {
            signal(pid, Signal::KILL);
        }
    }
}

/// PostgreSQL in a home, as its own user when we are root.
struct Postgres<'a> {
    home: &'a Home,
    server: Child,
}

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new(format!("{BINARIES}/{program}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some((uid, gid)) = owner() {
        command.uid(uid).gid(gid);
    }
    command
}

/// uid and gid of `postgres`, when we are root.
fn owner() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let fields: Vec<&str> = line.split(':').collect();
    let ids = (fields[2].parse().ok()?, fields[3].parse().ok()?);
    rustix::process::getuid().is_root().then_some(ids)
}

/// Without PostgreSQL these tests say so and pass, unless it is required.
fn is_installed() -> bool {
    let installed = Path::new(BINARIES).is_dir();
    assert!(installed || std::env::var_os("SURUS_REQUIRE_POSTGRES").is_none(), "no PostgreSQL 15");
    if !installed {
        eprintln!("SKIPPED: no PostgreSQL 15 in {BINARIES}");
    }
    installed
}

fn create_cluster(home: &Home) {
    let data = home.path().join("data");
    if let Some((uid, gid)) = owner() {
        chown(&data, Some(uid), Some(gid)).expect("we are root");
    }
    let mut initdb = as_postgres("initdb");
    initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync"]);
    assert!(initdb.current_dir("/").status().expect("initdb runs").success());
}

fn launch(home: &Home) -> Child {
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
    async fn start(home: &Home) -> Postgres<'_> {
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

    async fn connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let socket = self.home.path().display();
        let (client, connection) =
            tokio_postgres::connect(&format!("host={socket} user=postgres"), tokio_postgres::NoTls)
                .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Commits without a pause until it cannot; the time of the last acknowledged commit.
    async fn write(&self, last: Arc<AtomicU64>) {
        let client = self.connect().await.expect("it accepts");
        tokio::spawn(async move {
            while client.execute("INSERT INTO t VALUES (1)", &[]).await.is_ok() {
                last.fetch_max(clock::now(), SeqCst);
            }
        });
    }

    /// A backend that does nothing but count.
    async fn be_busy(&self) {
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
        self.server.wait().ok();
    }
}

#[tokio::test]
async fn nothing_commits_half_a_second_after_the_deadline() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    let last = Arc::new(AtomicU64::new(0));
    for _ in 0..4 {
        postgres.write(last.clone()).await;
        postgres.be_busy().await;
    }
    let guard = guard(home.path());
    guard.arm(1, clock::now() + 400).expect("it is armed");
    let handle = guard.handle();
    for _ in 0..10 {
        sleep(ms(100)).await;
        assert!(handle.set_deadline(1, clock::now() + 400));
    }
    let deadline = handle.deadline().expect("it is armed");
    assert!(last.load(SeqCst) > deadline - 700, "it wrote up to now");
    assert_eq!(guard.view().fenced_count, 0);
    until("the fence", ms(2_000), || guard.view().fenced_count == 1).await;
    sleep(ms(200)).await;
    assert_eq!(home.processes(), Vec::<u32>::new());
    let last = last.load(SeqCst);
    assert!(last <= deadline + 500, "{} ms late", last - deadline);
    assert!(last > deadline - 100, "it wrote until the deadline");
    let took = guard.view().fence_last_ms.expect("it fenced");
    assert!(took <= 500, "{took} ms");
    assert!(guard.is_postmaster_dead());
    guard.end();
}

#[tokio::test]
async fn a_server_that_hears_no_signal_is_killed() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    postgres.be_busy().await;
    let guard = guard(home.path());
    for pid in home.processes() {
        signal(pid, Signal::STOP);
    }
    guard.arm(1, clock::now() + 100).expect("it is armed");
    until("the fence", ms(2_000), || guard.view().fenced_count == 1).await;
    assert_eq!(home.processes(), Vec::<u32>::new());
    let took = guard.view().fence_last_ms.expect("it fenced");
    assert!((300..=500).contains(&took), "{took} ms");
    guard.end();
}

#[tokio::test]
async fn a_server_that_starts_under_a_passed_deadline_is_killed() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    create_cluster(&home);
    let guard = guard(home.path());
    guard.arm(1, clock::now() + 50).expect("it is armed");
    sleep(ms(100)).await;
    for round in 1..4 {
        let mut postgres = Postgres { home: &home, server: launch(&home) };
        let began = Instant::now();
        while postgres.server.try_wait().expect("it is our child").is_none() {
            assert!(postgres.connect().await.is_err(), "it accepts connections");
            assert!(began.elapsed() < ms(1_000), "it lives on");
            sleep(ms(2)).await;
        }
        until("the count", ms(500), || guard.view().fenced_count == round).await;
    }
    guard.disarm();
    sleep(ms(50)).await;
    let postgres = Postgres { home: &home, server: launch(&home) };
    sleep(ms(500)).await;
    postgres.connect().await.expect("disarmed, it may run");
    guard.end();
}

/// Not a test by itself: a daemon that arms a guard and moves its deadline until it is killed.
#[test]
fn daemon() {
    let Some(home) = std::env::var_os(ROLE).map(PathBuf::from) else { return };
    let guard = guard(&home);
    if home.join("arm").exists() {
        guard.arm(3, clock::now() + 1_000).expect("it is armed");
    }
    fs::write(home.join("armed"), "").expect("it writes");
    loop {
        guard.set_deadline(3, clock::now() + 1_000);
        std::thread::sleep(ms(20));
    }
}

async fn start_daemon(home: &Home, arm: bool) -> Child {
    if arm {
        fs::write(home.path().join("arm"), "").expect("it writes");
    }
    let daemon = Command::new(std::env::current_exe().expect("a test has a file"))
        .args(["daemon", "--exact", "--nocapture"])
        .env(ROLE, home.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    until("the daemon", ms(5_000), || home.path().join("armed").exists()).await;
    daemon
}

fn guard_pid(home: &Home) -> u32 {
    let text = fs::read_to_string(home.path().join("guard.pid")).expect("there is a guard");
    text.trim().parse().expect("it is a number")
}

#[tokio::test]
async fn a_daemon_that_comes_back_in_time_finds_postgresql_untouched() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let mut postgres = Postgres::start(&home).await;
    let mut daemon = start_daemon(&home, true).await;
    let before = guard_pid(&home);
    daemon.kill().expect("it can be killed");
    daemon.wait().expect("it ends");
    sleep(ms(500)).await;
    let guard = guard(home.path());
    assert_eq!((guard.view().pid, guard_pid(&home)), (Some(before), before));
    let (epoch, _) = guard.armed().expect("it is still armed");
    for _ in 0..20 {
        assert!(guard.set_deadline(epoch, clock::now() + 1_000));
        sleep(ms(100)).await;
    }
    assert_eq!(guard.view().fenced_count, 0);
    assert_eq!(postgres.server.try_wait().expect("it is our child"), None);
    postgres.connect().await.expect("it accepts");
    guard.end();
}

#[tokio::test]
async fn a_daemon_that_freezes_or_does_not_come_back_loses_postgresql() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let postgres = Postgres::start(&home).await;
    let last = Arc::new(AtomicU64::new(0));
    postgres.write(last.clone()).await;
    let mut daemon = start_daemon(&home, true).await;
    signal(daemon.id(), Signal::STOP);
    let frozen = clock::now();
    until("the end", ms(2_000), || home.processes().is_empty()).await;
    sleep(ms(100)).await;
    let late = last.load(SeqCst) - frozen;
    assert!((900..=1_500).contains(&late), "the last commit was {late} ms after the freeze");
    daemon.kill().expect("it can be killed");
    daemon.wait().expect("it ends");
    // Armed and its daemon gone: it stays, and goes on killing.
    sleep(ms(300)).await;
    assert!(is_there(guard_pid(&home)));
    let mut again = launch(&home);
    until("its end", ms(1_000), || again.try_wait().expect("it is our child").is_some()).await;
    guard(home.path()).end();
}

#[tokio::test]
async fn a_guard_without_daemon_and_grant_ends_by_itself() {
    let home = Home::new();
    let mut daemon = start_daemon(&home, false).await;
    let pid = guard_pid(&home);
    assert!(is_there(pid));
    daemon.kill().expect("it can be killed");
    daemon.wait().expect("it ends");
    until("its end", ms(1_500), || !is_there(pid)).await;
}

#[tokio::test]
async fn a_dead_or_hung_guard_is_noticed_and_replaced() {
    let home = Home::new();
    let first = guard(home.path());
    for ignored in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        signal(guard_pid(&home), ignored);
    }
    sleep(ms(50)).await;
    assert!(first.is_alive());
    signal(guard_pid(&home), Signal::KILL);
    until("its end", ms(500), || !first.is_alive()).await;
    assert_eq!(first.view().pid, None);

    let second = guard(home.path());
    second.arm(5, clock::now() + 60_000).expect("it is armed");
    let hung = guard_pid(&home);
    signal(hung, Signal::STOP);
    let third = guard(home.path());
    assert_ne!(third.view().pid, Some(hung));
    assert_eq!(third.armed(), second.armed());
    assert!(!second.is_alive() && third.is_alive());
    assert!(!is_there(hung));
    third.end();
}

#[tokio::test]
async fn an_armed_guard_costs_next_to_nothing_and_no_epoch_goes_back() {
    let home = Home::new();
    let guard = guard(home.path());
    assert!(guard.arm(5, clock::now()).is_err(), "a passed deadline arms nothing");
    guard.arm(5, clock::now() + 60_000).expect("it is armed");
    assert!(guard.arm(4, clock::now() + 90_000).is_err(), "an earlier epoch arms nothing");
    let before = guard.armed();
    guard.arm(5, clock::now() + 1_000).expect("it is armed already");
    assert_eq!(guard.armed(), before, "the deadline does not go back");
    guard.arm(6, clock::now() + 50_000).expect("a later epoch replaces it");
    assert!(guard.armed() < before.map(|(_, deadline)| (7, deadline)));
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", guard_pid(&home))).expect("alive");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("it has").split(' ').collect();
        fields[12..14].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
    };
    let spent = ticks();
    sleep(ms(2_000)).await;
    assert!(ticks() - spent <= 4, "{} ticks in two seconds", ticks() - spent);
    guard.end();
}
