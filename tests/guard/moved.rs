//! The guard alone: the daemon is frozen, the data directory is moved, and nothing commits after
//! the deadline all the same.
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use surus::host::clock;
use surus::host::guard::Guard;
use tokio::time::sleep;

use crate::home::{
    Home, Postgres, as_postgres, create_cluster, is_installed, is_there, launch, ms,
};
use crate::home::{owner, signal, until};
use crate::{guard, guard_pid};

/// It holds the postmaster that it was told of, before the deadline.
async fn armed(home: &Home, server: u32) -> Guard {
    let guard = guard(home.path());
    guard.watch(server as i32);
    guard.arm(1, clock::now() + 600).expect("it is armed");
    guard
}

async fn is_fenced(guard: &Guard, running: &[u32]) {
    assert!(running.len() >= 4, "{running:?}");
    assert!(is_there(running[0]), "it runs until the deadline");
    until("the fence", ms(3_000), || guard.view().fenced_count == 1).await;
    let left: Vec<u32> = running.iter().copied().filter(|pid| is_there(*pid)).collect();
    assert_eq!(left, Vec::<u32>::new(), "they could still commit");
    assert!(guard.is_postmaster_dead(running[0]));
}

fn all(postgres: &Postgres) -> Vec<u32> {
    let postmaster = postgres.server.id();
    let others = postgres.home.processes().into_iter().filter(|pid| *pid != postmaster);
    [postmaster].into_iter().chain(others).collect()
}

#[tokio::test]
async fn a_moved_directory_hides_nobody() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let mut postgres = Postgres::start(&home).await;
    let running = all(&postgres);
    let guard = armed(&home, postgres.server.id()).await;
    fs::rename(home.path().join("data"), home.path().join("elsewhere")).expect("it is moved");
    is_fenced(&guard, &running).await;
    postgres.server.wait().expect("it ended");
    fs::rename(home.path().join("elsewhere"), home.path().join("data")).expect("it is put back");
    guard.end();
}

/// Frozen children whose postmaster was killed are found in the directory that it worked in.
#[tokio::test]
async fn orphans_in_a_moved_directory_are_killed() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let mut postgres = Postgres::start(&home).await;
    let running = all(&postgres);
    let guard = armed(&home, postgres.server.id()).await;
    fs::rename(home.path().join("data"), home.path().join("elsewhere")).expect("it is moved");
    running[1..].iter().for_each(|pid| signal(*pid, Signal::STOP));
    signal(running[0], Signal::KILL);
    postgres.server.wait().expect("it ended");
    until("the fence", ms(3_000), || guard.view().fenced_count == 1).await;
    let left: Vec<u32> = running.iter().copied().filter(|pid| is_there(*pid)).collect();
    assert_eq!(left, Vec::<u32>::new());
    fs::create_dir(home.path().join("data")).expect("what the home expects");
    guard.end();
}

/// Nobody told it: a postmaster found by its place is held from then on, too.
#[tokio::test]
async fn a_server_that_it_found_itself_is_held() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let mut postgres = Postgres::start(&home).await;
    let running = all(&postgres);
    let guard = guard(home.path());
    guard.arm(1, clock::now() + 1_000).expect("it is armed");
    sleep(ms(300)).await;
    fs::rename(home.path().join("data"), home.path().join("elsewhere")).expect("it is moved");
    is_fenced(&guard, &running).await;
    postgres.server.wait().expect("it ended");
    fs::create_dir(home.path().join("data")).expect("what the home expects");
    guard.end();
}

#[tokio::test]
async fn a_detached_file_system_hides_nobody() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let data = home.path().join("data");
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).arg(&data).status();
        status.is_ok_and(|status| status.success())
    };
    if !run("mount", &["-t", "tmpfs", "tmpfs"]) {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    }
    let mut postgres = Postgres::start(&home).await;
    let running = all(&postgres);
    let guard = armed(&home, postgres.server.id()).await;
    assert!(run("umount", &["-l"]), "it is taken off the tree");
    is_fenced(&guard, &running).await;
    postgres.server.wait().expect("it ended");
    guard.end();
}

