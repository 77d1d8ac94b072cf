//! Emptying the data directory: by removing what is the cluster's, or by moving it aside.
//!
//! A symlinked data directory and a mount point stay what they are. Nothing that PostgreSQL did
//! not make is removed, and nothing that was moved aside earlier is overwritten.
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use super::Server;
use super::account::Account;
use super::files::Files;
use super::ownership::{Outside, outside};
use super::processes::blocking;

/// The mark of a move that was begun: followed by where to.
const MOVING: &str = "move-aside ";
/// Where things go when nothing can be put beside a directory; a dot-name, so it does not count.
pub(super) const INSIDE: &str = ".surus-aside";

impl Server {
    /// Removes the cluster: tablespaces and WAL outside, then the data directory's content.
    ///
    /// Refuses while anybody lives there, and where it is neither a cluster nor an unfinished
    /// copy. A move aside that was interrupted is finished, not undone by removal.
    pub async fn clear_data_directory(&self) -> Result<(), String> {
        let catalog = self.catalog_version().await;
        let server = self.clone();
        blocking(move || server.clear(catalog.as_deref())).await?
    }

    /// Moves the cluster to `<data_dir>.<suffix>` (or a numbered one), with its WAL directory and
    /// tablespaces; answers where it is now. The data directory is then there and empty.
    pub async fn move_aside(&self, suffix: &str) -> Result<PathBuf, String> {
        let catalog = self.catalog_version().await;
        let (server, suffix) = (self.clone(), suffix.to_owned());
        blocking(move || server.set_aside(&suffix, catalog.as_deref())).await?
    }

    /// How many were moved aside under this suffix and are still there.
    pub fn kept_aside(&self, suffix: &str) -> usize {
        let Some((dir, name)) = self.data_dir.parent().zip(self.data_dir.file_name()) else {
            return 0;
        };
        let wanted = format!("{}.{suffix}", name.to_string_lossy());
        let is_kept = |name: &OsString| name.to_string_lossy().starts_with(&wanted);
        let names = self.files().below(dir, || {
            let names = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name());
            Ok(names.filter(is_kept).count())
        });
        names.unwrap_or(0)
    }

    async fn catalog_version(&self) -> Option<String> {
        self.control().await.ok().map(|control| control.catalog_version)
    }

    fn clear(&self, catalog: Option<&str>) -> Result<(), String> {
        self.refuse_inhabited()?;
        let files = self.files();
        if files.is_empty(&self.data_dir)? {
            return self.mark_finished();
        }
        let unfinished = self.unfinished()?;
        if let Some(target) = unfinished.as_deref().and_then(|text| text.strip_prefix(MOVING)) {
            return self.move_contents(Path::new(target));
        }
        let is_cluster = ["PG_VERSION", "global/pg_control"]
            .iter()
            .any(|name| files.exists(&self.data_dir.join(name)));
        if unfinished.is_none() && !is_cluster {
            return Err(format!(
                "{} holds files that are not PostgreSQL's: move them away or correct data_dir",
                self.data_dir.display()
            ));
        }
        self.mark_unfinished("clear")?;
        for outside in outside(files, &self.data_dir, catalog)? {
            outside.ours.iter().try_for_each(|path| remove(files, path))?;
        }
        for path in files.entries(&self.data_dir)? {
            remove(files, &path)?;
        }
        files.sync_dir(&self.data_dir)?;
        self.mark_finished()
    }

    fn set_aside(&self, suffix: &str, catalog: Option<&str>) -> Result<PathBuf, String> {
        self.refuse_inhabited()?;
        let begun = self.unfinished()?;
        if let Some(target) = begun.as_deref().and_then(|text| text.strip_prefix(MOVING)) {
            let target = PathBuf::from(target);
            self.move_contents(&target)?;
            return Ok(target);
        }
        let files = self.files();
        let real = files
            .at(&self.data_dir, || fs::canonicalize(&self.data_dir))
            .map_err(|error| format!("could not read {}: {error}", self.data_dir.display()))?;
        // Links first: at every moment until the last rename, this is a whole cluster.
        for outside in outside(files, &self.data_dir, catalog)? {
            move_outside(files, &outside, suffix)?;
        }
        let beside = free_name(&real, suffix);
        if files.at(&real, || fs::rename(&real, &beside)).is_ok() {
            same_dir_again(files, &beside, &real)?;
            self.mark_finished()?;
            return Ok(beside);
        }
        let target = room_for(files, &real, suffix)?;
        self.mark_unfinished(&format!("{MOVING}{}", target.display()))?;
        self.move_contents(&target)?;
        Ok(target)
    }

    fn move_contents(&self, target: &Path) -> Result<(), String> {
        let files = self.files();
        move_entries(files, &files.entries(&self.data_dir)?, target)?;
        files.sync_dir(target)?;
        files.sync_dir(&self.data_dir)?;
        self.mark_finished()
    }

    fn refuse_inhabited(&self) -> Result<(), String> {
        let presence = self.presence()?;
        match presence.postmaster.or_else(|| presence.others.first().copied()) {
            Some(pid) => Err(format!(
                "process {pid} of PostgreSQL lives in {}: stop it first",
                self.data_dir.display()
            )),
            None => Ok(()),
        }
    }
}

