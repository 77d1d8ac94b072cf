//! Finding the guard of an earlier life of the daemon, or starting one.
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::memory::{LINK_PREFIX, Memory, Page};
use super::{GUARD_FD, Guard, invalid};
use crate::host::config::is_withheld;
use crate::host::postgres::processes::identity;
use crate::host::private;
use crate::host::rng::random_id;

/// How long one may take from its start to its first look.
const START_MAX: Duration = Duration::from_secs(5);
/// The running binary, also after it was replaced on the disk.
const OWN_BINARY: &str = "/proc/self/exe";
/// The kernel appends this to the path of a program that was replaced.
const DELETED: &str = " (deleted)";

/// The guard that the pid file names.
///
/// Believed only where all agrees: the file can only be ours; the process is the one that we
/// started (its pid, its start, this boot), as our account, from the file that we started it from;
/// and its page carries the number that we drew for it. A pid that went to another process, and a
/// guard of somebody else, is neither ended nor told anything.
///
/// # Errors
/// Where that cannot be seen: one may live.
pub fn find(pid_file: &Path) -> io::Result<Option<Guard>> {
    let Some(noted) = private::read(pid_file)?.as_deref().and_then(Noted::parse) else {
        return Ok(None);
    };
    let Some(pid) = Pid::from_raw(noted.pid) else { return Ok(None) };
    let held = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(held) => held,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Held first, then looked at: from here on the number is this process's.
    if identity(noted.pid).map_err(io::Error::other)?.as_deref() != Some(&noted.identity) {
        return Ok(None);
    }
    let is_it = is_ours(noted.pid, &noted.exe).and_then(|ours| match ours {
        true => page_of(noted.pid),
        false => Ok(None),
    });
    let page = match is_it {
        Ok(Some(page)) if page.nonce.load(SeqCst) == noted.nonce => Arc::new(page),
        Ok(_) => return Ok(None),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let pid = noted.pid.unsigned_abs();
    let pid_file = pid_file.to_owned();
    Ok(Some(Guard { page, pid, held, child: Mutex::new(None), pid_file }))
}

/// Runs as our account, from this file.
pub(super) fn is_ours(pid: i32, exe: &str) -> io::Result<bool> {
    let owner = fs::metadata(format!("/proc/{pid}"))?.uid();
    Ok(owner == rustix::process::geteuid().as_raw() && exe_of(pid)? == exe)
}

/// The page that a process holds as a guard does; `None` for any other process.
pub(super) fn page_of(pid: i32) -> io::Result<Option<Memory>> {
    let link = PathBuf::from(format!("/proc/{pid}/fd/{GUARD_FD}"));
    // Looked at before it is opened: another process's descriptor 3 may be anything.
    if !fs::read_link(&link)?.as_os_str().as_bytes().starts_with(LINK_PREFIX) {
        return Ok(None);
    }
    let file = fs::File::options().read(true).write(true).open(link)?;
    match Memory::open(file) {
        Ok(page) => Ok(Some(page)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file that a process runs, also after it was replaced on the disk.
pub(super) fn exe_of(pid: i32) -> io::Result<String> {
    let exe = fs::read_link(format!("/proc/{pid}/exe"))?;
    let exe = exe.to_string_lossy();
    Ok(exe.strip_suffix(DELETED).unwrap_or(&exe).to_owned())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// What the pid file says: pid, identity, number, and the program's file, a line each.
struct Noted {
    pid: i32,
    identity: String,
    nonce: u64,
    exe: String,
}

impl Noted {
    fn parse(text: &str) -> Option<Noted> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let identity = lines.next()?.to_owned();
        let nonce = u64::from_str_radix(lines.next()?, 16).ok()?;
        Some(Noted { pid, identity, nonce, exe: lines.next()?.to_owned() })
    }

    fn text(&self) -> String {
        let Noted { pid, identity, nonce, exe } = self;
        format!("{pid}\n{identity}\n{nonce:x}\n{exe}\n")
    }
}

/// Starts one; it takes over what `before`, the page of a hung one, says: armed from its first look.
pub fn start(
    data_dir: &Path,
    pid_file: &Path,
    binary: Option<&Path>,
    before: Option<&Page>,
) -> io::Result<Guard> {
    let (page, fd) = Memory::create(data_dir.as_os_str().as_bytes())?;
    if let Some(before) = before {
        let (server, start) = before.server();
        page.set_server(server, start);
        page.epoch.store(before.epoch.load(SeqCst), SeqCst);
        page.set_grant(before.grant());
    }
    page.nonce.store(random_id(), SeqCst);
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
    if let Err(error) = note(&guard) {
        // The next life would not find it, and it would end that one's PostgreSQL.
        guard.kill()?;
        return Err(error);
    }
    Ok(guard)
}

fn note(guard: &Guard) -> io::Result<()> {
    let pid = guard.pid.cast_signed();
    let identity = identity(pid).map_err(io::Error::other)?;
    let identity = identity.ok_or_else(|| io::Error::other("the guard has ended"))?;
    let nonce = guard.page.nonce.load(SeqCst);
    let noted = Noted { pid, identity, nonce, exe: exe_of(pid)? };
    private::write(&guard.pid_file, &noted.text())
}

fn spawn(binary: &Path, data_dir: &Path, page: &OwnedFd) -> io::Result<Child> {
    // Out of the way of the low numbers, so that the copy below is one.
    let page = rustix::io::fcntl_dupfd_cloexec(page, GUARD_FD + 1)?;
    let mut command = Command::new(binary);
    command.arg0("surus").arg("guard").arg(data_dir).current_dir("/");
    // What marks the daemon's processes marks the guard too; only what is for the daemon alone stays behind.
    for (name, _) in std::env::vars_os() {
        if is_withheld(&name.to_string_lossy()) {
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
