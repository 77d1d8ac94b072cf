//! The guard: a process that stops PostgreSQL when nobody says any more that it may write.
//!
//! It depends on as little as possible: no network, no disk, no allocation once it runs, memory
//! locked, a session of its own, deaf to polite signals. What it knows it reads from one shared
//! page; what it does is in `Guard::fence`. It ends when it is disarmed and its daemon is gone,
//! or told to end.
use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Pid, Signal, getpid, setpriority_process, setsid};

use super::GUARD_FD;
use super::memory::{Memory, PATH_BYTES_MAX};
use super::scan::Scan;
use super::watched::Watched;
use crate::host::clock;
use crate::pure::cluster::Millis;
use crate::pure::guard::Grant;

/// How long PostgreSQL may take for its immediate shutdown before it is killed.
const QUIT_MS: Millis = 300;
/// Between two looks while something is to be stopped.
const FENCING_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks once all is stopped and no daemon is left that could start a server by itself.
const FENCED_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at a deadline; also how late a deadline's move may be seen.
const ARMED_PAUSE_MS: Millis = 100;
/// Between two looks when nothing is guarded; a change rings.
const IDLE_PAUSE: Duration = Duration::from_millis(500);
/// Between two searches for a postmaster to watch.
const SEARCH_MS: Millis = 1_000;

/// `surus guard`: never returns. Started by the daemon, with the page as file descriptor 3.
pub fn main(_arguments: impl Iterator<Item = OsString>) -> ! {
    let code = match Guard::new() {
        Ok(mut guard) => {
            withdraw();
            guard.run();
            0
        }
        Err(e) => {
            eprintln!("surus guard is started by the daemon, not by hand: {e}");
            2
        }
    };
    std::process::exit(code)
}

/// Away from the daemon's session, signals and memory; each step is a best effort.
fn withdraw() {
    setsid().ok();
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGQUIT] {
        // SAFETY: ignoring a signal installs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    std::env::set_current_dir("/").ok();
    std::fs::write("/proc/self/oom_score_adj", "-1000").ok();
    rustix::thread::set_name(c"surus-guard").ok();
    setpriority_process(None, -20).ok();
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).ok();
}

/// What a stop of PostgreSQL has come to.
struct Fence {
    deadline: Millis,
    began: Millis,
    /// Something was there since the last time that nothing was.
    found: bool,
    /// The first stop is done: what appears now is killed at once.
    finished: bool,
}

struct Guard {
    page: Memory,
    scan: Scan,
    daemon: Watched,
    postmaster: Watched,
    search_at: Millis,
    fence: Option<Fence>,
}

impl Guard {
    fn new() -> io::Result<Guard> {
        // SAFETY: the daemon put the page there; whatever else it is, it is only looked at.
        let page = Memory::open(unsafe { BorrowedFd::borrow_raw(GUARD_FD) })?;
        let mut path = [0; PATH_BYTES_MAX];
        let path_bytes = page.read_path(&mut path);
        let scan = Scan::new(path, path_bytes)?;
        let (daemon, postmaster) = (Watched::default(), Watched::default());
        Ok(Guard { page, scan, daemon, postmaster, search_at: 0, fence: None })
    }

    fn run(&mut self) {
        // A rehearsal: the code that will be needed is in memory before it is.
        self.scan.postmaster();
        Watched::new(number(getpid())).is_gone();
        self.page.guard_pid.store(number(getpid()), SeqCst);
        loop {
            let bell = self.page.bell();
            let grant = self.page.grant();
            self.page.heartbeat.store(clock::now(), SeqCst);
            self.follow_daemon();
            self.follow_server();
            self.page.hear(bell);
            let fencing = self.fence.as_ref().is_some_and(|fence| !fence.finished);
            if !grant.is_armed() && !fencing && self.may_end() {
                return;
            }
            let pause = self.look(grant, clock::now());
            self.page.sleep(bell, pause);
        }
    }

    fn may_end(&mut self) -> bool {
        self.page.end.load(SeqCst) != 0 || self.daemon.is_gone()
    }

    fn follow_daemon(&mut self) {
        let pid = self.page.daemon_pid.load(SeqCst);
        if pid != self.daemon.pid {
            self.daemon = Watched::new(pid);
        }
    }

    /// The daemon holds a postmaster: so do we, from the first look on, wherever it works by then.
    fn follow_server(&mut self) {
        let (told, start) = self.page.server();
        let is_new = told != 0 && (told != self.postmaster.pid || self.postmaster.is_gone());
        if is_new {
            let mut server = Watched::new(told);
            let is_it = server.named().is_some_and(|pid| self.scan.is_server_since(pid, start));
            if is_it && !server.is_gone() {
                self.watch(server);
            }
        }
        if let (Some(pid), false) = (self.postmaster.named(), self.postmaster.is_gone()) {
            self.scan.follow(pid);
        }
    }

    fn watch(&mut self, server: Watched) {
        self.postmaster = server;
        // In this order: at no time is the new one said to be dead.
        self.page.postmaster_dead.store(0, SeqCst);
        self.page.postmaster_pid.store(self.postmaster.pid, SeqCst);
    }

    /// One look at the deadline; answers how long to sleep. A stop once begun is finished.
    fn look(&mut self, grant: Grant, now: Millis) -> Duration {
        if let Some(Fence { deadline, finished: false, .. }) = self.fence {
            return self.fence(deadline, now);
        }
        if !grant.is_armed() {
            self.fence = None;
            return IDLE_PAUSE;
        }
        if grant.is_over(now) {
            return self.fence(grant.deadline(), now);
        }
        self.fence = None;
        self.watch_postmaster(now);
        Duration::from_millis((grant.deadline() - now).min(ARMED_PAUSE_MS))
    }

    /// Asks at first, then kills; and kills at once whatever appears after that.
    fn fence(&mut self, deadline: Millis, now: Millis) -> Duration {
        let fresh = Fence { deadline, began: now, found: false, finished: false };
        let fence = self.fence.get_or_insert(fresh);
        let patient = !fence.finished && now < fence.began + QUIT_MS;
        let signal = if patient { Signal::QUIT } else { Signal::KILL };
        let seen = self.scan.signal_all(signal);
        // Where it works is one thing; that it is held, another.
        let lives = !self.postmaster.is_gone();
        if lives {
            self.postmaster.signal(signal);
        }
        if seen.count > 0 || lives {
            fence.found = true;
        } else if seen.sure {
            if fence.found {
                self.page.fenced_count.fetch_add(1, SeqCst);
            }
            if fence.found && !fence.finished {
                let took = clock::now().saturating_sub(fence.deadline);
                self.page.fence_last_ms.store(took, SeqCst);
            }
            (fence.found, fence.finished) = (false, true);
        }
        let quiet = fence.finished && !fence.found;
        self.note_postmaster();
        if quiet && self.daemon.is_gone() { FENCED_PAUSE } else { FENCING_PAUSE }
    }

    fn watch_postmaster(&mut self, now: Millis) {
        self.note_postmaster();
        if !self.postmaster.is_gone() || now < self.search_at {
            return;
        }
        self.search_at = now + SEARCH_MS;
        if let Some(pid) = self.scan.postmaster() {
            self.watch(Watched::new(number(pid)));
        }
    }

    fn note_postmaster(&mut self) {
        if self.postmaster.pid != 0 && self.postmaster.is_gone() {
            self.page.postmaster_dead.store(1, SeqCst);
        }
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
