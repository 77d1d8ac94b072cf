//! One PostgreSQL data directory and everything that may be done with it.
//!
//! [`Server`] is plain data; its methods live in the files of this directory, one idea each. Texts
//! (postgresql.conf, pg_hba.conf, connection strings, passfile lines) arrive ready: nothing here
//! decides what is in them. Every method is begun again safely after a crash.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::pure::config::Secret;
use crate::pure::postgres::session_options::tool_options;

pub mod account;
pub mod bootstrap_marker;
pub mod callback;
pub mod check_settings;
pub mod conf_files;
pub mod connect;
mod copy_id;
pub mod create;
pub mod disk;
pub mod files;
pub mod held;
pub mod inhabitants;
pub mod inspect;
pub mod method;
pub mod ownership;
pub mod passfile;
pub mod processes;
pub mod program;
pub mod promote;
pub mod query;
pub mod removal;
pub mod replica;
mod restoring;
pub mod rewind;
pub mod rights;
pub mod roles;
pub mod room;
mod saved_restore_command;
pub mod session;
mod shut_down;
pub mod slots;
mod socket_lock;
pub mod start;
pub mod stop;
pub mod sync;
pub mod timelines;
pub mod tls;
pub mod unarchived;
pub mod upstream;

use account::Account;
use program::Program;

/// A data directory, the binaries for it, and how to reach the server in it.
#[derive(Clone, Debug)]
pub struct Server {
    pub data_dir: PathBuf,
    /// Where `postgres` and its tools are.
    pub bin_dir: PathBuf,
    /// Where postgresql.conf and pg_hba.conf are; the data directory unless configured.
    pub config_dir: Option<PathBuf>,
    /// Set when we are root: nothing is ever run as root.
    pub run_as: Option<Account>,
    /// The passfile that programs and walreceivers read.
    pub pgpass: PathBuf,
    pub connection: Connection,
    /// Ours, absolute: log of the postmaster's own words, marks, notes about processes.
    pub state_dir: PathBuf,
    /// The postmaster, from its start or our first look on; shared by all copies of this value.
    pub held: held::Held,
}

/// How the daemon itself reaches the server.
#[derive(Clone, Default, PartialEq)]
pub struct Connection {
    /// A host name or address, or the directory of the socket.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    /// libpq's keywords for this user: `sslmode`, `sslrootcert`, `sslcert`, `sslkey` count here.
    pub options: Vec<(String, String)>,
    /// Prefer the running server's socket to `host`, where it has one.
    pub socket: Option<connect::Socket>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// The binaries that must lie in a bin_dir.
const PROGRAMS: [&str; 2] = ["postgres", "pg_controldata"];

impl Server {
    /// The configured directory, else the one on PATH, else the newest of the distributions'
    /// places; `major` (from PG_VERSION) narrows the choice.
    pub fn find_bin_dir(configured: Option<&Path>, major: Option<u32>) -> Result<PathBuf, String> {
        let has_all = |dir: &PathBuf| PROGRAMS.iter().all(|name| dir.join(name).is_file());
        if let Some(dir) = configured {
            let dir = dir.to_owned();
            return if has_all(&dir) {
                Ok(dir)
            } else {
                Err(format!(
                    "postgresql.bin_dir: {} holds no `postgres` and `pg_controldata`: correct it",
                    dir.display()
                ))
            };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let majors: Vec<u32> = major.map_or_else(|| (13..=18).rev().collect(), |one| vec![one]);
        let mut usual: Vec<PathBuf> = majors
            .iter()
            .flat_map(|major| {
                [format!("/usr/lib/postgresql/{major}/bin"), format!("/usr/pgsql-{major}/bin")]
            })
            .map(PathBuf::from)
            .collect();
        if major.is_some() {
            usual.append(&mut dirs);
            dirs = usual;
        } else {
            dirs.append(&mut usual);
        }
        dirs.into_iter().find(has_all).ok_or_else(|| {
            "PostgreSQL's binaries are neither on PATH nor in the usual places: \
             set postgresql.bin_dir"
                .into()
        })
    }

    /// A program of PostgreSQL's, speaking English.
    pub fn tool(&self, name: &str) -> Program {
        Program::new(self.bin_dir.join(name), &self.state_dir, self.run_as.as_ref())
            .env("LC_ALL", "C")
            .env("LANG", "C")
            .env("PGOPTIONS", tool_options())
    }

    /// A user's command line (no shell).
    pub fn script(&self, command: &str) -> Result<Program, String> {
        Program::from_words(command, &self.state_dir, self.run_as.as_ref())
    }

    /// Whether the account that PostgreSQL runs as may make files there.
    pub async fn may_write(&self, dir: &Path) -> bool {
        self.may(dir, "-w").await && self.may(dir, "-x").await
    }

    /// What test(1) says of a path when that account asks.
    pub async fn may(&self, path: &Path, flag: &str) -> bool {
        let test = Program::new("test", &self.state_dir, self.run_as.as_ref());
        test.arg(flag).arg(path).timeout(TOOL_TIMEOUT).run().await.is_ok()
    }

    /// The binaries' major version.
    pub async fn major(&self) -> Result<u32, String> {
        let program = self.bin_dir.join("postgres");
        let changed = std::fs::metadata(&program).and_then(|meta| meta.modified()).ok();
        let key = changed.map(|at| (program, at));
        if let Some(known) = key.as_ref().and_then(|key| known_majors().get(key).copied()) {
            return Ok(known);
        }
        let major = self.ask_major().await?;
        key.map(|key| known_majors().insert(key, major));
        Ok(major)
    }

    async fn ask_major(&self) -> Result<u32, String> {
        let output = self.tool("postgres").arg("--version").timeout(TOOL_TIMEOUT).run().await?;
        parse_major(&output.stdout)
            .ok_or_else(|| format!("`postgres --version` said `{}`", output.stdout.trim()))
    }

    /// Where the server's configuration files are.
    pub fn config_dir(&self) -> &Path {
        self.config_dir.as_deref().unwrap_or(&self.data_dir)
    }
}

/// Binaries that were asked, with the time of their last change.
type Majors = BTreeMap<(PathBuf, SystemTime), u32>;

fn known_majors() -> MutexGuard<'static, Majors> {
    static KNOWN: Mutex<Majors> = Mutex::new(Majors::new());
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For tools that only look.
const TOOL_TIMEOUT: Duration = Duration::from_secs(10);

fn parse_major(text: &str) -> Option<u32> {
    let version = text.split_whitespace().find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_major_version() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("nothing"), None);
    }
}
