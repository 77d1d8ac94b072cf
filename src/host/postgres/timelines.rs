//! Numbers of timelines that a promotion leaves out, and how those who follow the archive get past them.
//!
//! A number that an earlier leader may have begun is never begun again (promise P2), so a promotion can skip
//! some. In pg_wal each gets a file without parents: a running recovery passes it, and a replica that fetches
//! histories one by one takes none of them for its way. In the archive such a file would be taken for the newest
//! timeline as long as the leader's own is missing; so there each gets a copy of the leader's way up to its
//! number, and only after the leader's own history is there: whoever sees one sees the whole way to the end.
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Server;
use super::files::Files;
use super::processes::blocking;
use crate::pure::postgres::history::{self, NO_WAY, before, is_no_way};

/// So many numbers below the leader's are looked at after a promotion.
const NUMBERS_MAX: u32 = 64;
/// One run of archive_command for a file of a few lines.
const ARCHIVE_MAX: Duration = Duration::from_secs(60);

/// What became of the histories below a leader's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// The archiver has the leader's own history still before it.
    NotYet,
    /// The archive has everything, or nothing is archived here.
    Whole,
    /// The archive took no file for these skipped numbers; the last answer.
    Lacks(Vec<u32>, String),
}

/// Leaves no number free between our timeline and the wanted one.
pub(super) fn skip(dir: &Path, own: u32, wanted: u32, files: Files<'_>) -> Result<(), String> {
    let next = (own + 1..).find(|number| !files.exists(&file(dir, *number))).unwrap_or(u32::MAX);
    if next > wanted {
        return Err(format!(
            "timeline {wanted} was set aside for this lease, and {next} would be begun: another \
             leader could begin it, too"
        ));
    }
    (next..wanted).try_for_each(|number| files.write(&file(dir, number), NO_WAY))
}

fn name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

fn file(dir: &Path, timeline: u32) -> PathBuf {
    dir.join(name(timeline))
}

const ARCHIVING: &str = "SELECT pg_catalog.current_setting('archive_mode'), \
    pg_catalog.current_setting('archive_library', true), \
    pg_catalog.current_setting('archive_command')";

/// How the running server archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archiving {
    Off,
    /// It is to archive, and nobody has said how: WAL waits.
    Waiting,
    /// By a library, which only the server itself can call.
    Library,
    Command(String),
}

impl Server {
    /// How the server that runs archives.
    pub async fn archiving(&self) -> Result<Archiving, String> {
        let rows = self.session("Surus archive").await?.rows(ARCHIVING).await?;
        let row = rows.first().ok_or("PostgreSQL did not say how it archives")?;
        let text = |column: usize| row.get(column).unwrap_or_default();
        Ok(match (text(0), text(1), text(2)) {
            ("off", ..) => Archiving::Off,
            (_, "", "" | "(disabled)") => Archiving::Waiting,
            (_, "", command) => Archiving::Command(command.to_owned()),
            _ => Archiving::Library,
        })
    }

    fn wal_dir(&self) -> PathBuf {
        self.data_dir.join("pg_wal")
    }

    /// Takes away what was put down for a promotion that did not come about: PostgreSQL would take the highest
    /// number for the newest timeline, and never start. Numbers below a real history stay, as they are passed.
    /// Answers which went. Blocks.
    pub fn remove_skipped(&self) -> Result<Vec<u32>, String> {
        let mut found = self.histories()?;
        found.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        let left: Vec<u32> =
            found.iter().take_while(|(_, text)| is_no_way(text)).map(|(n, _)| *n).collect();
        for number in &left {
            self.files().remove(&file(&self.wal_dir(), *number))?;
        }
        Ok(left)
    }

