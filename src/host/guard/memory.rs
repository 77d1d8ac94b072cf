//! The page that daemon and guard share: atomics only, so that neither ever waits for the other.
//!
//! What matters is one word, the grant: which epoch may write until when. It is read and replaced
//! whole; there is no moment at which a deadline of one epoch stands beside another epoch.
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::thread::futex;

use crate::pure::cluster::Millis;
use crate::pure::guard::Grant;

/// First word of the page.
const MAGIC: u64 = u64::from_be_bytes(*b"surusgrd");
/// Layout of the page; a guard of another layout is replaced.
const VERSION: u32 = 2;
/// Size of the page in bytes.
pub const SIZE: usize = 4096;
/// Longest path of a data directory.
pub const PATH_BYTES_MAX: usize = 2048;
/// What the kernel shows of the page's file descriptor begins like this.
pub const LINK_PREFIX: &[u8] = b"/memfd:surus-guard";

/// The page. Zeros are valid: disarmed, nobody there.
#[repr(C)]
pub struct Page {
    magic: AtomicU64,
    version: AtomicU32,
    /// Rung by the daemon after a change, so that the guard looks at once.
    bell: AtomicU32,
    /// Written by the daemon: who it is.
    pub daemon_pid: AtomicU32,
    /// Written by the daemon: the guard ends as soon as it is disarmed.
    pub end: AtomicU32,
    grant: AtomicU64,
    /// The grant's epoch in full, for people.
    pub epoch: AtomicU64,
    /// From here on written by the guard: who it is, and the bell before its last look around.
    pub guard_pid: AtomicU32,
    heard: AtomicU32,
    /// CLOCK_BOOTTIME in milliseconds when it last looked.
    pub heartbeat: AtomicU64,
    /// How many times it stopped PostgreSQL; the last time from the deadline to the last process.
    pub fenced_count: AtomicU64,
    pub fence_last_ms: AtomicU64,
    /// The postmaster that it watches, 0 for none; set when that process has ended.
    pub postmaster_pid: AtomicU32,
    pub postmaster_dead: AtomicU32,
    /// Written by the daemon: the postmaster that it holds, and when that one started.
    server_pid: AtomicU32,
    server_start: AtomicU64,
    /// Drawn when the page was made: tells this guard from every other process.
    pub nonce: AtomicU64,
    path_bytes: AtomicU32,
    path: [AtomicU8; PATH_BYTES_MAX],
}

const _: () = assert!(size_of::<Page>() <= SIZE);

impl Page {
    pub fn grant(&self) -> Grant {
        Grant::of_word(self.grant.load(SeqCst))
    }

    /// Replaces the grant, whatever it was.
    pub fn set_grant(&self, grant: Grant) {
        self.grant.store(grant.word(), SeqCst);
    }

    /// Moves the deadline of a live grant of this epoch, either way ([`Grant::moved`]); `false` where this
    /// epoch is not armed. From any thread; a system call only where the deadline comes nearer.
    pub fn move_deadline(&self, epoch: u64, deadline: Millis) -> bool {
        let moved = |word| Grant::of_word(word).moved(epoch, deadline).map(Grant::word);
        let before = self.grant.fetch_update(SeqCst, SeqCst, moved);
        if before.is_ok_and(|word| Grant::of_word(word).deadline() > deadline) {
            self.ring();
        }
        before.is_ok()
    }

    /// The postmaster that the daemon holds, 0 for none, and its start in clock ticks since boot.
    pub fn server(&self) -> (u32, u64) {
        let pid = self.server_pid.load(SeqCst);
        let start = self.server_start.load(SeqCst);
        if self.server_pid.load(SeqCst) == pid { (pid, start) } else { (0, 0) }
    }

    /// Tells the guard whom to hold.
    pub fn set_server(&self, pid: u32, start: u64) {
        self.server_pid.store(0, SeqCst);
        self.server_start.store(start, SeqCst);
        self.server_pid.store(pid, SeqCst);
    }

    /// Makes the guard look at once, and answers with what it will have [heard](Page::has_heard).
    pub fn ring(&self) -> u32 {
        let bell = self.bell.fetch_add(1, SeqCst).wrapping_add(1);
        futex::wake(&self.bell, futex::Flags::empty(), u32::MAX).ok();
        bell
    }

    /// The guard's receipt: what it looked at is not older than this bell.
    pub fn hear(&self, bell: u32) {
        self.heard.store(bell, SeqCst);
    }

