//! What nodes say to each other beside Raft's own messages. JSON on the wire.
use raft::eraftpb::{ConfState, Snapshot};
use serde::{Deserialize, Serialize};

use super::trust::Book;
use crate::pure::cluster::RaftId;
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::lease::Nonce;
use crate::pure::cluster::state::{ClusterState, Member};

/// One message between two nodes. Losing any of them does no harm: all are repeated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerMessage {
    /// The sender's latest word about itself.
    Facts(Box<Facts>),
    /// The holder asks the arbiter to extend the lease.
    Renew {
        epoch: u64,
        serial: u64,
        #[serde(default)]
        nonce: Nonce,
    },
    /// A majority confirmed the arbiter in a round that began after this renewal arrived.
    RenewAck {
        epoch: u64,
        serial: u64,
        /// What the arbiter has applied; the holder does not lead on less ([`Holder::caught_up_at`]).
        ///
        /// [`Holder::caught_up_at`]: crate::pure::cluster::lease::Holder::caught_up_at
        #[serde(default)]
        applied: u64,
        /// The renewal's.
        #[serde(default)]
        nonce: Nonce,
        /// The longest ttl that this answer speaks for, by what the arbiter has applied.
        #[serde(default)]
        ttl_ms: Option<u64>,
    },
    /// The arbiter wants facts that are fresh.
    Ask {
        round: u64,
    },
    /// A node outside asks to be let in; anybody passes it on to the arbiter.
    Join {
        id: RaftId,
        member: Member,
    },
    /// The arbiter's answer to a node that cannot be let in.
    JoinRefused {
        reason: String,
    },
    /// A node that is about to stop asks to be made a learner.
    Leave {
        id: RaftId,
    },
    /// "May I found the cluster?" Answered by a promise, given once.
    FoundingVoteRequest {
        founder: RaftId,
    },
    FoundingVote {
        founder: RaftId,
        id: RaftId,
        member: Member,
    },
    VotedForAnother {
        founder: RaftId,
        voted_for: RaftId,
    },
    Genesis(Genesis),
    /// The members that the sender knows.
    Book(Book),
}

impl PeerMessage {
    /// Whether a node that is no member may say this: it asks for itself, or the cluster is being founded.
    pub fn is_of_strangers(&self, from: RaftId) -> bool {
        match self {
            PeerMessage::Join { id, .. } => *id == from,
            PeerMessage::FoundingVoteRequest { .. }
            | PeerMessage::FoundingVote { .. }
            | PeerMessage::VotedForAnother { .. }
            | PeerMessage::Genesis(_)
            | PeerMessage::JoinRefused { .. } => true,
            PeerMessage::Facts(_)
            | PeerMessage::Renew { .. }
            | PeerMessage::RenewAck { .. }
            | PeerMessage::Ask { .. }
            | PeerMessage::Book(_)
            | PeerMessage::Leave { .. } => false,
        }
    }
}

/// The first configuration: written once by the founder, kept by everybody who promised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Genesis {
    pub cluster_id: String,
    pub voters: Vec<(RaftId, Member)>,
}

impl Genesis {
    /// The first state of the cluster, the same on every first voter.
    pub fn cluster(&self) -> ClusterState {
        let members = self.voters.iter().cloned().collect();
        ClusterState { applied: 1, members, ..ClusterState::default() }
    }

    /// That state as a snapshot at index 1: the log begins behind it.
    pub fn snapshot(&self) -> Snapshot {
        let mut conf = ConfState::default();
        conf.set_voters(self.voters.iter().map(|(id, _)| *id).collect());
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        meta.index = 1;
        meta.term = 1;
        meta.set_conf_state(conf);
        snapshot.data = serde_json::to_vec(&self.cluster()).expect("plain data").into();
        snapshot
    }
}

/// What a node's greeting says of its state; see `founding`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FoundingStatus {
    pub cluster_id: Option<String>,
    /// Recoveries that the cluster went through.
    #[serde(default)]
    pub cluster_epoch: u64,
    pub voted_for: Option<RaftId>,
    /// Of a node outside: the cluster that it knows to exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_of: Option<super::founding::HeardOf>,
}

/// A greeting as the consensus needs it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Greeting {
    pub id: RaftId,
    pub name: String,
    pub addr: String,
    pub standing: FoundingStatus,
}