/// All that it needs it has from the arming on; the kernel polls no descriptor at a limit of none.
#[tokio::test]
async fn a_guard_without_descriptors_stops_it() {
    if !is_installed() {
        return;
    }
    let home = Home::new();
    let mut postgres = Postgres::start(&home).await;
    let running = all(&postgres);
    let _guard = armed(&home, postgres.server.id()).await;
    let none = Rlimit { current: Some(1), maximum: Some(1) };
    prlimit(Pid::from_raw(guard_pid(&home) as i32), Resource::Nofile, none).expect("lowered");
    let stopped = || running.iter().all(|pid| !is_there(*pid));
    until("all to be stopped", ms(3_000), stopped).await;
    postgres.server.wait().expect("it ended");
    // Without a name to read it is never sure that nobody is left: it goes on until it is killed.
    signal(guard_pid(&home), Signal::KILL);
}

/// A pid that went to somebody else is neither believed nor ended; nor is one that was planted.
#[tokio::test]
async fn a_foreign_pid_file_is_not_believed() {
    let home = Home::new();
    let mut other = Command::new("sleep").arg("600").spawn().expect("another program");
    let file = home.path().join("guard.pid");
    let first = guard(home.path());
    let text = fs::read_to_string(&file).expect("it was written");
    let own = first.view().pid.expect("it runs").to_string();
    first.end();
    for forged in [format!("{}\n", other.id()), text.replace(&own, &other.id().to_string())] {
        fs::write(&file, forged).expect("planted");
        let guard = guard(home.path());
        assert_ne!(guard.view().pid, Some(other.id()));
        guard.end();
    }
    assert_eq!(other.try_wait().expect("our child"), None, "it was left alone");
    other.kill().expect("ended");
    other.wait().expect("reaped");
}

/// SEC-2: PostgreSQL's account owns the directory, and plants what root would write through.
#[tokio::test]
async fn no_planted_link_makes_root_write() {
    let Some((uid, _)) = owner() else { return };
    let home = Home::new();
    let canary = tempfile::NamedTempFile::new().expect("a file of root's");
    fs::write(canary.path(), "safe").expect("written");
    fs::set_permissions(canary.path(), fs::Permissions::from_mode(0o600)).expect("ours");
    std::os::unix::fs::chown(home.path(), Some(uid), None).expect("we are root");
    for name in ["guard.pid", "guard.pid.new", "guard.new"] {
        symlink(canary.path(), home.path().join(name)).expect("planted");
    }
    let guard = guard(home.path());
    assert_eq!(fs::read_to_string(canary.path()).expect("it is there"), "safe");
    guard.end();
    assert_eq!(fs::read_to_string(canary.path()).expect("it is there"), "safe");
}

/// The account itself can name root's own processes there; none of them is signalled.
#[tokio::test]
async fn a_pid_file_of_another_account_is_not_believed() {
    let Some((uid, gid)) = owner() else { return };
    let home = Home::new();
    let first = guard(home.path());
    let file = home.path().join("guard.pid");
    std::os::unix::fs::chown(&file, Some(uid), Some(gid)).expect("we are root");
    let second = guard(home.path());
    assert_ne!(first.view().pid, second.view().pid);
    assert!(first.is_alive(), "whoever it is, it is not ended");
    second.end();
    first.end();
}

/// A program of another directory is never signalled, whatever its name.
#[tokio::test]
async fn a_server_elsewhere_is_left_alone() {
    if !is_installed() {
        return;
    }
    let (home, other) = (Home::new(), Home::new());
    create_cluster(&other);
    let mut bystander = launch(&other);
    until("the bystander", ms(20_000), || !other.processes().is_empty()).await;
    let mut version = as_postgres("postgres");
    assert!(version.arg("--version").status().expect("it runs").success());
    let guard = guard(home.path());
    guard.arm(1, clock::now() + 50).expect("it is armed");
    sleep(ms(600)).await;
    assert_eq!(bystander.try_wait().expect("our child"), None);
    bystander.kill().expect("ended");
    bystander.wait().expect("reaped");
    guard.end();
}
