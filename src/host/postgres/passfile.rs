//! The passfile that libpq programs and walreceivers read.
use std::path::PathBuf;

use super::Server;
use super::account::Account;
use super::conf_files::write_atomic;
use super::inspect::{read_optional, remove_optional};
use super::processes::blocking;

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
            let present = read_optional(&path)?.unwrap_or_default();
            let merged = merge(&present, &lines);
            if merged == present { Ok(()) } else { write_atomic(&path, &merged, owner.as_ref()) }
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
        let Ok(Some(present)) = read_optional(&self.path) else { return };
        let left = without(&present, &self.lines);
        let done = match left.is_empty() {
            true => remove_optional(&self.path),
            false => write_atomic(&self.path, &left, self.owner.as_ref()),
        };
        if let Err(problem) = done {
            tracing::warn!(problem, "a password stays in the passfile");
        }
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

    #[test]
    fn lines_for_the_same_server_are_replaced() {
        let present = "a:5432:*:rep:old\nb:5432:*:rep:kept\n";
        let merged = merge(present, "a:5432:*:rep:new\n\nc:1:*:u\\:x:p\n");
        assert_eq!(merged, "b:5432:*:rep:kept\na:5432:*:rep:new\nc:1:*:u\\:x:p\n");
        assert_eq!(merge(&merged, "c:1:*:u\\:x:q"), merged.replace("x:p", "x:q"));
    }
}
