//! Raft messages and gossip between nodes over TCP.
//!
//! Every node dials every other and accepts from every other: what a node says travels on the
//! connection it dialled, so neither side depends on the other's randomness. Nothing here blocks, and
//! nothing is repeated: Raft and gossip live with loss.
//!
//! The password proves a member, not which one. So an accepted connection is *confirmed* only when it
//! returned what we sent to the raft id that it greeted with, on a connection that we dialled (SEC-9).
mod accept;
mod access;
mod connection;
mod dial;
pub(super) mod handshake;
mod hello;
mod queue;
mod routes;
pub(super) mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::debug;

pub use super::frame::{FRAME_BYTES_MAX, Frame};
pub use accept::{INBOUND_MAX, STRANGERS_MAX};
pub use access::{Access, Key};
pub use handshake::HANDSHAKE_TIMEOUT;
pub use hello::{Hello, MAGIC, VERSION};

use self::connection::Surroundings;
use self::queue::Queue;
use self::routes::{Routes, Target};
use crate::pure::config::HostPort;

/// Events that may wait; beyond that reading waits for whoever reads them.
const EVENTS_MAX: usize = 1024;

/// What happens between us and the others.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerEvent {
    /// The connection that we dialled stands; frames to `addr` travel from now on.
    Up { addr: HostPort, hello: Hello },
    /// A peer greeted on a connection it dialled, or told on any that its greeting changed. May
    /// repeat what is known.
    Hello { hello: Hello, confirmed: bool },
    /// `from` is the raft id that the sender greeted with. `confirmed`: it is who answers at the
    /// address that we dial; otherwise it is anybody who knows the password.
    Frame { from: u64, confirmed: bool, frame: Frame },
    /// The connection that we dialled is gone; what waited for it is forgotten.
    Down { addr: HostPort, raft_id: u64 },
    /// No connection, and one of the two sides said why. `addr` is a target or a stranger's.
    Refused { addr: String, reason: String },
}

/// All connections of this node. Dropping it ends them.
pub struct Peers {
    own: watch::Sender<Hello>,
    access: Access,
    events: mpsc::Sender<PeerEvent>,
    routes: Routes,
    accepting: AbortHandle,
    runtime: Handle,
    local_addr: SocketAddr,
}

impl Peers {
    /// Binds and begins to accept, on the current tokio runtime. Dialling begins with
    /// [`Peers::set_targets`].
    pub async fn spawn(
        bind: &HostPort,
        hello: Hello,
        access: Access,
    ) -> io::Result<(Peers, mpsc::Receiver<PeerEvent>)> {
        let listener = TcpListener::bind((bind.host.as_str(), bind.port)).await.map_err(|e| {
            let what = format!("raft.bind_addr: cannot listen on {bind}: {e}");
            io::Error::new(e.kind(), what)
        })?;
        let local_addr = listener.local_addr()?;
        let (own, watched) = watch::channel(hello);
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let routes = Routes::default();
        let around = Surroundings { own: watched, events: events.clone(), routes: routes.clone() };
        let accepting = tokio::spawn(accept::keep(listener, access.clone(), around)).abort_handle();
        let runtime = Handle::current();
        let peers = Peers { own, access, events, routes, accepting, runtime, local_addr };
        Ok((peers, received))
    }

    /// Where it listens: of use when the port was 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Our greeting from now on; live connections are told, and those it now forbids end.
    pub fn set_hello(&self, hello: Hello) {
        self.own.send_if_modified(|own| {
            let changed = *own != hello;
            *own = hello;
            changed
        });
    }

    /// Whom to dial from now on; callable from any thread. Connections to others end, those to old
    /// ones stay untouched.
    pub fn set_targets(&self, addrs: Vec<HostPort>) {
        self.routes.set(addrs, |addr| self.dial(addr));
    }

    /// Puts a frame into the queue of `addr`. `false`: it is dropped, because that is no target,
    /// there is no connection, the queue is full, or the frame is larger than
    /// [`FRAME_BYTES_MAX`].
    pub fn send(&self, addr: &HostPort, frame: Frame) -> bool {
        self.routes.send(addr, frame)
    }

    fn dial(&self, addr: HostPort) -> Target {
        let (stop, stopped) = oneshot::channel();
        let queue = Arc::new(Queue::default());
        let around = Surroundings {
            own: self.own.subscribe(),
            events: self.events.clone(),
            routes: self.routes.clone(),
        };
        let access = self.access.clone();
        let dial = dial::Dial { addr, queue: queue.clone(), access, around };
        self.runtime.spawn(dial::keep(dial, stopped));
        Target { queue, _stop: stop }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.accepting.abort();
        self.routes.clear();
    }
}

/// Small frames leave at once, and a host that vanished is noticed within ten seconds.
fn tune(stream: &TcpStream) {
    let tuned = sockopt::set_tcp_nodelay(stream, true)
        .and_then(|()| sockopt::set_socket_keepalive(stream, true))
        .and_then(|()| sockopt::set_tcp_keepidle(stream, Duration::from_secs(4)))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, Duration::from_secs(2)))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, 3))
        .and_then(|()| sockopt::set_tcp_user_timeout(stream, 10_000));
    if let Err(e) = tuned {
        debug!("cannot tune a connection of a peer: {e}");
    }
}
