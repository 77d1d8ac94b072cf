//! Whose rights an access to a file has: root's, or those of PostgreSQL's account.
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::process::{DumpableBehavior, Signal};

use super::account::Account;

/// Links on one way; as many as the kernel follows.
const LINKS_MAX: usize = 40;
const STICKY: u32 = 0o1000;

/// Root alone can change what `path` means: every directory on the way there, links followed, is
/// root's and lets nobody else write. With `below` that is asked of the directory `path`, too.
pub fn is_roots(path: &Path, below: bool) -> bool {
    let Ok(path) = std::path::absolute(path) else { return false };
    let mut left = names(&path);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    let Ok(root) = fs::symlink_metadata(&at) else { return false };
    let Some(mut shared) = shared(&root) else { return false };
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            shared = false;
            continue;
        }
        let next = at.join(&name);
        let meta = match fs::symlink_metadata(&next) {
            // In a directory like /tmp anybody may put something there until it is made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return !shared,
            Err(_) => return false,
            Ok(meta) => meta,
        };
        if shared && meta.uid() != 0 {
            return false;
        }
        if meta.is_symlink() {
            links += 1;
            let Ok(target) = fs::read_link(&next) else { return false };
            if links > LINKS_MAX {
                return false;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
                shared = false;
            }
            left.extend(names(&target));
        } else if left.is_empty() && !(below && meta.is_dir()) {
            return true;
        } else {
            let Some(sticky) = self::shared(&meta) else { return false };
            (at, shared) = (next, sticky);
        }
    }
    !shared
}

/// The components of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

/// `None` for a directory that others than root can change; true for one like /tmp, where others
/// may add names but not change root's.
fn shared(meta: &fs::Metadata) -> Option<bool> {
    let (mode, ours) = (meta.mode(), meta.uid() == 0 && meta.is_dir());
    let group = mode & 0o020 != 0 && meta.gid() != 0;
    let open = group || mode & 0o002 != 0;
    (ours && (!open || mode & STICKY != 0)).then_some(open)
}

/// While it lives, this thread's accesses to files are those of an account. Nothing is awaited and
/// no program is started meanwhile.
pub struct Acting {
    /// `None` within another one.
    before: Option<Before>,
}

struct Before {
    gid: u32,
    groups: Vec<libc::gid_t>,
    death_signal: Option<Signal>,
    dumpable: Option<DumpableBehavior>,
}

impl Acting {
    /// # Errors
    /// The daemon is root without the right to change its identity: the access is not made.
    pub fn begin(account: &Account) -> io::Result<Acting> {
        if file_uid() != 0 {
            return Ok(Acting { before: None });
        }
        let before = Before {
            gid: rustix::process::getegid().as_raw(),
            groups: rustix::process::getgroups()?.into_iter().map(|gid| gid.as_raw()).collect(),
            death_signal: rustix::process::parent_process_death_signal()?,
            dumpable: rustix::process::dumpable_behavior().ok(),
        };
        let acting = Acting { before: Some(before) };
        set_groups(&account.groups)?;
        // SAFETY: plain system calls, for this thread only.
        unsafe {
            libc::setfsgid(account.gid);
            libc::setfsuid(account.uid);
        }
        if file_uid() == account.uid {
            return Ok(acting);
        }
        Err(io::Error::other(format!("could not act as the account {}", account.name)))
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        // SAFETY: plain system calls, for this thread only.
        unsafe {
            libc::setfsuid(0);
            libc::setfsgid(before.gid);
        }
        set_groups(&before.groups).expect("root takes its groups back");
        assert_eq!(file_uid(), 0, "root takes its rights back");
        // A change of identity clears both, and the demo's daemons end by the one.
        let _ = rustix::process::set_parent_process_death_signal(before.death_signal);
        before.dumpable.map(rustix::process::set_dumpable_behavior);
    }
}

/// Whose rights this thread's accesses have now.
fn file_uid() -> u32 {
    // SAFETY: an impossible identity changes nothing; the answer is the present one.
    unsafe { libc::setfsuid(u32::MAX) as u32 }
}

/// Of this thread only: the C library would change them for all.
fn set_groups(groups: &[libc::gid_t]) -> io::Result<()> {
    // SAFETY: a system call with a pointer to a live slice of that length.
    match unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// Spec: SEC-1.
    /// Where another account can change the way, root's rights are not used.
    #[test]
    fn only_a_way_of_roots_alone_is_roots() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("own")).expect("mkdir");
        fs::create_dir(at("theirs")).expect("mkdir");
        fs::write(at("file"), "").expect("write");
        chown(at("theirs"), Some(65534), None).expect("chown");
        symlink(at("theirs"), at("link")).expect("symlink");
        symlink(at("own"), at("theirs/back")).expect("symlink");
        assert!(is_roots(&at("own"), true) && is_roots(&at("own/absent/more"), false));
        assert!(is_roots(&at("file"), true));
        assert!(is_roots(&at("theirs"), false), "its name is ours");
        assert!(!is_roots(&at("theirs"), true) && !is_roots(&at("theirs/x"), false));
        assert!(!is_roots(&at("link/x"), false), "a link of ours into theirs");
        assert!(!is_roots(&at("theirs/back/x"), false), "a link of theirs into ours");
        fs::set_permissions(at("own"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        assert!(!is_roots(&at("own/absent"), false), "anybody may make it");
        fs::write(at("own/made"), "").expect("write");
        assert!(is_roots(&at("own/made"), false));
        fs::set_permissions(at("own"), fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(!is_roots(&at("own/made"), false));
    }

    /// Spec: SEC-1.
    /// The kernel refuses what the account itself may not do; afterwards we are root.
    #[test]
    fn an_account_reaches_no_further_than_itself() {
        let Ok(account) = Account::by_name("nobody") else { return };
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let secret = dir.path().join("secret");
        fs::write(&secret, "canary").expect("write");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("chmod");
        {
            let _acting = Acting::begin(&account).expect("we are root");
            let _within = Acting::begin(&account).expect("nothing to do");
            assert!(fs::read(&secret).is_err() && fs::write(&secret, "changed").is_err());
        }
        assert_eq!(fs::read(&secret).expect("root again"), b"canary");
    }
}
