//! Filling the data directory with a copy, and judging what was copied.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::create::option_name;
use super::files::Files;
use super::inspect::Presence;
use super::processes::blocking;
use super::program::{Output, Stream};
use super::removal::make_data_dir;
use super::{Server, TOOL_TIMEOUT};
use crate::pure::config::option::BASEBACKUP_FORBIDDEN;
use crate::pure::postgres::control::Control;
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

/// What is heard of a copy while it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// How far it is, about once a second.
    Bytes(CopyProgress),
    /// What the program said, line by line.
    Said(String),
}

pub type OnNews<'a> = &'a mut (dyn FnMut(News) + Send);

/// One call of a replica method.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub name: &'a str,
    pub command: &'a str,
    pub arguments: Vec<String>,
    /// What lies in the data directory is the method's to use.
    pub keep_data: bool,
}

/// Written down of a copy that is complete, until a server was seen to run on it.
pub const COPIED: &str = "copied";
/// The same, and one did: the copy is whole, and its build is not over.
pub const STARTED: &str = "started";

/// A directory that is being filled: the data directory, or one inside it when there is
/// something in the data directory that does not count but that tools stumble over.
pub struct Filling {
    pub path: PathBuf,
    staged: bool,
}

const STAGING: &str = ".surus-copy";

