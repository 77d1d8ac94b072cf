//! Other processes, seen through /proc: who carries our mark, which is which, and their end.
//!
//! A process is not there when the kernel says so. Every other failure to look is an error: it
//! never counts as an answer. All of this blocks for about a millisecond; from a reactor go through [`blocking`].
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, Signal};

use crate::host::rng::random_id;

/// The name of the environment variable that says whose program a process is.
pub const MARK: &str = "SURUS_OPERATION";
/// Which life of the daemon started it: pid and start time.
pub const LIFE: &str = "SURUS_LIFE";

/// Runs `work` off the reactor.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| format!("a helper thread died: {error}"))
}

/// Processes that carry this word in their environment, whatever group they are in.
///
/// # Errors
/// Where a process could not be looked at: it may be one of them.
pub fn carriers(word: &str) -> Result<Vec<i32>, String> {
    keep(pids()?, |pid| environment_has(pid, word))
}

fn keep(pids: Vec<i32>, wanted: impl Fn(i32) -> Result<bool, String>) -> Result<Vec<i32>, String> {
    let mut kept = Vec::new();
    for pid in pids {
        if wanted(pid)? {
            kept.push(pid);
        }
    }
    Ok(kept)
}

fn environment_has(pid: i32, word: &str) -> Result<bool, String> {
    let bytes = read(pid, "environ")?.unwrap_or_default();
    Ok(bytes.split(|byte| *byte == 0).any(|entry| entry == word.as_bytes()))
}

/// A file of `/proc/PID`. `None`: the process has ended, or we may not look at it because it has
/// other or more rights than we: then we did not start it either.
///
/// # Errors
/// Whatever else keeps us from looking says nothing about the process.
pub(super) fn read(pid: i32, file: &str) -> Result<Option<Vec<u8>>, String> {
    looked(pid, file, fs::read(format!("/proc/{pid}/{file}")))
}

/// What a look at `/proc/PID/file` says, as [`read`].
pub(super) fn looked<T>(pid: i32, file: &str, found: io::Result<T>) -> Result<Option<T>, String> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_foreign(pid) => {
            Ok(None)
        }
        Err(error) => Err(format!(
            "could not look at /proc/{pid}/{file}: {error}; nothing is taken for stopped until \
             that works (file descriptors, memory, CAP_SYS_PTRACE)"
        )),
    }
}

/// The process is not there any more; no other error says that.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// What we start has our account, or PostgreSQL's where we are root, and never more rights than we.
fn is_foreign(pid: i32) -> bool {
    let own = rustix::process::geteuid();
    let owner = fs::metadata(format!("/proc/{pid}")).map(|meta| meta.uid());
    if !own.is_root() && owner.is_ok_and(|owner| owner != own.as_raw()) {
        return true;
    }
    let (its, ours) = (capabilities(&pid.to_string()), capabilities("self"));
    its.zip(ours).is_some_and(|(its, ours)| its & !ours != 0)
}

fn capabilities(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Every process there is.
pub(super) fn pids() -> Result<Vec<i32>, String> {
    let failed = |error: io::Error| format!("could not look at /proc: {error}");
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        // What is no number is no process.
        let name = entry.map_err(failed)?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// A name for this life of the daemon, never shared with another one.
pub fn this_life() -> String {
    static LIFE: OnceLock<String> = OnceLock::new();
    let draw = || {
        let pid = std::process::id();
        format!("{pid}-{}", start_ticks(pid as i32).ok().flatten().unwrap_or_else(random_id))
    };
    LIFE.get_or_init(draw).clone()
}

/// Tells this process from every other one that has had or will have its pid; `None` when it ended.
///
/// # Errors
/// Where it could not be looked at.
pub fn identity(pid: i32) -> Result<Option<String>, String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|error| format!("could not read the kernel's boot_id: {error}"))?;
    Ok(start_ticks(pid)?.map(|ticks| format!("{pid} {ticks} {}", boot.trim())))
}

/// Field 22 of /proc/PID/stat: clock ticks since boot. `None` when it ended.
///
/// # Errors
/// Where it could not be looked at.
pub fn start_ticks(pid: i32) -> Result<Option<u64>, String> {
    stat_field(pid, 22)
}

/// Which process has started it, or taken it over; `None` when it ended.
///
/// # Errors
/// Where it could not be looked at.
pub(super) fn parent(pid: i32) -> Result<Option<i32>, String> {
    stat_field(pid, 4)
}

/// A number of /proc/PID/stat, counted from 1 as its manual page does; from 4 on.
fn stat_field<T: std::str::FromStr>(pid: i32, number: usize) -> Result<Option<T>, String> {
    let Some(stat) = read(pid, "stat")? else { return Ok(None) };
    let stat = String::from_utf8_lossy(&stat);
    let after_name = stat.rsplit_once(')').map(|(_, after)| after).unwrap_or_default();
    let field = after_name.split_whitespace().nth(number - 3).and_then(|text| text.parse().ok());
    field.map(Some).ok_or_else(|| format!("/proc/{pid}/stat has no field {number}"))
}

/// Programs that carry `mark` but were started by an earlier life of the daemon.
///
/// # Errors
/// As [`carriers`].
pub fn leftovers(mark: &str, life: &str) -> Result<Vec<i32>, String> {
    let (mark, life) = (format!("{MARK}={mark}"), format!("{LIFE}={life}"));
    let own = std::process::id() as i32;
    let others = pids()?.into_iter().filter(|pid| *pid != own).collect();
    keep(others, |pid| Ok(environment_has(pid, &mark)? && !environment_has(pid, &life)?))
}

/// Kills the processes and, where they lead or share a group that is not ours, their groups;
/// waits until none is left. `find` is asked again each round; while it cannot look, it goes on.
pub fn kill_all(
    find: impl Fn() -> Result<Vec<i32>, String>,
    groups: bool,
    wait: Duration,
) -> Result<usize, String> {
    let deadline = Instant::now() + wait;
    let mut killed = 0;
    loop {
        let found = find();
        if found.as_ref().is_ok_and(Vec::is_empty) {
            return Ok(killed);
        }
        for pid in found.iter().flatten() {
            kill_one(*pid, groups);
        }
        killed = killed.max(found.as_ref().map_or(0, Vec::len));
        if Instant::now() > deadline {
            let found = found?;
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
