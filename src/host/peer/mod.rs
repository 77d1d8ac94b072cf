//! Raft messages and gossip between nodes over TCP.
//!
//! Every node dials every other and accepts from every other: what a node says travels on the
//! connection it dialled, so neither side depends on the other's luck. Nothing here blocks, and
//! nothing is repeated: Raft and gossip live with loss.
mod accept;
mod connection;
mod dial;
pub(super) mod handshake;
mod hello;
mod queue;
pub(super) mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::debug;

pub use super::frame::{FRAME_BYTES_MAX, Frame};
pub use accept::INBOUND_MAX;
pub use handshake::HANDSHAKE_TIMEOUT;
pub use hello::{Hello, MAGIC, VERSION};

use self::connection::Surroundings;
use self::queue::Queue;
use crate::pure::config::{HostPort, Secret};

/// Events that may wait; beyond that reading waits for whoever reads them.
const EVENTS_MAX: usize = 1024;

/// What happens between us and the others.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerEvent {
    /// The connection that we dialled stands; frames to `addr` travel from now on.
    Up { addr: HostPort, hello: Hello },
    /// A peer greeted on a connection it dialled, or told on any that its greeting changed. May
    /// repeat what is known.
    Hello { hello: Hello },
    /// `from` is the raft id that the sender greeted with.
    Frame { from: u64, frame: Frame },
    /// The connection that we dialled is gone; what waited for it is forgotten.
    Down { addr: HostPort, raft_id: u64 },
    /// No connection, and one of the two sides said why. `addr` is a target or a stranger's.
    Refused { addr: String, reason: String },
}

/// All connections of this node. Dropping it ends them.
pub struct Peers {
    own: watch::Sender<Hello>,
    password: Option<Secret>,
    events: mpsc::Sender<PeerEvent>,
    targets: Mutex<BTreeMap<String, Target>>,
    accepting: AbortHandle,
    runtime: Handle,
    local_addr: SocketAddr,
}

struct Target {
    queue: Arc<Queue>,
    /// Dropped to end the dialling.
    _stop: oneshot::Sender<()>,
}

impl Peers {
    /// Binds and begins to accept, on the current tokio runtime. Dialling begins with
    /// [`Peers::set_targets`].
    pub async fn spawn(
        bind: &HostPort,
        hello: Hello,
        password: Option<Secret>,
    ) -> io::Result<(Peers, mpsc::Receiver<PeerEvent>)> {
        let listener = TcpListener::bind((bind.host.as_str(), bind.port)).await.map_err(|e| {
            let what = format!("raft.bind_addr: cannot listen on {bind}: {e}");
            io::Error::new(e.kind(), what)
        })?;
        let local_addr = listener.local_addr()?;
        let (own, watched) = watch::channel(hello);
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let around = Surroundings { own: watched, events: events.clone() };
        let accepting =
            tokio::spawn(accept::keep(listener, password.clone(), around)).abort_handle();
        let (targets, runtime) = (Mutex::default(), Handle::current());
        let peers = Peers { own, password, events, targets, accepting, runtime, local_addr };
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
        let mut targets = self.lock();
        targets.retain(|key, _| addrs.iter().any(|addr| addr.to_string() == *key));
        for addr in addrs {
            targets.entry(addr.to_string()).or_insert_with(|| self.dial(addr));
        }
    }

    /// Puts a frame into the queue of `addr`. `false`: it is dropped, because that is no target,
    /// there is no connection, the queue is full, or the frame is larger than
    /// [`FRAME_BYTES_MAX`].
    pub fn send(&self, addr: &HostPort, frame: Frame) -> bool {
        self.lock().get(&addr.to_string()).is_some_and(|target| target.queue.push(frame))
    }

    fn dial(&self, addr: HostPort) -> Target {
        let (stop, stopped) = oneshot::channel();
        let queue = Arc::new(Queue::default());
        let around = Surroundings { own: self.own.subscribe(), events: self.events.clone() };
        let password = self.password.clone();
        let dial = dial::Dial { addr, queue: queue.clone(), password, around };
        self.runtime.spawn(dial::keep(dial, stopped));
        Target { queue, _stop: stop }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Target>> {
        self.targets.lock().expect("nobody panics while holding the targets")
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.accepting.abort();
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
