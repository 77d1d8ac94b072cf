//! The incoming half: accepts, greets, reads. Strangers cost little and cannot crowd out peers:
//! when every place is taken, the oldest connection that has not yet greeted goes.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::connection::{self, Surroundings};
use super::handshake::{self, Failure};
use super::hello::End;
use super::{PeerEvent, tune};
use crate::pure::config::Secret;

/// Inbound connections at any time, handshakes included.
pub const INBOUND_MAX: usize = 64;
/// Log lines about strangers in one [`WINDOW`].
const COMPLAINTS_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

struct Inbound {
    task: AbortHandle,
    greeted: Arc<AtomicBool>,
}

/// Accepts until aborted; its connections end with it.
pub async fn keep(listener: TcpListener, password: Option<Secret>, around: Surroundings) {
    let mut tasks = JoinSet::new();
    let mut places: Vec<Inbound> = Vec::new();
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
        if !make_room(&mut places) {
            let why = format!("{INBOUND_MAX} peers are connected already");
            complaints.note(from, Failure::Refused(why), &around);
            continue;
        }
        let greeted = Arc::new(AtomicBool::new(false));
        let task =
            tasks.spawn(serve(stream, from, password.clone(), around.clone(), greeted.clone()));
        places.push(Inbound { task, greeted });
    }
}

fn make_room(places: &mut Vec<Inbound>) -> bool {
    places.retain(|place| !place.task.is_finished());
    if places.len() < INBOUND_MAX {
        return true;
    }
    let Some(oldest) = places.iter().position(|place| !place.greeted.load(Ordering::Relaxed))
    else {
        return false;
    };
    places.remove(oldest).task.abort();
    true
}

async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    password: Option<Secret>,
    around: Surroundings,
    greeted: Arc<AtomicBool>,
) -> Option<(SocketAddr, Failure)> {
    tune(&stream);
    let own = around.own.clone();
    let live = match handshake::shake(stream, End::Accepted, own, password.as_ref()).await {
        Ok(live) => live,
        Err(failure) => return Some((from, failure)),
    };
    greeted.store(true, Ordering::Relaxed);
    let hello = PeerEvent::Hello { hello: live.hello.clone() };
    around.events.send(hello).await.ok()?;
    let name = live.hello.name.clone();
    let why = connection::run(live, None, around).await;
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
