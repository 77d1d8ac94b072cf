//! The first steps of every connection: greet, prove, welcome.
//!
//! ```text
//! dialler   Hello    who I am, a nonce, whether I have a key
//! acceptor  Hello    the same
//! dialler   Proof    only when both have one: HMAC-SHA-256 over both greetings and nonces
//! acceptor  Proof    only after a right one
//! both      Welcome  or, at any step, Refusal with the sentence that also stands in our own log
//! ```
//! The dialler proves first: an acceptor that answered everybody would let every stranger try passwords
//! at home (SEC-6).
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::access::Key;
use super::hello::{self, End, Hello, NONCE_BYTES, Opening};
use super::wire::{Reader, Wire, Writer, split};

/// A stranger that says nothing is dropped after this.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a refused peer may take to read why.
const PARTING_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection to a peer that was checked.
pub struct Live {
    pub hello: Hello,
    pub reader: Reader,
    pub writer: Writer,
    /// Our own greeting: what was sent counts as seen.
    pub own: watch::Receiver<Hello>,
}

/// The first frame: a greeting and what the proof needs.
#[derive(Serialize, Deserialize)]
pub(in crate::host) struct Greeting {
    #[serde(flatten)]
    hello: Hello,
    nonce: Vec<u8>,
    password: bool,
}

/// Why a handshake came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// One side refused the other; the sentence says who and why.
    Refused(String),
    /// No connection, no answer, or it broke.
    Unreachable(String),
}

/// Carries out the handshake on a fresh connection, in bounded time.
pub async fn shake(
    stream: TcpStream,
    end: End,
    mut own: watch::Receiver<Hello>,
    key: Option<&Key>,
    limit: Duration,
) -> Result<Live, Failure> {
    let (mut reader, mut writer) = split(stream);
    let greeting = own.borrow_and_update().clone();
    let steps = converse(&mut reader, &mut writer, end, &greeting, key);
    let outcome = timeout(limit, steps)
        .await
        .unwrap_or_else(|_| Err(Failure::Refused(format!("it did not greet within {limit:?}"))));
    let hello = outcome?;
    reader.admit_large();
    Ok(Live { hello, reader, writer, own })
}

async fn converse(
    reader: &mut Reader,
    writer: &mut Writer,
    end: End,
    own: &Hello,
    key: Option<&Key>,
) -> Result<Hello, Failure> {
    let (ours, theirs, peer) = greet(reader, writer, end, own, key).await?;
    if let Err(why) = judge(own, key, &peer) {
        return Err(refuse(reader, writer, why).await);
    }
    if let Some(key) = key {
        match end {
            End::Dialled => {
                send_proof(writer, key, end, &ours, &theirs).await?;
                take_proof(reader, writer, key, end.other(), &ours, &theirs).await?;
            }
            End::Accepted => {
                take_proof(reader, writer, key, end.other(), &theirs, &ours).await?;
                send_proof(writer, key, end, &theirs, &ours).await?;
            }
        }
    }
    writer.send(&Wire::Welcome).await.map_err(broken)?;
    match receive(reader).await? {
        Wire::Welcome => Ok(peer.hello),
        other => Err(unexpected(&other)),
    }
}

async fn send_proof(
    writer: &mut Writer,
    key: &Key,
    end: End,
    dialled: &Opening,
    accepted: &Opening,
) -> Result<(), Failure> {
    let proof = hello::prove(key, end, dialled, accepted);
    writer.send(&Wire::Proof(proof)).await.map_err(broken)
}

async fn take_proof(
    reader: &mut Reader,
    writer: &mut Writer,
    key: &Key,
    end: End,
    dialled: &Opening,
    accepted: &Opening,
) -> Result<(), Failure> {
    let proof = match receive(reader).await? {
        Wire::Proof(proof) => proof,
        other => return Err(unexpected(&other)),
    };
    if hello::verify(key, end, dialled, accepted, &proof) {
        return Ok(());
    }
    let why = "the raft passwords of the two nodes differ".to_owned();
    Err(refuse(reader, writer, why).await)
}

/// Both greetings, as bytes and as a value; the dialler's comes first.
async fn greet(
    reader: &mut Reader,
    writer: &mut Writer,
    end: End,
    own: &Hello,
    key: Option<&Key>,
) -> Result<(Opening, Opening, Greeting), Failure> {
    let nonce = nonce().map_err(broken)?;
    let greeting = Greeting { hello: own.clone(), nonce: nonce.clone(), password: key.is_some() };
    let bytes = serde_json::to_vec(&greeting).expect("a greeting is plain JSON");
    if end == End::Dialled {
        writer.send(&Wire::Hello(bytes.clone())).await.map_err(broken)?;
    }
    let Wire::Hello(their_bytes) = receive(reader).await? else {
        return Err(Failure::Refused("it did not begin with a greeting".to_owned()));
    };
    if end == End::Accepted {
        writer.send(&Wire::Hello(bytes.clone())).await.map_err(broken)?;
    }
    let peer: Greeting = serde_json::from_slice(&their_bytes)
        .map_err(|e| Failure::Refused(format!("its greeting cannot be read: {e}")))?;
    let theirs = Opening { greeting: their_bytes, nonce: peer.nonce.clone() };
    Ok((Opening { greeting: bytes, nonce }, theirs, peer))
}

pub(in crate::host) fn judge(
    own: &Hello,
    key: Option<&Key>,
    peer: &Greeting,
) -> Result<(), String> {
    hello::check(own, &peer.hello)?;
    if peer.password != key.is_some() {
        return Err("only one of the two nodes has raft.password set".to_owned());
    }
    if peer.nonce.len() != NONCE_BYTES {
        return Err("its nonce has the wrong size".to_owned());
    }
    Ok(())
}

/// Says why, and waits a moment so that the sentence arrives before the connection is gone.
async fn refuse(reader: &mut Reader, writer: &mut Writer, why: String) -> Failure {
    if writer.send(&Wire::Refusal(why.clone())).await.is_ok() {
        let parting =
            async { while !matches!(reader.next().await, Err(_) | Ok(Wire::Refusal(_))) {} };
        timeout(PARTING_TIMEOUT, parting).await.ok();
    }
    Failure::Refused(why)
}

async fn receive(reader: &mut Reader) -> Result<Wire, Failure> {
    match reader.next().await {
        Ok(Wire::Refusal(why)) => Err(Failure::Refused(format!("it refuses us: {why}"))),
        Ok(wire) => Ok(wire),
        Err(why) => Err(Failure::Unreachable(why)),
    }
}

fn unexpected(wire: &Wire) -> Failure {
    let what = match wire {
        Wire::Hello(_) => "a greeting",
        Wire::Proof(_) => "a proof of a password",
        Wire::Welcome => "a welcome",
        Wire::Refusal(_) => "a refusal",
        Wire::Payload(_) => "a payload",
    };
    Failure::Refused(format!("it sent {what} out of turn"))
}

fn broken(e: impl std::fmt::Display) -> Failure {
    Failure::Unreachable(format!("the connection broke: {e}"))
}

/// Randomness that nobody else knows.
pub(super) fn nonce() -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; NONCE_BYTES];
    let filled = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
    // getrandom(2) fills requests of up to 256 bytes whole.
    assert_eq!(filled, NONCE_BYTES, "the kernel gave too little randomness");
    Ok(bytes)
}
