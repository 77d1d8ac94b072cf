//! Other processes, seen through /proc: who stands in a data directory, who carries our mark.
//!
//! All of this blocks for about a millisecond; from a reactor go through [`blocking`].
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The name of the environment variable that says whose program a process is.
pub const MARK: &str = "SURUS_DEED";
/// Which life of the daemon started it: pid and start time.
pub const LIFE: &str = "SURUS_LIFE";

/// A process that lives in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inhabitant {
    pub pid: i32,
    /// A child of a postmaster (its title says what it does), not a postmaster itself.
    pub backend: bool,
}

/// Runs `work` off the reactor.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| format!("a helper thread died: {error}"))
}

/// Every process of PostgreSQL's server program whose working directory is `data_dir`.
pub fn inhabitants(data_dir: &Path) -> Vec<Inhabitant> {
    let Ok(data_dir) = fs::canonicalize(data_dir) else { return Vec::new() };
    pids()
        .into_iter()
        .filter(|pid| lives_in(*pid, &data_dir) && is_server(*pid))
        .map(|pid| Inhabitant { pid, backend: title(pid).starts_with("postgres:") })
        .collect()
}

/// The process is alive, is PostgreSQL, and stands in this (canonical) directory.
pub fn is_server_of(pid: i32, data_dir: &Path) -> bool {
    fs::canonicalize(data_dir).is_ok_and(|data_dir| lives_in(pid, &data_dir)) && is_server(pid)
}

fn lives_in(pid: i32, data_dir: &Path) -> bool {
    // Fails for zombies: they have no directory any more, and that is what we want.
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data_dir)
}

fn is_server(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| matches!(name.trim_end(), "postgres" | "postmaster"))
}

/// The titles of every process of the server in `data_dir`.
pub fn titles(data_dir: &Path) -> Vec<String> {
    inhabitants(data_dir).iter().map(|one| title(one.pid)).collect()
}

/// Processes that carry this word in their environment, whatever group they are in.
pub fn carriers(word: &str) -> Vec<i32> {
    pids().into_iter().filter(|pid| environment_has(*pid, word)).collect()
}

fn environment_has(pid: i32, word: &str) -> bool {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).any(|entry| entry == word.as_bytes())
}

/// Its arguments, or what it says of itself there.
fn title(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A name for this life of the daemon, never shared with another one.
pub fn this_life() -> String {
    let pid = std::process::id();
    format!("{pid}-{}", start_ticks(pid as i32).unwrap_or(0))
}

/// Tells this process from every other one that has had or will have its pid.
pub fn identity(pid: i32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{pid} {} {}", start_ticks(pid)?, boot.trim()))
}

/// Field 22 of /proc/PID/stat: clock ticks since boot.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// Programs that carry `mark` but were started by an earlier life of the daemon.
pub fn leftovers(mark: &str, life: &str) -> Vec<i32> {
    let (mark, life) = (format!("{MARK}={mark}"), format!("{LIFE}={life}"));
    let own = std::process::id() as i32;
    let others = pids().into_iter().filter(|pid| *pid != own);
    others.filter(|pid| environment_has(*pid, &mark) && !environment_has(*pid, &life)).collect()
}

/// Kills the processes and, where they lead or share a group that is not ours, their groups;
/// waits until none is left. `find` is asked again each round.
pub fn kill_all(
    find: impl Fn() -> Vec<i32>,
    groups: bool,
    wait: Duration,
) -> Result<usize, String> {
    let deadline = Instant::now() + wait;
    let mut killed = 0;
    loop {
        let found = find();
        if found.is_empty() {
            return Ok(killed);
        }
        killed = killed.max(found.len());
        for pid in &found {
            kill_one(*pid, groups);
        }
        if Instant::now() > deadline {
            return Err(format!(
                "processes {found:?} survive SIGKILL (a hanging disk?): nothing was changed"
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill_one(pid: i32, groups: bool) {
    let Some(target) = Pid::from_raw(pid) else { return };
    let own_group = rustix::process::getpgrp();
    if groups
        && let Ok(group) = rustix::process::getpgid(Some(target))
        && group != own_group
    {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    let _ = rustix::process::kill_process(target, Signal::KILL);
}

/// A hold on one process that cannot slip to another when its pid is used again.
#[derive(Debug)]
pub struct Hold {
    pub pid: i32,
    fd: AsyncFd<OwnedFd>,
}

impl Hold {
    /// Fails when there is no such process. Needs a running tokio reactor.
    pub fn open(pid: i32) -> io::Result<Hold> {
        let target = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = rustix::process::pidfd_open(target, PidfdFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by the AsyncFd from here on and closed only with it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Hold { pid, fd })
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(self.fd.get_ref(), signal)?)
    }

    /// Resolves as soon as the process has ended.
    pub async fn ended(&self) {
        // An error means that the reactor is shutting down; nobody is left to be misled.
        let _ = self.fd.readable().await;
    }

    /// True when the process ended within `limit`.
    pub async fn ended_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.ended()).await.is_ok()
    }
}

/// `path` with `suffix` glued to its last name, a trailing slash ignored.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut text = path.as_os_str().to_string_lossy().trim_end_matches('/').to_owned();
    text.push_str(suffix);
    PathBuf::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_named_by_pid_and_start() {
        let life = this_life();
        assert!(life.starts_with(&format!("{}-", std::process::id())));
        assert!(!life.ends_with("-0"));
    }

    #[test]
    fn names_beside_ignore_the_trailing_slash() {
        assert_eq!(beside(Path::new("/data/pg/"), ".failed"), Path::new("/data/pg.failed"));
    }
}
