//! Putting the configuration files in place: atomically, 0600, the originals kept.
use std::path::Path;

use super::Server;
use super::files::Files;
use crate::pure::postgres::recovery::without_recovery;

/// The texts to start with; `None` leaves a file as it is.
#[derive(Clone, Debug, Default)]
pub struct ConfFiles {
    pub postgresql_conf: Option<String>,
    pub pg_hba: Option<String>,
    pub pg_ident: Option<String>,
    /// Where pg_hba.conf is missing: the rules for it (`bootstrap.pg_hba`), behind those of the
    /// data directory's. A copy of a server that keeps its files elsewhere has none.
    pub hba_where_missing: Vec<String>,
    pub signal: Signal,
    /// Further arguments of the postmaster, `--name=value`.
    pub arguments: Vec<String>,
    /// Leave recovery settings in postgresql.auto.conf (a custom bootstrap wrote them).
    pub keep_auto_conf: bool,
}

/// Which signal file stands in the data directory at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// Neither: a primary.
    #[default]
    None,
    Standby,
    /// Point-in-time recovery of a custom bootstrap.
    Recovery,
    /// Whatever the custom bootstrap left.
    Keep,
}

const SPARED: [&str; 3] = ["postgresql.base.conf", "pg_hba.conf", "pg_ident.conf"];

impl Server {
    /// Writes what differs. Blocks.
    pub fn write_conf_files(&self, files: &ConfFiles) -> Result<(), String> {
        let dir = self.config_dir();
        if files.postgresql_conf.is_some() {
            keep_base(dir, self.files())?;
        }
        let texts = [
            ("postgresql.conf", &files.postgresql_conf),
            ("pg_hba.conf", &files.pg_hba),
            ("pg_ident.conf", &files.pg_ident),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                self.files().write_if_changed(&dir.join(name), text)?;
            }
        }
        self.fill_missing(&files.hba_where_missing)?;
        self.keep_spares()?;
        self.write_signal(files.signal)?;
        if !files.keep_auto_conf {
            self.scrub_auto_conf()?;
        }
        Ok(())
    }

    /// pg_hba.conf and pg_ident.conf that are not there, with what [`Server::hba_at_hand`] finds; a
    /// file that is there is left as it is.
    fn fill_missing(&self, lines: &[String]) -> Result<(), String> {
        for (name, lines) in [("pg_hba.conf", lines), ("pg_ident.conf", &[])] {
            let path = self.config_dir().join(name);
            if self.files().is_there(&path)? {
                continue;
            }
            if let Some(text) = self.at_hand(name, lines)? {
                self.files().write(&path, &text)?;
            }
        }
        Ok(())
    }

    /// What a missing pg_hba.conf would be written from; `None` where there is nothing.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub fn hba_at_hand(&self, lines: &[String]) -> Result<Option<String>, String> {
        self.at_hand("pg_hba.conf", lines)
    }

    /// The spare, which is whole; else the data directory's own with `lines` behind it.
    fn at_hand(&self, name: &str, lines: &[String]) -> Result<Option<String>, String> {
        let spare = self.data_dir.join(format!("{name}.backup"));
        if let Some(text) = self.files().read(&spare)? {
            return Ok(Some(text));
        }
        let own = self.files().read(&self.data_dir.join(name))?;
        if lines.is_empty() {
            return Ok(own);
        }
        Ok(Some(format!("{}\n{}\n", own.unwrap_or_default(), lines.join("\n"))))
    }

    /// Some tools leave files of these names out of their backups: whoever restores one finds them
    /// under another. Our own postgresql.conf is written anew wherever it is wanted.
    fn keep_spares(&self) -> Result<(), String> {
        for name in SPARED {
            if let Some(text) = self.files().read(&self.config_dir().join(name))? {
                let spare = self.data_dir.join(format!("{name}.backup"));
                self.files().write_if_changed(&spare, &text)?;
            }
        }
        Ok(())
    }

    /// Puts the signal files as wanted. Blocks.
    pub fn write_signal(&self, signal: Signal) -> Result<(), String> {
        let wanted = match signal {
            Signal::Keep => return Ok(()),
            Signal::None => None,
            Signal::Standby => Some("standby.signal"),
            Signal::Recovery => Some("recovery.signal"),
        };
        // The wanted one first: at no moment does a standby look like a primary.
        if let Some(name) = wanted {
            self.files().write_if_changed(&self.data_dir.join(name), "")?;
        }
        for name in ["standby.signal", "recovery.signal"] {
            if wanted != Some(name) {
                self.files().remove(&self.data_dir.join(name))?;
            }
        }
        Ok(())
    }

    fn scrub_auto_conf(&self) -> Result<(), String> {
        let path = self.data_dir.join("postgresql.auto.conf");
        let Some(text) = self.files().read(&path)? else { return Ok(()) };
        self.files().write_if_changed(&path, &without_recovery(&text))
    }
}

