//! The postmaster of this node, held by a descriptor from its start, or from the first look, on.
//!
//! What is held ends when the kernel says so. Nothing that happens to its directory, to /proc or to
//! our own descriptors makes it look as if nobody ran. A note beside the log tells the next life of
//! the daemon which process it is.
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::inhabitants::{DirId, is_server, is_working};
use super::processes::{identity, is_gone};
use crate::host::private;

/// Between two looks where the reactor does not tell.
const STEP: Duration = Duration::from_millis(20);

/// A hold on one process that cannot slip to another when its pid is used again.
#[derive(Debug)]
pub struct Hold {
    pub pid: i32,
    fd: AsyncFd<OwnedFd>,
}

impl Hold {
    /// `None` when there is no such process. Needs a running tokio reactor.
    ///
    /// # Errors
    /// Whatever else keeps us from holding it: it may well be there.
    pub fn open(pid: i32) -> io::Result<Option<Hold>> {
        let Some(target) = Pid::from_raw(pid) else { return Ok(None) };
        match rustix::process::pidfd_open(target, PidfdFlags::NONBLOCK) {
            Ok(fd) => Hold::of(pid, fd).map(Some),
            Err(error) => {
                let error = io::Error::from(error);
                if is_gone(&error) { Ok(None) } else { Err(error) }
            }
        }
    }

    /// `fd` is a pidfd of this process.
    ///
    /// # Errors
    /// The reactor's.
    pub fn of(pid: i32, fd: OwnedFd) -> io::Result<Hold> {
        // SAFETY: the descriptor is owned by the AsyncFd from here on and closed only with it.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Hold { pid, fd })
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(self.fd.get_ref(), signal)?)
    }

    /// The process has ended. Needs no file descriptor; while the kernel does not say so, it has not.
    pub fn is_ended(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut polled = [PollFd::new(self.fd.get_ref(), PollFlags::IN)];
        poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Resolves as soon as the process has ended.
    pub async fn ended(&self) {
        // An error says that the reactor ends, not the process.
        if self.fd.readable().await.is_ok() {
            return;
        }
        while !self.is_ended() {
            tokio::time::sleep(STEP).await;
        }
    }

    /// True when the process ended within `limit`.
    pub async fn ended_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.ended()).await.is_ok()
    }
}

/// A postmaster, and the directory that it works in.
#[derive(Clone, Debug)]
struct Known {
    hold: Arc<Hold>,
    dir: Option<DirId>,
}

/// What all copies of one [`Server`](super::Server) hold together.
#[derive(Clone, Debug, Default)]
pub struct Held {
    known: Arc<watch::Sender<Option<Known>>>,
    home: Option<PathBuf>,
}

/// Names the postmaster for the next life of the daemon.
const NOTE: &str = "postmaster.held";

impl Held {
    /// The next life of the daemon finds in `home` whom this one held. It belongs to us, not to
    /// PostgreSQL's account.
    pub fn noted_in(home: &Path) -> Held {
        Held { home: Some(home.to_owned()), ..Held::default() }
    }

    /// Where notes about processes are kept, if they are.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Holds this one from now on.
    pub fn set(&self, hold: Arc<Hold>) {
        let pid = hold.pid;
        self.known.send_replace(Some(Known { hold, dir: None }));
        self.note_dir();
        if let Err(problem) = self.write_note(pid) {
            tracing::warn!(problem, "the next life of this daemon is not told of the postmaster");
        }
    }

    /// The postmaster that is held, while it lives.
    pub fn alive(&self) -> Option<Arc<Hold>> {
        let known = self.known.borrow();
        known.as_ref().map(|known| known.hold.clone()).filter(|hold| !hold.is_ended())
    }

    /// The directory of the postmaster that was held last; its children stay there after its end.
    pub fn dir(&self) -> Option<DirId> {
        self.note_dir();
        self.known.borrow().as_ref().and_then(|known| known.dir)
    }

    /// Resolves when another postmaster is held.
    pub async fn changed(&self) {
        self.known.subscribe().changed().await.ok();
    }

    /// A search that missed nothing has found that its children are gone, too.
    pub fn forget_ended(&self) {
        let is_over =
            |known: &mut Option<Known>| known.take_if(|known| known.hold.is_ended()).is_some();
        self.known.send_if_modified(is_over);
    }

    /// Where it works now: a server that has just begun is not in its directory yet.
    fn note_dir(&self) {
        let Some(hold) = self.alive() else { return };
        let Ok(Some(dir)) = DirId::of_process(hold.pid) else { return };
        self.known.send_if_modified(|known| {
            if let Some(known) = known.as_mut().filter(|known| known.hold.pid == hold.pid) {
                known.dir = Some(dir);
            }
            false
        });
    }

    /// The process that an earlier life held, if it is still that one and PostgreSQL. Blocks.
    ///
    /// # Errors
    /// Where that cannot be seen.
    pub fn noted(&self) -> Result<Option<i32>, String> {
        let Some(home) = &self.home else { return Ok(None) };
        let note = home.join(NOTE);
        let read = private::read(&note);
        let Some(text) = read.map_err(|e| format!("could not read {}: {e}", note.display()))?
        else {
            return Ok(None);
        };
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
        match pid {
            Some(pid) if identity(pid)?.as_deref() == Some(text.trim()) => {
                Ok((is_server(pid)? && is_working(pid)?).then_some(pid))
            }
            _ => Ok(None),
        }
    }

    fn write_note(&self, pid: i32) -> Result<(), String> {
        let (Some(home), Some(text)) = (&self.home, identity(pid)?) else { return Ok(()) };
        let note = home.join(NOTE);
        private::write(&note, &text)
            .map_err(|error| format!("could not write {}: {error}", note.display()))
    }
}
