//! Is there room for a repair? Asked before anything is touched: a copy or a rewind that finds the
//! disk full half-way leaves less than there was.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{statfs, statvfs};

use super::disk::bytes_in;
use super::processes::blocking;
use super::session::Session;
use super::{Connection, Server};

/// What is asked for beside a copy's own size, and where nobody knows that: WAL goes on while a copy
/// or a rewind is made.
const ROOM_MIN: u64 = 64 * MB;
const MB: u64 = 1024 * 1024;
/// The source reads the size of every file; one that takes longer counts as one that does not say.
const SIZE_MAX: Duration = Duration::from_secs(15);
/// ZFS, btrfs, bcachefs: they may compress, so that the size of files says little.
const COMPRESSING: [i64; 3] = [0x2fc1_2fc1, 0x9123_683e, 0xca45_1a4e];
/// Under these names a data directory is moved aside.
const SUFFIXES: [&str; 4] = ["diverged", "failed", "rewind", "failed_bootstrap"];
/// Base and global only: other tablespaces may lie on other disks.
const SIZE: &str = "SELECT sum(pg_catalog.pg_tablespace_size(oid))::text \
    FROM pg_catalog.pg_tablespace WHERE spcname IN ('pg_default', 'pg_global')";

/// A directory that was moved aside and is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub path: PathBuf,
    pub bytes: u64,
}

impl Server {
    /// Refuses when the data directory's disk has no room for `size` bytes more (unknown: for what a
    /// rewind needs at least). `replaced`: what lies there goes first, and counts as room.
    ///
    /// # Errors
    /// How much is missing, and what was moved aside and may go. A disk that cannot be asked is no
    /// reason to refuse.
    pub async fn has_room(&self, size: Option<u64>, replaced: bool) -> Result<(), String> {
        let server = self.clone();
        blocking(move || server.look_for_room(size, replaced)).await?
    }

    fn look_for_room(&self, size: Option<u64>, replaced: bool) -> Result<(), String> {
        let (free, compresses) = match self.free() {
            Ok(found) => found,
            Err(error) => {
                let dir = self.data_dir.display();
                tracing::warn!("could not ask how much room there is for {dir}: {error}");
                return Ok(());
            }
        };
        let needed = ROOM_MIN.saturating_add(size.filter(|_| !compresses).unwrap_or(0));
        if free >= needed {
            return Ok(());
        }
        let kept = self.set_aside_here();
        let room = free.saturating_add(if replaced { self.goes(&kept) } else { 0 });
        match room >= needed {
            true => Ok(()),
            false => Err(no_room(&self.data_dir, room, needed, &kept)),
        }
    }

    /// What is removed with the data directory: not what was set aside inside it.
    fn goes(&self, kept: &[Kept]) -> u64 {
        let inside = kept.iter().filter(|one| one.path.starts_with(&self.data_dir));
        let stays = inside.map(|one| one.bytes).sum();
        bytes_in(self.files(), &self.data_dir).saturating_sub(stays)
    }

    /// Free bytes for everybody on the disk of the data directory (of its parent, where it is
    /// absent), and whether that disk may compress.
    fn free(&self) -> io::Result<(u64, bool)> {
        let dir = self.data_dir.ancestors().find(|dir| self.files().exists(dir));
        let dir = dir.unwrap_or(Path::new("/"));
        self.files().at(dir, || {
            let (room, kind) = (statvfs(dir)?, statfs(dir)?);
            #[allow(clippy::unnecessary_cast)]
            let kind = kind.f_type as i64 & 0xffff_ffff;
            Ok((room.f_bavail.saturating_mul(room.f_frsize), COMPRESSING.contains(&kind)))
        })
    }

    /// What was moved aside, with its size; the largest first. Blocks.
    pub fn set_aside_here(&self) -> Vec<Kept> {
        let real = self.files().at(&self.data_dir, || fs::canonicalize(&self.data_dir));
        let real = real.unwrap_or_else(|_| self.data_dir.clone());
        let places = [real.clone(), real.join(super::removal::INSIDE).join("data")];
        let found = places.iter().flat_map(|place| self.kept_beside(place));
        let mut kept: Vec<Kept> =
            found.map(|path| Kept { bytes: bytes_in(self.files(), &path), path }).collect();
        kept.sort_by_key(|one| std::cmp::Reverse(one.bytes));
        kept
    }

    fn kept_beside(&self, place: &Path) -> Vec<PathBuf> {
        let Some((dir, name)) = place.parent().zip(place.file_name()) else { return Vec::new() };
        let name = name.to_string_lossy();
        let is_kept = |path: &PathBuf| {
            let found = path.file_name().unwrap_or_default().to_string_lossy();
            found.strip_prefix(name.as_ref()).is_some_and(is_suffix)
        };
        let entries = self.files().below(dir, || {
            Ok(fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
        });
        entries.unwrap_or_default().into_iter().filter(is_kept).collect()
    }
}

/// `.diverged`, `.diverged.2`, …
fn is_suffix(text: &str) -> bool {
    let mut parts = text.split('.');
    let (first, word, number) = (parts.next(), parts.next(), parts.next());
    let numbered = number.is_none_or(|number| number.parse::<u32>().is_ok());
    first == Some("")
        && word.is_some_and(|w| SUFFIXES.contains(&w))
        && numbered
        && parts.next().is_none()
}

fn no_room(dir: &Path, free: u64, needed: u64, kept: &[Kept]) -> String {
    let mb = |bytes: u64| bytes.div_ceil(MB);
    let listed = kept.iter().map(|one| format!("{} ({} MB)", one.path.display(), mb(one.bytes)));
    let listed: Vec<String> = listed.collect();
    let aside = match listed.as_slice() {
        [] => String::from("nothing was set aside here"),
        some => format!("what was set aside may go: {}", some.join(", ")),
    };
    format!(
        "{} has room for {} MB, and {} MB are needed: make room ({aside}); it goes on by itself \
         when there is",
        dir.display(),
        free / MB,
        mb(needed)
    )
}

/// Bytes of a server's own directories; nothing where it does not say.
pub async fn size_of(to: &Connection) -> Option<u64> {
    let ask = async {
        let session = Session::open(to, "Surus size").await.map_err(|refusal| refusal.text())?;
        session.value(SIZE).await
    };
    match tokio::time::timeout(SIZE_MAX, ask).await {
        Ok(Ok(size)) => size?.parse().ok(),
        Ok(Err(problem)) => {
            tracing::info!(problem, "the source does not say how large it is");
            None
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_may_go() {
        let one = Kept { path: PathBuf::from("/d/data.diverged"), bytes: 5 * MB - 1 };
        let said = no_room(Path::new("/d/data"), 3 * MB, 64 * MB, &[one]);
        assert_eq!(
            said,
            "/d/data has room for 3 MB, and 64 MB are needed: make room (what was set aside may go: \
             /d/data.diverged (5 MB)); it goes on by itself when there is"
        );
        let said = no_room(Path::new("/d/data"), 3 * MB, 64 * MB, &[]);
        assert!(said.contains("nothing was set aside here"), "{said}");
    }

    #[test]
    fn only_what_was_moved_aside_may_go() {
        for ours in [".diverged", ".failed.2", ".rewind.13", ".failed_bootstrap"] {
            assert!(is_suffix(ours), "{ours}");
        }
        for other in ["", ".old", ".diverged.bak", "2.diverged", ".failed.2.3", "diverged"] {
            assert!(!is_suffix(other), "{other}");
        }
    }
}
