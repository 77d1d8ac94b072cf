//! Finds and signals every PostgreSQL process of one data directory, without allocating.
//!
//! Backends call setsid, so a signal to a process group does not reach them; but the postmaster
//! changes into its data directory and everything it forks stays there, also when the directory is
//! renamed or its file system taken off the tree: so the directory counts by its path and by the
//! file that it is. Asking for `/proc/PID/cwd` asks the kernel only: a hung disk cannot make the
//! guard wait. What cannot be looked at is not taken for absent: [`Found::sure`] says so.
use std::cell::Cell;
use std::ffi::CStr;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, SeekFrom, StatxFlags, openat, readlinkat_raw, seek, statx,
};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::memory::PATH_BYTES_MAX;
use crate::host::postgres::inhabitants::DirId;

/// What the server's processes are called.
const NAMES: [&[u8]; 3] = [b"postgres", b"postmaster", b"edb-postgres"];
/// The kernel appends this to the path of a directory that was removed.
const DELETED: &[u8] = b" (deleted)";

/// An open `/proc` and the data directory to look for.
pub struct Scan {
    proc: OwnedFd,
    root: Option<DirId>,
    /// Where the postmaster that is watched works, whatever the path shows by now.
    dir: Cell<Option<DirId>>,
    path: [u8; PATH_BYTES_MAX],
    path_bytes: usize,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub count: usize,
    /// Nothing was left out because it could not be looked at.
    pub sure: bool,
}

/// What a look at one process said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    Yes,
    No,
    Unknown,
}

