//! The one place that makes a write durable.
//!
//! sled's `flush` hands pages to the kernel and does not tell the disk: a power cut takes what was
//! acknowledged. So every commit is an atomic batch, then `flush`, then `fdatasync` of sled's file,
//! and only then is it done. After the first failure nothing is written any more: a kernel that
//! failed to write a page once may say yes the next time, and lie.
//!
//! sled treats damage near its end as a write that never finished, and silently goes back in time.
//! Therefore a small file beside it, `acknowledged`, counts the commits that were acknowledged: a
//! database that knows of fewer is damaged, and says so.
mod mark;
pub mod record;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, FlockOperation, flock};
use sled::{Batch, Db, Mode, Tree};

use self::mark::Mark;

/// Key of a tree's own count of commits.
const COUNT: &[u8] = b"#";
/// What sled calls the tree that is always there; it holds nothing of ours.
const DEFAULT_TREE: &[u8] = b"__sled__default";

/// How long an earlier handle may take to let go of its files.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// A sled database whose every commit is durable.
pub struct Database {
    path: PathBuf,
    db: Db,
    file: File,
    /// Kept open, so that a commit needs no new descriptor: strangers may have taken them all (SEC-40).
    blobs: Dir,
    mark: Mark,
    counts: BTreeMap<Vec<u8>, u64>,
    failed: Option<String>,
    _lock: File,
}

/// Flushes to the disk, not only to the kernel: sled's `flush`, then `fdatasync` of its file.
pub fn flush(db: &Db, file: &File) -> io::Result<()> {
    db.flush().map_err(from_sled)?;
    file.sync_data()
}

impl Database {
    /// Opens or creates. The kind of an error tells what to do: `WouldBlock` another process has
    /// it, `InvalidData` it is damaged, anything else is the operating system's.
    pub fn open(path: &Path) -> io::Result<Database> {
        open(path).map_err(|e| {
            io::Error::new(e.kind(), format!("cannot open the database {}: {e}", path.display()))
        })
    }

    /// A tree of this name, created if need be; durable with its first commit.
    pub fn tree(&self, name: &str) -> io::Result<Tree> {
        self.db.open_tree(name).map_err(from_sled)
    }

    /// The names of all trees that were ever written to.
    pub fn tree_names(&self) -> Vec<String> {
        own_trees(&self.db).map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
    }

    /// Writes a batch to one tree, all or nothing, and returns when it is on the disk, with the
    /// time that took. An error is final: every later commit fails too.
    pub fn commit(&mut self, tree: &Tree, batch: Batch) -> io::Result<Duration> {
        if let Some(why) = &self.failed {
            return Err(io::Error::other(why.clone()));
        }
        let began = Instant::now();
        self.try_commit(tree, batch).map_err(|e| {
            let why = format!("cannot write to the database {}: {e}", self.path.display());
            self.failed = Some(why.clone());
            io::Error::new(e.kind(), why)
        })?;
        Ok(began.elapsed())
    }

    fn try_commit(&mut self, tree: &Tree, mut batch: Batch) -> io::Result<()> {
        let count = self.counts.entry(tree.name().to_vec()).or_default();
        *count += 1;
        record::put_fresh(&mut batch, COUNT, &count.to_be_bytes());
        tree.apply_batch(batch).map_err(from_sled)?;
        flush(&self.db, &self.file)?;
        sync_blobs(&mut self.blobs, &self.path.join("blobs"))?;
        self.mark.write(self.counts.values().sum())
    }
}

