//! WAL that only this server could archive: handed over before anything removes it, or kept beside the data.
//!
//! A primary keeps a finished segment until archive_command took it (`.ready`). Once it follows somebody, PostgreSQL
//! takes the archive for the new leader's business and removes the segment; the new leader counts what it received
//! as archived. So before a stopped primary becomes anything else, its archive_command is run for all that
//! waits, as PostgreSQL would; what it does not take is copied to `<data_dir>.unarchived` and offered again later.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Server;
use super::files::Files;
use super::processes::{self, blocking};
use super::program::Program;
use super::removal::make_data_dir;

/// One run of archive_command, as part of the whole time.
const ONE_MAX: Duration = Duration::from_secs(30);
/// An archive that refused so many files in a row is out of order.
const REFUSALS_MAX: u32 = 2;
/// Copying one file aside.
const COPY_MAX: Duration = Duration::from_secs(120);

/// Under another name first: what has the right name is whole, and on the disk.
const KEEP: &str = r#"set -e
cp -p -- "$1" "$2/$3.part"
sync -- "$2/$3.part" 2>/dev/null || sync
mv -- "$2/$3.part" "$2/$3""#;

/// What became of the files that waited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    pub archived: Vec<String>,
    /// Not taken, oldest first.
    pub left: Vec<String>,
    /// Why the first of them was not.
    pub problem: String,
}

/// Files of PostgreSQL's own making: nothing else reaches a shell.
fn is_wal_name(name: &str) -> bool {
    let valid = |c: char| "0123456789ABCDEF.historybackuppartial".contains(c);
    name.len() >= 16 && name.len() <= 60 && name.chars().all(valid) && !name.starts_with('.')
}

/// In PostgreSQL's order: histories, then what is oldest.
fn in_order(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| is_wal_name(name));
    names.sort_by_key(|name| (!name.ends_with(".history"), name.clone()));
    names
}

fn names_in(files: Files, dir: &Path, suffix: &str) -> Result<Vec<String>, String> {
    let paths = files.entries(dir)?;
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str()?.strip_suffix(suffix));
    Ok(in_order(names.map(str::to_owned).collect()))
}

impl Server {
    /// What waits for archive_command here. Blocks.
    pub fn waiting_for_archive(&self) -> Result<Vec<String>, String> {
        names_in(self.files(), &self.status_dir(), ".ready")
    }

    /// Where what the archive did not take is kept.
    pub fn unarchived_dir(&self) -> PathBuf {
        processes::beside(&self.data_dir, ".unarchived")
    }

    /// What is kept there. Blocks.
    pub fn kept_for_archive(&self) -> Result<Vec<String>, String> {
        names_in(self.files(), &self.unarchived_dir(), "")
    }

    fn status_dir(&self) -> PathBuf {
        self.data_dir.join("pg_wal/archive_status")
    }

    /// Runs archive_command for what waits in a stopped server; what it took is marked so.
    pub async fn hand_to_archive(
        &self,
        command: &str,
        waiting: Vec<String>,
        at_most: Duration,
    ) -> Result<Handed, String> {
        let begun = Instant::now();
        let (mut handed, mut refused) = (Handed::default(), 0);
        for name in waiting {
            let left = at_most.saturating_sub(begun.elapsed());
            if refused >= REFUSALS_MAX || left.is_zero() {
                handed.left.push(name);
                continue;
            }
            match self.archive(command, &name, ONE_MAX.min(left)).await {
                Ok(()) => {
                    self.mark_archived(&name).await?;
                    handed.archived.push(name);
                    refused = 0;
                }
                Err(problem) => {
                    if handed.left.is_empty() {
                        handed.problem = problem;
                    }
                    handed.left.push(name);
                    refused += 1;
                }
            }
        }
        Ok(handed)
    }

