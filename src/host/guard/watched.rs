//! A process that the guard holds, so that its number cannot be taken for another's.
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Nobody, or one process. While it could not be held it is not taken for gone.
#[derive(Default)]
pub struct Watched {
    pub pid: u32,
    held: Option<OwnedFd>,
    gone: bool,
}

impl Watched {
    pub fn new(pid: u32) -> Watched {
        let mut watched = Watched { pid, ..Watched::default() };
        watched.hold();
        watched
    }

    pub fn named(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }

    /// The kernel says that it ended. No other answer counts.
    pub fn is_gone(&mut self) -> bool {
        if !self.gone && self.held.is_none() {
            self.hold();
        }
        self.gone || self.held.as_ref().is_some_and(has_ended)
    }

    /// Signals it if it is held.
    pub fn signal(&self, signal: Signal) {
        if let Some(held) = &self.held {
            pidfd_send_signal(held, signal).ok();
        }
    }

    fn hold(&mut self) {
        let Some(pid) = self.named() else {
            self.gone = true;
            return;
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(held) => self.held = Some(held),
            Err(Errno::SRCH) => self.gone = true,
            Err(_) => {}
        }
    }
}

fn has_ended(held: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(held, PollFlags::IN)];
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}
