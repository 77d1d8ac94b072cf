//! Who of PostgreSQL stands in a data directory, wherever that directory is by now.
//!
//! The postmaster changes into its data directory, and everything it forks stays there. A path says
//! too little: a directory can be renamed, and its file system taken off the tree, under a server
//! that goes on writing. So a working directory counts by its path *or* by the file that it is.
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::processes::{looked, pids, read};

/// The kernel appends this to the path of a directory that was removed.
const DELETED: &str = " (deleted)";

/// Which directory it is, whatever its name: device and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirId {
    device: (u32, u32),
    inode: u64,
}

impl DirId {
    /// Of a name below an open directory. Asks what the kernel holds of it, not a server of files;
    /// no allocation, no file descriptor.
    ///
    /// # Errors
    /// The kernel's.
    pub fn at(dir: impl AsFd, name: &std::ffi::CStr) -> rustix::io::Result<DirId> {
        let found = statx(dir, name, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)?;
        Ok(DirId { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
    }

    /// Of the directory that a process works in; `None` when it ended, or works at the root as a
    /// server does before it goes to its data.
    ///
    /// # Errors
    /// Where it could not be looked at.
    pub fn of_process(pid: i32) -> Result<Option<DirId>, String> {
        let root =
            DirId::of(Path::new("/")).map_err(|error| format!("could not see /: {error}"))?;
        let found = looked(pid, "cwd", DirId::of(Path::new(&format!("/proc/{pid}/cwd"))))?;
        Ok(found.filter(|found| *found != root))
    }

    /// Of a path, links followed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(path: &Path) -> io::Result<DirId> {
        Ok(DirId::at(CWD, &CString::new(path.as_os_str().as_bytes())?)?)
    }
}

/// A process of PostgreSQL's server program that lives in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inhabitant {
    pub pid: i32,
    /// A child of a postmaster (its title says what it does), not a postmaster itself.
    pub backend: bool,
    /// What it says of itself.
    pub title: String,
}

/// The working directories that count: the one at the configured path, and those held.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
    dirs: Vec<DirId>,
}

impl Place {
    /// `also`: a directory that was once here.
    ///
    /// # Errors
    /// Where it cannot be seen what lies at the path; that nothing does is no error.
    pub fn new(data_dir: &Path, also: Option<DirId>) -> Result<Place, String> {
        Ok(Place { path: real_path(data_dir)?, dirs: also.into_iter().collect() })
    }

    /// Every process of PostgreSQL's server program that works here. Blocks.
    ///
    /// # Errors
    /// Where a process could not be looked at: it may be one of them.
    pub fn inhabitants(&self) -> Result<Vec<Inhabitant>, String> {
        let mut found = Vec::new();
        for pid in pids()? {
            if self.holds(pid)? {
                let title = read(pid, "cmdline")?.unwrap_or_default();
                let title = String::from_utf8_lossy(&title).into_owned();
                found.push(Inhabitant { pid, backend: title.starts_with("postgres:"), title });
            }
        }
        Ok(found)
    }

    /// The process is alive, is PostgreSQL, and works here.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub fn holds(&self, pid: i32) -> Result<bool, String> {
        if !is_server(pid)? {
            return Ok(false);
        }
        let Some(link) = working_directory(pid)? else { return Ok(false) };
        if link == self.path || link == removed(&self.path) {
            return Ok(true);
        }
        let dir = if self.dirs.is_empty() { None } else { DirId::of_process(pid)? };
        Ok(dir.is_some_and(|dir| self.dirs.contains(&dir)))
    }
}

/// PostgreSQL's server program.
///
/// # Errors
/// Where that cannot be seen.
pub fn is_server(pid: i32) -> Result<bool, String> {
    let name = read(pid, "comm")?.unwrap_or_default();
    Ok(matches!(name.trim_ascii_end(), b"postgres" | b"postmaster" | b"edb-postgres"))
}

/// It can still do something: what has ended, and waits for its parent to hear of it, cannot.
///
/// # Errors
/// Where that cannot be seen.
pub fn is_working(pid: i32) -> Result<bool, String> {
    Ok(working_directory(pid)?.is_some())
}

/// Not there for zombies: they have no directory any more.
fn working_directory(pid: i32) -> Result<Option<PathBuf>, String> {
    looked(pid, "cwd", fs::read_link(format!("/proc/{pid}/cwd")))
}

/// Without links; also where nothing lies there.
fn real_path(path: &Path) -> Result<PathBuf, String> {
    let failed = |error: io::Error| format!("could not look at {}: {error}", path.display());
    match fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Ok(path.to_owned());
            };
            match fs::canonicalize(parent) {
                Ok(parent) => Ok(parent.join(name)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
                Err(error) => Err(failed(error)),
            }
        }
        Err(error) => Err(failed(error)),
    }
}

fn removed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(DELETED);
    PathBuf::from(name)
}
