//! What travels between nodes: one kind byte and a payload, and the check of a Raft message before
//! Raft sees it.
//!
//! Everything here comes from the network, so nothing is believed: raft-rs panics on some messages
//! that parse well, and treats others as commands that only the own process may give.
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

/// Largest frame on the wire, kind byte included: 8 MiB.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Terms at or above this are not the result of elections.
pub const TERM_MAX: u64 = 1 << 48;
/// Entries in one message; raft-rs bounds them by bytes, this bounds what empty ones can cost.
pub const ENTRIES_MAX: usize = 65_536;
/// Longest `context` of a message (read index and the like).
pub const CONTEXT_BYTES_MAX: usize = 64 * 1024;

/// A payload for a peer. What is in it is the business of whoever sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Protobuf bytes of a `raft::eraftpb::Message`.
    Raft(Vec<u8>),
    /// Gossip and the like: JSON in a shape that this layer does not know.
    Peer(Vec<u8>),
    /// Randomness that the other side returns on the connection which it dialled.
    Challenge(Vec<u8>),
    /// That randomness, returned.
    Echo(Vec<u8>),
}

impl Frame {
    /// Bytes on the wire without the length.
    pub fn len(&self) -> usize {
        1 + self.payload().len()
    }

    /// A frame is never empty: it has a kind.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bytes behind the kind.
    pub fn payload(&self) -> &[u8] {
        match self {
            Frame::Raft(bytes)
            | Frame::Peer(bytes)
            | Frame::Challenge(bytes)
            | Frame::Echo(bytes) => bytes,
        }
    }
}

/// Parses a Raft message from peer `from` to us (`to`) and refuses, with a sentence, all that must
/// not reach `RawNode::step`.
pub fn check_raft_message(bytes: &[u8], from: u64, to: u64) -> Result<Message, String> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(format!("a Raft message of {} bytes from {from} is too large", bytes.len()));
    }
    check_kind(bytes).map_err(|why| format!("a Raft message from {from} {why}"))?;
    let message = Message::parse_from_bytes(bytes)
        .map_err(|e| format!("a Raft message from {from} does not parse: {e}"))?;
    check_addresses(&message, from, to)?;
    check_terms(&message, from)?;
    check_entries(&message, from)?;
    Ok(message)
}

/// Walks the top-level fields as numbers: an unknown type may parse, and reading it then panics.
fn check_kind(bytes: &[u8]) -> Result<(), String> {
    use protobuf::wire_format::WireType;
    let mut stream = protobuf::CodedInputStream::from_bytes(bytes);
    let garbage = |e| format!("does not parse: {e}");
    let mut kind = 0;
    while !stream.eof().map_err(garbage)? {
        let (field, wire) = stream.read_tag_unpack().map_err(garbage)?;
        if field == 1 && wire == WireType::WireTypeVarint {
            kind = stream.read_uint64().map_err(garbage)?;
        } else {
            stream.skip_field(wire).map_err(garbage)?;
        }
    }
    if is_from_the_network(kind) { Ok(()) } else { Err(format!("has the type {kind}")) }
}

/// Types that a peer may send: known, and not a command of the own process.
fn is_from_the_network(kind: u64) -> bool {
    use protobuf::ProtobufEnum;
    let known = i32::try_from(kind).ok().and_then(MessageType::from_i32);
    known.is_some_and(|kind| !raft::raw_node::is_local_msg(kind))
}

fn check_addresses(message: &Message, from: u64, to: u64) -> Result<(), String> {
    if message.from != from {
        return Err(format!(
            "a Raft message on the connection of {from} names {} as its sender",
            message.from
        ));
    }
    if message.to != to {
        return Err(format!("a Raft message from {from} is for {}, not for us", message.to));
    }
    Ok(())
}

