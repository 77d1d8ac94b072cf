//! Whom programs run as when the daemon is root: the data directory's owner, or `postgres`.
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A system account with everything a program needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, `gid` included.
    pub groups: Vec<u32>,
    pub home: PathBuf,
}

impl Account {
    /// `None` unless we are root. Never answers root: PostgreSQL refuses to run as root.
    pub fn for_data_dir(data_dir: &Path) -> Result<Option<Account>, String> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let owner = std::fs::metadata(data_dir).map(|meta| meta.uid()).ok();
        match owner.filter(|uid| *uid != 0) {
            Some(uid) if link_of_another(data_dir, uid) => Err(format!(
                "postgresql.data_dir: {} leads to uid {uid}'s directory by a symbolic link of \
                 another account: name the directory itself, or make the link as root",
                data_dir.display()
            )),
            Some(uid) => Account::by_uid(uid).map(Some),
            None => Account::by_name("postgres").map(Some),
        }
    }

    pub fn by_name(name: &str) -> Result<Account, String> {
        let wanted = CString::new(name).map_err(|_| format!("`{name}` is not an account name"))?;
        // SAFETY: every pointer outlives the call.
        lookup(|entry, buffer, len, found| unsafe {
            libc::getpwnam_r(wanted.as_ptr(), entry, buffer, len, found)
        })
        .ok_or_else(|| format!("there is no account `{name}` to run PostgreSQL as: create it"))
    }

    pub fn by_uid(uid: u32) -> Result<Account, String> {
        // SAFETY: every pointer outlives the call.
        lookup(|entry, buffer, len, found| unsafe {
            libc::getpwuid_r(uid, entry, buffer, len, found)
        })
        .ok_or_else(|| format!("the data directory belongs to uid {uid}, which has no account"))
    }

    /// Takes this identity for good, in a forked child before its exec.
    ///
    /// Only async-signal-safe calls: no allocation, no locks.
    pub fn assume(&self) -> io::Result<()> {
        // SAFETY: plain system calls with a pointer to a live slice.
        let failed = unsafe {
            libc::setgroups(self.groups.len(), self.groups.as_ptr()) != 0
                || libc::setgid(self.gid) != 0
                || libc::setuid(self.uid) != 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes this identity as the effective one of the calling thread alone.
    ///
    /// # Errors
    /// What the kernel says; we are not root then.
    pub fn assume_in_thread(&self) -> io::Result<()> {
        let gid = rustix::process::Gid::from_raw(self.gid);
        let uid = rustix::process::Uid::from_raw(self.uid);
        let groups: Vec<_> =
            self.groups.iter().map(|gid| rustix::process::Gid::from_raw(*gid)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_gid(gid)?;
        rustix::thread::set_thread_uid(uid)?;
        Ok(())
    }

    /// Gives a file or directory (not what a symlink points to) to this account.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
    }
}

/// Whoever makes a link to another's directory would decide whom PostgreSQL runs as.
fn link_of_another(data_dir: &Path, owner: u32) -> bool {
    data_dir.ancestors().any(|path| {
        let meta = std::fs::symlink_metadata(path);
        meta.is_ok_and(|meta| meta.is_symlink() && meta.uid() != 0 && meta.uid() != owner)
    })
}

fn lookup(
    call: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> i32,
) -> Option<Account> {
    let mut buffer = vec![0; 16 * 1024];
    // SAFETY: passwd is a plain C struct; all zeroes is a value of it.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    let code = call(&mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found);
    if code != 0 || found.is_null() {
        return None;
    }
    // SAFETY: on success both strings lie in `buffer`, which is alive.
    let (name, home) = unsafe { (CStr::from_ptr(entry.pw_name), CStr::from_ptr(entry.pw_dir)) };
    Some(Account {
        name: name.to_string_lossy().into_owned(),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        groups: groups(name, entry.pw_gid),
        home: PathBuf::from(home.to_string_lossy().into_owned()),
    })
}

fn groups(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![0; 256];
    let mut count = groups.len() as i32;
    // SAFETY: `count` says how many the vector can hold.
    let code = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
    if code < 0 {
        return vec![gid];
    }
    groups.truncate(count as usize);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_root_by_name_and_number() {
        let root = Account::by_name("root").expect("every system has root");
        assert_eq!(root, Account::by_uid(0).expect("every system has uid 0"));
        assert!(root.groups.contains(&root.gid));
        assert!(Account::by_name("no-such-account").expect_err("none").contains("no-such"));
    }
}
