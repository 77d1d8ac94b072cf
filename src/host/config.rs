//! The configuration's files and environment, and what on this host contradicts them.
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};

use super::listen;
use super::programs::{missing_programs, program_version, select_bin_dir};
use crate::pure::config::faults::Place;
use crate::pure::config::{Config, Fault, HostPort, Postgresql, Reading, find_place, read_parts};
use crate::pure::postgres::version::Version;

pub use super::programs::find_bin_dir;

/// The variable that carries a whole configuration where there is no file.
const WHOLE: &str = "PATRONI_CONFIGURATION";

/// Reads a file, or a directory's `*.yml` and `*.yaml` in the order of their names, with this
/// process's environment over it. All faults come at once.
pub fn load_file(path: &Path) -> Result<Config, Vec<Fault>> {
    let reading = examine(path);
    reading.config.ok_or(reading.faults)
}

/// As [`load_file`], with the warnings also when there are faults.
pub fn examine(path: &Path) -> Reading {
    let mut env = environment();
    let whole = env.remove(WHOLE).filter(|text| !text.is_empty());
    match (parts(path), whole) {
        (Ok(parts), _) => read_parts(path, &parts, &env),
        (Err(error), Some(text)) if error.kind() == io::ErrorKind::NotFound => {
            // As with Patroni, the other variables are then not read.
            env.retain(|name, _| name == "HOME");
            let name = format!("environment variable {WHOLE}");
            read_parts(Path::new(&name), &[(name.clone(), text)], &env)
        }
        (Err(error), _) => {
            let place = Place { source: Arc::from(path.display().to_string()), line: None };
            let message = format!("cannot be read ({error}); check the path and its permissions");
            Reading { faults: vec![Fault::new(&place, "", message)], ..Reading::default() }
        }
    }
}

/// Whether a variable may hold Surus's own secrets and is kept from the programs it starts.
pub fn is_private_variable(name: &str) -> bool {
    name.starts_with("PATRONI_")
}

/// Whether a variable is for the daemon alone: its secrets, and the line to systemd. A child that
/// has it would say in the daemon's name that the service is ready, or stops.
pub fn is_withheld(name: &str) -> bool {
    is_private_variable(name) || name == super::systemd::NOTIFY_SOCKET
}

/// The variables that matter here; text that is no UTF-8 is read as far as it goes.
fn environment() -> BTreeMap<String, String> {
    let all = std::env::vars_os();
    let text = all.map(|(k, v)| (k.to_string_lossy().into(), v.to_string_lossy().into_owned()));
    text.filter(|(name, _): &(String, String)| is_private_variable(name) || name == "HOME")
        .collect()
}

/// Names and texts of the configuration's files.
fn parts(path: &Path) -> io::Result<Vec<(String, String)>> {
    let mut files = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        let yaml = |path: &PathBuf| {
            path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml")
        };
        files = entries.into_iter().map(|entry| entry.path()).filter(yaml).collect();
        files.sort();
    }
    let read = |file: PathBuf| {
        let text = std::fs::read(&file)?;
        Ok((file.display().to_string(), String::from_utf8_lossy(&text).into_owned()))
    };
    files.into_iter().map(read).collect()
}

/// Speaks of keys with their places in the files that `config` came from.
struct Host {
    parts: Vec<(String, String)>,
    source: Arc<str>,
    faults: Vec<Fault>,
}