impl Server {
    /// pg_basebackup into the empty data directory. Unknown options are refused before anything
    /// is touched; the copy counts as unfinished until a server runs on it.
    pub async fn basebackup(
        &self,
        from: &Remote,
        options: &[String],
        on_news: OnNews<'_>,
    ) -> Result<(), String> {
        let options = self.basebackup_options(options).await?;
        self.write_passfile(&from.passfile).await?;
        let target = self.begin_fill("basebackup").await?;
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
                    on_news(News::Bytes(meter.read(seen.bytes_done, seen.bytes_total)));
                    false
                }
                _ => {
                    on_news(News::Said(line.to_owned()));
                    true
                }
            })
            .await?;
        self.end_copy(target).await
    }

    /// Are these options that pg_basebackup here takes, and is there room for what they name?
    pub async fn check_basebackup(&self, options: &[String]) -> Result<(), String> {
        self.basebackup_options(options).await?;
        let waldir = options.iter().rev().find_map(|option| option.strip_prefix("--waldir="));
        let Some(waldir) = waldir.map(PathBuf::from) else { return Ok(()) };
        let server = self.clone();
        blocking(move || server.waldir_is_free(&waldir)).await?
    }

    /// Empty, absent, or holding nothing but the WAL of the directory that is to be replaced.
    fn waldir_is_free(&self, waldir: &Path) -> Result<(), String> {
        let held = self.files().entries(waldir)?;
        let real = self.files().at(waldir, || std::fs::canonicalize(waldir)).unwrap_or_default();
        let outside = super::ownership::outside(self.files(), &self.data_dir, None)?;
        let ours = outside.iter().find(|outside| outside.wal && outside.target == real);
        let strange = held.iter().find(|path| {
            let name = path.file_name().unwrap_or_default();
            !ours.is_some_and(|ours| ours.ours.iter().any(|own| own.file_name() == Some(name)))
        });
        match strange {
            None => Ok(()),
            Some(path) => Err(format!(
                "postgresql.basebackup: waldir {} is not empty (it holds {}): empty it, or name \
                 another directory",
                waldir.display(),
                path.file_name().unwrap_or_default().to_string_lossy()
            )),
        }
    }

    async fn basebackup_options(&self, options: &[String]) -> Result<Vec<String>, String> {
        let known = self.options_of("pg_basebackup").await?;
        let major = self.major().await?;
        let mut wanted = Vec::new();
        for option in options {
            let name = option_name(option);
            if BASEBACKUP_FORBIDDEN.contains(&name) {
                tracing::error!("postgresql.basebackup: `--{name}` is set by Surus and left out");
            } else if name == "compress" && !(major >= 15 && option.contains("=server")) {
                tracing::error!(
                    "postgresql.basebackup: `{option}` is left out: a data directory is compressed \
                     on its way only by the server (`compress: server-gzip`), from PostgreSQL 15 on"
                );
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
        call: &Call<'_>,
        from: &Remote,
        on_news: OnNews<'_>,
    ) -> Result<Output, String> {
        self.write_passfile(&from.passfile).await?;
        let mut program = self.script(call.command)?.args(call.arguments.clone());
        if let Some((name, path)) = self.passfile_env(&from.passfile) {
            program = program.env(name, path);
        }
        if !call.keep_data && !self.is_empty_now().await? {
            return Err(format!("{} is not empty", self.data_dir.display()));
        }
        let absent = self.data_dir_is_left_absent().await?;
        let target = self.begin_restore(call.name).await?;
        if call.keep_data {
            // Of a server that was killed; tools take it for a sign of life.
            let server = self.clone();
            blocking(move || server.remove_dead_lock()).await??;
        }
        let output = program
            .run_with(&mut |_, line| {
                on_news(News::Said(line.to_owned()));
                true
            })
            .await?;
        self.take_over_made(absent).await?;
        self.end_copy(target).await?;
        Ok(output)
    }

    /// A method makes the data directory itself where there is none; only where its account may not, we do.
    /// One that is there is given to the account, as for PostgreSQL.
    async fn data_dir_is_left_absent(&self) -> Result<bool, String> {
        let absent = !self.files().is_there(&self.data_dir)?;
        let parent = self.data_dir.parent().unwrap_or(Path::new("/"));
        if absent && self.may_write(parent).await {
            return Ok(true);
        }
        let server = self.clone();
        blocking(move || {
            server.refuse_running()?;
            make_data_dir(&server.data_dir, server.run_as.as_ref())
        })
        .await??;
        Ok(false)
    }

    /// With the owner and the mode that PostgreSQL demands, and at the place that was asked for.
    async fn take_over_made(&self, absent: bool) -> Result<(), String> {
        if absent && self.data_dir.is_symlink() {
            return Err(format!(
                "{} became a symbolic link: make the link before, so that Surus knows what it guards",
                self.data_dir.display()
            ));
        }
        let server = self.clone();
        blocking(move || match server.files().is_there(&server.data_dir)? {
            true => make_data_dir(&server.data_dir, server.run_as.as_ref()),
            false => Ok(()), // what it made is judged later
        })
        .await?
    }

    fn remove_dead_lock(&self) -> Result<(), String> {
        match self.presence()? {
            Presence { postmaster: None, others } if others.is_empty() => {
                self.files().remove(&self.data_dir.join("postmaster.pid"))
            }
            _ => Err(format!("PostgreSQL runs on {}", self.data_dir.display())),
        }
    }

    async fn is_empty_now(&self) -> Result<bool, String> {
        let server = self.clone();
        blocking(move || server.files().is_empty(&server.data_dir)).await?
    }

    /// Is what lies here a cluster, of the binaries' version, and of this system identifier?
    /// Answers its system identifier.
    pub async fn verify_copy(&self, system_identifier: Option<&str>) -> Result<String, String> {
        let major = self.major().await?;
        let server = self.clone();
        let read = move || server.files().read(&server.data_dir.join("PG_VERSION"));
        let version = blocking(read).await??.unwrap_or_default();
        if version.trim() != major.to_string() {
            return Err(format!(
                "the copy's PG_VERSION is `{}`, the binaries are {major}",
                version.trim()
            ));
        }
        let control = self.control().await?;
        self.recoverable(&control).await?;
        match system_identifier {
            Some(wanted) if wanted != control.system_identifier => Err(format!(
                "the copy is of cluster {}, this one is {wanted}: correct the source",
                control.system_identifier
            )),
            _ => Ok(control.system_identifier),
        }
    }

    /// A fresh copy of a running server without a backup_label would start, and be corrupt.
    async fn recoverable(&self, control: &Control) -> Result<(), String> {
        let server = self.clone();
        let (fresh, label) = blocking(move || {
            let label = server.files().is_there(&server.data_dir.join("backup_label"))?;
            Ok::<_, String>((server.unfinished()?.as_deref() == Some(COPIED), label))
        })
        .await??;
        if !fresh || label || control.clean() {
            return Ok(());
        }
        Err(format!(
            "the copy has no backup_label, and its server was `{}` when it was made: it would be \
             corrupt; let the method take a backup (pg_backup_start), or copy a stopped server",
            control.state
        ))
    }

    /// Marks the directory unfinished and hands out a directory that a tool finds empty.
    pub async fn begin_fill(&self, work: &str) -> Result<Filling, String> {
        let (server, work) = (self.clone(), work.to_owned());
        blocking(move || server.begin_fill_blocking(&work)).await?
    }

    /// Marks the directory unfinished and leaves it as it is, also where there is none: a script
    /// that was told its name makes it.
    pub async fn begin_restore(&self, work: &str) -> Result<Filling, String> {
        let (server, work) = (self.clone(), work.to_owned());
        blocking(move || {
            server.refuse_running()?;
            server.mark_unfinished(&work)?;
            Ok(Filling { path: server.data_dir, staged: false })
        })
        .await?
    }

    fn refuse_running(&self) -> Result<(), String> {
        match self.presence()?.postmaster {
            Some(pid) => Err(format!("PostgreSQL runs as process {pid}: stop it before copying")),
            None => Ok(()),
        }
    }

    fn begin_fill_blocking(&self, work: &str) -> Result<Filling, String> {
        self.refuse_running()?;
        if !self.files().is_empty(&self.data_dir)? {
            return Err(format!("{} is not empty", self.data_dir.display()));
        }
        let files = self.files();
        self.mark_unfinished(work)?;
        make_data_dir(&self.data_dir, self.run_as.as_ref())?;
        let any = || Ok(std::fs::read_dir(&self.data_dir)?.next().is_some());
        let hidden = files.below(&self.data_dir, any).unwrap_or(false);
        if !hidden {
            return Ok(Filling { path: self.data_dir.clone(), staged: false });
        }
        let path = self.data_dir.join(STAGING);
        if files.exists(&path) {
            files
                .below(&self.data_dir, || std::fs::remove_dir_all(&path))
                .map_err(|error| format!("could not remove {}: {error}", path.display()))?;
        }
        make_data_dir(&path, self.run_as.as_ref())?;
        Ok(Filling { path, staged: true })
    }

    /// The copy is complete, but nobody knows yet whether a server can run on it.
    pub async fn end_copy(&self, filling: Filling) -> Result<(), String> {
        let server = self.clone();
        blocking(move || {
            if filling.staged {
                move_up(server.files(), &filling.path, &server.data_dir)?;
            }
            server.mark_unfinished(COPIED)
        })
        .await?
    }

    /// The fill is complete: everything is in its place and on disk, and the mark goes; with `mark` the directory
    /// goes on counting as unfinished.
    pub async fn fill_ended(&self, filling: Filling, mark: Option<String>) -> Result<(), String> {
        let server = self.clone();
        blocking(move || {
            if filling.staged {
                move_up(server.files(), &filling.path, &server.data_dir)?;
            }
            mark.map_or_else(|| server.mark_finished(), |mark| server.mark_unfinished(&mark))
        })
        .await?
    }
}

fn move_up(files: Files<'_>, from: &Path, to: &Path) -> Result<(), String> {
    for path in files.entries(from)? {
        let name = path.file_name().unwrap_or_default();
        files
            .below(to, || std::fs::rename(&path, to.join(name)))
            .map_err(|error| format!("could not move {}: {error}", path.display()))?;
    }
    files
        .below(to, || std::fs::remove_dir_all(from))
        .map_err(|error| format!("could not remove {}: {error}", from.display()))?;
    files.sync_dir(to)
}

pub(in crate::host) fn long_options(help: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    help.split_whitespace()
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| word.chars().take_while(|c| is_name(*c)).collect())
        .collect()
}

/// Bytes per second since the first look.
#[derive(Default)]
pub struct Meter {
    begun: Option<(Instant, u64)>,
}

impl Meter {
    /// `bytes_total` is zero where it is unknown.
    pub fn read(&mut self, bytes_done: u64, bytes_total: u64) -> CopyProgress {
        let (begun, first) = *self.begun.get_or_insert((Instant::now(), bytes_done));
        let millis = begun.elapsed().as_millis() as u64;
        let bytes = bytes_done.saturating_sub(first);
        CopyProgress {
            bytes_done,
            bytes_total: if bytes_total == 0 { 0 } else { bytes_total.max(bytes_done) },
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