fn move_outside(files: Files<'_>, outside: &Outside, suffix: &str) -> Result<(), String> {
    if outside.ours.is_empty() {
        return Ok(());
    }
    let target = room_for(files, &outside.target, suffix)?;
    move_entries(files, &outside.ours, &target)?;
    point(files, &outside.link, &target)
}

/// Makes a directory that entries of `dir` can be renamed into: beside it, else inside.
fn room_for(files: Files<'_>, dir: &Path, suffix: &str) -> Result<PathBuf, String> {
    let beside = free_name(dir, suffix);
    if make_like(files, dir, &beside).is_ok() {
        if same_device(dir, &beside) {
            return Ok(beside);
        }
        let _ = files.at(&beside, || fs::remove_dir(&beside));
    }
    let inside = dir.join(INSIDE);
    let made = if inside.is_dir() { Ok(()) } else { make_like(files, dir, &inside) };
    let target = free_name(&inside.join("data"), suffix);
    made.and_then(|()| make_like(files, dir, &target))
        .map_err(|error| format!("could not make room in {}: {error}", dir.display()))?;
    Ok(target)
}

fn same_device(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    device(one).is_some() && device(one) == device(other)
}

/// `<dir>.<suffix>`, numbered where that exists.
fn free_name(dir: &Path, suffix: &str) -> PathBuf {
    let name = |number: u32| match number {
        1 => super::processes::beside(dir, &format!(".{suffix}")),
        more => super::processes::beside(dir, &format!(".{suffix}.{more}")),
    };
    let mut number = 1;
    while fs::symlink_metadata(name(number)).is_ok() {
        number += 1;
    }
    name(number)
}

fn move_entries(files: Files<'_>, paths: &[PathBuf], target: &Path) -> Result<(), String> {
    for path in paths {
        let to = target.join(path.file_name().unwrap_or_default());
        files.at(path, || fs::rename(path, &to)).map_err(|error| {
            format!("could not move {} to {}: {error}", path.display(), to.display())
        })?;
    }
    Ok(())
}

/// Lets a link name another target, at no moment absent.
fn point(files: Files<'_>, link: &Path, target: &Path) -> Result<(), String> {
    let draft = super::processes::beside(link, &format!(".surus-{}", std::process::id()));
    let pointed = files.at(link, || {
        let _ = fs::remove_file(&draft);
        std::os::unix::fs::symlink(target, &draft)?;
        let (had, has) = (fs::symlink_metadata(link)?, fs::symlink_metadata(&draft)?);
        if (had.uid(), had.gid()) != (has.uid(), has.gid()) {
            std::os::unix::fs::lchown(&draft, Some(had.uid()), Some(had.gid()))?;
        }
        fs::rename(&draft, link)
    });
    pointed.map_err(|error| format!("could not point {} elsewhere: {error}", link.display()))
}