impl Host {
    fn new(config: &Config) -> Host {
        Host {
            parts: parts(&config.path).unwrap_or_default(),
            source: Arc::from(config.path.display().to_string()),
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, key: &str, message: String) {
        let nowhere = Place { source: self.source.clone(), line: None };
        let place = find_place(&self.parts, key).unwrap_or(nowhere);
        self.faults.push(Fault::new(&place, key, message));
    }
}

/// Everything on this host, but ports in use, that would keep `config` from working.
pub fn check_host(config: &Config) -> Vec<Fault> {
    let mut host = Host::new(config);
    check_creatable(&mut host, "raft.data_dir", &config.raft.data_dir);
    if let Some(dir) = &config.log.dir {
        check_creatable(&mut host, "log.dir", dir);
    }
    if let Some(postgresql) = &config.postgresql {
        check_programs(&mut host, postgresql);
        check_data_dir(&mut host, postgresql);
        check_pgpass(&mut host, postgresql);
        if let Some(file) = postgresql.custom_conf.as_ref().filter(|file| file.is_absolute()) {
            check_file(&mut host, "postgresql.custom_conf", file);
        }
    }
    host.faults
}

/// Ports that somebody else listens on already, and addresses that are not this host's.
pub fn check_ports(config: &Config) -> Vec<Fault> {
    let mut host = Host::new(config);
    check_port(&mut host, "restapi.listen", &config.restapi.listen);
    check_port(&mut host, "raft.bind_addr", &config.raft.bind_addr);
    if let Some(postgresql) = &config.postgresql {
        for address in postgresql.listen_addresses.split(',').filter(|host| !host.is_empty()) {
            let address = HostPort { host: address.to_string(), port: postgresql.port };
            check_port(&mut host, "postgresql.listen", &address);
        }
    }
    host.faults
}

fn check_port(host: &mut Host, key: &str, address: &HostPort) {
    let Err(error) = listen::open(address) else { return };
    let message = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {} is in use; stop whoever listens there or choose another", address.port)
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("`{}` is not an address of this host; give one that is", address.host)
        }
        _ => format!("cannot listen on {address} ({error}); give an address of this host"),
    };
    host.fault(key, message);
}

/// A directory that exists and may be written, or whose nearest ancestor may.
fn check_creatable(host: &mut Host, key: &str, dir: &Path) {
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let shown = existing.display();
    if !existing.is_dir() {
        host.fault(key, format!("`{shown}` is not a directory; move it away or choose another"));
    } else if access(existing, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        host.fault(key, format!("`{shown}` may not be written; give Surus's user the right to"));
    }
}

fn check_file(host: &mut Host, key: &str, file: &Path) {
    if !file.is_file() {
        host.fault(key, format!("there is no file `{}`; create it first", file.display()));
    }
}

fn check_pgpass(host: &mut Host, postgresql: &Postgresql) {
    let pgpass = &postgresql.pgpass;
    if pgpass.is_dir() {
        let message = "is a directory, but must be a file that Surus may write; name another";
        host.fault("postgresql.pgpass", format!("`{}` {message}", pgpass.display()));
    } else if let Some(parent) = pgpass.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        check_creatable(host, "postgresql.pgpass", parent);
    }
}

fn check_programs(host: &mut Host, postgresql: &Postgresql) {
    match &postgresql.bin_dir {
        Some(dir) => {
            for program in missing_programs(dir) {
                let shown = dir.display();
                let message = format!("`{shown}` has no program `{program}`; install it there");
                host.fault("postgresql.bin_dir", message);
            }
        }
        None => {
            if let Err(message) = find_bin_dir(postgresql) {
                host.fault("postgresql.bin_dir", message);
            }
        }
    }
}

/// A data directory is absent, empty, or a whole one of the version that the programs have.
fn check_data_dir(host: &mut Host, postgresql: &Postgresql) {
    let key = "postgresql.data_dir";
    let dir = &postgresql.data_dir;
    let shown = dir.display();
    if !dir.is_dir() || is_empty(dir) {
        check_creatable(host, key, dir);
        return;
    }
    let Some(major) = data_version(dir) else {
        let message = format!(
            "`{shown}` is not empty and has no PG_VERSION; empty it or name a data directory"
        );
        return host.fault(key, message);
    };
    if !dir.join("pg_wal").is_dir() && !dir.join("pg_xlog").is_dir() {
        host.fault(key, format!("`{shown}` has no pg_wal; it is not a whole data directory"));
    }
    let programs = select_bin_dir(postgresql).ok().and_then(|dir| program_version(&dir));
    if let Some(programs) = programs.filter(|version| version.major() != major.major()) {
        host.fault(
            key,
            format!(
                "`{shown}` is of version {}, but the programs are {programs}; set bin_dir to \
                     those of version {}",
                major.major(),
                major.major()
            ),
        );
    }
}

/// The major version of a data directory, from its PG_VERSION.
pub(super) fn data_version(dir: &Path) -> Option<Version> {
    std::fs::read_to_string(dir.join("PG_VERSION")).ok().and_then(|text| Version::parse(&text))
}

/// Nothing but dot files and `lost+found`.
fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| {
        entries.flatten().all(|entry| {
            let name = entry.file_name();
            name == "lost+found" || name.to_string_lossy().starts_with('.')
        })
    })
}
