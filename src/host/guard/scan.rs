//! Finds and signals every PostgreSQL process of one data directory, without allocating.
//!
//! Backends call setsid, so a signal to a process group does not reach them; but the postmaster
//! changes into its data directory and everything it forks stays there. Reading the link
//! `/proc/PID/cwd` asks the kernel only: a hung disk cannot make the guard wait.
use std::ffi::CStr;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom, openat, readlinkat_raw, seek};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::memory::PATH_BYTES_MAX;

/// What the server's processes are called.
const NAMES: [&[u8]; 3] = [b"postgres", b"postmaster", b"edb-postgres"];
/// The kernel appends this to the path of a directory that was removed.
const DELETED: &[u8] = b" (deleted)";

/// An open `/proc` and the data directory to look for.
pub struct Scan {
    proc: OwnedFd,
    path: [u8; PATH_BYTES_MAX],
    path_bytes: usize,
}

impl Scan {
    pub fn new(path: [u8; PATH_BYTES_MAX], path_bytes: usize) -> io::Result<Scan> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Scan { proc: openat(CWD, c"/proc", flags, Mode::empty())?, path, path_bytes })
    }

    /// Calls `each` for every process of the data directory; how many there were.
    pub fn visit(&self, mut each: impl FnMut(&Scan, Pid)) -> usize {
        let mut found = 0;
        if seek(&self.proc, SeekFrom::Start(0)).is_err() {
            return 0;
        }
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(&self.proc, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let Some(pid) = parse(entry.file_name().to_bytes()) else { continue };
            if self.is_target(pid) {
                found += 1;
                each(self, pid);
            }
        }
        found
    }

    /// Signals all of them; how many there were.
    pub fn signal_all(&self, signal: Signal) -> usize {
        self.visit(|scan, pid| scan.signal(pid, signal))
    }

    /// The one whose parent is not one of them.
    pub fn postmaster(&self) -> Option<Pid> {
        let mut postmaster = None;
        self.visit(|scan, pid| {
            if !scan.parent(pid).is_some_and(|parent| scan.is_target(parent)) {
                postmaster = Some(pid);
            }
        });
        postmaster
    }

    /// Holds the process, looks again whether it is the right one, then signals: its number may
    /// have been given to another in between.
    fn signal(&self, pid: Pid, signal: Signal) {
        let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.is_target(pid) {
            pidfd_send_signal(held, signal).ok();
        }
    }

    fn is_target(&self, pid: Pid) -> bool {
        let mut buffer = [0; 64];
        let name = self.read(pid, "comm", &mut buffer).trim_ascii_end();
        NAMES.contains(&name) && self.works_in_data_dir(pid)
    }

    fn works_in_data_dir(&self, pid: Pid) -> bool {
        let mut name = [0; 32];
        let mut buffer = [MaybeUninit::uninit(); PATH_BYTES_MAX + 16];
        let Some(name) = file_name(&mut name, pid, "cwd") else { return false };
        let Ok((link, _)) = readlinkat_raw(&self.proc, name, &mut buffer[..]) else { return false };
        let path = &self.path[..self.path_bytes];
        *link == *path || link.strip_suffix(DELETED) == Some(path)
    }

    fn parent(&self, pid: Pid) -> Option<Pid> {
        let mut buffer = [0; 256];
        let stat = self.read(pid, "stat", &mut buffer);
        // The name in parentheses may hold anything; the fields follow the last one.
        let close = stat.iter().rposition(|byte| *byte == b')')?;
        parse(stat.get(close + 1..)?.split(|byte| *byte == b' ').nth(2)?)
    }

    fn read<'a>(&self, pid: Pid, file: &str, to: &'a mut [u8]) -> &'a [u8] {
        let mut name = [0; 32];
        let Some(name) = file_name(&mut name, pid, file) else { return &[] };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(file) = openat(&self.proc, name, flags, Mode::empty()) else { return &[] };
        let length = rustix::io::read(file, &mut *to).unwrap_or(0);
        &to[..length]
    }
}

fn file_name<'a>(buffer: &'a mut [u8; 32], pid: Pid, file: &str) -> Option<&'a CStr> {
    write!(&mut buffer[..], "{}/{file}\0", pid.as_raw_nonzero()).ok()?;
    CStr::from_bytes_until_nul(buffer).ok()
}

fn parse(digits: &[u8]) -> Option<Pid> {
    let number: i32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number > 0).then(|| Pid::from_raw(number))?
}
