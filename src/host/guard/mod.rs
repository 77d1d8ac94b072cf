//! The guard beside PostgreSQL, as the daemon sees it: find or start it, arm it, move its deadline.
//!
//! No promotion without an armed guard. A guard that is not alive is replaced ([`Guard::ensure`]
//! again) before the next cycle, or the lease is released. The guard outlives the daemon: who comes
//! back in time finds PostgreSQL untouched and goes on moving the deadline.
mod launch;
mod memory;
pub mod process;
mod scan;
pub mod stray;
mod watched;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, pidfd_send_signal};

use self::launch::{find, resolve, start};
use self::memory::Memory;
use super::clock;
use super::postgres::processes::start_ticks;
use crate::pure::cluster::Millis;
use crate::pure::guard::Grant;
use crate::pure::view::GuardView;

/// The shared page's file descriptor in the guard.
const GUARD_FD: i32 = 3;
/// A guard looks at least twice a second; one that has not for this long is stuck.
const HEARTBEAT_MAX_MS: Millis = 2_000;
/// How long a guard may take to acknowledge.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(1);

/// The guard of one data directory. Dropping it leaves the guard as it is.
pub struct Guard {
    page: Arc<Memory>,
    pid: u32,
    held: OwnedFd,
    /// Set when we started it: then we are the one to reap it.
    child: Mutex<Option<Child>>,
    pid_file: PathBuf,
}

/// Moves the deadline, from any thread, without a system call.
#[derive(Clone)]
pub struct GuardHandle(Arc<Memory>);

impl GuardHandle {
    /// Moves the deadline (CLOCK_BOOTTIME, ms) of this epoch, either way; for an epoch that is not
    /// armed it does nothing and answers `false`.
    pub fn set_deadline(&self, epoch: u64, deadline: Millis) -> bool {
        self.0.move_deadline(epoch, deadline)
    }

    /// Until when PostgreSQL may write, if armed.
    pub fn deadline(&self) -> Option<Millis> {
        let grant = self.0.grant();
        grant.is_armed().then(|| grant.deadline())
    }
}

impl Guard {
    /// Finds the live guard of this state directory, else starts one from `binary` (default: the
    /// running binary). May take a second when an old guard hangs; not for a reactor's thread.
    ///
    /// A guard that is found keeps its grant, and one that replaces a hung one takes it over. After
    /// a dead one arm the new one at once.
    ///
    /// `home` is ours alone: what stands there of a guard is acted on.
    ///
    /// # Errors
    /// Also where it cannot be seen whether one lives: two would not know of each other.
    pub fn ensure(data_dir: &Path, home: &Path, binary: Option<&Path>) -> io::Result<Guard> {
        let data_dir = resolve(data_dir)?;
        let pid_file = home.join("guard.pid");
        let Some(old) = find(&pid_file)? else {
            return start(&data_dir, &pid_file, binary, None);
        };
        if old.page.path() != data_dir.as_os_str().as_bytes() && !old.is_exited() {
            old.refuse_other(&data_dir)?;
            old.kill()?;
            return start(&data_dir, &pid_file, binary, None);
        }
        if old.greet() {
            return Ok(old);
        }
        // The new one first: at no time is an armed PostgreSQL without one.
        let new = start(&data_dir, &pid_file, binary, Some(&*old.page))?;
        old.kill()?;
        Ok(new)
    }

    /// From now on this epoch may write until `deadline` (CLOCK_BOOTTIME, ms). Done when the guard
    /// has seen it; a few milliseconds.
    pub fn arm(&self, epoch: u64, deadline: Millis) -> io::Result<()> {
        self.write_grant(epoch, deadline)?;
        self.is_seen()
    }

    /// The page's half of [`arm`](Guard::arm): waits for nobody.
    pub fn write_grant(&self, epoch: u64, deadline: Millis) -> io::Result<()> {
        let (armed, of) = (self.page.grant(), self.page.epoch.load(SeqCst));
        let grant = armed.armed_for(of, epoch, deadline, clock::now()).map_err(invalid)?;
        self.page.epoch.store(epoch, SeqCst);
        self.page.set_grant(grant);
        Ok(())
    }

