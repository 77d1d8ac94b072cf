//! What runs is stopped wherever its directory is by now; "cannot look" is never "nobody is there".
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal as Unix, getrlimit, setrlimit};
use surus::host::postgres::Server;
use surus::host::postgres::held::Held;
use surus::host::postgres::start::Ready;
use surus::host::postgres::stop::StoppedBy;
use surus::pure::operation::StopMode;

use super::place::{LONG, Place, files, kill};

/// The postmaster and its children, while they run.
fn all(server: &Server) -> Vec<i32> {
    let found = server.presence().expect("a look");
    let all: Vec<i32> = found.postmaster.into_iter().chain(found.others).collect();
    assert!(all.len() >= 4, "{all:?}");
    all
}

fn alive(pids: &[i32]) -> Vec<i32> {
    let works = |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok();
    pids.iter().copied().filter(works).collect()
}

fn aside(server: &Server) -> PathBuf {
    let to = server.data_dir.with_file_name("elsewhere");
    fs::rename(&server.data_dir, &to).expect("it is moved");
    to
}

/// Nothing of it may be taken for stopped, until it is.
async fn is_seen_and_stopped(server: &Server, running: &[i32]) {
    assert_eq!(server.presence().expect("a look").postmaster, Some(running[0]));
    assert_eq!(server.cannot_write().await, Ok(false), "nothing is given away");
    let stopped = server.stop(StopMode::Fast, Some(LONG)).await.expect("it is stopped");
    assert_eq!(stopped.by, StoppedBy::Fast);
    assert_eq!(alive(running), Vec::<i32>::new());
    assert_eq!(server.cannot_write().await, Ok(true));
    assert_eq!(server.presence(), Ok(Default::default()));
}

#[tokio::test]
async fn a_server_whose_directory_was_moved_is_stopped() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let running = all(&server);
    aside(&server);
    is_seen_and_stopped(&server, &running).await;
}

/// Somebody puts an empty directory, and even a standby's, where the primary's was.
#[tokio::test]
async fn another_directory_in_its_place_hides_nobody() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let running = all(&server);
    aside(&server);
    fs::create_dir(&server.data_dir).expect("made");
    fs::write(server.data_dir.join("standby.signal"), "").expect("made");
    is_seen_and_stopped(&server, &running).await;
}

/// Children whose postmaster is gone are still found in the directory that it worked in.
#[tokio::test]
async fn orphans_in_a_moved_directory_are_ended() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let running = all(&server);
    aside(&server);
    running[1..].iter().for_each(|pid| kill(*pid, Unix::STOP));
    kill(running[0], Unix::KILL);
    while !alive(&running[..1]).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.cannot_write().await, Ok(false), "its children are left");
    server.stop(StopMode::Fast, Some(LONG)).await.expect("they are ended");
    assert_eq!(alive(&running), Vec::<i32>::new());
}

/// The next life of the daemon knows from its note whom to hold.
#[tokio::test]
async fn the_next_life_finds_a_server_whose_directory_was_moved() {
    let Some(mut place) = Place::new() else { return };
    let mut server = place.server("one");
    let home = tempfile::tempdir().expect("a directory");
    server.held = Held::noted_in(home.path());
    let password = server.connection.password.clone();
    let options = ["--auth=scram-sha-256".to_owned()];
    server.initdb(&options, "boss", password.as_ref()).await.expect("initdb");
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    let running = all(&server);
    aside(&server);
    server.held = Held::noted_in(home.path());
    is_seen_and_stopped(&server, &running).await;
}

/// A mount that goes when the test does.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path) -> Option<Mount> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "tmpfs"]).arg(at);
        let made = mount.status().is_ok_and(|status| status.success());
        if !made {
            eprintln!("SKIPPED: nothing can be mounted here");
        }
        made.then(|| Mount(at.to_owned()))
    }

    fn detach(&self) -> bool {
        let detached = Command::new("umount").arg("-l").arg(&self.0).status();
        detached.is_ok_and(|status| status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-ql").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_server_whose_file_system_was_detached_is_stopped() {
    let Some(mut place) = Place::new() else { return };
    let server = place.server("one");
    fs::create_dir(&server.data_dir).expect("made");
    let Some(mount) = Mount::new(&server.data_dir) else { return };
    if let Some(account) = &server.run_as {
        account.own(&server.data_dir).expect("chown");
    }
    let password = server.connection.password.clone();
    let options = ["--auth=scram-sha-256".to_owned()];
    server.initdb(&options, "boss", password.as_ref()).await.expect("initdb");
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    let running = all(&server);
    assert!(mount.detach(), "it is taken off the tree");
    is_seen_and_stopped(&server, &running).await;
}

/// Descriptors until none but `left` can be had.
fn exhaust(left: usize) -> Vec<File> {
    let limit = getrlimit(Resource::Nofile);
    let low = Rlimit { current: Some(256), maximum: limit.maximum };
    setrlimit(Resource::Nofile, low).expect("lowered");
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len() - left);
    taken
}

/// The look fails, or one process in it: neither says that nobody runs.
#[tokio::test]
async fn without_descriptors_nothing_counts_as_stopped() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    let running = all(&server);
    let mut stranger = server.clone();
    stranger.held = Held::default();
    for left in 0..3 {
        let taken = exhaust(left);
        for server in [&server, &stranger] {
            let seen = server.presence();
            let nobody = seen.as_ref().is_ok_and(|seen| seen.postmaster.is_none());
            assert!(!nobody, "{left} left: {seen:?}");
            assert_ne!(server.cannot_write().await, Ok(true), "{left} left");
            let held = server.hold_postmaster().await;
            assert!(!matches!(held, Ok(None)), "{left} left");
        }
        drop(taken);
    }
    let taken = exhaust(1);
    let stopping = server.stop(StopMode::Fast, Some(LONG));
    let freed = async {
        while !alive(&running[..1]).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        drop(taken);
    };
    let (stopped, ()) = tokio::join!(stopping, freed);
    assert_eq!(stopped.expect("the stop went on").by, StoppedBy::Fast);
    assert_eq!(alive(&running), Vec::<i32>::new());
}

/// As PostgreSQL's own: a lock whose pid went to another program neither blocks a start nor is
/// that program ended.
#[tokio::test]
async fn a_lock_whose_pid_was_reused_blocks_nothing() {
    let Some(mut place) = Place::new() else { return };
    let server = place.primary("one").await;
    server.stop(StopMode::Fast, None).await.expect("stop");
    let mut other = Command::new("sleep").arg("600").spawn().expect("another program");
    let lock =
        |pid: u32| format!("{pid}\n{}\n1\n{}\n", server.data_dir.display(), server.connection.port);
    fs::write(server.data_dir.join("postmaster.pid"), lock(other.id())).expect("written");
    let home = server.state_dir.join("home");
    fs::create_dir(&home).expect("made");
    fs::write(home.join("postmaster.held"), format!("{} 1 x", other.id())).expect("written");
    let server = Server { held: Held::noted_in(&home), ..server };
    assert_eq!(server.presence(), Ok(Default::default()));
    server.stop(StopMode::Fast, None).await.expect("nobody to stop");
    server.start(&files(&server, None), LONG, Ready::ReadWrite).await.expect("start");
    assert_eq!(other.try_wait().expect("our child"), None, "it was left alone");
    other.kill().expect("ended");
    other.wait().expect("reaped");
    server.stop(StopMode::Fast, None).await.expect("stop");
}
