//! Filling the data directory with a copy, and judging what was copied.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::aside::make_data_dir;
use super::create::option_name;
use super::inspect::{entries, is_empty, read_optional};
use super::processes::blocking;
use super::program::{Output, Stream};
use super::{Server, TOOL_TIMEOUT};
use crate::pure::postgres::progress;

/// Where to copy from.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    /// libpq keyword/value text without a password.
    pub conninfo: String,
    /// Passfile lines with the password; empty where none is needed.
    pub passfile: String,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    pub bytes_done: u64,
    /// Zero when unknown.
    pub bytes_total: u64,
    /// Average since the first byte.
    pub bytes_per_second: u64,
}

/// Hears how far a copy is, about once a second.
pub type OnProgress<'a> = &'a mut (dyn FnMut(CopyProgress) + Send);

/// Options that we set ourselves or that would not leave a data directory behind.
const FORBIDDEN: [&str; 12] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
    "target",
];

/// A directory that is being filled: the data directory, or one inside it when there is
/// something in the data directory that does not count but that tools stumble over.
pub struct Filling {
    pub path: PathBuf,
    staged: bool,
}

const STAGING: &str = ".surus-copy";

impl Server {
    /// pg_basebackup into the empty data directory. Unknown options are refused before anything
    /// is touched; until the end the directory counts as unfinished.
    pub async fn basebackup(
        &self,
        from: &Remote,
        options: &[String],
        on_progress: OnProgress<'_>,
    ) -> Result<(), String> {
        let options = self.basebackup_options(options).await?;
        self.write_passfile(&from.passfile).await?;
        let target = self.begin_fill("basebackup", false).await?;
        let mut program = self
            .tool("pg_basebackup")
            .arg(format!("--pgdata={}", target.path.display()))
            .args(["--wal-method=stream", "--no-password", "--progress"])
            .arg(format!("--dbname={}", from.conninfo))
            .args(options);
        if let Some((name, path)) = self.passfile_env(&from.passfile) {
            program = program.env(name, path);
        }
        let mut meter = Meter::default();
        program
            .run_with(&mut |stream, line| match progress::parse(line) {
                Some(seen) if stream == Stream::Stderr => {
                    on_progress(meter.read(seen));
                    false
                }
                _ => true,
            })
            .await?;
        self.end_fill(target).await
    }

    async fn basebackup_options(&self, options: &[String]) -> Result<Vec<String>, String> {
        let known = self.options_of("pg_basebackup").await?;
        let mut wanted = Vec::new();
        for option in options {
            let name = option_name(option);
            if FORBIDDEN.contains(&name) {
                tracing::error!("postgresql.basebackup: `--{name}` is set by Surus and left out");
            } else if known.contains(name) {
                wanted.push(option.clone());
            } else {
                return Err(format!(
                    "postgresql.basebackup: pg_basebackup knows no `--{name}`: remove it"
                ));
            }
        }
        let set = |name: &str| wanted.iter().any(|option| option_name(option) == name);
        if !set("checkpoint") {
            wanted.push("--checkpoint=fast".into());
        }
        Ok(wanted)
    }

    /// Long options that a tool's `--help` lists.
    pub async fn options_of(&self, tool: &str) -> Result<BTreeSet<String>, String> {
        let output = self.tool(tool).arg("--help").timeout(TOOL_TIMEOUT).run().await?;
        Ok(long_options(&output.stdout))
    }

    /// Runs a replica method of the user's; what it made is judged by [`Server::verify_copy`].
    pub async fn run_method(
        &self,
        command: &str,
        arguments: Vec<String>,
        from: &Remote,
        name: &str,
        keep_data: bool,
    ) -> Result<Output, String> {
        self.write_passfile(&from.passfile).await?;
        let mut program = self.script(command)?.args(arguments);
        if let Some((name, path)) = self.passfile_env(&from.passfile) {
            program = program.env(name, path);
        }
        let target = self.begin_fill(name, true).await?;
        if !keep_data && !self.is_empty_now().await? {
            return Err(format!("{} is not empty", self.data_dir.display()));
        }
        let output = program.run().await?;
        self.end_fill(target).await?;
        Ok(output)
    }

