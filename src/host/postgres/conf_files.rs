//! Putting the configuration files in place: atomically, 0600, the originals kept.
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::Server;
use super::account::Account;
use super::inspect::{read_optional, remove_optional};

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
        let owner = self.run_as.as_ref();
        if files.postgresql_conf.is_some() {
            keep_base(dir, owner)?;
        }
        let texts = [
            ("postgresql.conf", &files.postgresql_conf),
            ("pg_hba.conf", &files.pg_hba),
            ("pg_ident.conf", &files.pg_ident),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                write_if_changed(&dir.join(name), text, owner)?;
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
            if let Some(text) = read_optional(&self.config_dir().join(name))? {
                let spare = self.data_dir.join(format!("{name}.backup"));
                write_if_changed(&spare, &text, self.run_as.as_ref())?;
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
            write_if_changed(&self.data_dir.join(name), "", self.run_as.as_ref())?;
        }
        for name in ["standby.signal", "recovery.signal"] {
            if wanted != Some(name) {
                remove_optional(&self.data_dir.join(name))?;
            }
        }
        Ok(())
    }

    fn scrub_auto_conf(&self) -> Result<(), String> {
        let path = self.data_dir.join("postgresql.auto.conf");
        let Some(text) = read_optional(&path)? else { return Ok(()) };
        write_if_changed(&path, &without_recovery(&text), self.run_as.as_ref())
    }
}

/// The original postgresql.conf, kept under the name that ours includes; never overwritten.
fn keep_base(dir: &Path, owner: Option<&Account>) -> Result<(), String> {
    let base = dir.join("postgresql.base.conf");
    if base.exists() {
        return Ok(());
    }
    for name in ["postgresql.conf", "postgresql.conf.backup"] {
        if let Some(text) = read_optional(&dir.join(name))? {
            return write_atomic(&base, &text, owner);
        }
    }
    write_atomic(&base, "", owner)
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

pub(super) fn write_if_changed(
    path: &Path,
    text: &str,
    owner: Option<&Account>,
) -> Result<(), String> {
    match read_optional(path) {
        Ok(Some(present)) if present == text => Ok(()),
        _ => write_atomic(path, text, owner),
    }
}

/// Writes a file whole or not at all, 0600, on disk before this returns. Blocks.
pub fn write_atomic(path: &Path, text: &str, owner: Option<&Account>) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("could not write {}: {error}", path.display());
    let draft = super::processes::beside(path, ".surus-new");
    remove_optional(&draft)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&draft)
        .map_err(wrong)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(wrong)?;
    file.write_all(text.as_bytes()).map_err(wrong)?;
    file.sync_all().map_err(wrong)?;
    if let Some(account) = owner {
        account.own(&draft).map_err(wrong)?;
    }
    fs::rename(&draft, path).map_err(wrong)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes renames in a directory durable. Blocks.
pub fn sync_dir(dir: &Path) -> Result<(), String> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    fs::File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(|error| format!("could not flush {}: {error}", dir.display()))
}

#[cfg(test)]
mod tests {
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
        keep_base(dir.path(), None).expect("kept");
        fs::write(dir.path().join("postgresql.conf"), "second").expect("write");
        keep_base(dir.path(), None).expect("kept");
        let base = fs::read_to_string(dir.path().join("postgresql.base.conf")).expect("there");
        assert_eq!(base, "first");
    }

    #[test]
    fn files_are_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("pg_hba.conf");
        fs::write(&path, "old").expect("write");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
        write_atomic(&path, "new", None).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "new");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }
}
