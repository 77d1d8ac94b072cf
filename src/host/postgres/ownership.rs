//! What outside the data directory belongs to its cluster: pg_wal's target and tablespaces.
//!
//! Only names that PostgreSQL itself makes count as ours; whatever else lies there is left alone.
use std::fs;
use std::path::{Path, PathBuf};

use super::files::Files;

/// A symlink out of the data directory, and what of its target is this cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    pub link: PathBuf,
    /// The directory that the link names, canonical.
    pub target: PathBuf,
    /// The entries of `target` that are this cluster's.
    pub ours: Vec<PathBuf>,
    /// True for pg_wal, false for a tablespace.
    pub wal: bool,
}

/// All links of a data directory whose targets exist. `catalog_version` comes from pg_control;
/// without it the tablespace directories of this major version count. Blocks.
pub fn outside(
    files: Files<'_>,
    data_dir: &Path,
    catalog_version: Option<&str>,
) -> Result<Vec<Outside>, String> {
    let mut found = Vec::new();
    let wal = data_dir.join("pg_wal");
    if let Some(target) = linked(files, &wal) {
        let ours = entries_where(files, &target, is_wal_name)?;
        found.push(Outside { link: wal, target, ours, wal: true });
    }
    let major = files.read(&data_dir.join("PG_VERSION"))?.unwrap_or_default();
    let prefix = format!("PG_{}_{}", major.trim(), catalog_version.unwrap_or_default());
    let is_version_dir = |name: &str| match catalog_version {
        Some(_) => name == prefix,
        None => name.strip_prefix(&prefix).is_some_and(all_digits),
    };
    for link in entries_where(files, &data_dir.join("pg_tblspc"), all_digits)? {
        if let Some(target) = linked(files, &link) {
            let ours = entries_where(files, &target, is_version_dir)?;
            found.push(Outside { link, target, ours, wal: false });
        }
    }
    Ok(found)
}

fn linked(files: Files<'_>, link: &Path) -> Option<PathBuf> {
    let target = files.at(link, || {
        let is_link = fs::symlink_metadata(link)?.is_symlink();
        let target = fs::canonicalize(link)?;
        Ok(Some(target).filter(|target| is_link && target.is_dir()))
    });
    target.ok().flatten()
}

fn entries_where(
    files: Files<'_>,
    dir: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>, String> {
    let all = files.entries(dir)?;
    let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
    Ok(all.into_iter().filter(|path| name(path).is_some_and(|name| wanted(&name))).collect())
}

fn all_digits(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_wal_name(name: &str) -> bool {
    if matches!(name, "archive_status" | "summaries") || name.starts_with("xlogtemp.") {
        return true;
    }
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    match name.split_once('.') {
        None => hex(name, 24),
        Some((head, "history")) => hex(head, 8),
        Some((head, "partial")) => hex(head, 24),
        Some((head, tail)) => hex(head, 24) && tail.ends_with(".backup"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_names_of_wal() {
        for name in [
            "000000010000000000000002",
            "00000002.history",
            "000000010000000000000003.partial",
            "000000010000000000000002.00000028.backup",
            "archive_status",
        ] {
            assert!(is_wal_name(name), "{name}");
        }
        for name in ["000000010000000000000002.gz", "notes.txt", "0000000", "PG_VERSION"] {
            assert!(!is_wal_name(name), "{name}");
        }
    }

    #[test]
    fn a_tablespace_of_another_version_is_not_ours() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (data, space) = (dir.path().join("data"), dir.path().join("space"));
        fs::create_dir_all(data.join("pg_tblspc")).expect("mkdir");
        fs::write(data.join("PG_VERSION"), "15\n").expect("write");
        for name in ["PG_15_202209061", "PG_14_202107181", "mine"] {
            fs::create_dir_all(space.join(name)).expect("mkdir");
        }
        std::os::unix::fs::symlink(&space, data.join("pg_tblspc/16400")).expect("symlink");
        for catalog in [Some("202209061"), None] {
            let found = outside(Files::of(None), &data, catalog).expect("readable");
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].ours.len(), 1);
            assert!(found[0].ours[0].ends_with("PG_15_202209061"));
        }
    }
}
