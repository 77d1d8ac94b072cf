//! A connection after its handshake: reads until it ends, writes what waits, keeps both sides'
//! greetings current.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::PeerEvent;
use super::handshake::{self, Live};
use super::hello::{self, Hello, NONCE_BYTES};
use super::queue::Queue;
use super::routes::Routes;
use super::wire::{Reader, Wire, Writer};
use crate::host::frame::Frame;

/// What a connection needs besides its socket.
#[derive(Clone)]
pub struct Surroundings {
    /// Our own greeting; a change is sent on every live connection.
    pub own: watch::Receiver<Hello>,
    pub events: mpsc::Sender<PeerEvent>,
    pub routes: Routes,
}

/// How often what confirms a connection is sent again.
const CHALLENGE_EVERY: Duration = Duration::from_millis(50);
/// Challenges are answered no faster: they share a queue with what matters.
const ECHO_EVERY: Duration = Duration::from_millis(20);

/// An accepted connection, and whether it is known whose it is.
pub struct Inbound {
    nonce: Vec<u8>,
    confirmed: Arc<AtomicBool>,
    echoed_at: Option<Instant>,
}

impl Inbound {
    /// `confirmed` is set as soon as it is.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn new(confirmed: Arc<AtomicBool>) -> std::io::Result<Inbound> {
        Ok(Inbound { nonce: handshake::nonce()?, confirmed, echoed_at: None })
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Relaxed)
    }
}

/// Runs a connection that we dialled until it ends; the sentence says why.
pub async fn run_dialled(live: Live, queue: Arc<Queue>, around: Surroundings) -> String {
    run(live, Some(queue), None, around).await
}

/// Runs an accepted connection until it ends; the sentence says why.
pub async fn run_accepted(live: Live, inbound: Inbound, around: Surroundings) -> String {
    run(live, None, Some(inbound), around).await
}

async fn run(
    live: Live,
    queue: Option<Arc<Queue>>,
    inbound: Option<Inbound>,
    around: Surroundings,
) -> String {
    let Live { hello, reader, writer, own } = live;
    let around = Surroundings { own: own.clone(), ..around };
    tokio::select! {
        why = read(reader, hello, inbound, around) => why,
        why = write(writer, queue, own) => why,
    }
}

async fn read(
    mut reader: Reader,
    mut peer: Hello,
    mut inbound: Option<Inbound>,
    mut around: Surroundings,
) -> String {
    let mut challenge = tokio::time::interval(CHALLENGE_EVERY);
    challenge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let open = inbound.as_ref().filter(|inbound| !inbound.is_confirmed());
        let nonce = open.map(|inbound| inbound.nonce.clone());
        let wire = tokio::select! {
            _ = challenge.tick(), if nonce.is_some() => {
                let frame = Frame::Challenge(nonce.unwrap_or_default());
                around.routes.send_to_id(peer.raft_id, &frame);
                continue;
            }
            changed = around.own.changed() => {
                let checked = hello::check(&around.own.borrow_and_update(), &peer);
                match changed.map_err(|_| "this node stops".to_owned()).and(checked) {
                    Ok(()) => continue,
                    Err(why) => return why,
                }
            }
            wire = reader.next() => wire,
        };
        let event = match wire.and_then(|wire| take(wire, &mut peer, &mut inbound, &around)) {
            Ok(Some(event)) => event,
            Ok(None) => continue,
            Err(why) => return why,
        };
        if around.events.send(event).await.is_err() {
            return "this node stops".to_owned();
        }
    }
}

/// A frame of a peer becomes an event, unless it is about the connection itself.
fn take(
    wire: Wire,
    peer: &mut Hello,
    inbound: &mut Option<Inbound>,
    around: &Surroundings,
) -> Result<Option<PeerEvent>, String> {
    let confirmed = inbound.as_ref().is_none_or(Inbound::is_confirmed);
    match wire {
        Wire::Payload(frame @ (Frame::Challenge(_) | Frame::Echo(_))) => {
            Ok(inbound.as_mut().and_then(|inbound| confirm(frame, peer, inbound, around)))
        }
        Wire::Payload(frame) => Ok(Some(PeerEvent::Frame { from: peer.raft_id, confirmed, frame })),
        Wire::Hello(bytes) => {
            let hello: Hello = serde_json::from_slice(&bytes)
                .map_err(|e| format!("its greeting cannot be read: {e}"))?;
            if hello.raft_id != peer.raft_id {
                return Err(format!(
                    "its raft id changed from {} to {}",
                    peer.raft_id, hello.raft_id
                ));
            }
            hello::check(&around.own.borrow(), &hello)?;
            *peer = hello.clone();
            Ok(Some(PeerEvent::Hello { hello, confirmed }))
        }
        Wire::Refusal(why) => Err(format!("it refuses us: {why}")),
        Wire::Proof(_) | Wire::Welcome => Err("it repeats the handshake".to_owned()),
    }
}

/// Returns what the peer wants returned, on the connections that we dialled; or hears our own
/// randomness again, and tells so.
fn confirm(
    frame: Frame,
    peer: &Hello,
    inbound: &mut Inbound,
    around: &Surroundings,
) -> Option<PeerEvent> {
    match frame {
        Frame::Challenge(nonce) if nonce.len() == NONCE_BYTES => {
            let rests = inbound.echoed_at.is_some_and(|at| at.elapsed() < ECHO_EVERY);
            if !rests {
                inbound.echoed_at = Some(Instant::now());
                around.routes.send_to_id(peer.raft_id, &Frame::Echo(nonce));
            }
            None
        }
        Frame::Echo(nonce) if nonce == inbound.nonce && !inbound.is_confirmed() => {
            inbound.confirmed.store(true, Ordering::Relaxed);
            Some(PeerEvent::Hello { hello: peer.clone(), confirmed: true })
        }
        _ => None,
    }
}

async fn write(
    mut writer: Writer,
    queue: Option<Arc<Queue>>,
    mut own: watch::Receiver<Hello>,
) -> String {
    loop {
        let outcome = tokio::select! {
            changed = own.changed() => {
                if changed.is_err() {
                    return "this node stops".to_owned();
                }
                let hello = serde_json::to_vec(&*own.borrow_and_update())
                    .expect("a greeting is plain JSON");
                writer.send(&Wire::Hello(hello)).await
            }
            first = next(&queue) => write_all(&mut writer, first, &queue).await,
        };
        if let Err(e) = outcome {
            return format!("the connection broke: {e}");
        }
    }
}

/// Sends what waits with as few system calls as it takes.
async fn write_all(
    writer: &mut Writer,
    first: Wire,
    queue: &Option<Arc<Queue>>,
) -> std::io::Result<()> {
    writer.feed(&first).await?;
    while let Some(frame) = queue.as_ref().and_then(|queue| queue.try_next()) {
        writer.feed(&Wire::Payload(frame)).await?;
    }
    writer.flush().await
}

async fn next(queue: &Option<Arc<Queue>>) -> Wire {
    match queue {
        Some(queue) => Wire::Payload(queue.next().await),
        None => std::future::pending().await,
    }
}