/// The original postgresql.conf, kept under the name that ours includes; never overwritten.
fn keep_base(dir: &Path, files: Files<'_>) -> Result<(), String> {
    let base = dir.join("postgresql.base.conf");
    if files.exists(&base) {
        return Ok(());
    }
    for name in ["postgresql.conf", "postgresql.conf.backup"] {
        if let Some(text) = files.read(&dir.join(name))? {
            return files.write(&base, &text);
        }
    }
    files.write(&base, "")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn server_in(dir: &Path) -> Server {
        for name in ["data", "etc"] {
            fs::create_dir_all(dir.join(name)).expect("a directory");
        }
        Server {
            data_dir: dir.join("data"),
            bin_dir: Default::default(),
            config_dir: Some(dir.join("etc")),
            run_as: None,
            pgpass: Default::default(),
            connection: Default::default(),
            state_dir: dir.to_owned(),
            held: Default::default(),
        }
    }

    #[test]
    fn a_missing_pg_hba_is_written_and_one_that_is_there_is_left() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = server_in(dir.path());
        let hba = server.config_dir().join("pg_hba.conf");
        let lines = [String::from("host all all all scram-sha-256")];
        let written = || fs::read_to_string(&hba).ok();

        server.fill_missing(&[]).expect("nothing to do");
        assert_eq!(written(), None);

        server.fill_missing(&lines).expect("written");
        assert_eq!(written().as_deref(), Some("\nhost all all all scram-sha-256\n"));

        fs::write(&hba, "the user's").expect("write");
        server.fill_missing(&lines).expect("left");
        assert_eq!(written().as_deref(), Some("the user's"));

        fs::remove_file(&hba).expect("removed");
        fs::write(server.data_dir.join("pg_hba.conf"), "initdb's").expect("write");
        server.fill_missing(&lines).expect("written");
        let both = "initdb's\nhost all all all scram-sha-256\n";
        assert_eq!(written().as_deref(), Some(both));

        fs::remove_file(&hba).expect("removed");
        fs::write(server.data_dir.join("pg_hba.conf.backup"), "the source's").expect("write");
        server.fill_missing(&lines).expect("written");
        assert_eq!(written().as_deref(), Some("the source's"));
    }

    #[test]
    fn the_base_is_kept_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("postgresql.conf"), "first").expect("write");
        keep_base(dir.path(), Files::of(None)).expect("kept");
        fs::write(dir.path().join("postgresql.conf"), "second").expect("write");
        keep_base(dir.path(), Files::of(None)).expect("kept");
        let base = fs::read_to_string(dir.path().join("postgresql.base.conf")).expect("there");
        assert_eq!(base, "first");
    }

    #[test]
    fn files_are_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("pg_hba.conf");
        fs::write(&path, "old").expect("write");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
        Files::of(None).write(&path, "new").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "new");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }
}
