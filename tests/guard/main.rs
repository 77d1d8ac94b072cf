//! The guard on a real PostgreSQL: nothing commits after the deadline, whatever became of the
//! daemon.
mod home;
mod moved;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use rustix::process::Signal;
use surus::host::clock;
use surus::host::guard::{Guard, stray};
use tokio::time::sleep;

use home::{Home, Postgres, create_cluster, is_installed, is_there, launch, ms, signal, until};

const ROLE: &str = "SURUS_GUARD_DAEMON";

fn guard(home: &Path) -> Guard {
    let binary = Path::new(env!("CARGO_BIN_EXE_surus"));
    Guard::ensure(&home.join("data"), home, Some(binary)).expect("a guard stands")
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
    assert!(guard.is_postmaster_dead(postgres.server.id()));
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
    let began = Instant::now();
    while postgres.connect().await.is_err() {
        assert!(began.elapsed() < ms(10_000), "disarmed, it may run");
        sleep(ms(20)).await;
    }
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
    text.lines().next().expect("a line").parse().expect("it is a number")
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
    guard.arm(5, clock::now() + 30_000).expect("it is armed already");
    let earlier = guard.armed();
    assert!(earlier < before && earlier > Some((5, 0)), "a lowered ttl moves it back: {earlier:?}");
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

fn end_strays(home: &Home, known: Option<u32>) -> usize {
    let binary = Path::new(env!("CARGO_BIN_EXE_surus"));
    stray::end_strays(&home.path().join("data"), known, Some(binary))
}

#[tokio::test]
async fn a_guard_of_a_wiped_node_is_found_by_its_path() {
    let home = Home::new();
    let guard = guard(home.path());
    guard.arm(1, clock::now() + 50).expect("it is armed");
    let pid = guard.view().pid.expect("it runs");
    fs::remove_dir_all(home.path()).expect("all is wiped");
    fs::create_dir_all(home.path()).expect("and begun anew");
    assert_eq!(end_strays(&home, Some(pid)), 0, "our own is spared");
    assert_eq!(end_strays(&home, None), 1);
    until("its end", ms(2_000), || !guard.is_alive()).await;
    fs::create_dir_all(home.path().join("data")).expect("what the home expects");
}