fn check_terms(message: &Message, from: u64) -> Result<(), String> {
    let metadata = message.get_snapshot().get_metadata();
    let worst = [message.term, message.log_term, message.commit_term, metadata.term]
        .into_iter()
        .chain(message.get_entries().iter().map(|entry| entry.term))
        .max()
        .unwrap_or(0);
    if worst >= TERM_MAX {
        return Err(format!("a Raft message from {from} claims the implausible term {worst}"));
    }
    // Without a term raft-rs takes a message for its own; only forwarded ones may lack it.
    let forwarded = matches!(
        message.get_msg_type(),
        MessageType::MsgPropose | MessageType::MsgReadIndex | MessageType::MsgTransferLeader
    );
    if message.term == 0 && !forwarded {
        return Err(format!("a Raft message from {from} has no term"));
    }
    Ok(())
}

fn check_entries(message: &Message, from: u64) -> Result<(), String> {
    let entries = message.get_entries();
    if entries.len() > ENTRIES_MAX {
        return Err(format!("a Raft message from {from} has {} entries", entries.len()));
    }
    let newest = entries.iter().map(|entry| entry.term).max().unwrap_or(0);
    let metadata = message.get_snapshot().get_metadata();
    if message.term != 0 && newest.max(metadata.term) > message.term {
        return Err(format!("a Raft message from {from} has entries of terms yet to come"));
    }
    if message.context.len() > CONTEXT_BYTES_MAX {
        return Err(format!("a Raft message from {from} has an oversized context"));
    }
    if message.get_msg_type() != MessageType::MsgAppend {
        return Ok(());
    }
    let mut before = (message.index, message.log_term);
    for entry in entries {
        if Some(entry.index) != before.0.checked_add(1) || entry.term < before.1 {
            return Err(format!(
                "a Raft message from {from} has entry {} of term {} after entry {} of term {}",
                entry.index, entry.term, before.0, before.1
            ));
        }
        before = (entry.index, entry.term);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use raft::eraftpb::Entry;

    fn append() -> Message {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.from, message.to, message.term, message.index, message.log_term) = (2, 1, 5, 7, 4);
        for (index, term) in [(8, 4), (9, 5)] {
            let entry = Entry { index, term, data: vec![1, 2].into(), ..Default::default() };
            message.mut_entries().push(entry);
        }
        message
    }

    fn check(message: &Message) -> Result<Message, String> {
        check_raft_message(&message.write_to_bytes().expect("it serialises"), 2, 1)
    }

    #[test]
    fn a_good_message_comes_through() {
        assert_eq!(check(&append()), Ok(append()));
    }

    #[test]
    fn every_number_of_a_type_is_judged_without_a_panic() {
        let rest = append().write_to_bytes().expect("it serialises");
        for kind in [0u8, 1, 10, 11, 12, 19, 20, 99, 127] {
            let bytes = [&rest[..], &[8, kind]].concat();
            assert!(check_raft_message(&bytes, 2, 1).is_err(), "type {kind}");
        }
        let huge = [&rest[..], &[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]];
        assert!(check_raft_message(&huge.concat(), 2, 1).is_err());
        assert!(check_raft_message(&[&rest[..], &[8, 8]].concat(), 2, 1).is_ok());
    }

    #[test]
    fn lies_are_refused() {
        let lies: [fn(&mut Message); 8] = [
            |m| m.from = 3,
            |m| m.to = 3,
            |m| m.term = 0,
            |m| m.term = TERM_MAX,
            |m| m.mut_entries()[1].term = u64::MAX,
            |m| m.mut_entries()[1].term = 3,
            |m| m.mut_entries()[1].index = 11,
            |m| m.context = vec![0; CONTEXT_BYTES_MAX + 1].into(),
        ];
        for (number, lie) in lies.iter().enumerate() {
            let mut message = append();
            lie(&mut message);
            assert!(check(&message).is_err(), "lie {number}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = check_raft_message(&bytes, 2, 1) {
                prop_assert_eq!(message.from, 2);
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(at in 0usize..400) {
            let mut bytes = append().write_to_bytes().expect("it serialises");
            let bit = at % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(message) = check_raft_message(&bytes, 2, 1) {
                prop_assert!(message.term > 0 && message.term < TERM_MAX);
            }
        }
    }
}
