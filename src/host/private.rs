//! Small files that only this account may have written: what they say is acted on with our rights.
//!
//! The directory may belong to another account, which can put anything there in place of ours.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::rng::random_id;

/// A longer file is none of ours.
const BYTES_MAX: u64 = 64 << 10;

/// Replaces the file whole, without following a link at any step.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension(format!("{:x}.new", random_id()));
    let written = create(&new).and_then(|mut file| file.write_all(text.as_bytes()));
    let put = written.and_then(|()| fs::rename(&new, path));
    if put.is_err() {
        fs::remove_file(&new).ok();
    }
    put
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

/// What we wrote there; `None` where there is no file, or one that somebody else can have written.
///
/// # Errors
/// Where that cannot be seen.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Ok(None);
        }
        // A link, which we never make, or a socket.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    let is_ours = meta.is_file()
        && meta.uid() == rustix::process::geteuid().as_raw()
        && meta.mode() & 0o077 == 0
        && meta.len() <= BYTES_MAX;
    if !is_ours {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8(text).ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_planted_link_is_neither_followed_nor_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, canary) = (dir.path().join("it.pid"), dir.path().join("canary"));
        fs::write(&canary, "safe").expect("written");
        fs::set_permissions(&canary, fs::Permissions::from_mode(0o600)).expect("ours");
        symlink(&canary, &file).expect("planted");
        symlink(&canary, dir.path().join("it.pid.new")).expect("planted");
        assert_eq!(read(&file).expect("looked"), None);
        write(&file, "4711").expect("replaced");
        assert_eq!(fs::read_to_string(&canary).expect("there"), "safe");
        assert_eq!(read(&file).expect("looked").as_deref(), Some("4711"));
    }

    #[test]
    fn what_others_can_have_written_is_not_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("it.pid");
        assert_eq!(read(&file).expect("looked"), None);
        write(&file, "4711").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o606)).expect("opened");
        assert_eq!(read(&file).expect("looked"), None);
    }
}