impl Scan {
    pub fn new(path: [u8; PATH_BYTES_MAX], path_bytes: usize) -> io::Result<Scan> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, c"/proc", flags, Mode::empty())?;
        let root = DirId::at(CWD, c"/").ok();
        Ok(Scan { proc, root, dir: Cell::new(None), path, path_bytes })
    }

    /// From now on the directory that this process works in counts, too. A server that has just
    /// begun works at the root.
    pub fn follow(&self, pid: Pid) {
        let mut name = [0; 32];
        let Some(name) = file_name(&mut name, pid, "cwd") else { return };
        if let Ok(dir) = DirId::at(&self.proc, name)
            && Some(dir) != self.root
        {
            self.dir.set(Some(dir));
        }
    }

    /// Calls `each` for every process of the data directory.
    pub fn visit(&self, mut each: impl FnMut(&Scan, Pid)) -> Found {
        let mut found = Found { count: 0, sure: seek(&self.proc, SeekFrom::Start(0)).is_ok() };
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(&self.proc, &mut buffer);
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else { return Found { sure: false, ..found } };
            let Some(pid) = parse(entry.file_name().to_bytes()) else { continue };
            match self.is_target(pid) {
                Looked::No => {}
                Looked::Unknown => found.sure = false,
                Looked::Yes => {
                    found.count += 1;
                    each(self, pid);
                }
            }
        }
        found
    }

    /// Signals all of them.
    pub fn signal_all(&self, signal: Signal) -> Found {
        self.visit(|scan, pid| scan.signal(pid, signal))
    }

    /// The one whose parent is not one of them.
    pub fn postmaster(&self) -> Option<Pid> {
        let mut postmaster = None;
        self.visit(|scan, pid| {
            if scan.parent(pid).is_some_and(|parent| scan.is_target(parent) == Looked::No) {
                postmaster = Some(pid);
            }
        });
        postmaster
    }

    /// PostgreSQL, as far as can be seen, and begun at this time (clock ticks since boot).
    pub fn is_server_since(&self, pid: Pid, start: u64) -> bool {
        let started = self.number_in_stat(pid, START_FIELD);
        self.is_server(pid) != Looked::No && started.is_none_or(|at| at == start)
    }

    /// Holds the process, looks again whether it is the right one, then signals: its number may
    /// have been given to another in between. Without a descriptor left it is signalled as it is.
    fn signal(&self, pid: Pid, signal: Signal) {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(held) if self.is_target(pid) == Looked::Yes => {
                pidfd_send_signal(held, signal).ok();
            }
            Ok(_) | Err(Errno::SRCH) => {}
            Err(_) if self.is_target(pid) == Looked::Yes => {
                kill_process(pid, signal).ok();
            }
            Err(_) => {}
        }
    }

    fn is_target(&self, pid: Pid) -> Looked {
        match (self.is_server(pid), self.works_in_data_dir(pid)) {
            (Looked::No, _) | (_, Looked::No) => Looked::No,
            (Looked::Yes, Looked::Yes) => Looked::Yes,
            _ => Looked::Unknown,
        }
    }

    /// By its name; without a descriptor to read that, by the file that it runs.
    fn is_server(&self, pid: Pid) -> Looked {
        let mut buffer = [0; 64];
        match self.read(pid, "comm", &mut buffer) {
            Ok(name) => said(NAMES.contains(&name.trim_ascii_end())),
            Err(error) if is_gone(error) => Looked::No,
            Err(_) => self.runs_server(pid),
        }
    }

    fn runs_server(&self, pid: Pid) -> Looked {
        self.link(pid, "exe", |link| {
            let link = link.strip_suffix(DELETED).unwrap_or(link);
            let name = link.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            said(NAMES.contains(&name))
        })
    }

    fn works_in_data_dir(&self, pid: Pid) -> Looked {
        let path = &self.path[..self.path_bytes];
        let by_path = self.link(pid, "cwd", |link| {
            said(*link == *path || link.strip_suffix(DELETED) == Some(path))
        });
        let Some(dir) = self.dir.get() else { return by_path };
        let mut name = [0; 32];
        let Some(name) = file_name(&mut name, pid, "cwd") else { return Looked::Unknown };
        match (by_path, DirId::at(&self.proc, name)) {
            (Looked::Yes, _) => Looked::Yes,
            (_, Ok(found)) if found == dir => Looked::Yes,
            (Looked::Unknown, _) => self.unless_foreign(pid),
            (Looked::No, Ok(_)) => Looked::No,
            (Looked::No, Err(error)) if is_gone(error) => Looked::No,
            (Looked::No, Err(_)) => self.unless_foreign(pid),
        }
    }

    fn link(&self, pid: Pid, file: &str, judge: impl Fn(&[u8]) -> Looked) -> Looked {
        let mut name = [0; 32];
        let mut buffer = [MaybeUninit::uninit(); PATH_BYTES_MAX + 16];
        let Some(name) = file_name(&mut name, pid, file) else { return Looked::Unknown };
        match readlinkat_raw(&self.proc, name, &mut buffer[..]) {
            Ok((link, _)) => judge(link),
            Err(error) if is_gone(error) => Looked::No,
            Err(_) => self.unless_foreign(pid),
        }
    }

    /// What we may not look at is not ours where it is another account's and we are not root.
    fn unless_foreign(&self, pid: Pid) -> Looked {
        let own = rustix::process::geteuid();
        let mut name = [0; 32];
        let Some(name) = file_name(&mut name, pid, "") else { return Looked::Unknown };
        match statx(&self.proc, name, AtFlags::empty(), StatxFlags::UID) {
            Ok(found) if !own.is_root() && found.stx_uid != own.as_raw() => Looked::No,
            Err(error) if is_gone(error) => Looked::No,
            _ => Looked::Unknown,
        }
    }

    fn parent(&self, pid: Pid) -> Option<Pid> {
        let number = self.number_in_stat(pid, PARENT_FIELD)?;
        i32::try_from(number).ok().and_then(Pid::from_raw)
    }

    fn number_in_stat(&self, pid: Pid, field: usize) -> Option<u64> {
        let mut buffer = [0; 512];
        let stat = self.read(pid, "stat", &mut buffer).ok()?;
        // The name in parentheses may hold anything; the fields follow the last one.
        let close = stat.iter().rposition(|byte| *byte == b')')?;
        let field = stat.get(close + 1..)?.split(|byte| *byte == b' ').nth(field)?;
        std::str::from_utf8(field).ok()?.parse().ok()
    }

    fn read<'a>(&self, pid: Pid, file: &str, to: &'a mut [u8]) -> rustix::io::Result<&'a [u8]> {
        let mut name = [0; 32];
        let name = file_name(&mut name, pid, file).ok_or(Errno::NAMETOOLONG)?;
        let file = openat(&self.proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let length = rustix::io::read(file, &mut *to)?;
        Ok(&to[..length])
    }
}

/// In /proc/PID/stat, counted from the blank after the name.
const PARENT_FIELD: usize = 2;
const START_FIELD: usize = 20;

fn said(yes: bool) -> Looked {
    if yes { Looked::Yes } else { Looked::No }
}

/// The process is not there any more; no other error says that.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::SRCH)
}

fn file_name<'a>(buffer: &'a mut [u8; 32], pid: Pid, file: &str) -> Option<&'a CStr> {
    write!(&mut buffer[..], "{}/{file}\0", pid.as_raw_nonzero()).ok()?;
    CStr::from_bytes_until_nul(buffer).ok()
}

fn parse(digits: &[u8]) -> Option<Pid> {
    let number: i32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number > 0).then(|| Pid::from_raw(number))?
}
