//! The incoming half: accepts, greets, reads. Strangers cost little and cannot crowd out peers: they
//! share few places, and addresses that we dial ourselves have places of their own (SEC-44).
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::access::Access;
use super::connection::{self, Inbound, Surroundings};
use super::handshake::{self, Failure, HANDSHAKE_TIMEOUT};
use super::hello::End;
use super::{PeerEvent, tune};

/// Inbound connections at any time, handshakes included.
pub const INBOUND_MAX: usize = 64;
/// Of them, those of strangers: not confirmed, and from an address that we do not dial.
pub const STRANGERS_MAX: usize = 16;
/// Of them, those from one address that is not this host.
const STRANGERS_PER_ADDRESS_MAX: usize = 2;
/// A handshake may take so long while more than half of the strangers' places are taken.
const HANDSHAKE_TIMEOUT_CROWDED: Duration = Duration::from_secs(1);
/// Log lines about strangers in one [`WINDOW`].
const COMPLAINTS_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// One inbound connection.
struct Place {
    task: AbortHandle,
    from: SocketAddr,
    state: Arc<State>,
    /// It comes from an address that we dialled.
    known: bool,
}

/// What is known of the other side, told by the connection's task.
#[derive(Default)]
struct State {
    /// The raft id that it greeted with; 0 before.
    greeted: AtomicU64,
    confirmed: Arc<AtomicBool>,
}

impl Place {
    fn is_stranger(&self) -> bool {
        !self.known && !self.state.confirmed.load(Ordering::Relaxed)
    }

    fn is_silent(&self) -> bool {
        self.is_stranger() && self.state.greeted.load(Ordering::Relaxed) == 0
    }
}

/// Accepts until aborted; its connections end with it.
pub async fn keep(listener: TcpListener, access: Access, around: Surroundings) {
    let mut tasks = JoinSet::new();
    let mut places: Vec<Place> = Vec::new();
    let mut complaints = Complaints { since: Instant::now(), count: 0 };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = tasks.join_next() => {
                if let Ok(Some((from, failure))) = ended {
                    complaints.note(from, failure, &around);
                }
                continue;
            }
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                warn!("cannot accept a connection of a peer: {e}");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let known = around.routes.was_dialled(from.ip());
        let room = access.admits(from.ip()).and_then(|()| make_room(&mut places, from, known));
        if let Err(why) = room {
            complaints.note(from, Failure::Refused(why), &around);
            continue;
        }
        let crowded = places.iter().filter(|place| place.is_stranger()).count() > STRANGERS_MAX / 2;
        let limit = if crowded { HANDSHAKE_TIMEOUT_CROWDED } else { HANDSHAKE_TIMEOUT };
        let state = Arc::new(State::default());
        let connection =
            serve(stream, (from, limit), access.clone(), around.clone(), state.clone());
        let task = tasks.spawn(connection);
        places.push(Place { task, from, state, known });
    }
}

/// A place for one more connection; a stranger that has not greeted goes for it. `Err` says why not.
fn make_room(places: &mut Vec<Place>, from: SocketAddr, known: bool) -> Result<(), String> {
    places.retain(|place| !place.task.is_finished());
    if !known {
        let strangers = |place: &Place| place.is_stranger();
        let here = |place: &Place| place.is_stranger() && place.from.ip() == from.ip();
        let per_address =
            if from.ip().is_loopback() { STRANGERS_MAX } else { STRANGERS_PER_ADDRESS_MAX };
        bound(places, per_address, here, "strangers of this address")?;
        bound(places, STRANGERS_MAX, strangers, "strangers")?;
    }
    bound(places, INBOUND_MAX, |_| true, "peers")
}

/// At most `max` of these, the one that comes included: the oldest that has not greeted goes.
fn bound(
    places: &mut Vec<Place>,
    max: usize,
    counts: impl Fn(&Place) -> bool,
    what: &str,
) -> Result<(), String> {
    if places.iter().filter(|place| counts(place)).count() < max {
        return Ok(());
    }
    let oldest = places.iter().position(|place| counts(place) && place.is_silent());
    let oldest = oldest.ok_or_else(|| format!("{max} {what} are connected already"))?;
    places.remove(oldest).task.abort();
    Ok(())
}

async fn serve(
    stream: TcpStream,
    (from, limit): (SocketAddr, Duration),
    access: Access,
    around: Surroundings,
    state: Arc<State>,
) -> Option<(SocketAddr, Failure)> {
    tune(&stream);
    let own = around.own.clone();
    let live = match handshake::shake(stream, End::Accepted, own, access.key(), limit).await {
        Ok(live) => live,
        Err(failure) => return Some((from, failure)),
    };
    let inbound = match Inbound::new(state.confirmed.clone()) {
        Ok(inbound) => inbound,
        Err(e) => return Some((from, Failure::Unreachable(e.to_string()))),
    };
    state.greeted.store(live.hello.raft_id, Ordering::Relaxed);
    let hello = PeerEvent::Hello { hello: live.hello.clone(), confirmed: false };
    around.events.send(hello).await.ok()?;
    let name = live.hello.name.clone();
    let why = connection::run_accepted(live, inbound, around).await;
    debug!(%from, %name, "an inbound connection ended: {why}");
    None
}

/// Log lines about strangers, bounded: whoever knocks must not be able to fill the disk.
struct Complaints {
    since: Instant,
    count: u32,
}

impl Complaints {
    fn note(&mut self, from: SocketAddr, failure: Failure, around: &Surroundings) {
        if self.since.elapsed() > WINDOW {
            (self.since, self.count) = (Instant::now(), 0);
        }
        let Failure::Refused(reason) = failure else { return };
        self.count += 1;
        if self.count <= COMPLAINTS_MAX {
            warn!(%from, "refused a connection: {reason}");
        }
        // A full channel has better things to carry.
        around.events.try_send(PeerEvent::Refused { addr: from.to_string(), reason }).ok();
    }
}
