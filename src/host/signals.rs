//! The signals that the daemon heeds: from its first moment to its last.
use std::io;
use std::rc::Rc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::node::{NodeContext, reload};
use super::systemd::Notifier;

/// Handlers that are in place. What comes before anybody asks for it is kept: a reload for which
/// there is no daemon yet must neither end it nor be lost.
pub struct Signals {
    hangup: Signal,
    stop: Stop,
}

const HEEDED: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGTERM, libc::SIGINT];

/// Keeps those that come before the handlers are in place: for the first line of the program.
/// [`Signals::open`] lets them in.
pub fn hold() {
    // Without it they end the program, as they do until here.
    mask(libc::SIG_BLOCK).ok();
}

/// For this thread, and for those that it starts from now on.
fn mask(how: libc::c_int) -> io::Result<()> {
    // SAFETY: the set is ours, and filled by sigemptyset before it is read.
    let problem = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        HEEDED.iter().for_each(|signal| {
            libc::sigaddset(&raw mut set, *signal);
        });
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut())
    };
    if problem == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(problem)) }
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Signals {
    /// Puts the handlers in place; needs a runtime.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub fn open() -> io::Result<Signals> {
        let (terminate, interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = Stop { terminate, interrupt };
        let hangup = signal(SignalKind::hangup())?;
        mask(libc::SIG_UNBLOCK)?;
        Ok(Signals { hangup, stop })
    }

    /// Until SIGTERM or SIGINT.
    pub async fn told_to_stop(&mut self) {
        self.stop.told().await;
    }

    /// Heeds them for the daemon that now runs, and says to systemd what they lead to.
    pub fn heed(self, context: &Rc<NodeContext>, notifier: Rc<Notifier>) {
        notifier.ready();
        actix::spawn(heed_reloads(context.clone(), self.hangup, notifier.clone()));
        actix::spawn(heed_stops(context.clone(), self.stop, notifier));
    }
}

async fn heed_stops(context: Rc<NodeContext>, mut stop: Stop, notifier: Rc<Notifier>) {
    loop {
        stop.told().await;
        tracing::info!("was told to stop");
        notifier.stopping();
        context.requests.borrow_mut().stop = true;
        context.changed.notify_one();
    }
}

async fn heed_reloads(context: Rc<NodeContext>, mut hangup: Signal, notifier: Rc<Notifier>) {
    while hangup.recv().await.is_some() {
        if stops(&context) {
            continue;
        }
        notifier.reloading();
        if let Err(problem) = reload::reload(&context).await {
            tracing::error!(problem, "the configuration was not reloaded");
        }
        // A refused file ends the reload too. Who stops is not ready again.
        if !stops(&context) {
            notifier.ready();
        }
    }
}

fn stops(context: &NodeContext) -> bool {
    context.requests.borrow().stop
}
