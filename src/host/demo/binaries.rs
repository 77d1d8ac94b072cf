//! Where PostgreSQL's server programs are, and which version they are.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Versions that Surus manages.
pub const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// All of these must be there.
const PROGRAMS: [&str; 6] =
    ["initdb", "postgres", "pg_ctl", "pg_controldata", "pg_basebackup", "pg_rewind"];

/// A directory with a complete set of programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
}

/// In `wanted` only, if given; else PATH, then the distributions' places, newest version first.
pub fn find(wanted: Option<&Path>) -> Result<Binaries> {
    if let Some(dir) = wanted {
        return look(dir).with_context(|| format!("--bin-dir {} cannot be used", dir.display()));
    }
    if let Some(found) = path_directories().iter().find_map(|dir| look(dir).ok()) {
        return Ok(found);
    }
    usual_directories().iter().filter_map(|dir| look(dir).ok()).max_by_key(|b| b.major).context(
        "no PostgreSQL server programs (version 13 to 18) in PATH, /usr/lib/postgresql/*/bin, \
         /usr/pgsql-*/bin or /usr/local/pgsql/bin; install them (scripts/install-postgresql does \
         on Debian and Ubuntu) or name their directory with --bin-dir",
    )
}

fn look(dir: &Path) -> Result<Binaries> {
    let dir = dir.canonicalize()?;
    if let Some(missing) = PROGRAMS.iter().find(|name| !dir.join(name).is_file()) {
        bail!("there is no {missing} in it");
    }
    let output = Command::new(dir.join("postgres")).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let major = major(&text).with_context(|| format!("`postgres --version` says {text:?}"))?;
    if !MAJORS.contains(&major) {
        bail!("it holds PostgreSQL {major}, Surus manages 13 to 18");
    }
    Ok(Binaries { dir, major })
}

fn path_directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).map(|dir| dir.join("postgres"));
    // A link in PATH leads to the directory where its companions are.
    programs
        .filter_map(|program| program.canonicalize().ok())
        .filter_map(|program| program.parent().map(Path::to_path_buf))
        .collect()
}

fn usual_directories() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/usr/local/pgsql/bin")];
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let versions = entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
        found.extend(versions.map(|e| e.path().join("bin")));
    }
    found
}

/// `postgres (PostgreSQL) 15.18 (Debian …)`, also betas: `18beta1`.
fn major(version_output: &str) -> Option<u32> {
    let rest = version_output.split("(PostgreSQL)").nth(1)?.trim_start();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn a_directory_without_programs_is_refused_by_name() {
        let empty = tempfile::tempdir().expect("a temporary directory");
        let error = format!("{:#}", find(Some(empty.path())).expect_err("there is nothing in it"));
        assert!(error.contains("there is no initdb in it"), "{error}");
    }
}
