//! The passfile that libpq programs and walreceivers read.
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::Server;
use super::account::Account;
use super::files::Files;
use super::processes::blocking;

/// How long to wait for another daemon that writes the same passfile.
const TURN_MAX: Duration = Duration::from_secs(1);

impl Server {
    /// Puts `lines` (`host:port:database:user:password`, escaped) into the passfile, replacing
    /// those for the same host, port, database and user; other lines stay, as a walreceiver may
    /// need them at any time. Empty `lines` change nothing.
    pub async fn write_passfile(&self, lines: &str) -> Result<(), String> {
        if lines.trim().is_empty() {
            return Ok(());
        }
        let (path, owner, lines) = (self.pgpass.clone(), self.run_as.clone(), lines.to_owned());
        blocking(move || {
            let files = Files::of(owner.as_ref());
            let _turn = Turn::take(files, &path);
            let present = files.read(&path)?.unwrap_or_default();
            let merged = merge(&present, &lines);
            if merged == present { Ok(()) } else { files.write_private(&path, &merged) }
        })
        .await?
    }

    /// As [`Server::write_passfile`], for one program only: the lines go when the answer is dropped.
    pub async fn lend_passfile(&self, lines: &str) -> Result<Lent, String> {
        self.write_passfile(lines).await?;
        let (path, owner) = (self.pgpass.clone(), self.run_as.clone());
        Ok(Lent { path, owner, lines: lines.to_owned() })
    }

    /// PGPASSFILE, if the passfile has a line to offer.
    pub fn passfile_env(&self, lines: &str) -> Option<(&'static str, String)> {
        (!lines.trim().is_empty()).then(|| ("PGPASSFILE", self.pgpass.display().to_string()))
    }
}

/// Lines of the passfile that a program was lent.
pub struct Lent {
    path: PathBuf,
    owner: Option<Account>,
    lines: String,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let files = Files::of(self.owner.as_ref());
        let _turn = Turn::take(files, &self.path);
        let Ok(Some(present)) = files.read(&self.path) else { return };
        let left = without(&present, &self.lines);
        let done = match left.is_empty() {
            true => files.remove(&self.path),
            false => files.write_private(&self.path, &left),
        };
        if let Err(problem) = done {
            tracing::warn!(problem, "a password stays in the passfile");
        }
    }
}

/// One reads, merges and writes at a time: other daemons may have the same passfile. It is a lock on
/// the file's directory, and after a second it goes on without one.
struct Turn(#[expect(dead_code, reason = "the lock goes with the descriptor")] Option<File>);

impl Turn {
    fn take(files: Files<'_>, path: &Path) -> Turn {
        let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) else {
            return Turn(None);
        };
        let Ok(held) = files.below(dir, || File::open(dir)) else { return Turn(None) };
        let begun = Instant::now();
        while flock(&held, FlockOperation::NonBlockingLockExclusive).is_err() {
            if begun.elapsed() > TURN_MAX {
                return Turn(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Turn(Some(held))
    }
}

fn without(present: &str, taken: &str) -> String {
    let stays = |line: &&str| !taken.lines().any(|other| other == *line);
    present.lines().filter(stays).map(|line| format!("{line}\n")).collect()
}

pub(in crate::host) fn merge(present: &str, new: &str) -> String {
    let new: Vec<&str> = new.lines().filter(|line| !line.trim().is_empty()).collect();
    let replaced = |line: &str| new.iter().any(|other| key(other) == key(line));
    let mut text = String::new();
    for line in present.lines().filter(|line| !replaced(line)).chain(new.iter().copied()) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Everything before the fourth colon that is not escaped.
fn key(line: &str) -> &str {
    let mut colons = 0;
    let mut escaped = false;
    for (index, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => colons += 1,
            _ => {}
        }
        if colons == 4 {
            return &line[..index];
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Daemons with one passfile: nobody's line is lost, and no draft is taken from under another.
    #[test]
    fn writers_of_one_passfile_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("pgpass");
        let path = path.as_path();
        let write = |n: usize| {
            let files = Files::of(None);
            for round in 0..20 {
                let _turn = Turn::take(files, path);
                let present = files.read(path)?.unwrap_or_default();
                let line = format!("host{n}:{round}:*:u:p\n");
                files.write_private(path, &merge(&present, &line))?;
            }
            Ok::<(), String>(())
        };
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4).map(|n| scope.spawn(move || write(n))).collect();
            writers.into_iter().for_each(|one| one.join().expect("ends").expect("written"));
        });
        let text = std::fs::read_to_string(path).expect("there");
        assert_eq!(text.lines().count(), 80);
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1, "no draft is left");
    }

    #[test]
    fn lines_for_the_same_server_are_replaced() {
        let present = "a:5432:*:rep:old\nb:5432:*:rep:kept\n";
        let merged = merge(present, "a:5432:*:rep:new\n\nc:1:*:u\\:x:p\n");
        assert_eq!(merged, "b:5432:*:rep:kept\na:5432:*:rep:new\nc:1:*:u\\:x:p\n");
        assert_eq!(merge(&merged, "c:1:*:u\\:x:q"), merged.replace("x:p", "x:q"));
    }
}
