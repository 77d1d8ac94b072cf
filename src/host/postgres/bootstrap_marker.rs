//! A cluster that is being created: how far it is, and what a restored one needs to start.
//!
//! From the first byte until every role and script is there the directory carries a mark, so that
//! no later life of the daemon takes half a cluster for a whole one. The mark says how far the
//! creation came: what was restored is taken up again, not thrown away.
use std::fs;
use std::path::{Path, PathBuf};

use super::Server;
use super::processes::{self, blocking};
use crate::pure::config::CustomMethod;

const MARK: &str = "bootstrap";
/// Lets this machine in without a password while the restored passwords are unknown.
const TRUSTING_HBA: &str = "surus_recovery_hba.conf";

/// How far the creation of a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The method runs, or was cut short.
    Restoring,
    /// It ended well.
    Restored,
    /// The recovery settings were written: from here on PostgreSQL itself knows whether it is done.
    Recovering,
    /// The operator's script ended well.
    Scripted,
}

const PHASES: [(Phase, &str); 4] = [
    (Phase::Restoring, "restoring"),
    (Phase::Restored, "restored"),
    (Phase::Recovering, "recovering"),
    (Phase::Scripted, "scripted"),
];

/// What the mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapMarker {
    pub phase: Phase,
    pub method: String,
    /// Of the method's whole section: another one is another restore.
    print: String,
}

impl BootstrapMarker {
    pub fn of_initdb() -> BootstrapMarker {
        BootstrapMarker { phase: Phase::Restoring, method: "initdb".into(), print: "-".into() }
    }

    pub fn of_method(method: &CustomMethod) -> BootstrapMarker {
        // The mark outlives the program that wrote it: a hash that is the same in every build.
        let print = format!("{:08x}", crc32fast::hash(format!("{method:?}").as_bytes()));
        BootstrapMarker { phase: Phase::Restoring, method: method.name.clone(), print }
    }

    pub fn at(&self, phase: Phase) -> BootstrapMarker {
        BootstrapMarker { phase, ..self.clone() }
    }

    pub fn is_of(&self, other: &BootstrapMarker) -> bool {
        (&self.method, &self.print) == (&other.method, &other.print)
    }

    /// A restore that ended well took somebody hours: it is not removed without a word.
    pub fn is_worth_keeping(&self) -> bool {
        self.phase > Phase::Restoring && self.print != "-"
    }

    pub fn text(&self) -> String {
        let phase = PHASES.iter().find(|(phase, _)| *phase == self.phase).map_or("", |(_, t)| t);
        format!("{MARK} {phase} {} {}", self.print, self.method)
    }

    pub fn parse(mark: &str) -> Option<BootstrapMarker> {
        let mut words = mark.splitn(4, ' ');
        words.next().filter(|word| *word == MARK)?;
        let (phase, print, method) = (words.next()?, words.next()?, words.next()?);
        let (phase, _) = PHASES.iter().find(|(_, text)| *text == phase)?;
        Some(BootstrapMarker {
            phase: *phase,
            method: method.to_string(),
            print: print.to_string(),
        })
    }
}

impl Server {
    /// The mark of a creation that was begun here and is not sealed. Blocks.
    pub fn bootstrap_marker(&self) -> Option<BootstrapMarker> {
        self.unfinished().ok().flatten().as_deref().and_then(BootstrapMarker::parse)
    }

    /// Moves the mark on; never back.
    pub async fn mark_bootstrap(&self, bootstrap_marker: &BootstrapMarker) -> Result<(), String> {
        let (server, bootstrap_marker) = (self.clone(), bootstrap_marker.clone());
        blocking(move || match server.bootstrap_marker() {
            Some(known)
                if known.is_of(&bootstrap_marker) && known.phase >= bootstrap_marker.phase =>
            {
                Ok(())
            }
            _ => server.mark_unfinished(&bootstrap_marker.text()),
        })
        .await?
    }

    /// The creation is complete: the directory counts as whole.
    pub async fn seal(&self) -> Result<(), String> {
        let server = self.clone();
        blocking(move || {
            server.files().remove(&trusting_hba(&server.data_dir))?;
            server.mark_finished()
        })
        .await?
    }

