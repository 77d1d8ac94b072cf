//! Stopping the postmaster, and noticing at once when it dies by itself.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Server;
use super::held::Hold;
use super::inspect::{Presence, is_there};
use super::processes::{self, blocking};
use super::program::Program;
use crate::pure::operation::StopMode;
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::wal::archive_words;

/// What a stopped cluster says about itself; timeline zero where it cannot say anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    pub timeline: u32,
    /// The latest checkpoint; after a clean stop of a primary its shutdown checkpoint.
    pub checkpoint: Lsn,
    pub clean: bool,
    /// The strongest means that was needed.
    pub by: StoppedBy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoppedBy {
    /// It was not running.
    #[default]
    Nothing,
    Fast,
    Immediate,
    Kill,
}

/// What an immediate shutdown gets before SIGKILL, at most.
const IMMEDIATE_MAX: Duration = Duration::from_secs(5);
/// How long the kernel may take to end killed processes.
const KILL_WAIT: Duration = Duration::from_secs(30);
/// How long a stop that cannot see whether anybody runs goes on looking, and between two looks.
const LOOK_MAX: Duration = Duration::from_secs(30);
const LOOK_PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// Done only when no process of this data directory is left.
    ///
    /// Fast becomes immediate after `escalate_after`, immediate becomes SIGKILL after at most 5 s.
    /// `None`: a fast shutdown takes as long as it takes. One that is written and held up by somebody else
    /// is not waited for (shut_down.rs); it is clean all the same.
    pub async fn stop(
        &self,
        mode: StopMode,
        escalate_after: Option<Duration>,
    ) -> Result<Stopped, String> {
        let mut by = StoppedBy::Nothing;
        let begun = Instant::now();
        // Done when a look that missed nothing finds nobody: neither what was held nor its children.
        loop {
            if let Some(postmaster) = self.look_until_seen().await? {
                by = by.max(self.end(&postmaster, mode, escalate_after).await?);
            }
            let server = self.clone();
            blocking(move || server.end_orphans()).await??;
            let server = self.clone();
            let left = blocking(move || server.presence()).await??;
            if left == Presence::default() {
                break;
            }
            if begun.elapsed() > escalate_after.unwrap_or_default() + LOOK_MAX {
                return Err(format!("PostgreSQL is started again and again: {left:?} live"));
            }
        }
        // Where the cluster itself is broken there is nothing to report, but it is stopped.
        let control = self.control().await.unwrap_or_default();
        Ok(Stopped {
            timeline: control.timeline,
            checkpoint: control.checkpoint,
            clean: control.clean(),
            by,
        })
    }

    /// A stop goes on while it cannot look: what is held needs no look.
    async fn look_until_seen(&self) -> Result<Option<Arc<Hold>>, String> {
        let begun = Instant::now();
        loop {
            match self.hold_postmaster().await {
                Err(problem) if begun.elapsed() < LOOK_MAX => {
                    tracing::debug!(problem, "looks again for the server that is to be stopped");
                    tokio::time::sleep(LOOK_PAUSE).await;
                }
                seen => return seen,
            }
        }
    }

    async fn end(
        &self,
        postmaster: &Hold,
        mode: StopMode,
        escalate_after: Option<Duration>,
    ) -> Result<StoppedBy, String> {
        if mode == StopMode::Fast {
            let logical = self.logical_walsenders(postmaster).await;
            signal(postmaster, Signal::INT)?;
            match escalate_after {
                None => postmaster.ended().await,
                Some(limit) if !self.shuts_down_within(postmaster, logical, limit).await => {
                    return self.end_now(postmaster, limit).await;
                }
                Some(_) => {}
            }
            return Ok(StoppedBy::Fast);
        }
        self.end_now(postmaster, escalate_after.unwrap_or(IMMEDIATE_MAX)).await
    }

    async fn end_now(&self, postmaster: &Hold, limit: Duration) -> Result<StoppedBy, String> {
        signal(postmaster, Signal::QUIT)?;
        if postmaster.ended_within(limit.min(IMMEDIATE_MAX)).await {
            return Ok(StoppedBy::Immediate);
        }
        signal(postmaster, Signal::KILL)?;
        let server = self.clone();
        let find = move || {
            let presence = server.presence()?;
            Ok(presence.postmaster.into_iter().chain(presence.others).collect())
        };
        blocking(move || processes::kill_all(find, false, KILL_WAIT)).await??;
        Ok(StoppedBy::Kill)
    }

    /// The stopped server's archive_command, if it archives.
    pub async fn archive_command(&self) -> Result<Option<String>, String> {
        let mode = self.configured("archive_mode").await?;
        if mode != "on" && mode != "always" {
            return Ok(None);
        }
        let command = self.configured("archive_command").await?;
        Ok(Some(command).filter(|command| !command.is_empty() && command != "(disabled)"))
    }

    /// A setting as the configuration files of the stopped server have it.
    async fn configured(&self, name: &str) -> Result<String, String> {
        let mut program = self.tool("postgres").args(["-C", name, "-D"]).arg(&self.data_dir);
        if let Some(dir) = &self.config_dir {
            program = program.arg(format!("--config_file={}/postgresql.conf", dir.display()));
        }
        Ok(program.timeout(super::TOOL_TIMEOUT).run().await?.stdout.trim().to_owned())
    }

    /// Runs archive_command for one file of pg_wal, in the data directory, as PostgreSQL does.
    pub async fn archive(
        &self,
        command: &str,
        file: &str,
        at_most: Duration,
    ) -> Result<(), String> {
        self.archive_from(command, &format!("pg_wal/{file}"), file, at_most).await
    }

    /// The same for a file that lies elsewhere.
    pub async fn archive_from(
        &self,
        command: &str,
        path: &str,
        file: &str,
        at_most: Duration,
    ) -> Result<(), String> {
        let place = self.data_dir.display().to_string();
        let place = shlex::try_quote(&place).map_err(|error| error.to_string())?.into_owned();
        let text = format!("cd {place} && {}", archive_words(command, path, file));
        Program::new("/bin/sh", &self.state_dir, self.run_as.as_ref())
            .args(["-c".to_owned(), text])
            .timeout(at_most)
            .run()
            .await
            .map(|_| ())
    }

    /// Resolves at once when the postmaster that lives now dies, whoever started it; immediately
    /// when there is none. Answers its pid.
    pub async fn watch_postmaster(&self) -> Option<i32> {
        let hold = self.hold_postmaster().await.ok().flatten()?;
        hold.ended().await;
        Some(hold.pid)
    }

    /// A hold on the live postmaster: the one that is held already, else the one that a look finds.
    ///
    /// # Errors
    /// Where none is held and it cannot be seen whether one runs.
    pub async fn hold_postmaster(&self) -> Result<Option<Arc<Hold>>, String> {
        if let Some(hold) = self.held.alive() {
            return Ok(Some(hold));
        }
        let Some(pid) = self.postmaster_pid().await? else { return Ok(None) };
        let held = Hold::open(pid).map_err(|e| format!("could not hold process {pid}: {e}"))?;
        let Some(hold) = held else { return Ok(None) };
        // Again, now that the pid cannot pass to another process unnoticed.
        let server = self.clone();
        if blocking(move || server.presence()).await??.postmaster != Some(pid) {
            return Ok(None);
        }
        let hold = Arc::new(hold);
        self.held.set(hold.clone());
        Ok(Some(hold))
    }

    /// Nobody runs here, or only a standby, as the directory says that it works in.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub async fn cannot_write(&self) -> Result<bool, String> {
        self.hold_postmaster().await?;
        let server = self.clone();
        blocking(move || {
            let Presence { postmaster, others } = server.presence()?;
            let mut standby = others.is_empty();
            if let Some(pid) = postmaster {
                standby = is_there(&PathBuf::from(format!("/proc/{pid}/cwd/standby.signal")))?;
            }
            Ok(standby)
        })
        .await?
    }

    /// The live postmaster's pid.
    pub async fn postmaster_pid(&self) -> Result<Option<i32>, String> {
        let server = self.clone();
        Ok(blocking(move || server.presence()).await??.postmaster)
    }

    /// Ends programs that an earlier life of the daemon left behind, with their groups. To be
    /// called before anything touches the data directory. Answers how many there were.
    pub async fn kill_leftovers(&self) -> Result<usize, String> {
        let mark = self.state_dir.display().to_string();
        let life = processes::this_life();
        let find = move || processes::leftovers(&mark, &life);
        blocking(move || processes::kill_all(find, true, KILL_WAIT)).await?
    }
}

/// A process that is gone already obeys every signal.
fn signal(hold: &Hold, signal: Signal) -> Result<(), String> {
    match hold.signal(signal) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
            Err(format!("could not signal the postmaster, process {}: {error}", hold.pid))
        }
        _ => Ok(()),
    }
}
