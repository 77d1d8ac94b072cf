//! Finding the guard of an earlier life of the daemon, or starting one.
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::memory::{Grant, LINK_PREFIX, Memory};
use super::{GUARD_FD, Guard, invalid};
use crate::host::config::is_private_variable;

/// How long one may take from its start to its first look.
const START_MAX: Duration = Duration::from_secs(5);
/// The running binary, also after it was replaced on the disk.
const OWN_BINARY: &str = "/proc/self/exe";

/// A process that the pid file names and that really holds a guard's page.
pub fn find(pid_file: &Path) -> Option<Guard> {
    let pid: i32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let held = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let link = PathBuf::from(format!("/proc/{pid}/fd/{GUARD_FD}"));
    // Looked at before it is opened: another process's descriptor 3 may be anything.
    if !fs::read_link(&link).ok()?.as_os_str().as_bytes().starts_with(LINK_PREFIX) {
        return None;
    }
    let page = Memory::open(fs::File::options().read(true).write(true).open(link).ok()?).ok()?;
    let (page, pid) = (Arc::new(page), pid.unsigned_abs());
    Some(Guard { page, pid, held, child: Mutex::new(None), pid_file: pid_file.to_owned() })
}

/// Starts one, armed with `grant` from its first look on.
pub fn start(
    data_dir: &Path,
    pid_file: &Path,
    binary: Option<&Path>,
    grant: Grant,
    epoch: u64,
) -> io::Result<Guard> {
    let (page, fd) = Memory::create(data_dir.as_os_str().as_bytes())?;
    page.epoch.store(epoch, SeqCst);
    page.set_grant(grant);
    page.daemon_pid.store(std::process::id(), SeqCst);
    let child = spawn(binary.unwrap_or(Path::new(OWN_BINARY)), data_dir, &fd)?;
    let pid = child.id();
    let held = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let (child, pid_file) = (Mutex::new(Some(child)), pid_file.to_owned());
    let guard = Guard { page: Arc::new(page), pid, held, child, pid_file };
    if !guard.is_heard(START_MAX) {
        guard.kill()?;
        return Err(io::Error::other("the guard does not start"));
    }
    write_pid(&guard.pid_file, pid)?;
    Ok(guard)
}

fn spawn(binary: &Path, data_dir: &Path, page: &OwnedFd) -> io::Result<Child> {
    // Out of the way of the low numbers, so that the copy below is one.
    let page = rustix::io::fcntl_dupfd_cloexec(page, GUARD_FD + 1)?;
    let mut command = Command::new(binary);
    command.arg0("surus").arg("guard").arg(data_dir).current_dir("/");
    // What marks the daemon's processes marks the guard too; only the secrets stay behind.
    for (name, _) in std::env::vars_os() {
        if is_private_variable(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: dup2 is safe between fork and exec; the closure owns the descriptor it copies.
    unsafe {
        command.pre_exec(move || match libc::dup2(page.as_raw_fd(), GUARD_FD) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    command.spawn().map_err(|e| {
        io::Error::new(e.kind(), format!("cannot start the guard {}: {e}", binary.display()))
    })
}

/// Whole or not at all.
fn write_pid(pid_file: &Path, pid: u32) -> io::Result<()> {
    let new = pid_file.with_extension("pid.new");
    fs::write(&new, format!("{pid}\n"))?;
    fs::rename(new, pid_file)
}

/// The path that the kernel shows for a process working there; it need not exist yet.
pub fn resolve(data_dir: &Path) -> io::Result<PathBuf> {
    if let Ok(path) = data_dir.canonicalize() {
        return Ok(path);
    }
    let in_context = |e: io::Error| {
        io::Error::new(e.kind(), format!("postgresql.data_dir {}: {e}", data_dir.display()))
    };
    let name = data_dir.file_name().ok_or_else(|| invalid("the path has no name".to_owned()));
    let parent = data_dir.parent().unwrap_or(Path::new("/"));
    Ok(parent.canonicalize().map_err(in_context)?.join(name.map_err(in_context)?))
}