fn open(path: &Path) -> io::Result<Database> {
    create_directory(path)?;
    let lock = lock(path)?;
    let is_new = !path.join("db").try_exists()?;
    let acknowledged = path.join("acknowledged");
    if is_new {
        Mark::create(&acknowledged)?;
    }
    let mark = Mark::open(&acknowledged)?;
    let db = open_sled(path)?;
    let file = File::open(path.join("db"))?;
    let counts = counts(&db)?;
    let known: u64 = counts.values().sum();
    if known < mark.value() {
        return Err(damaged(format!("{} acknowledged writes are missing", mark.value() - known)));
    }
    if is_new {
        flush(&db, &file)?;
        sync_directory(path)?;
    }
    let blobs = Dir::new(File::open(path.join("blobs"))?)?;
    let path = path.to_owned();
    Ok(Database { path, db, file, blobs, mark, counts, failed: None, _lock: lock })
}

/// We hold our own lock, so only an earlier `Db` of this very process can still hold sled's: its
/// threads let go some time after the drop.
fn open_sled(path: &Path) -> io::Result<Db> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(1024 * 1024)
        .mode(Mode::LowSpace)
        .flush_every_ms(None);
    let began = Instant::now();
    loop {
        match config.open() {
            Err(e) if e.to_string().contains("could not acquire lock") => {
                if began.elapsed() > CLOSING_MAX {
                    return Err(io::Error::new(ErrorKind::WouldBlock, e.to_string()));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.map_err(from_sled),
        }
    }
}

/// The directory is of no one else's business, and its name survives a power cut.
fn create_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    match path.parent() {
        Some(parent) if parent != Path::new("") => sync_directory(parent),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Our own lock: sled's failure to get its own cannot be told from others.
fn lock(path: &Path) -> io::Result<File> {
    let options = File::options().create(true).truncate(false).write(true).to_owned();
    let lock = options.open(path.join("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        rustix::io::Errno::WOULDBLOCK => {
            io::Error::new(ErrorKind::WouldBlock, "another process is using it")
        }
        e => e.into(),
    })?;
    Ok(lock)
}

/// sled puts large values into files of their own and never syncs them. Our records are cut small
/// enough to avoid that ([`record`]); should one appear all the same, it is made durable too.
fn sync_blobs(blobs: &mut Dir, path: &Path) -> io::Result<()> {
    let mut found = false;
    blobs.rewind();
    while let Some(entry) = blobs.read() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            File::open(path.join(name))?.sync_data()?;
            found = true;
        }
    }
    if found { sync_directory(path) } else { Ok(()) }
}

fn own_trees(db: &Db) -> impl Iterator<Item = sled::IVec> {
    db.tree_names().into_iter().filter(|name| name != DEFAULT_TREE)
}

fn counts(db: &Db) -> io::Result<BTreeMap<Vec<u8>, u64>> {
    let mut counts = BTreeMap::new();
    for name in own_trees(db) {
        let tree = db.open_tree(&name).map_err(from_sled)?;
        let count = match record::get(&tree, COUNT)? {
            None => 0,
            Some(bytes) => u64::from_be_bytes(
                bytes.try_into().map_err(|_| damaged("the count of writes is malformed"))?,
            ),
        };
        counts.insert(name.to_vec(), count);
    }
    Ok(counts)
}

/// What is in the database is not what was put there.
pub fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}

/// sled's errors: the operating system's stay what they are, all else means damage.
pub fn from_sled(e: sled::Error) -> io::Error {
    match e {
        sled::Error::Io(e) if e.raw_os_error().is_some() => e,
        e => damaged(e.to_string()),
    }
}

/// Opens a copy of a stopped database's files, and removes it afterwards: reading for a dump must
/// not change what it looks at, and opening with sled does.
pub fn with_copy<T>(path: &Path, read: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let mut rng = [0u8; 8];
    rustix::rand::getrandom(&mut rng[..], rustix::rand::GetRandomFlags::empty())?;
    let copy = std::env::temp_dir().join(format!("surus-read-{:x}", u64::from_ne_bytes(rng)));
    DirBuilder::new().mode(0o700).create(&copy)?;
    let outcome = copy_files(path, &copy).and_then(|()| read(&copy));
    fs::remove_dir_all(&copy).ok();
    outcome
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
