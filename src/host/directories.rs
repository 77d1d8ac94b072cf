//! Directories outside the data directory that PostgreSQL and its tools write to: made where they
//! are missing, and named at the start where that is not possible.
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use super::postgres::Server;
use super::postgres::account::Account;
use super::postgres::files::Files;
use super::postgres::processes::blocking;
use crate::pure::config::{Config, Dynamic, PostgresSettings, Postgresql, effective};

const PGPASS: &str = "postgresql.pgpass";

/// Makes what is missing; answers the dynamic configuration that the file begins with.
///
/// # Errors
/// A directory cannot be made, or not be written by whom PostgreSQL runs as: which key names it.
pub async fn make(server: Option<&Server>, config: &Config) -> Result<Dynamic, String> {
    let first = Dynamic::from_value(config.bootstrap.as_ref().map(|b| &b.dcs));
    if let Some((server, postgresql)) = server.zip(config.postgresql.as_ref()) {
        make_all(server, postgresql, &effective(postgresql, &first)).await?;
    }
    Ok(first)
}

async fn make_all(
    server: &Server,
    config: &Postgresql,
    settings: &PostgresSettings,
) -> Result<(), String> {
    for (key, dir) in wanted(config, settings) {
        let (owner, place) = (server.run_as.clone(), dir.clone());
        let made = blocking(move || make_one(&place, owner.as_ref())).await?;
        let shown = dir.display();
        made.map_err(|error| format!("{key}: {shown} cannot be made: {error}"))?;
        // As root it is Surus that writes the passfile, and the others only read it.
        let fits = match key {
            PGPASS if server.run_as.is_some() => server.may(&dir, "-x").await,
            _ => server.may_write(&dir).await,
        };
        if !fits {
            return Err(format!(
                "{key}: {shown} is no directory that PostgreSQL's account may use: give it the \
                 right to, or name another"
            ));
        }
    }
    Ok(())
}

fn make_one(dir: &Path, owner: Option<&Account>) -> std::io::Result<()> {
    let files = Files::of(owner);
    if files.exists(dir) {
        return Ok(());
    }
    files.at(dir, || std::fs::create_dir_all(dir))?;
    match owner.filter(|_| files.may_give_away(dir)) {
        Some(account) => account.own(dir),
        None => Ok(()),
    }
}

/// The directory for what we note about PostgreSQL: ours alone, as far as the way there is. One
/// that an older version gave to PostgreSQL's account is taken back, without what may lead elsewhere.
pub fn make_own(dir: &Path, account: Option<&Account>) -> std::io::Result<()> {
    let files = Files::of(account);
    if let Err(error) = files.at(dir, || std::fs::create_dir_all(dir)) {
        let Some(account) = account else { return Err(error) };
        make_for(dir, account).map_err(|_| error)?;
    }
    let meta = files.at(dir, || std::fs::symlink_metadata(dir))?;
    let Some(account) = account else { return Ok(()) };
    if !files.may_give_away(dir) {
        tracing::warn!(
            dir = %dir.display(),
            "raft.data_dir: other accounts than root can change this directory: keep it where only \
             root can, as the daemon runs as root"
        );
        return Ok(());
    }
    if meta.uid() != account.uid {
        return Ok(());
    }
    lchown(dir, Some(0), Some(0))?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    std::fs::read_dir(dir)?.try_for_each(|entry| take_back(&entry?.path()))
}

/// Where others can change the way to `raft.data_dir` what lies in here is the account's; it may make
/// nothing in that directory itself, which is root's: this one is made for it, from the directory that was opened.
fn make_for(dir: &Path, account: &Account) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, fstat, mkdirat, open};
    let refused = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Err(refused()) };
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let parent = open(parent, flags, Mode::empty())?;
    let meta = fstat(&parent)?;
    if meta.st_uid != 0 || meta.st_mode & 0o022 != 0 {
        return Err(refused());
    }
    mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    Ok(chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn take_back(path: &Path) -> std::io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if meta.is_dir() {
        return std::fs::remove_dir_all(path);
    }
    if !meta.is_file() || meta.nlink() > 1 {
        tracing::warn!(path = %path.display(), "removed: PostgreSQL's account had put a link here");
        return std::fs::remove_file(path);
    }
    lchown(path, Some(0), Some(0))
}

/// Relative ones lie in the data directory, which has its own rules.
fn wanted(config: &Postgresql, settings: &PostgresSettings) -> Vec<(&'static str, PathBuf)> {
    let outside = |dir: &PathBuf| dir.is_absolute() && !dir.starts_with(&config.data_dir);
    let parameter = |name: &str| settings.parameters.get(name).and_then(|v| v.as_str());
    let list = |name: &str| -> Vec<PathBuf> {
        let text = parameter(name).unwrap_or_default();
        text.split(',').map(|dir| PathBuf::from(dir.trim().trim_matches('"'))).collect()
    };
    let sockets = list("unix_socket_directories").into_iter();
    let statistics = list("stats_temp_directory").into_iter();
    let users = [&config.superuser, &config.replication].into_iter().chain(&config.rewind);
    let has_passwords = users.into_iter().any(|user| user.password.is_some());
    let passwords = config.pgpass.parent().filter(|_| has_passwords).map(Path::to_path_buf);
    passwords
        .into_iter()
        .map(|dir| (PGPASS, dir))
        .chain(sockets.map(|dir| ("postgresql.parameters.unix_socket_directories", dir)))
        .chain(statistics.map(|dir| ("postgresql.parameters.stats_temp_directory", dir)))
        .filter(|(_, dir)| outside(dir))
        .collect()
}
