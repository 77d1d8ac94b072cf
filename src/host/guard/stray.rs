//! Guards that nobody knows any more: their state directory was wiped, they still guard the data.
//!
//! Such a guard, once its deadline has passed, ends every server that is started there. It is
//! ended when nothing is left to guard: no process lives in the data directory.
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::postgres::processes::inhabitants;

/// Ends strays of this data directory; how many. `known` is the pid of our own guard.
pub fn end_strays(data_dir: &Path, known: Option<u32>) -> usize {
    let Some(data_dir) = real_path(data_dir) else { return 0 };
    if !inhabitants(&data_dir).is_empty() {
        return 0;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let strays = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| Some(*pid) != known && guards(*pid, &data_dir));
    strays.filter(|pid| end(*pid)).count()
}

/// Its path without links, also when the directory itself was wiped with all the rest.
fn real_path(data_dir: &Path) -> Option<PathBuf> {
    let beside = || Some(fs::canonicalize(data_dir.parent()?).ok()?.join(data_dir.file_name()?));
    fs::canonicalize(data_dir).ok().or_else(beside)
}

fn guards(pid: u32, data_dir: &Path) -> bool {
    let Ok(words) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = words.split(|byte| *byte == 0);
    let is_guard = words.nth(1).is_some_and(|word| word == b"guard");
    is_guard && words.next().is_some_and(|word| word == data_dir.as_os_str().as_encoded_bytes())
}

fn end(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}