    /// The guard's half: it has seen what was written.
    pub fn is_seen(&self) -> io::Result<()> {
        if self.is_heard(ACKNOWLEDGE_MAX) {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::TimedOut, format!("the guard {} does not answer", self.pid)))
    }

    /// As [`GuardHandle::set_deadline`].
    pub fn set_deadline(&self, epoch: u64, deadline: Millis) -> bool {
        self.page.move_deadline(epoch, deadline)
    }

    /// Something cheap to move the deadline with, from any thread.
    pub fn handle(&self) -> GuardHandle {
        GuardHandle(self.page.clone())
    }

    /// Nothing here can write any more: nothing is to be stopped. A stop in progress is finished.
    pub fn disarm(&self) {
        self.page.set_grant(Grant::NONE);
        self.page.ring();
    }

    /// From now on the guard holds this postmaster, too, which the daemon holds. Seen at its next
    /// look, at once.
    pub fn watch(&self, pid: i32) {
        if let (Ok(pid), Ok(Some(start))) = (u32::try_from(pid), start_ticks(pid)) {
            self.page.set_server(pid, start);
            self.page.ring();
        }
    }

    /// A descriptor that becomes readable when the guard ends.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn hold(&self) -> io::Result<OwnedFd> {
        Ok(rustix::io::fcntl_dupfd_cloexec(&self.held, 0)?)
    }

    /// The guard's process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Disarms it and lets it end.
    pub fn end(&self) {
        self.page.end.store(1, SeqCst);
        self.disarm();
        wait_until(ACKNOWLEDGE_MAX, || self.is_exited());
        fs::remove_file(&self.pid_file).ok();
    }

    /// It runs, and it has looked lately.
    pub fn is_alive(&self) -> bool {
        let heartbeat = self.page.heartbeat.load(SeqCst);
        !self.is_exited() && clock::now().saturating_sub(heartbeat) < HEARTBEAT_MAX_MS
    }

    /// Epoch and deadline that it is armed for; survives the daemon.
    pub fn armed(&self) -> Option<(u64, Millis)> {
        let grant = self.page.grant();
        grant.is_armed().then(|| (self.page.epoch.load(SeqCst), grant.deadline()))
    }

    /// The guard has seen this postmaster end. It watches while armed, and notices a new
    /// postmaster within a second.
    pub fn is_postmaster_dead(&self, pid: u32) -> bool {
        self.page.postmaster_pid.load(SeqCst) == pid && self.page.postmaster_dead.load(SeqCst) != 0
    }

    /// What the node shows of it.
    pub fn view(&self) -> GuardView {
        let fenced_count = self.page.fenced_count.load(SeqCst);
        let armed = self.armed();
        GuardView {
            pid: (!self.is_exited()).then_some(self.pid),
            armed: armed.is_some(),
            epoch: self.page.epoch.load(SeqCst),
            deadline: armed.map(|(_, deadline)| deadline),
            fenced_count,
            fence_last_ms: (fenced_count > 0).then(|| self.page.fence_last_ms.load(SeqCst)),
        }
    }

    /// Tells it who its daemon is now; `false` when it does not answer.
    fn greet(&self) -> bool {
        self.page.daemon_pid.store(std::process::id(), SeqCst);
        self.is_heard(ACKNOWLEDGE_MAX)
    }

    /// Rings, and waits until the guard has looked at what was written.
    fn is_heard(&self, most: Duration) -> bool {
        let ring = self.page.ring();
        wait_until(most, || self.page.has_heard(ring) || self.is_exited())
            && self.page.has_heard(ring)
            && !self.is_exited()
    }

    fn refuse_other(&self, data_dir: &Path) -> io::Result<()> {
        if !self.page.grant().is_armed() {
            return Ok(());
        }
        Err(invalid(format!(
            "the guard {} still guards {}, not {}; stop PostgreSQL there, then kill -9 the guard",
            self.pid,
            String::from_utf8_lossy(&self.page.path()),
            data_dir.display()
        )))
    }

    fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.held, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(e) => return Err(e.into()),
        }
        wait_until(ACKNOWLEDGE_MAX, || self.is_exited());
        Ok(())
    }

    fn is_exited(&self) -> bool {
        let mut polled = [PollFd::new(&self.held, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let exited = poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0);
        if exited {
            let mut child = self.child.lock().expect("nobody panics while holding it");
            if let Some(mut child) = child.take() {
                child.wait().ok();
            }
        }
        exited
    }
}

fn wait_until(most: Duration, mut reached: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !reached() {
        if began.elapsed() > most {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn invalid(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what)
}