    /// What a backup made of a managed cluster keeps under another name is put back where it is
    /// missing; a promotion that somebody ordered of the original is not an order to the copy.
    pub async fn complete_restored(&self, triggers: Vec<String>) -> Result<(), String> {
        let server = self.clone();
        blocking(move || {
            let dir = server.config_dir();
            for name in ["postgresql.conf", "postgresql.base.conf", "pg_hba.conf", "pg_ident.conf"]
            {
                server.put_back(dir, name)?;
            }
            let ident = dir.join("pg_ident.conf");
            if !server.files().exists(&ident) {
                server.files().write(&ident, "")?;
            }
            server.files().remove(&server.data_dir.join("promote"))?;
            let remove = |path: &String| server.files().remove(&server.data_dir.join(path));
            triggers.iter().try_for_each(remove)
        })
        .await?
    }

    fn put_back(&self, dir: &Path, name: &str) -> Result<(), String> {
        if self.files().exists(&dir.join(name)) {
            return Ok(());
        }
        match self.files().read(&self.data_dir.join(format!("{name}.backup")))? {
            Some(text) => self.files().write(&dir.join(name), &text),
            None => Ok(()),
        }
    }

    /// Writes the file by which only this machine gets in, and without a password; its path.
    pub async fn write_trusting_hba(&self, text: String) -> Result<String, String> {
        let (path, server) = (trusting_hba(&self.data_dir), self.clone());
        let name = path.display().to_string();
        blocking(move || server.files().write_if_changed(&path, &text)).await??;
        Ok(name)
    }

    /// Puts the postmaster's log away, so that the next words in it are the next start's.
    pub async fn put_log_away(&self) -> Result<(), String> {
        let (server, path) = (self.clone(), self.log_path());
        let older = processes::beside(&path, ".1");
        blocking(move || match server.files().at(&path, || fs::rename(&path, &older)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("could not rename {}: {error}", path.display()))
            }
            _ => Ok(()),
        })
        .await?
    }

    /// What the process that recovers says of itself: `recovering 0000…`, `waiting for 0000…`.
    pub async fn startup_doing(&self) -> Option<String> {
        let server = self.clone();
        let look = move || server.place(None)?.inhabitants();
        let inhabitants = blocking(look).await.and_then(|found| found).ok()?;
        inhabitants.iter().find_map(|one| {
            let (_, doing) = one.title.split_once("startup ")?;
            Some(doing.trim_matches(['\0', ' ']).to_string()).filter(|doing| !doing.is_empty())
        })
    }

    /// How timeline `timeline` began, in PostgreSQL's own words; `None` on the first. Blocks.
    pub fn history_text(&self, timeline: u32) -> Option<String> {
        let path = self.data_dir.join(format!("pg_wal/{timeline:08X}.history"));
        self.files().read(&path).ok().flatten()
    }
}

/// Where the file lies that lets this machine in during recovery.
pub fn trusting_hba(data_dir: &Path) -> PathBuf {
    data_dir.join(TRUSTING_HBA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_how_far_which_method_came() {
        let method = CustomMethod { name: "my restore".into(), ..CustomMethod::default() };
        let bootstrap_marker = BootstrapMarker::of_method(&method).at(Phase::Recovering);
        let read = BootstrapMarker::parse(&bootstrap_marker.text()).expect("it was written");
        assert_eq!(read, bootstrap_marker);
        assert!(read.is_worth_keeping() && read.is_of(&BootstrapMarker::of_method(&method)));
        let other = CustomMethod { command: "x".into(), ..method };
        assert!(
            !read.is_of(&BootstrapMarker::of_method(&other)),
            "another command is another restore"
        );
        assert!(!BootstrapMarker::of_initdb().at(Phase::Scripted).is_worth_keeping());
        assert_eq!(BootstrapMarker::parse("rewind"), None);
        assert_eq!(BootstrapMarker::parse("bootstrap"), None);
    }
}
