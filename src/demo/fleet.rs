//! The daemons as child processes: started, started again when they die, stopped together.
//!
//! Each is in a process group of its own, so that Ctrl-C reaches only the demo, which then stops
//! them in good order; and each is told by the kernel (SIGTERM) should the demo itself be killed.
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::plan::Plan;

/// Waits before a daemon is started again: doubled with every early end.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A daemon that lived this long starts with the shortest pause again.
const SETTLED: Duration = Duration::from_secs(30);
/// A log longer than this at a start is set aside as `surus.log.1`.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// One node's daemon.
struct Daemon {
    node: String,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    started: Instant,
    /// When to start again; meaningful while there is no child.
    due: Instant,
    ends_in_a_row: u32,
}

/// What the table says about a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonView {
    Runs { pid: u32 },
    StartsIn { seconds: u64 },
}

/// All daemons of the demo.
pub struct Fleet {
    program: PathBuf,
    daemons: Vec<Daemon>,
}

impl Fleet {
    /// Nothing runs before the first [`Fleet::tend`].
    pub fn new(plan: &Plan, program: PathBuf) -> Fleet {
        let now = Instant::now();
        let daemon = |node: String| Daemon {
            config: plan.config(&node),
            log: plan.log(&node),
            child: None,
            started: now,
            due: now,
            ends_in_a_row: 0,
            node,
        };
        Fleet { program, daemons: plan.names().into_iter().map(daemon).collect() }
    }

    /// In the order of the plan's nodes.
    pub fn daemons(&self, now: Instant) -> Vec<DaemonView> {
        let view = |daemon: &Daemon| match &daemon.child {
            Some(child) => DaemonView::Runs { pid: child.id() },
            None => DaemonView::StartsIn {
                seconds: daemon.due.saturating_duration_since(now).as_secs() + 1,
            },
        };
        self.daemons.iter().map(view).collect()
    }

    /// A node whose daemon has ended `starts` times in a row.
    pub fn hopeless(&self, starts: u32) -> Option<&str> {
        let found = self.daemons.iter().find(|daemon| daemon.ends_in_a_row >= starts);
        found.map(|daemon| daemon.node.as_str())
    }

    /// Notices who has ended, starts whoever is due. One sentence per thing worth telling.
    pub fn tend(&mut self, now: Instant) -> Vec<String> {
        let program = &self.program;
        let tend = |daemon: &mut Daemon| match daemon.ended() {
            Some(status) => Some(daemon.mourn(status, now)),
            None if daemon.child.is_none() && daemon.due <= now => daemon.start(program, now),
            None => None,
        };
        self.daemons.iter_mut().filter_map(tend).collect()
    }

    /// Asks all of them at once to stop in good order.
    pub fn terminate(&self) {
        for child in self.daemons.iter().filter_map(|daemon| daemon.child.as_ref()) {
            signal(child, Signal::TERM);
        }
    }

    pub fn all_ended(&mut self) -> bool {
        for daemon in &mut self.daemons {
            daemon.ended();
        }
        self.daemons.iter().all(|daemon| daemon.child.is_none())
    }

    /// Ends whoever is left; true if anybody was.
    pub fn kill(&mut self) -> bool {
        let mut forced = false;
        for daemon in &mut self.daemons {
            if let Some(mut child) = daemon.child.take() {
                forced = true;
                signal(&child, Signal::CONT);
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        forced
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Daemon {
    /// How it ended, once.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    fn mourn(&mut self, status: ExitStatus, now: Instant) -> String {
        let settled = now.duration_since(self.started) >= SETTLED;
        self.ends_in_a_row = if settled { 1 } else { self.ends_in_a_row + 1 };
        let pause = self.pause();
        self.due = now + pause;
        format!(
            "{}'s daemon {}; it is started again in {} s.",
            self.node,
            how(status, &self.log),
            pause.as_secs()
        )
    }

    fn pause(&self) -> Duration {
        let doublings = self.ends_in_a_row.saturating_sub(1).min(10);
        (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX)
    }

    /// A sentence if this is worth telling: it failed, or it was not the first time.
    fn start(&mut self, program: &Path, now: Instant) -> Option<String> {
        self.started = now;
        match spawn(program, &self.config, &self.log) {
            Ok(child) => {
                let again = self.ends_in_a_row > 0;
                let pid = child.id();
                self.child = Some(child);
                again.then(|| format!("{}'s daemon runs again (process {pid}).", self.node))
            }
            Err(error) => {
                self.ends_in_a_row += 1;
                self.due = now + self.pause();
                Some(format!("{}'s daemon cannot be started: {error}.", self.node))
            }
        }
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = Pid::from_raw(child.id() as i32) {
        let _ = kill_process(pid, signal);
    }
}

fn spawn(program: &Path, config: &Path, log: &Path) -> std::io::Result<Child> {
    let output = open_log(log)?;
    let mut command = Command::new(program);
    command.arg("run").arg(config).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output).process_group(0);
    // The visitor's own settings are for other clusters than this one.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PATRONI_") || text.starts_with("PG") || text == "NOTIFY_SOCKET" {
            command.env_remove(&name);
        }
    }
    // SAFETY: the closure runs between fork and exec and makes a single system call.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    command.spawn()
}

fn open_log(log: &Path) -> std::io::Result<File> {
    if fs::metadata(log).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        fs::rename(log, log.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(log)
}

/// `was killed (signal 9)`, or its exit code and its last words.
fn how(status: ExitStatus, log: &Path) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed (signal {signal})"),
        (None, Some(code)) => match last_line(log) {
            Some(line) => format!("ended with code {code} ({line})"),
            None => format!("ended with code {code}"),
        },
        (None, None) => "ended".into(),
    }
}

/// The last line of a log that may be long, cut to fit on a screen.
fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().take(300).collect())
}
