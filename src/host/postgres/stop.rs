//! Stopping the postmaster, and noticing at once when it dies by itself.
use std::time::Duration;

use rustix::process::Signal;

use super::Server;
use super::processes::{self, Hold, blocking};
use super::program::Program;
use crate::pure::deed::StopMode;
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

impl Server {
    /// Done only when no process of this data directory is left.
    ///
    /// Fast becomes immediate after `escalate_after`, immediate becomes SIGKILL after at most 5 s.
    /// `None`: a fast shutdown takes as long as it takes.
    pub async fn stop(
        &self,
        mode: StopMode,
        escalate_after: Option<Duration>,
    ) -> Result<Stopped, String> {
        let by = match self.hold_postmaster().await? {
            None => StoppedBy::Nothing,
            Some(postmaster) => self.end(&postmaster, mode, escalate_after).await?,
        };
        let server = self.clone();
        blocking(move || server.end_orphans()).await??;
        // Where the cluster itself is broken there is nothing to report, but it is stopped.
        let control = self.control().await.unwrap_or_default();
        Ok(Stopped {
            timeline: control.timeline,
            checkpoint: control.checkpoint,
            clean: control.clean(),
            by,
        })
    }

    async fn end(
        &self,
        postmaster: &Hold,
        mode: StopMode,
        escalate_after: Option<Duration>,
    ) -> Result<StoppedBy, String> {
        if mode == StopMode::Fast {
            signal(postmaster, Signal::INT)?;
            match escalate_after {
                None => postmaster.ended().await,
                Some(limit) if !postmaster.ended_within(limit).await => {
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
        let data_dir = self.data_dir.clone();
        let find = move || processes::inhabitants(&data_dir).into_iter().map(|i| i.pid).collect();
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

    /// A hold on the live postmaster.
    pub async fn hold_postmaster(&self) -> Result<Option<Hold>, String> {
        let pid = self.postmaster_pid().await?;
        let Some(hold) = pid.and_then(|pid| Hold::open(pid).ok()) else { return Ok(None) };
        // Again, now that the pid cannot pass to another process unnoticed.
        let (data_dir, pid) = (self.data_dir.clone(), hold.pid);
        let still = blocking(move || processes::is_server_of(pid, &data_dir)).await?;
        Ok(still.then_some(hold))
    }

    /// The live postmaster's pid.
    pub async fn postmaster_pid(&self) -> Result<Option<i32>, String> {
        let server = self.clone();
        blocking(move || server.presence().postmaster).await
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
