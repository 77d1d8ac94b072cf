//! A connection after its handshake: reads until it ends, writes what waits, keeps both sides'
//! greetings current.
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::PeerEvent;
use super::handshake::Live;
use super::hello::{self, Hello};
use super::queue::Queue;
use super::wire::{Reader, Wire, Writer};

/// What a connection needs besides its socket.
#[derive(Clone)]
pub struct Surroundings {
    /// Our own greeting; a change is sent on every live connection.
    pub own: watch::Receiver<Hello>,
    pub events: mpsc::Sender<PeerEvent>,
}

/// Runs until the connection ends; the sentence says why. `queue` is absent on accepted ones.
pub async fn run(live: Live, queue: Option<Arc<Queue>>, around: Surroundings) -> String {
    let Live { hello, reader, writer, own } = live;
    let around = Surroundings { own: own.clone(), ..around };
    tokio::select! {
        why = read(reader, hello, around) => why,
        why = write(writer, queue, own) => why,
    }
}

async fn read(mut reader: Reader, mut peer: Hello, mut around: Surroundings) -> String {
    loop {
        let wire = tokio::select! {
            changed = around.own.changed() => {
                let checked = hello::check(&around.own.borrow_and_update(), &peer);
                match changed.map_err(|_| "this node stops".to_owned()).and(checked) {
                    Ok(()) => continue,
                    Err(why) => return why,
                }
            }
            wire = reader.next() => wire,
        };
        let event = match wire.and_then(|wire| take(wire, &mut peer, &around)) {
            Ok(event) => event,
            Err(why) => return why,
        };
        if around.events.send(event).await.is_err() {
            return "this node stops".to_owned();
        }
    }
}

/// A frame of a known peer becomes an event.
fn take(wire: Wire, peer: &mut Hello, around: &Surroundings) -> Result<PeerEvent, String> {
    match wire {
        Wire::Payload(frame) => Ok(PeerEvent::Frame { from: peer.raft_id, frame }),
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
            Ok(PeerEvent::Hello { hello })
        }
        Wire::Refusal(why) => Err(format!("it refuses us: {why}")),
        Wire::Proof(_) | Wire::Welcome => Err("it repeats the handshake".to_owned()),
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