    /// The guard has looked at everything written before this ring.
    pub fn has_heard(&self, ring: u32) -> bool {
        self.heard.load(SeqCst).wrapping_sub(ring) < u32::MAX / 2
    }

    /// What the bell shows before one looks around.
    pub fn bell(&self) -> u32 {
        self.bell.load(SeqCst)
    }

    /// Sleeps unless, or until, the bell shows something else, at most this long.
    pub fn sleep(&self, bell: u32, most: Duration) {
        let Ok(most) = most.try_into() else { return };
        futex::wait(&self.bell, futex::Flags::empty(), bell, Some(&most)).ok();
    }

    /// Copies the data directory's path into `to` and answers with its length. No allocation.
    pub fn read_path(&self, to: &mut [u8; PATH_BYTES_MAX]) -> usize {
        let length = (self.path_bytes.load(SeqCst) as usize).min(PATH_BYTES_MAX);
        for (byte, from) in to.iter_mut().zip(&self.path).take(length) {
            *byte = from.load(SeqCst);
        }
        length
    }

    /// The data directory's path.
    pub fn path(&self) -> Vec<u8> {
        let mut path = [0; PATH_BYTES_MAX];
        let length = self.read_path(&mut path);
        path[..length].to_vec()
    }

    fn inscribe(&self, path: &[u8]) -> io::Result<()> {
        if path.len() > PATH_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("postgresql.data_dir is longer than {PATH_BYTES_MAX} bytes"),
            ));
        }
        for (byte, to) in path.iter().zip(&self.path) {
            to.store(*byte, SeqCst);
        }
        self.path_bytes.store(path.len() as u32, SeqCst);
        self.version.store(VERSION, SeqCst);
        self.magic.store(MAGIC, SeqCst);
        Ok(())
    }
}

/// A mapped page.
pub struct Memory(NonNull<Page>);

// SAFETY: the page consists of atomics, and stays mapped until the drop.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// A new page for this data directory, and the descriptor that the guard inherits.
    pub fn create(data_dir: &[u8]) -> io::Result<(Memory, std::os::fd::OwnedFd)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create(c"surus-guard", flags)?;
        ftruncate(&fd, SIZE as u64)?;
        // Nobody can shorten it: a guard must not die from a missing page.
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let memory = Memory::map(&fd)?;
        memory.inscribe(data_dir)?;
        Ok((memory, fd))
    }

    /// An existing page, if that is what the descriptor is.
    pub fn open(fd: impl AsFd) -> io::Result<Memory> {
        if fstat(&fd)?.st_size != SIZE as i64 {
            return Err(not_ours());
        }
        let memory = Memory::map(fd)?;
        if memory.magic.load(SeqCst) != MAGIC || memory.version.load(SeqCst) != VERSION {
            return Err(not_ours());
        }
        Ok(memory)
    }

    fn map(fd: impl AsFd) -> io::Result<Memory> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let page =
            unsafe { mmap(std::ptr::null_mut(), SIZE, protection, MapFlags::SHARED, fd, 0)? };
        let page = NonNull::new(page.cast()).ok_or_else(not_ours)?;
        Ok(Memory(page))
    }
}

impl std::ops::Deref for Memory {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: mapped, aligned to a page, large enough, and every bit pattern is valid.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference outlives this value.
        unsafe { munmap(self.0.as_ptr().cast(), SIZE).ok() };
    }
}

fn not_ours() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no guard's page of this version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_moves_the_other_sees() {
        let (memory, fd) = Memory::create(b"/data").expect("a memfd");
        assert!(!memory.move_deadline(0, 100), "disarmed stays disarmed");
        memory.set_grant(Grant::new(7, 100));
        assert!(!memory.move_deadline(6, 200) && memory.move_deadline(7, 200));
        let bell = memory.bell();
        assert!(memory.move_deadline(7, 150), "the ttl was lowered");
        assert_ne!(memory.bell(), bell, "the guard looks at once");
        assert_eq!((memory.grant().deadline(), memory.grant().is_of(7)), (150, true));
        let other = Memory::open(&fd).expect("the same page");
        assert_eq!((other.grant(), other.path()), (memory.grant(), b"/data".to_vec()));
    }

    #[test]
    fn what_is_not_a_page_is_refused() {
        assert!(Memory::open(std::fs::File::open("/dev/null").expect("it is there")).is_err());
        let fd = memfd_create(c"other", MemfdFlags::CLOEXEC).expect("a memfd");
        ftruncate(&fd, SIZE as u64).expect("it grows");
        assert!(Memory::open(&fd).is_err());
    }
}
