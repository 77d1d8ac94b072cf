//! Where PostgreSQL's programs are.
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, access};

use super::config::data_version;
use crate::pure::config::Postgresql;
use crate::pure::postgres::version::Version;

/// What Surus cannot do without; pg_rewind is asked for when it is needed.
pub const PROGRAMS: [&str; 6] =
    ["postgres", "pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "pg_isready"];

/// Distributions' usual places; `*` stands for a version.
const USUAL: [&str; 3] = ["/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin"];

/// The directory whose programs serve `postgresql`: its bin_dir, else the newest found in PATH or
/// in the usual places; if the data directory exists, the newest of its major version. The error
/// says what is missing and where we looked.
pub fn find_bin_dir(postgresql: &Postgresql) -> Result<PathBuf, String> {
    let dir = select_bin_dir(postgresql)?;
    let missing = missing_programs(&dir);
    if missing.is_empty() {
        return Ok(dir);
    }
    Err(format!("`{}` has no {}; install them there", dir.display(), missing.join(", ")))
}

/// As [`find_bin_dir`], without a look at a bin_dir that was given.
pub(super) fn select_bin_dir(postgresql: &Postgresql) -> Result<PathBuf, String> {
    if let Some(dir) = &postgresql.bin_dir {
        return Ok(dir.clone());
    }
    let wanted = data_version(&postgresql.data_dir).map(Version::major);
    let found = candidates().into_iter().filter(|dir| missing_programs(dir).is_empty());
    let versions = found.filter_map(|dir| Some((program_version(&dir)?, dir)));
    let fitting = versions.filter(|(version, _)| wanted.is_none_or(|w| version.major() == w));
    // The first of equals: PATH is searched before the usual places.
    let newest = fitting.reduce(|best, next| if next.0 > best.0 { next } else { best });
    newest.map(|(_, dir)| dir).ok_or_else(|| {
        let version = wanted.map(|major| format!(" of version {major}")).unwrap_or_default();
        format!(
            "no PostgreSQL{version} with {} was found in PATH, {}; install it or set bin_dir",
            PROGRAMS.join(", "),
            USUAL.join(", ")
        )
    })
}

/// Those of the programs that `dir` lacks or does not let us run.
pub(super) fn missing_programs(dir: &Path) -> Vec<&'static str> {
    let runs = |program: &str| {
        let path = dir.join(program);
        path.is_file() && access(&path, Access::EXEC_OK).is_ok()
    };
    PROGRAMS.into_iter().filter(|program| !runs(program)).collect()
}

/// The version of the server in `dir`, as it says itself.
pub fn program_version(dir: &Path) -> Option<Version> {
    let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    Version::of_program(&String::from_utf8_lossy(&output.stdout))
}

/// The parameters of a configuration file that the server in `dir` refuses, each with the reason;
/// empty when it would start with them. Names it does not know come first, all at once; only when
/// there are none does it look at values.
pub fn refused_parameters(dir: &Path, file: &Path) -> std::io::Result<Vec<(String, String)>> {
    let output = Command::new(dir.join("postgres"))
        // Asking for a parameter is all that root may do, and starts nothing.
        .args(["-C", "port", "-D", "/", "-c"])
        .arg(format!("config_file={}", file.display()))
        .env("LC_ALL", "C")
        .output()?;
    if output.status.success() { Ok(Vec::new()) } else { Ok(refusals(&output.stderr)) }
}

pub(super) fn refusals(answer: &[u8]) -> Vec<(String, String)> {
    let answer = String::from_utf8_lossy(answer).into_owned();
    let reasons = answer.lines().filter_map(|line| line.split_once("LOG:").map(|(_, r)| r.trim()));
    let named = reasons.filter_map(|reason| {
        let (_, rest) = reason.split_once("parameter \"")?;
        Some((rest.split_once('"')?.0.to_string(), reason.to_string()))
    });
    named.collect()
}

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(USUAL.iter().flat_map(|pattern| expand(pattern)));
    dirs
}

/// Directories that fit a pattern with one `*`.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.into()] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let fitting = names.filter(|name| name.starts_with(prefix));
    fitting.map(|name| PathBuf::from(format!("{parent}/{name}{after}"))).collect()
}
