//! A look at the data directory: empty, unfinished, whole or broken, and who runs on it.
use std::path::{Path, PathBuf};

use super::inhabitants::{DirId, Place};
use super::processes::{beside, blocking};
use super::replica::{COPIED, STARTED};
use super::{Server, TOOL_TIMEOUT};
use crate::pure::cluster::facts::DataDirectory;
use crate::pure::postgres::backup_label::{self, BackupLabel};
use crate::pure::postgres::control::{self, Control};
use crate::pure::postgres::postmaster_pid::{self, PostmasterPid};

/// What a look found.
#[derive(Clone, Debug, Default)]
pub struct Inspected {
    pub data: DataDirectory,
    pub control: Option<Control>,
    pub postmaster: Option<i32>,
    /// The lock file, if a live postmaster wrote it.
    pub pid_file: Option<PostmasterPid>,
    /// The live postmaster is one that we started, in this life or an earlier one.
    pub started_by_us: bool,
    /// Alive and, as far as files tell, out of recovery.
    pub running_as_primary: bool,
    pub standby_signal: bool,
    pub recovery_signal: bool,
    pub backup_label: Option<BackupLabel>,
    /// Why the directory counts as unfinished: the name of the work (`basebackup`, `rewind`, …).
    /// After an unfinished `rewind` the directory was somebody's data: ask before removing it.
    pub unfinished: Option<String>,
    /// Major version of the data, from PG_VERSION.
    pub major: Option<u32>,
}

impl Inspected {
    /// A copy that a server has run on is whole, whatever became of its build.
    fn is_whole(&self) -> bool {
        match self.unfinished.as_deref() {
            None | Some(STARTED) => true,
            Some(COPIED) => self.postmaster.is_some(),
            Some(_) => false,
        }
    }
}

/// Who is alive on a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    pub postmaster: Option<i32>,
    /// Backends and auxiliary processes.
    pub others: Vec<i32>,
}

impl Server {
    /// Looks without changing anything. Fails only where the directory cannot be read.
    pub async fn inspect(&self) -> Result<Inspected, String> {
        let server = self.clone();
        let (mut found, empty) = blocking(move || server.look()).await??;
        if empty {
            found.data = DataDirectory::Empty;
            return Ok(found);
        }
        let control = self.control().await;
        found.control = control.as_ref().ok().cloned();
        found.running_as_primary = found.postmaster.is_some()
            && !found.standby_signal
            && found.control.as_ref().is_some_and(Control::out_of_recovery);
        found.data = match (found.is_whole(), control) {
            (false, _) => DataDirectory::Incomplete,
            (true, Err(problem)) => DataDirectory::Broken { problem },
            (true, Ok(_)) if found.major.is_none() && found.postmaster.is_none() => {
                let problem = "PG_VERSION is missing or cannot be read, so that PostgreSQL will \
                               not start on it";
                DataDirectory::Broken { problem: problem.into() }
            }
            (true, Ok(control)) => present(&control, &found),
        };
        Ok(found)
    }

    /// `pg_controldata` of the data directory.
    pub async fn control(&self) -> Result<Control, String> {
        let run = self.tool("pg_controldata").arg("-D").arg(&self.data_dir);
        control::parse(&run.timeout(TOOL_TIMEOUT).run().await?.stdout)
    }

    /// Who is alive here. Blocks for a millisecond.
    ///
    /// # Errors
    /// Where that cannot be seen: somebody may be.
    pub fn presence(&self) -> Result<Presence, String> {
        let known = match self.held.alive() {
            Some(hold) => Some(hold.pid),
            None => self.held.noted()?,
        };
        let inhabitants = self.place(known)?.inhabitants()?;
        let named = self.named();
        let postmaster = known
            .or_else(|| inhabitants.iter().map(|one| one.pid).find(|pid| Some(*pid) == named))
            .or_else(|| inhabitants.iter().find(|one| !one.backend).map(|one| one.pid));
        let others =
            inhabitants.iter().map(|one| one.pid).filter(|pid| Some(*pid) != postmaster).collect();
        Ok(Presence { postmaster, others })
    }

