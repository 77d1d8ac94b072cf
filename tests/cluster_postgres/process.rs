//! Processes, found by the directory they belong to and ended by their number.
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Every process that names `dir` as its working directory, in its arguments or its environment.
/// A trailing slash keeps `n1` apart from `n10`.
pub fn of(dir: &Path) -> Vec<i32> {
    let wanted = format!("{}/", dir.display());
    let own = std::process::id() as i32;
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own && belongs(*pid, &wanted)).collect()
}

fn belongs(pid: i32, wanted: &str) -> bool {
    let within = |path: &str| {
        fs::read_link(path).is_ok_and(|at| format!("{}/", at.display()).starts_with(wanted))
    };
    let names = |path: &str| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(wanted.len()).any(|window| window == wanted.as_bytes())
    };
    within(&format!("/proc/{pid}/cwd"))
        || names(&format!("/proc/{pid}/cmdline"))
        || names(&format!("/proc/{pid}/environ"))
}

/// The process's title or arguments, with blanks between them.
pub fn title(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The postmaster's number, as its own file says, if that process lives in that directory.
pub fn postmaster(data_dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse().ok()?;
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at == data_dir).then_some(pid)
}

pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills all that belong to `dir` until none is left.
pub fn kill_all(dir: &Path) {
    let began = Instant::now();
    loop {
        let found = of(dir);
        if found.is_empty() || began.elapsed() > Duration::from_secs(10) {
            return;
        }
        found.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        std::thread::sleep(Duration::from_millis(10));
    }
}
