//! The replicated state: whatever a snapshot holds and whatever commands an entry holds, applying
//! them is total, says why where nothing changed, and is the same on every node.
use std::collections::BTreeMap;

use super::bytes::Bytes;
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::cluster::state::{ClusterState, DECISIONS_MAX};
use crate::pure::consensus::core::Proposal;
use crate::pure::consensus::founding::FoundingRecord;
use crate::pure::consensus::message::{Genesis, PeerMessage};

/// Pieces: a snapshot's JSON, then one command or proposal each.
pub fn state(bytes: &[u8]) {
    let mut pieces = Bytes::new(bytes);
    let mut state: ClusterState = serde_json::from_slice(pieces.piece()).unwrap_or_default();
    let mut twin = again(&state);
    let mut index = state.applied.min(1 << 40);
    while !pieces.is_empty() {
        let piece = pieces.piece();
        let proposal = serde_json::from_slice::<Proposal>(piece).map(|p| p.command);
        let command = proposal.or_else(|_| serde_json::from_slice::<Command>(piece));
        let Ok(command) = command else {
            others(piece);
            continue;
        };
        index += 1;
        let before = state.epoch;
        let outcome = state.apply(index, command.clone());
        assert_eq!(twin.apply(index, command), outcome, "every node answers alike");
        assert_eq!(state, twin, "every node knows the same");
        assert!(state.epoch >= before, "epochs only grow");
        if let Outcome::Refused(why) = outcome {
            assert!(!why.is_empty(), "a refusal says why");
        }
        twin = again(&state);
    }
    assert!(state.decisions.len() <= DECISIONS_MAX.max(twin.decisions.len()));
    drop((state.dynamic(), state.leader(), state.initialize_key()));
}

/// A state takes the way through a snapshot unharmed.
fn again(state: &ClusterState) -> ClusterState {
    let bytes = serde_json::to_vec(state).expect("a state is plain data");
    let read: ClusterState = serde_json::from_slice(&bytes).expect("what we write can be read");
    assert_eq!(&read, state, "a snapshot holds all of it");
    read
}

fn others(piece: &[u8]) {
    if let Ok(genesis) = serde_json::from_slice::<Genesis>(piece) {
        drop(genesis.snapshot());
    }
    if let Ok(founding_record) = serde_json::from_slice::<FoundingRecord>(piece) {
        drop(founding_record.first_snapshot());
    }
    if let Ok(message) = serde_json::from_slice::<PeerMessage>(piece) {
        drop(serde_json::to_vec(&message).expect("a message is plain data"));
    }
    drop(serde_json::from_slice::<BTreeMap<String, ClusterState>>(piece));
}
