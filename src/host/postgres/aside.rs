//! Emptying the data directory: by removing what is the cluster's, or by moving it aside.
//!
//! A symlinked data directory and a mount point stay what they are. Nothing that PostgreSQL did
//! not make is removed, and nothing that was moved aside earlier is overwritten.
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Server;
use super::account::Account;
use super::conf_files::sync_dir;
use super::inspect::{entries, is_empty};
use super::ownership::{Outside, outside};
use super::processes::blocking;

/// The mark of a move that was begun: followed by where to.
const MOVING: &str = "move-aside ";
/// Where things go when nothing can be put beside a directory; a dot-name, so it does not count.
const INSIDE: &str = ".surus-aside";

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
        let found = fs::read_dir(dir).into_iter().flatten().flatten();
        found.filter(|entry| entry.file_name().to_string_lossy().starts_with(&wanted)).count()
    }

    async fn catalog_version(&self) -> Option<String> {
        self.control().await.ok().map(|control| control.catalog_version)
    }

    fn clear(&self, catalog: Option<&str>) -> Result<(), String> {
        self.refuse_inhabited()?;
        if is_empty(&self.data_dir)? {
            return self.mark_finished();
        }
        let unfinished = self.unfinished()?;
        if let Some(target) = unfinished.as_deref().and_then(|text| text.strip_prefix(MOVING)) {
            return self.move_contents(Path::new(target));
        }
        let is_cluster = ["PG_VERSION", "global/pg_control"]
            .iter()
            .any(|name| self.data_dir.join(name).exists());
        if unfinished.is_none() && !is_cluster {
            return Err(format!(
                "{} holds files that are not PostgreSQL's: move them away or correct data_dir",
                self.data_dir.display()
            ));
        }
        self.mark_unfinished("clear")?;
        for outside in outside(&self.data_dir, catalog)? {
            outside.ours.iter().try_for_each(|path| remove(path))?;
        }
        for path in entries(&self.data_dir)? {
            remove(&path)?;
        }
        sync_dir(&self.data_dir)?;
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
        let real = fs::canonicalize(&self.data_dir)
            .map_err(|error| format!("could not read {}: {error}", self.data_dir.display()))?;
        // Links first: at every moment until the last rename, this is a whole cluster.
        for outside in outside(&self.data_dir, catalog)? {
            move_outside(&outside, suffix)?;
        }
        let beside = free_name(&real, suffix);
        if fs::rename(&real, &beside).is_ok() {
            same_dir_again(&beside, &real)?;
            self.mark_finished()?;
            return Ok(beside);
        }
        let target = room_for(&real, suffix)?;
        self.mark_unfinished(&format!("{MOVING}{}", target.display()))?;
        self.move_contents(&target)?;
        Ok(target)
    }

    fn move_contents(&self, target: &Path) -> Result<(), String> {
        move_entries(&entries(&self.data_dir)?, target)?;
        sync_dir(target)?;
        sync_dir(&self.data_dir)?;
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

fn move_outside(outside: &Outside, suffix: &str) -> Result<(), String> {
    if outside.ours.is_empty() {
        return Ok(());
    }
    let target = room_for(&outside.target, suffix)?;
    move_entries(&outside.ours, &target)?;
    point(&outside.link, &target)
}

/// Makes a directory that entries of `dir` can be renamed into: beside it, else inside.
fn room_for(dir: &Path, suffix: &str) -> Result<PathBuf, String> {
    let beside = free_name(dir, suffix);
    if make_like(dir, &beside).is_ok() {
        if same_device(dir, &beside) {
            return Ok(beside);
        }
        let _ = fs::remove_dir(&beside);
    }
    let inside = dir.join(INSIDE);
    let made = if inside.is_dir() { Ok(()) } else { make_like(dir, &inside) };
    let target = free_name(&inside.join("data"), suffix);
    made.and_then(|()| make_like(dir, &target))
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

fn move_entries(paths: &[PathBuf], target: &Path) -> Result<(), String> {
    for path in paths {
        let to = target.join(path.file_name().unwrap_or_default());
        fs::rename(path, &to).map_err(|error| {
            format!("could not move {} to {}: {error}", path.display(), to.display())
        })?;
    }
    Ok(())
}

/// Lets a link name another target, at no moment absent.
fn point(link: &Path, target: &Path) -> Result<(), String> {
    let draft = super::processes::beside(link, ".surus-new");
    let _ = fs::remove_file(&draft);
    std::os::unix::fs::symlink(target, &draft)
        .and_then(|()| match fs::symlink_metadata(link) {
            Ok(meta) => std::os::unix::fs::lchown(&draft, Some(meta.uid()), Some(meta.gid())),
            Err(error) => Err(error),
        })
        .and_then(|()| fs::rename(&draft, link))
        .map_err(|error| format!("could not point {} elsewhere: {error}", link.display()))
}

/// A new directory with the owner and mode of `model`.
fn make_like(model: &Path, new: &Path) -> io::Result<()> {
    let meta = fs::metadata(model)?;
    fs::create_dir(new)?;
    fs::set_permissions(new, Permissions::from_mode(meta.mode() & 0o7777))?;
    let ours = rustix::process::geteuid().as_raw() == meta.uid();
    if ours { Ok(()) } else { std::os::unix::fs::chown(new, Some(meta.uid()), Some(meta.gid())) }
}

fn same_dir_again(model: &Path, dir: &Path) -> Result<(), String> {
    make_like(model, dir).map_err(|error| format!("could not make {}: {error}", dir.display()))?;
    dir.parent().map_or(Ok(()), sync_dir)
}

fn remove(path: &Path) -> Result<(), String> {
    let meta = fs::symlink_metadata(path);
    let removed = match meta {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("could not remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The data directory, 0700 and its account's, created where it is absent. Blocks.
pub fn make_data_dir(dir: &Path, owner: Option<&Account>) -> Result<(), String> {
    let wrong = |error: io::Error| format!("could not make {}: {error}", dir.display());
    if !dir.is_dir() {
        fs::create_dir_all(dir).map_err(wrong)?;
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(wrong)?;
    }
    let meta = fs::metadata(dir).map_err(wrong)?;
    if let Some(account) = owner
        && meta.uid() != account.uid
    {
        std::os::unix::fs::chown(dir, Some(account.uid), Some(account.gid)).map_err(wrong)?;
    }
    if meta.mode() & 0o027 != 0 {
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(wrong)?;
    }
    Ok(())
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
        point(&link, dir.path()).expect("pointed");
        assert_eq!(fs::read_link(&link).expect("a link"), dir.path());
    }
}