    async fn is_empty_now(&self) -> Result<bool, String> {
        let dir = self.data_dir.clone();
        blocking(move || is_empty(&dir)).await?
    }

    /// Is what lies here a cluster, of the binaries' version, and of this system identifier?
    /// Answers its system identifier.
    pub async fn verify_copy(&self, system_identifier: Option<&str>) -> Result<String, String> {
        let major = self.major().await?;
        let path = self.data_dir.join("PG_VERSION");
        let version = blocking(move || read_optional(&path)).await??.unwrap_or_default();
        if version.trim() != major.to_string() {
            return Err(format!(
                "the copy's PG_VERSION is `{}`, the binaries are {major}",
                version.trim()
            ));
        }
        let control = self.control().await?;
        match system_identifier {
            Some(wanted) if wanted != control.system_identifier => Err(format!(
                "the copy is of cluster {}, this one is {wanted}: correct the source",
                control.system_identifier
            )),
            _ => Ok(control.system_identifier),
        }
    }

    /// Marks the directory unfinished and hands out a directory that a tool finds empty.
    /// `in_place`: a script that was told the data directory's name fills that one.
    pub async fn begin_fill(&self, work: &str, in_place: bool) -> Result<Filling, String> {
        let (server, work) = (self.clone(), work.to_owned());
        blocking(move || server.begin_fill_blocking(&work, in_place)).await?
    }

    fn begin_fill_blocking(&self, work: &str, in_place: bool) -> Result<Filling, String> {
        if let Some(pid) = self.presence().postmaster {
            return Err(format!("PostgreSQL runs as process {pid}: stop it before copying"));
        }
        if !in_place && !is_empty(&self.data_dir)? {
            return Err(format!("{} is not empty", self.data_dir.display()));
        }
        let owner = self.run_as.as_ref();
        self.mark_unfinished(work)?;
        make_data_dir(&self.data_dir, owner)?;
        let hidden = std::fs::read_dir(&self.data_dir).is_ok_and(|mut all| all.next().is_some());
        if in_place || !hidden {
            return Ok(Filling { path: self.data_dir.clone(), staged: false });
        }
        let path = self.data_dir.join(STAGING);
        if path.exists() {
            std::fs::remove_dir_all(&path)
                .map_err(|error| format!("could not remove {}: {error}", path.display()))?;
        }
        make_data_dir(&path, owner)?;
        Ok(Filling { path, staged: true })
    }

    /// The fill is complete: everything is in its place and on disk, the mark goes.
    pub async fn end_fill(&self, filling: Filling) -> Result<(), String> {
        let server = self.clone();
        blocking(move || {
            if filling.staged {
                move_up(&filling.path, &server.data_dir)?;
            }
            server.mark_finished()
        })
        .await?
    }
}

fn move_up(from: &Path, to: &Path) -> Result<(), String> {
    for path in entries(from)? {
        let name = path.file_name().unwrap_or_default();
        std::fs::rename(&path, to.join(name))
            .map_err(|error| format!("could not move {}: {error}", path.display()))?;
    }
    std::fs::remove_dir_all(from)
        .map_err(|error| format!("could not remove {}: {error}", from.display()))?;
    super::conf_files::sync_dir(to)
}

fn long_options(help: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    help.split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.chars().take_while(|c| is_name(*c)).collect())
        .collect()
}

/// Bytes per second since the first line.
#[derive(Default)]
struct Meter {
    begun: Option<(Instant, u64)>,
}

impl Meter {
    fn read(&mut self, seen: progress::Progress) -> CopyProgress {
        let (begun, first) = *self.begun.get_or_insert((Instant::now(), seen.bytes_done));
        let millis = begun.elapsed().as_millis() as u64;
        let bytes = seen.bytes_done.saturating_sub(first);
        CopyProgress {
            bytes_done: seen.bytes_done,
            bytes_total: seen.bytes_total.max(seen.bytes_done),
            bytes_per_second: bytes.saturating_mul(1000).checked_div(millis).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_long_options_in_help() {
        let help = "  -D, --pgdata=DIRECTORY receive\n      --no-slot   x\n  -w, --no-password   y";
        let options = long_options(help);
        assert!(options.contains("pgdata") && options.contains("no-slot"));
        assert!(options.contains("no-password") && !options.contains("slot"));
    }
}
