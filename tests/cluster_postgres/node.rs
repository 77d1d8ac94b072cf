//! One node of a test: its files, its processes, and questions to it.
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::cluster::wait_until;
use super::sql::Sql;
use super::{http, process};

/// For questions that a healthy node answers at once.
const SHORT: Duration = Duration::from_secs(2);

/// Where a node is reached.
#[derive(Clone, Debug)]
pub struct Address {
    pub host: String,
    pub postgresql: u16,
    pub rest: u16,
    pub raft: u16,
}

pub struct Node {
    pub name: String,
    pub at: Address,
    pub dir: PathBuf,
    /// Words before the daemon's own: to change the network namespace.
    pub prefix: Vec<String>,
    /// The daemon, from its start until it was seen to end.
    pub child: Option<Child>,
}

impl Node {
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("raft")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("surus.yml")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("surus.log")
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// How often the daemons of this node have written this.
    pub fn said(&self, text: &str) -> usize {
        self.log_text().matches(text).count()
    }

    pub fn print_log(&self) {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- {} ({} lines)", self.name, lines.len());
        lines.iter().skip(lines.len().saturating_sub(60)).for_each(|line| eprintln!("{line}"));
    }

    pub fn rest(&self) -> String {
        format!("{}:{}", self.at.host, self.at.rest)
    }

    pub fn dump(&self) -> Option<Value> {
        http::get_json(&self.rest(), "/dump")
    }

    pub fn column(&self, statement: &str) -> Option<Vec<Option<String>>> {
        Sql::connect(&self.at.host, self.at.postgresql, SHORT).ok()?.column(statement).ok()
    }

    pub fn sql(&self, statement: &str) -> Option<String> {
        self.column(statement)?.into_iter().next().flatten()
    }

    pub fn postmaster(&self) -> Option<i32> {
        process::postmaster(&self.data())
    }

    pub fn is_running(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().expect("it is our child").is_none(),
            None => false,
        }
    }

    pub fn daemon(&self) -> i32 {
        self.child.as_ref().expect("the daemon was started").id() as i32
    }

    pub fn signal(&self, signal: Signal) {
        process::signal(self.daemon(), signal);
    }

    /// Kills the daemon alone; PostgreSQL and the guard go on.
    pub fn kill_daemon(&mut self) {
        self.signal(Signal::KILL);
        self.reap();
    }

    /// Kills whatever belongs to this node, as a power failure would.
    pub fn kill(&mut self) {
        process::kill_all(&self.dir);
        self.reap();
    }

    /// Removes all that is in the data directory.
    pub fn wipe_data(&self) {
        for entry in fs::read_dir(self.data()).expect("it is there").flatten() {
            let path = entry.path();
            let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            gone.expect("nobody lives there");
        }
    }

    pub fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().ok();
        }
    }

    /// Asks the daemon to stop, and waits; its exit code.
    #[track_caller]
    pub fn stop(&mut self, seconds: u64) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait_exit(seconds)
    }

    #[track_caller]
    pub fn wait_exit(&mut self, seconds: u64) -> Option<i32> {
        wait_until(&format!("{}'s daemon to end", self.name), seconds, || !self.is_running());
        self.child.take().and_then(|mut child| child.wait().ok()).and_then(|status| status.code())
    }
}
