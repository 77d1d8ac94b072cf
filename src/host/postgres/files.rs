//! Every access to a file or directory that another account could have put there or replaced.
//!
//! A daemon that runs as root would follow a symbolic link of PostgreSQL's account to places where
//! that account itself may not go. So root's rights are used only where every directory on the way
//! is root's alone; everywhere else the thread takes the file-system identity of PostgreSQL's
//! account (setfsuid(2)) while it works. The kernel judges each access: there is no moment between
//! a look and its use, and links that are legitimate (pg_wal, tablespaces, a data directory on
//! another disk) go on working.
//!
//! Invariant: outside of this file nothing below a data directory, its configuration directory or
//! a passfile's directory is opened, created, renamed, removed or given away.
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Server;
use super::account::Account;
use super::rights::{Acting, is_roots};

/// The accesses of one server's daemon. All of them block.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a>(Option<&'a Account>);

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    /// Its owner (0600).
    Owner,
    /// The group, too, where the directory lets it in as `initdb --allow-group-access` does.
    AsDirectory,
}

impl Server {
    /// Accesses to this server's files.
    pub fn files(&self) -> Files<'_> {
        Files::of(self.run_as.as_ref())
    }
}

impl<'a> Files<'a> {
    /// `account` is whom PostgreSQL runs as; `None` unless the daemon is root.
    pub fn of(account: Option<&'a Account>) -> Files<'a> {
        Files(account)
    }

    /// Does `work` on the name `path` with the rights that are due there.
    ///
    /// # Errors
    /// Those of `work`, and where the rights cannot be taken.
    pub fn at<T>(self, path: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.with(path, false, work)
    }

    /// The same for work below the directory `dir`.
    pub fn below<T>(self, dir: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.with(dir, true, work)
    }

    fn with<T>(
        self,
        path: &Path,
        below: bool,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let _acting = match self.0 {
            Some(account) if !is_roots(path, below) => Some(Acting::begin(account)?),
            _ => None,
        };
        work()
    }

    /// Whether root alone can change what lies at `path`, or (as an ordinary account) always.
    pub fn may_give_away(self, path: &Path) -> bool {
        self.0.is_none() || is_roots(path, false)
    }

    /// The file's text, `None` where there is no file. What is no regular file is an error.
    pub fn read(self, path: &Path) -> Result<Option<String>, String> {
        match self.at(path, || read_regular(path)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(format!("could not read {}: {error}", path.display())),
        }
    }

    /// Removes a file that may be absent.
    pub fn remove(self, path: &Path) -> Result<(), String> {
        match self.at(path, || fs::remove_file(path)) {
            Err(error) if !is_absent(&error) => {
                Err(format!("could not remove {}: {error}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether something is there (links followed); what cannot be looked at is not.
    pub fn exists(self, path: &Path) -> bool {
        self.at(path, || fs::metadata(path)).is_ok()
    }

    /// Whether something is there, links followed.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub fn is_there(self, path: &Path) -> Result<bool, String> {
        self.at(path, || path.try_exists())
            .map_err(|error| format!("could not look at {}: {error}", path.display()))
    }

    /// Writes a file of PostgreSQL's whole or not at all, on disk before this returns; the group
    /// may read it where it may read the directory.
    pub fn write(self, path: &Path, text: &str) -> Result<(), String> {
        self.put(path, text, Readers::AsDirectory, true)
    }

    /// The same for PostgreSQL's account only, 0600.
    pub fn write_private(self, path: &Path, text: &str) -> Result<(), String> {
        self.put(path, text, Readers::Owner, true)
    }

    /// The same for ourselves: root's in a directory of root's.
    pub fn write_note(self, path: &Path, text: &str) -> Result<(), String> {
        self.put(path, text, Readers::Owner, false)
    }

    /// As [`Files::write`], where the text differs.
    pub fn write_if_changed(self, path: &Path, text: &str) -> Result<(), String> {
        match self.read(path) {
            Ok(Some(present)) if present == text => Ok(()),
            _ => self.write(path, text),
        }
    }

    fn put(self, path: &Path, text: &str, readers: Readers, give: bool) -> Result<(), String> {
        let give = self.0.filter(|_| give && is_roots(path, false));
        let put = || put(path, text, readers, give);
        let done = match self.at(path, put) {
            // Someone tidied the directory: at once again, under another name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.at(path, put),
            done => done,
        };
        done.map_err(|error| format!("could not write {}: {error}", path.display()))
    }

    /// Makes renames in a directory durable.
    pub fn sync_dir(self, dir: &Path) -> Result<(), String> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        self.below(dir, || fs::File::open(dir)?.sync_all())
            .map_err(|error| format!("could not flush {}: {error}", dir.display()))
    }

    /// Names in the directory that count; none where there is no directory.
    pub fn entries(self, dir: &Path) -> Result<Vec<PathBuf>, String> {
        let named = |error: io::Error| format!("could not read {}: {error}", dir.display());
        let all = match self.below(dir, || fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            all => all.map_err(named)?,
        };
        let counts = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with('.') && name != "lost+found"
        };
        let mut found: Vec<PathBuf> =
            all.into_iter().map(|entry| entry.path()).filter(counts).collect();
        found.sort();
        Ok(found)
    }

    /// No control file, and nothing in it but dot-names and `lost+found` (rule E-1).
    pub fn is_empty(self, data_dir: &Path) -> Result<bool, String> {
        if self.is_there(&data_dir.join("global/pg_control"))? {
            return Ok(false);
        }
        Ok(self.entries(data_dir)?.is_empty())
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A pipe in a file's place would keep the reader for ever.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn put(path: &Path, text: &str, readers: Readers, give: Option<&Account>) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = dir.join(draft_name(path));
    let written = write_new(&draft, text, mode_in(dir, readers)?, give)
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written?;
    fs::File::open(dir)?.sync_all()
}

/// Never used by anyone else: two daemons may write one passfile.
fn draft_name(path: &Path) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(".{name}.surus-{}-{number}", std::process::id())
}

fn mode_in(dir: &Path, readers: Readers) -> io::Result<u32> {
    let shared = readers == Readers::AsDirectory && fs::metadata(dir)?.mode() & 0o077 == 0o050;
    Ok(if shared { 0o640 } else { 0o600 })
}

fn write_new(path: &Path, text: &str, mode: u32, give: Option<&Account>) -> io::Result<()> {
    // A process that had our number before may have died over this name.
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some(account) = give {
        std::os::unix::fs::fchown(&file, Some(account.uid), Some(account.gid))?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}