    fn histories(&self) -> Result<Vec<(u32, String)>, String> {
        let dir = self.wal_dir();
        let wrong = |error| format!("could not read {}: {error}", dir.display());
        let mut found = Vec::new();
        let entries = match self.files().below(&dir, || std::fs::read_dir(&dir)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(wrong)?,
        };
        for entry in entries {
            let name = entry.map_err(wrong)?.file_name();
            let Some(number) = name.to_str().and_then(history::file_number) else { continue };
            found.push((number, self.files().read(&file(&dir, number))?.unwrap_or_default()));
        }
        Ok(found)
    }

    /// Sees to it that whoever follows the archive, from any older backup, finds the way to the timeline that
    /// is led here; and that replicas find a file here for each number below it.
    pub async fn archive_way_to(
        &self,
        timeline: u32,
        archiving: &Archiving,
    ) -> Result<Passage, String> {
        let Some(own) = self.history_text(timeline) else { return Ok(Passage::Whole) };
        let parents = history::parse(&own)?;
        let (server, way) = (self.clone(), own.clone());
        blocking(move || server.fill(timeline, &way)).await??;
        let status = self.wal_dir().join("archive_status").join(name(timeline));
        let led = |number: u32| parents.iter().any(|switch| switch.timeline == number);
        let (mut lacks, mut said) = (Vec::new(), String::new());
        let command = match archiving {
            Archiving::Off => return Ok(Passage::Whole),
            _ if self.files().exists(&status.with_extension("history.ready")) => {
                return Ok(Passage::NotYet);
            }
            Archiving::Waiting => return Ok(Passage::NotYet),
            Archiving::Command(command) => command,
            Archiving::Library => {
                lacks.extend((2..timeline).filter(|number| !led(*number)));
                said.push_str("it has to be put there by hand, as archive_library is set");
                ""
            }
        };
        let offered = if command.is_empty() { 0 } else { NUMBERS_MAX };
        for number in (2..timeline).rev().take(offered as usize) {
            match self.archive_history(command, number, &own).await {
                Ok(()) => {}
                // Its own leader archived it, and what is before it.
                Err(_) if led(number) => break,
                Err(problem) => {
                    lacks.push(number);
                    said = problem;
                }
            }
        }
        Ok(if lacks.is_empty() { Passage::Whole } else { Passage::Lacks(lacks, said) })
    }

    /// A replica on an old timeline asks for every history up to ours, and gets nowhere where one is missing.
    fn fill(&self, timeline: u32, own: &str) -> Result<(), String> {
        let parents = history::parse(own)?;
        let files = self.files();
        let absent = |number: &u32| !files.exists(&file(&self.wal_dir(), *number));
        for number in (2..timeline).filter(absent) {
            let led = parents.iter().any(|switch| switch.timeline == number);
            let text = if led { before(own, number) } else { NO_WAY.to_owned() };
            files.write(&file(&self.wal_dir(), number), &text)?;
        }
        Ok(())
    }

