//! Guards that nobody knows any more: their state directory was wiped, they still guard the data.
//!
//! Such a guard, once its deadline has passed, ends every server that is started there. It is
//! ended when nothing is left to guard: no process lives in the data directory, and none that the
//! guard itself holds, wherever that one's directory is by now.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::launch::{exe_of, is_ours, page_of};
use super::watched::Watched;
use crate::host::postgres::inhabitants::Place;

/// Ends strays of this data directory; how many. `known` is the pid of our own guard, `binary` what
/// guards are started from (default: the running binary).
pub fn end_strays(data_dir: &Path, known: Option<u32>, binary: Option<&Path>) -> usize {
    let Some(data_dir) = real_path(data_dir) else { return 0 };
    let looked = Place::new(&data_dir, None).and_then(|place| place.inhabitants());
    if !looked.is_ok_and(|found| found.is_empty()) {
        return 0;
    }
    let Ok(exe) = binary.map_or_else(own_exe, |path| Ok(path.display().to_string())) else {
        return 0;
    };
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let strays = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| Some(pid.unsigned_abs()) != known);
    strays.filter(|pid| end(*pid, &data_dir, &exe)).count()
}

fn own_exe() -> io::Result<String> {
    exe_of(std::process::id().cast_signed())
}

/// Its path without links, also when the directory itself was wiped with all the rest.
fn real_path(data_dir: &Path) -> Option<PathBuf> {
    let beside = || Some(fs::canonicalize(data_dir.parent()?).ok()?.join(data_dir.file_name()?));
    fs::canonicalize(data_dir).ok().or_else(beside)
}

/// What cannot be looked at is left alone.
fn end(pid: i32, data_dir: &Path, exe: &str) -> bool {
    let Some(target) = Pid::from_raw(pid).filter(|_| is_called_guard(pid)) else { return false };
    // Held first: its number cannot go to another process from here on.
    let Ok(held) = pidfd_open(target, PidfdFlags::empty()) else { return false };
    let is_stray = is_ours(pid, exe).is_ok_and(|ours| ours) && guards_nobody(pid, data_dir);
    is_stray && pidfd_send_signal(held, Signal::KILL).is_ok()
}

/// Cheap, and for itself no proof of anything.
fn is_called_guard(pid: i32) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).nth(1) == Some(b"guard")
}

fn guards_nobody(pid: i32, data_dir: &Path) -> bool {
    let Ok(Some(page)) = page_of(pid) else { return false };
    if page.path() != data_dir.as_os_str().as_encoded_bytes() {
        return false;
    }
    let server = page.postmaster_pid.load(SeqCst);
    let dead = server == 0 || page.postmaster_dead.load(SeqCst) != 0;
    dead || Watched::new(server).is_gone()
}
