//! The lock of a Unix socket that an earlier server of this data directory left, with a pid that is another's by
//! now: PostgreSQL takes any live process of its account for the one that made it, and does not start.
use std::path::Path;

use rustix::process::{Pid, test_kill_process};

use super::Server;
use super::conf_files::ConfFiles;
use super::inhabitants::is_server;
use crate::pure::postgres::postmaster_pid;
use crate::pure::postgres::recovery::setting_in;

/// Where the socket lies if no file says it: PostgreSQL's own and Debian's.
const DEFAULT_DIRS: &str = "/tmp, /var/run/postgresql";

impl Server {
    /// Removes locks in the socket directories of `files` that name this data directory and a process that is no
    /// server of PostgreSQL. Blocks.
    ///
    /// # Errors
    /// Where it could not be looked, or not removed.
    pub(super) fn remove_stale_socket_locks(&self, files: &ConfFiles) -> Result<(), String> {
        let conf = files.postgresql_conf.as_deref().unwrap_or_default();
        let named = setting_in(conf, "unix_socket_directories");
        let dirs = named.as_deref().unwrap_or(DEFAULT_DIRS);
        for dir in dirs.split(',').map(str::trim).filter(|dir| dir.starts_with('/')) {
            let socket = Path::new(dir).join(format!(".s.PGSQL.{}", self.connection.port));
            self.remove_stale_socket_lock(&socket)?;
        }
        Ok(())
    }

    fn remove_stale_socket_lock(&self, socket: &Path) -> Result<(), String> {
        let lock = socket.with_extension(format!("{}.lock", self.connection.port));
        let Some(text) = self.files().read(&lock)? else { return Ok(()) };
        // One that nobody can read is left to PostgreSQL, which says what is wrong with it.
        let Ok(file) = postmaster_pid::parse(&text) else { return Ok(()) };
        let alive = Pid::from_raw(file.pid).is_some_and(|pid| test_kill_process(pid).is_ok());
        let ours = Path::new(&file.data_dir) == self.data_dir;
        if !alive || !ours || is_server(file.pid)? {
            return Ok(());
        }
        tracing::info!(
            lock = %lock.display(),
            pid = file.pid,
            "removes the lock of a socket: its server has ended, and its pid is another program's"
        );
        self.files().remove(&lock)?;
        self.files().remove(socket)
    }
}
