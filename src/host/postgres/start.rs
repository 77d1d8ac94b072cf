//! Starting the postmaster: directly, in a session of its own, so that it outlives the daemon.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::process::Command;
use tokio::sync::watch;

use super::Server;
use super::conf_files::ConfFiles;
use super::held::Hold;
use super::inspect::Presence;
use super::processes::{self, blocking};
use super::program::{TAIL_LINES, clean_environment, quoted};
use super::session::{Refusal, Session};
use crate::pure::postgres::postmaster_pid::{self, Status};

/// When a start counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It accepts connections, or runs as a standby that accepts none (hot_standby off).
    Accepting,
    /// It is out of recovery.
    ReadWrite,
    /// The postmaster has read its configuration and stands; recovery may go on for hours.
    LeaseStatus,
}

/// Beyond this a log is put away at the next start.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// So much of it is looked through for a reason.
const LOG_BYTES_READ: u64 = 1 << 20;
/// Between two looks at a starting server.
const STEP: Duration = Duration::from_millis(10);
/// How long orphans of a killed postmaster may take to obey SIGQUIT.
const ORPHANS_QUIT: Duration = Duration::from_secs(1);
const ORPHANS_KILL: Duration = Duration::from_secs(10);

impl Server {
    /// Writes the files and starts; answers with the postmaster's pid once `ready`.
    ///
    /// An error while the process lives on (too slow a recovery) says so and leaves it running.
    pub async fn start(
        &self,
        files: &ConfFiles,
        timeout: Duration,
        ready: Ready,
    ) -> Result<i32, String> {
        let begun = Instant::now();
        let (server, wanted) = (self.clone(), files.clone());
        let log_start = blocking(move || server.prepare_start(&wanted)).await??;
        let (pid, exit) = self.launch(files)?;
        let server = self.clone();
        blocking(move || server.note_own(pid)).await??;
        loop {
            if let Some(code) = exit.borrow().clone() {
                return Err(format!(
                    "PostgreSQL did not start ({code}){}",
                    self.log_since(log_start)
                ));
            }
            if self.is_ready(pid, ready).await? {
                return Ok(pid);
            }
            if begun.elapsed() > timeout {
                let said = self.log_since(log_start);
                return Err(format!(
                    "PostgreSQL is not ready after {timeout:?}, and goes on{said}"
                ));
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// The postmaster's own log: what it says before its logging collector takes over.
    pub fn log_path(&self) -> PathBuf {
        self.state_dir.join("postgresql.log")
    }

    fn prepare_start(&self, files: &ConfFiles) -> Result<u64, String> {
        if let Some(pid) = self.presence()?.postmaster {
            return Err(format!(
                "PostgreSQL already runs as process {pid} on {}",
                self.data_dir.display()
            ));
        }
        self.end_orphans()?;
        self.remove_stale_lock()?;
        self.remove_stale_socket_locks(files)?;
        self.write_conf_files(files)?;
        let skipped = self.remove_skipped()?;
        if !skipped.is_empty() {
            tracing::info!(?skipped, "takes back timelines of a promotion that did not come about");
        }
        self.rotate_log()?;
        Ok(self.length(&self.log_path()).unwrap_or(0))
    }

    /// Ends backends whose postmaster is gone. Blocks until none is left.
    pub fn end_orphans(&self) -> Result<usize, String> {
        let find = || {
            let presence = self.presence()?;
            Ok(if presence.postmaster.is_some() { Vec::new() } else { presence.others })
        };
        let mut found: Result<Vec<i32>, String> = find();
        for pid in found.iter().flatten() {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = rustix::process::kill_process(pid, Signal::QUIT);
            }
        }
        let orphans = found.as_ref().map_or(0, Vec::len);
        let deadline = Instant::now() + ORPHANS_QUIT;
        while !found.is_ok_and(|left| left.is_empty()) && Instant::now() < deadline {
            std::thread::sleep(STEP);
            found = find();
        }
        processes::kill_all(find, false, ORPHANS_KILL)?;
        self.held.forget_ended();
        Ok(orphans)
    }

    /// A lock file whose pid now belongs to somebody else keeps PostgreSQL from starting.
    /// So does an empty one, which a server leaves that was killed while it started.
    fn remove_stale_lock(&self) -> Result<(), String> {
        let lock = self.data_dir.join("postmaster.pid");
        let Some(text) = self.files().read(&lock)? else { return Ok(()) };
        if text.is_empty() && self.presence()? == Presence::default() {
            return self.files().remove(&lock);
        }
        // One that nobody can read is left to PostgreSQL, which says what is wrong with it.
        let Ok(file) = postmaster_pid::parse(&text) else { return Ok(()) };
        let alive = Pid::from_raw(file.pid)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
        if alive && !self.place(None)?.holds(file.pid)? {
            return self.files().remove(&lock);
        }
        Ok(())
    }

    fn launch(&self, files: &ConfFiles) -> Result<(i32, watch::Receiver<Option<String>>), String> {
        let mut child = self
            .postmaster(files)?
            .spawn()
            .map_err(|error| format!("could not start {}: {error}", self.bin_dir.display()))?;
        let pid = child.id().ok_or("PostgreSQL ended before it began")? as i32;
        if let Err(problem) = self.hold_child(pid) {
            // A server that cannot be held could not be stopped for certain either.
            let _ = child.start_kill();
            return Err(problem);
        }
        let (tell, exit) = watch::channel(None);
        // Reaps it whenever it ends, long after this start.
        tokio::spawn(async move {
            let ended = child.wait().await;
            let text = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            let _ = tell.send(Some(text));
        });
        Ok((pid, exit))
    }

    /// Not reaped yet: nobody else can have its pid.
    fn hold_child(&self, pid: i32) -> Result<(), String> {
        let held = Hold::open(pid).map_err(|e| format!("could not hold PostgreSQL: {e}"))?;
        held.into_iter().for_each(|hold| self.held.set(Arc::new(hold)));
        Ok(())
    }

    fn postmaster(&self, files: &ConfFiles) -> Result<Command, String> {
        let log = self.open_log(OpenOptions::new().create(true).append(true).mode(0o600));
        let log = log.map_err(|error| {
            format!("could not open {} for PostgreSQL: {error}", self.log_path().display())
        })?;
        let again = log.try_clone().map_err(|error| format!("no file descriptor: {error}"))?;
        let mut command = Command::new(self.bin_dir.join("postgres"));
        command.arg("-D").arg(&self.data_dir);
        if let Some(dir) = &self.config_dir {
            let file = dir.join("postgresql.conf");
            command.arg(format!("--config_file={}", file.display()));
        }
        command.args(&files.arguments).current_dir("/");
        command.stdin(Stdio::null()).stdout(log).stderr(again);
        clean_environment(&mut command, self.run_as.as_ref());
        let run_as = self.run_as.clone();
        // SAFETY: only async-signal-safe system calls on memory prepared before the fork.
        unsafe {
            command.pre_exec(move || {
                rustix::process::setsid()?;
                run_as.as_ref().map_or(Ok(()), super::account::Account::assume)
            });
        }
        Ok(command)
    }

    async fn is_ready(&self, pid: i32, ready: Ready) -> Result<bool, String> {
        let server = self.clone();
        let status = blocking(move || {
            let file = server.pid_file().ok().flatten();
            file.filter(|file| file.pid == pid).and_then(|file| file.status)
        })
        .await?;
        match status {
            Some(_) if ready == Ready::LeaseStatus => Ok(true),
            Some(Status::Standby) => Ok(ready == Ready::Accepting),
            Some(Status::Ready) => Ok(self.answers(ready).await),
            _ => Ok(false),
        }
    }

    async fn answers(&self, ready: Ready) -> bool {
        match Session::open(&self.connection, "Surus start").await {
            // It is up; that our login is refused is said by whoever needs the answer.
            Err(Refusal::Denied(_)) if ready == Ready::Accepting => true,
            // Logins are judged after recovery or in hot standby: the control file tells which.
            Err(Refusal::Denied(_)) => self.control().await.is_ok_and(|at| at.out_of_recovery()),
            Err(Refusal::NotThere(_) | Refusal::Failed(_)) => false,
            Ok(_) if ready == Ready::Accepting => true,
            Ok(session) => {
                let answer = session.value("SELECT pg_catalog.pg_is_in_recovery()").await;
                answer.is_ok_and(|value| value.as_deref() == Some("f"))
            }
        }
    }

    /// What a server that ended has said of the reason, as the second half of a sentence. Blocks.
    pub fn last_words(&self) -> String {
        self.log_since(0)
    }

    fn log_since(&self, start: u64) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = self.open_log(OpenOptions::new().read(true))
            && file.seek(SeekFrom::Start(start)).is_ok()
        {
            let _ = file.take(LOG_BYTES_READ).read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        // A server that is not ready yet says so, as fatal, to each of our own questions.
        let told = text.lines().filter(|line| !line.contains("FATAL:  the database system is "));
        let lines: Vec<String> = told.map(str::to_owned).collect();
        quoted(telling(&lines))
    }

    /// No link is followed: the file is what the daemon made.
    fn open_log(&self, how: &mut OpenOptions) -> io::Result<File> {
        let (path, flags) = (self.log_path(), libc::O_NOFOLLOW | libc::O_NONBLOCK);
        self.files().at(&path, || how.custom_flags(flags).open(&path))
    }

    fn length(&self, path: &Path) -> Option<u64> {
        self.files().at(path, || fs::symlink_metadata(path)).ok().map(|meta| meta.len())
    }

    /// One older log is kept, so that years of restarts do not fill the disk.
    fn rotate_log(&self) -> Result<(), String> {
        let path = self.log_path();
        if self.length(&path).is_some_and(|bytes| bytes > LOG_BYTES_MAX) {
            let older = processes::beside(&path, ".1");
            self.files()
                .at(&path, || fs::rename(&path, &older))
                .map_err(|error| format!("could not rename {}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Remembers that this postmaster is ours, for later lives of the daemon.
    fn note_own(&self, pid: i32) -> Result<(), String> {
        let note = processes::identity(pid)?.unwrap_or_default();
        self.files().write_note(&self.own_note(), &note)
    }

    /// The live process `pid` is the postmaster that we started last. Blocks.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub fn is_our_own(&self, pid: i32) -> Result<bool, String> {
        let note = self.files().read(&self.own_note())?;
        Ok(note.is_some() && note == processes::identity(pid)?)
    }

    fn own_note(&self) -> PathBuf {
        self.state_dir.join("postmaster.own")
    }
}

/// Lines before the fatal one that are told too: a wrong setting is named there, not in it.
const LEAD_LINES: usize = 3;

/// The lines that say why: around the first fatal one, else the last of all.
fn telling(lines: &[String]) -> &[String] {
    let fatal =
        lines.iter().position(|line| ["FATAL: ", "PANIC: "].iter().any(|w| line.contains(w)));
    match fatal {
        Some(fatal) => {
            &lines[fatal.saturating_sub(LEAD_LINES)..lines.len().min(fatal + TAIL_LINES)]
        }
        None => &lines[lines.len().saturating_sub(TAIL_LINES)..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fatal_line_and_what_follows_tell_why() {
        let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
        let said = lines("a\nz\nb\nLOG:  unrecognized \"x\"\nFATAL:  aborted\nDETAIL:  it\n");
        assert_eq!(telling(&said), &said[1..]);
        let calm = lines(&"LOG:  redo\n".repeat(TAIL_LINES + 5));
        assert_eq!(telling(&calm).len(), TAIL_LINES);
        assert!(telling(&[]).is_empty());
    }
}
