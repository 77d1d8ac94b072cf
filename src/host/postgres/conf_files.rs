//! Putting the configuration files in place: atomically, 0600, the originals kept.
use std::path::Path;

use super::Server;
use super::files::Files;

/// The texts to start with; `None` leaves a file as it is.
#[derive(Clone, Debug, Default)]
pub struct ConfFiles {
    pub postgresql_conf: Option<String>,
    pub pg_hba: Option<String>,
    pub pg_ident: Option<String>,
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

/// Settings that may stand only in our own file: in postgresql.auto.conf they would win over it.
const RECOVERY_SETTINGS: [&str; 16] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
    "trigger_file",
];

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
        self.keep_spares()?;
        self.write_signal(files.signal)?;
        if !files.keep_auto_conf {
            self.scrub_auto_conf()?;
        }
        Ok(())
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

pub(in crate::host) fn without_recovery(text: &str) -> String {
    let is_recovery = |line: &str| {
        let line = line.trim_start();
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
        let name = line[..end.unwrap_or(line.len())].to_ascii_lowercase();
        RECOVERY_SETTINGS.contains(&name.as_str())
    };
    text.split_inclusive('\n').filter(|line| !is_recovery(line)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Spec: B-18.
    #[test]
    fn recovery_settings_leave_auto_conf() {
        let text = "# do not edit\nwork_mem = '4MB'\n Primary_conninfo = 'host=a'\n\
            recovery_target_time='x'\nrestore_commands = 'kept'\n";
        assert_eq!(
            without_recovery(text),
            "# do not edit\nwork_mem = '4MB'\nrestore_commands = 'kept'\n"
        );
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