    /// Whether the path still leads to data, and to those on which the postmaster that is held works.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub fn data_is_in_place(&self) -> Result<bool, String> {
        if !self.files().is_there(&self.data_dir.join("global/pg_control"))? {
            return Ok(false);
        }
        let (Some(works_in), true) = (self.held.dir(), self.held.alive().is_some()) else {
            return Ok(true);
        };
        let shown = self.data_dir.display();
        let named = self.files().at(&self.data_dir, || DirId::of(&self.data_dir));
        Ok(named.map_err(|error| format!("could not look at {shown}: {error}"))? == works_in)
    }

    /// The data directory by its path, and where the postmaster that is known works.
    pub(super) fn place(&self, known: Option<i32>) -> Result<Place, String> {
        let dir = match self.held.dir() {
            Some(dir) => Some(dir),
            None => known.map(DirId::of_process).transpose()?.flatten(),
        };
        Place::new(&self.data_dir, dir)
    }

    /// Whom the lock file names, if it can be read: a hint, never an answer.
    fn named(&self) -> Option<i32> {
        self.pid_file().ok().flatten().map(|file| file.pid)
    }

    /// postmaster.pid, whoever wrote it; `None` where there is none. Blocks.
    pub fn pid_file(&self) -> Result<Option<PostmasterPid>, String> {
        match self.files().read(&self.data_dir.join("postmaster.pid"))? {
            None => Ok(None),
            Some(text) => postmaster_pid::parse(&text).map(Some),
        }
    }

    fn look(&self) -> Result<(Inspected, bool), String> {
        let files = self.files();
        let empty = files.is_empty(&self.data_dir)?;
        let presence = self.presence()?;
        let file = |name: &str| files.read(&self.data_dir.join(name));
        let pid_file = self.pid_file().ok().flatten();
        let label = file("backup_label")?.and_then(|text| backup_label::parse(&text).ok());
        let found = Inspected {
            started_by_us: match presence.postmaster {
                Some(pid) => self.is_our_own(pid)?,
                None => false,
            },
            pid_file: pid_file.filter(|file| Some(file.pid) == presence.postmaster),
            postmaster: presence.postmaster,
            standby_signal: files.is_there(&self.data_dir.join("standby.signal"))?,
            recovery_signal: files.is_there(&self.data_dir.join("recovery.signal"))?,
            backup_label: label,
            unfinished: if empty { None } else { self.unfinished()? },
            major: file("PG_VERSION")?.and_then(|text| text.trim().parse().ok()),
            ..Inspected::default()
        };
        Ok((found, empty))
    }

    /// The name of the work that was begun on this directory and never finished. Blocks.
    pub fn unfinished(&self) -> Result<Option<String>, String> {
        for path in self.marker_paths() {
            if let Some(text) = self.files().read(&path)? {
                return Ok(Some(text.lines().next().unwrap_or_default().to_owned()));
            }
        }
        Ok(None)
    }

    /// From here on, until [`Server::mark_finished`], the directory counts as unfinished. Blocks.
    pub fn mark_unfinished(&self, work: &str) -> Result<(), String> {
        let mut problem = String::new();
        for path in self.marker_paths() {
            match self.files().write_note(&path, &format!("{work}\n")) {
                Ok(()) => return Ok(()),
                Err(text) => problem = text,
            }
        }
        Err(format!("could not note that the copy is unfinished: {problem}"))
    }

    /// A server runs on the copy that was made here: only its build may still remove it. Blocks.
    pub fn mark_started(&self) -> Result<(), String> {
        match self.unfinished()?.as_deref() {
            Some(COPIED) => self.mark_unfinished(STARTED),
            _ => Ok(()),
        }
    }

    /// The work on the directory is done and on its disk. Blocks.
    pub fn mark_finished(&self) -> Result<(), String> {
        self.marker_paths().iter().try_for_each(|path| self.files().remove(path))
    }

    fn marker_paths(&self) -> [PathBuf; 2] {
        let name: String = self.data_dir.display().to_string();
        let flat = name.trim_matches('/').replace('/', "-");
        [
            beside(&self.data_dir, ".surus-incomplete"),
            self.state_dir.join(format!("{flat}.surus-incomplete")),
        ]
    }
}

fn present(control: &Control, found: &Inspected) -> DataDirectory {
    let (timeline, lsn) = control.position();
    let was_primary = control.out_of_recovery() && !found.standby_signal && !found.recovery_signal;
    DataDirectory::Present {
        system_identifier: control.system_identifier.clone(),
        timeline,
        lsn,
        was_primary: was_primary && found.backup_label.is_none(),
        clean: control.clean() && found.backup_label.is_none(),
    }
}

/// Whether something lies there; for places that are no files of the cluster's. Blocks.
///
/// # Errors
/// Where that cannot be seen.
pub fn is_there(path: &Path) -> Result<bool, String> {
    path.try_exists().map_err(|error| format!("could not look at {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::postgres::files::Files;
    use std::fs;

    fn is_empty(dir: &Path) -> Result<bool, String> {
        Files::of(None).is_empty(dir)
    }

    /// Spec: E-1.
    #[test]
    fn dot_names_and_lost_and_found_do_not_count() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path();
        fs::create_dir(path.join("lost+found")).expect("mkdir");
        fs::write(path.join(".keep"), "").expect("write");
        assert_eq!(is_empty(path), Ok(true));
        assert_eq!(is_empty(&path.join("absent")), Ok(true));
        fs::write(path.join("PG_VERSION"), "15").expect("write");
        assert_eq!(is_empty(path), Ok(false));
    }

    /// Spec: E-1.
    #[test]
    fn a_control_file_alone_counts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("global")).expect("mkdir");
        fs::write(dir.path().join("global/pg_control"), "").expect("write");
        assert_eq!(is_empty(dir.path()), Ok(false));
    }
}
