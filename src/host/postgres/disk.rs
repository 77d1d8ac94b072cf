//! How much of a data directory is on the disk.
use std::fs;
use std::path::{Path, PathBuf};

use super::files::Files;

/// Bytes in all files below `dir`; links to directories are followed where PostgreSQL has them:
/// pg_wal and the tablespaces. What cannot be read counts as nothing. Blocks.
pub fn bytes_in(files: Files<'_>, dir: &Path) -> u64 {
    files.below(dir, || Ok(weigh(dir))).unwrap_or(0)
}

fn weigh(dir: &Path) -> u64 {
    let mut bytes = 0;
    let mut left: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let spaces = dir.ends_with("pg_tblspc");
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let outside = spaces || entry.file_name() == "pg_wal";
            let meta = if outside { fs::metadata(&path) } else { entry.metadata() };
            match meta {
                Ok(meta) if meta.is_dir() => left.push(path),
                Ok(meta) if meta.is_file() => bytes += meta.len(),
                _ => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_postgresql_are_followed_and_no_others() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (data, wal, space) =
            (dir.path().join("data"), dir.path().join("wal"), dir.path().join("space"));
        for one in [&data.join("base"), &data.join("pg_tblspc"), &wal, &space] {
            fs::create_dir_all(one).expect("mkdir");
        }
        fs::write(data.join("base/1"), "12345").expect("write");
        fs::write(wal.join("1"), "123").expect("write");
        fs::write(space.join("1"), "1234567").expect("write");
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, data.join(name)).expect("symlink");
        };
        link(&wal, "pg_wal");
        link(&space, "pg_tblspc/16400");
        assert_eq!(weigh(&data), 15);
        link(dir.path(), "up");
        assert_eq!(weigh(&data), 15, "a link of the user's is not followed");
        assert_eq!(weigh(&dir.path().join("absent")), 0);
    }
}