    async fn mark_archived(&self, name: &str) -> Result<(), String> {
        let status = self.status_dir().join(name);
        let named = |end: &str| processes::beside(&status, end);
        let (ready, done) = (named(".ready"), named(".done"));
        let server = self.clone();
        blocking(move || match server.files().at(&ready, || fs::rename(&ready, &done)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(format!("could not rename {}: {error}", ready.display()))
            }
            _ => Ok(()),
        })
        .await?
    }

    /// Copies files from pg_wal to where nothing of PostgreSQL's comes, and counts them as archived here: from
    /// then on it is on Surus to offer them. A file that is gone from pg_wal has nothing to keep.
    ///
    /// # Errors
    /// There is no room, or no right to write there: nothing was changed for the file that is named.
    pub async fn keep_unarchived(&self, files: &[String]) -> Result<PathBuf, String> {
        let dir = self.unarchived_dir();
        self.make_beside(&dir).await?;
        for name in files {
            let source = self.data_dir.join("pg_wal").join(name);
            if self.files().is_there(&source)? {
                let place = dir.display().to_string();
                let program = Program::new("/bin/sh", &self.state_dir, self.run_as.as_ref());
                let words = ["-c", KEEP, "keep", &source.display().to_string(), &place, name];
                let copied = program.args(words).timeout(COPY_MAX).run().await;
                copied.map_err(|problem| {
                    format!("{name}, which is not in the archive, could not be kept in {place}: {problem}")
                })?;
            }
            let (server, to) = (self.clone(), dir.clone());
            blocking(move || server.files().sync_dir(&to)).await??;
            self.mark_archived(name).await?;
        }
        Ok(dir)
    }

    /// A directory beside the data, made by the account that owns it wherever that one may.
    async fn make_beside(&self, dir: &Path) -> Result<(), String> {
        let seen = self.files().at(dir, || fs::symlink_metadata(dir));
        if seen.is_ok_and(|meta| meta.is_dir()) {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new("/"));
        if self.may_write(parent).await {
            let program = Program::new("/bin/mkdir", &self.state_dir, self.run_as.as_ref());
            return program.args(["-m", "0700", "--"]).arg(dir).run().await.map(|_| ());
        }
        make_data_dir(dir, self.run_as.as_ref())
    }

    /// Offers what is kept, oldest first, until one is refused; what was taken is removed.
    pub async fn offer_kept(&self, command: &str) -> Result<Handed, String> {
        let (server, mut handed) = (self.clone(), Handed::default());
        let mut kept = blocking(move || server.kept_for_archive()).await??.into_iter();
        for name in kept.by_ref() {
            let path = self.unarchived_dir().join(&name);
            match self.archive_from(command, &path.display().to_string(), &name, ONE_MAX).await {
                Ok(()) => {
                    fs::remove_file(&path)
                        .map_err(|error| format!("could not remove {}: {error}", path.display()))?;
                    handed.archived.push(name);
                }
                Err(problem) => {
                    handed.problem = problem;
                    handed.left.push(name);
                    break;
                }
            }
        }
        handed.left.extend(kept);
        if handed.left.is_empty() {
            fs::remove_dir(self.unarchived_dir()).ok(); // whatever else lies there stays
        }
        Ok(handed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(dir: &Path) -> Server {
        fs::create_dir_all(dir.join("data/pg_wal/archive_status")).expect("mkdir");
        Server {
            data_dir: dir.join("data"),
            bin_dir: PathBuf::new(),
            config_dir: None,
            run_as: None,
            pgpass: PathBuf::new(),
            connection: super::super::Connection::default(),
            state_dir: dir.to_owned(),
            held: Default::default(),
        }
    }

    fn segment(server: &Server, number: u32) -> String {
        let name = format!("0000000100000000{number:08X}");
        fs::write(server.data_dir.join("pg_wal").join(&name), format!("{number}")).expect("write");
        fs::write(server.status_dir().join(format!("{name}.ready")), "").expect("write");
        name
    }

    #[test]
    fn histories_come_first_and_strange_names_never() {
        let names = [
            "000000010000000000000002",
            "00000002.history",
            "$(x)0000000000000000",
            "000000010000000000000001",
        ];
        let names = in_order(names.map(str::to_owned).to_vec());
        assert_eq!(names[0], "00000002.history");
        assert_eq!(names[1], "000000010000000000000001");
        assert_eq!(names.len(), 3);
    }

    /// The archive has the first, then goes out of order, then is mended.
    #[tokio::test]
    async fn what_the_archive_refuses_is_kept_and_offered_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = server(dir.path());
        let names: Vec<String> = (1..=3).map(|number| segment(&server, number)).collect();
        let archive = dir.path().join("archive");
        fs::create_dir(&archive).expect("mkdir");
        let to = archive.display();
        let mended = format!("cp %p {to}/%f");
        let refuses = format!("case %f in *1) cp %p {to}/%f;; *) false;; esac");
        let waiting = server.waiting_for_archive().expect("read");
        assert_eq!(waiting, names);
        let minute = Duration::from_secs(60);
        let handed = server.hand_to_archive(&refuses, waiting, minute).await.expect("handed");
        assert_eq!((&handed.archived[..], &handed.left[..]), (&names[..1], &names[1..]));
        let place = server.keep_unarchived(&handed.left).await.expect("kept");
        assert_eq!(server.waiting_for_archive(), Ok(Vec::new()));
        fs::write(server.data_dir.join("pg_wal").join(&names[1]), "recycled").expect("write");
        assert_eq!(server.kept_for_archive().expect("read"), names[1..]);
        assert_eq!(server.offer_kept("false").await.expect("offered").left, names[1..]);
        let offered = server.offer_kept(&mended).await.expect("offered");
        assert_eq!(offered.archived, names[1..]);
        assert_eq!(fs::read_to_string(archive.join(&names[1])).expect("archived"), "2");
        assert!(!place.exists());
    }
}