    /// Archives one history. A skipped number's file is our way for just as long as that takes.
    async fn archive_history(&self, command: &str, number: u32, own: &str) -> Result<(), String> {
        let dir = self.wal_dir();
        let skipped = self.history_text(number).is_none_or(|text| is_no_way(&text));
        if !skipped {
            return self.archive(command, &name(number), ARCHIVE_MAX).await;
        }
        let (path, way) = (file(&dir, number), before(own, number));
        let (to, server) = (path.clone(), self.clone());
        blocking(move || server.files().write(&to, &way)).await??;
        let archived = self.archive(command, &name(number), ARCHIVE_MAX).await;
        let server = self.clone();
        blocking(move || server.files().write(&path, NO_WAY)).await??;
        archived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(dir: &Path) -> Server {
        std::fs::create_dir_all(dir.join("data/pg_wal/archive_status")).expect("mkdir");
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

    fn by(command: &str) -> Archiving {
        Archiving::Command(command.to_owned())
    }

    #[test]
    fn numbers_that_an_earlier_leader_may_have_used_are_skipped() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |timeline: u32| file(dir.path(), timeline);
        std::fs::write(file(3), "2\t0/5000000\tours\n").expect("write");
        skip(dir.path(), 2, 6, Files::of(None)).expect("6 is ahead");
        assert_eq!(std::fs::read_to_string(file(3)).expect("read"), "2\t0/5000000\tours\n");
        assert!(file(4).exists() && file(5).exists() && !file(6).exists());
        let set_aside = std::fs::read_to_string(file(4)).expect("read");
        assert_eq!(history::parse(&set_aside), Ok(Vec::new()));
        skip(dir.path(), 2, 6, Files::of(None)).expect("again");
        assert!(
            skip(dir.path(), 6, 6, Files::of(None)).is_err_and(|why| why.contains("timeline 6"))
        );
        skip(dir.path(), 6, 7, Files::of(None)).expect("the next is free");
        assert!(!file(7).exists());
    }

    /// PostgreSQL takes the highest number for the newest timeline, and asks for its WAL for ever.
    #[test]
    fn leftovers_of_a_failed_promotion_go_and_a_way_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = server(dir.path());
        let wal = server.wal_dir();
        skip(&wal, 1, 3, Files::of(None)).expect("2 is skipped");
        std::fs::write(file(&wal, 3), "1\t0/5000000\tled\n").expect("write");
        skip(&wal, 3, 6, Files::of(None)).expect("4 and 5 are skipped");
        assert_eq!(server.remove_skipped(), Ok(vec![5, 4]));
        assert!(file(&wal, 2).exists() && file(&wal, 3).exists() && !file(&wal, 4).exists());
        assert_eq!(server.remove_skipped(), Ok(Vec::new()));
    }

    /// The archive takes the leader's way for each number between; pg_wal keeps a file that is no way.
    #[tokio::test]
    async fn skipped_numbers_are_a_way_in_the_archive_and_none_in_pg_wal() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = server(dir.path());
        let (wal, archive) = (server.wal_dir(), dir.path().join("archive"));
        std::fs::create_dir(&archive).expect("mkdir");
        let command = format!("test ! -f {0}/%f && cp %p {0}/%f", archive.display());
        std::fs::write(file(&wal, 2), "1\t0/3000000\tled\n").expect("write");
        skip(&wal, 2, 5, Files::of(None)).expect("3 and 4 are skipped");
        let own = "1\t0/3000000\tled\n\n2\t0/5000000\tled\n";
        std::fs::write(file(&wal, 5), own).expect("write");
        let ready = wal.join("archive_status/00000005.history.ready");
        std::fs::write(&ready, "").expect("write");
        let passage = server.archive_way_to(5, &by(&command)).await;
        assert_eq!(passage, Ok(Passage::NotYet), "the end first");
        std::fs::remove_file(&ready).expect("remove");
        let passage = server.archive_way_to(5, &by(&command)).await;
        assert_eq!(passage, Ok(Passage::Whole));
        let archived = |number| {
            history::parse(&std::fs::read_to_string(file(&archive, number)).expect("archived"))
        };
        assert_eq!(archived(3), history::parse(own));
        assert_eq!(archived(4), history::parse(own));
        assert_eq!(archived(2), history::parse("1\t0/3000000\tled\n"));
        assert!(is_no_way(&std::fs::read_to_string(file(&wal, 4)).expect("there")));
        let passage = server.archive_way_to(5, &by("false")).await;
        assert!(matches!(passage, Ok(Passage::Lacks(numbers, _)) if numbers == [4, 3]));
    }

    /// A member that was copied late has no older histories, and its replicas ask for all of them.
    #[tokio::test]
    async fn what_a_copy_lacks_is_filled_in() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = server(dir.path());
        std::fs::write(file(&server.wal_dir(), 4), "1\t0/3\ta\n2\t0/5\tb\n").expect("write");
        assert_eq!(server.archive_way_to(4, &Archiving::Off).await, Ok(Passage::Whole));
        assert_eq!(server.history_text(2).as_deref(), Some("1\t0/3\ta\n"));
        assert_eq!(server.history_text(3).as_deref(), Some(NO_WAY));
    }
}