/// A new directory with the owner and mode of `model`.
fn make_like(files: Files<'_>, model: &Path, new: &Path) -> io::Result<()> {
    let meta = files.at(model, || fs::metadata(model))?;
    files.at(new, || {
        fs::create_dir(new)?;
        let made = fs::metadata(new)?;
        if (made.uid(), made.gid()) != (meta.uid(), meta.gid()) {
            std::os::unix::fs::chown(new, Some(meta.uid()), Some(meta.gid()))?;
        }
        fs::set_permissions(new, Permissions::from_mode(meta.mode() & 0o7777))
    })
}

fn same_dir_again(files: Files<'_>, model: &Path, dir: &Path) -> Result<(), String> {
    make_like(files, model, dir)
        .map_err(|error| format!("could not make {}: {error}", dir.display()))?;
    dir.parent().map_or(Ok(()), |parent| files.sync_dir(parent))
}

fn remove(files: Files<'_>, path: &Path) -> Result<(), String> {
    let removed = files.at(path, || match fs::symlink_metadata(path)?.is_dir() {
        true => files.below(path, || fs::remove_dir_all(path)),
        false => fs::remove_file(path),
    });
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("could not remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The data directory, its account's and closed to others, created where it is absent. The group
/// may read it where `initdb --allow-group-access` let it. Blocks.
pub fn make_data_dir(dir: &Path, owner: Option<&Account>) -> Result<(), String> {
    let wrong = |error: io::Error| format!("could not make {}: {error}", dir.display());
    let files = Files::of(owner);
    if !files.at(dir, || fs::metadata(dir)).is_ok_and(|meta| meta.is_dir()) {
        let make = || {
            fs::create_dir_all(dir)?;
            fs::set_permissions(dir, Permissions::from_mode(0o700))
        };
        files.at(dir, make).map_err(wrong)?;
    }
    let meta = files.at(dir, || fs::metadata(dir)).map_err(wrong)?;
    if let Some(account) = owner.filter(|account| meta.uid() != account.uid) {
        give_away(files, dir, account)?;
    }
    if meta.mode() & 0o027 != 0 {
        let close = || fs::set_permissions(dir, Permissions::from_mode(0o700));
        files.at(dir, close).map_err(wrong)?;
    }
    Ok(())
}

/// An empty directory that root prepared, or a mount point. Where another account could have led us
/// by a link, root's directories stay root's (rule SEC-4): there no link is followed.
fn give_away(files: Files<'_>, dir: &Path, account: &Account) -> Result<(), String> {
    let shown = dir.display();
    if !files.is_empty(dir)? {
        return Err(format!(
            "{shown} is another account's directory and not empty: correct data_dir, or run \
             `chown -R {}` on it",
            account.name
        ));
    }
    let way =
        if files.may_give_away(dir) { ResolveFlags::empty() } else { ResolveFlags::NO_SYMLINKS };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let held = openat2(CWD, dir, flags, Mode::empty(), way).map_err(|error| {
        format!(
            "{shown} is another account's directory behind a symbolic link that not root alone can \
             change ({error}): correct it, or run `chown {}` on the directory",
            account.name
        )
    })?;
    std::os::unix::fs::fchown(held, Some(account.uid), Some(account.gid))
        .map_err(|error| format!("could not give {shown} to {}: {error}", account.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_one_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        assert_eq!(free_name(&data, "failed"), dir.path().join("data.failed"));
        fs::create_dir(dir.path().join("data.failed")).expect("mkdir");
        assert_eq!(free_name(&data, "failed"), dir.path().join("data.failed.2"));
    }

    #[test]
    fn links_are_pointed_elsewhere() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let link = dir.path().join("pg_wal");
        std::os::unix::fs::symlink("/nowhere", &link).expect("symlink");
        point(Files::of(None), &link, dir.path()).expect("pointed");
        assert_eq!(fs::read_link(&link).expect("a link"), dir.path());
    }
}
