//! The framed connection: length, one kind byte, payload. Used by the handshake and after it.
use std::io;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::bytes::{BufMut, Bytes, BytesMut};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::host::frame::{FRAME_BYTES_MAX, Frame};

/// Largest frame of a handshake: a stranger cannot make us reserve more (SEC-44).
pub const HANDSHAKE_BYTES_MAX: usize = 4 * 1024;

/// Everything that can stand on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// JSON: a greeting in the handshake, a [`Hello`](super::Hello) afterwards.
    Hello(Vec<u8>),
    Proof(Vec<u8>),
    Welcome,
    /// Why we hang up, one sentence.
    Refusal(String),
    Payload(Frame),
}

/// The receiving half. `next` may be dropped while waiting.
pub struct Reader(FramedRead<OwnedReadHalf, LengthDelimitedCodec>);

/// The sending half.
pub struct Writer(FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>);

/// Splits a fresh connection; small frames only until [`Reader::admit_large`].
pub fn split(stream: TcpStream) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    let codec = |max| LengthDelimitedCodec::builder().max_frame_length(max).new_codec();
    let reader = FramedRead::new(read, codec(HANDSHAKE_BYTES_MAX));
    (Reader(reader), Writer(FramedWrite::new(write, codec(FRAME_BYTES_MAX))))
}

impl Reader {
    /// The next frame; `Err` is a sentence, also for the end of the connection.
    pub async fn next(&mut self) -> Result<Wire, String> {
        match self.0.next().await {
            Some(Ok(bytes)) => parse(bytes),
            Some(Err(e)) => Err(format!("the connection broke: {e}")),
            None => Err("it closed the connection".to_owned()),
        }
    }

    /// The other side is known: frames up to [`FRAME_BYTES_MAX`].
    pub fn admit_large(&mut self) {
        self.0.decoder_mut().set_max_frame_length(FRAME_BYTES_MAX);
    }
}

impl Writer {
    /// Sends now.
    pub async fn send(&mut self, wire: &Wire) -> io::Result<()> {
        self.feed(wire).await?;
        self.flush().await
    }

    /// Puts into the buffer; more may follow before [`Writer::flush`].
    pub async fn feed(&mut self, wire: &Wire) -> io::Result<()> {
        self.0.feed(render(wire)).await
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        SinkExt::<Bytes>::flush(&mut self.0).await
    }
}

pub(in crate::host) fn render(wire: &Wire) -> Bytes {
    let (kind, payload) = match wire {
        Wire::Hello(bytes) => (1, &bytes[..]),
        Wire::Proof(bytes) => (2, &bytes[..]),
        Wire::Welcome => (3, &[][..]),
        Wire::Refusal(text) => (4, text.as_bytes()),
        Wire::Payload(Frame::Raft(bytes)) => (5, &bytes[..]),
        Wire::Payload(Frame::Peer(bytes)) => (6, &bytes[..]),
        Wire::Payload(Frame::Challenge(bytes)) => (7, &bytes[..]),
        Wire::Payload(Frame::Echo(bytes)) => (8, &bytes[..]),
    };
    let mut bytes = BytesMut::with_capacity(1 + payload.len());
    bytes.put_u8(kind);
    bytes.put_slice(payload);
    bytes.freeze()
}

pub(in crate::host) fn parse(bytes: BytesMut) -> Result<Wire, String> {
    let Some((kind, payload)) = bytes.split_first() else {
        return Err("it sent an empty frame".to_owned());
    };
    match kind {
        1 => Ok(Wire::Hello(payload.to_vec())),
        2 => Ok(Wire::Proof(payload.to_vec())),
        3 => Ok(Wire::Welcome),
        4 => Ok(Wire::Refusal(super::hello::clip_long(&String::from_utf8_lossy(payload)))),
        5 => Ok(Wire::Payload(Frame::Raft(payload.to_vec()))),
        6 => Ok(Wire::Payload(Frame::Peer(payload.to_vec()))),
        7 => Ok(Wire::Payload(Frame::Challenge(payload.to_vec()))),
        8 => Ok(Wire::Payload(Frame::Echo(payload.to_vec()))),
        other => Err(format!("it sent a frame of the unknown kind {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_kind_byte_is_judged(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let parsed = parse(BytesMut::from(&bytes[..]));
            let same = |wire: &Wire| !matches!(wire, Wire::Refusal(_) | Wire::Welcome);
            if let Some(wire) = parsed.ok().filter(same) {
                prop_assert_eq!(&render(&wire)[..], &bytes[..]);
            }
        }
    }
}
