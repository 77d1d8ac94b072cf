//! What a node shows of itself: the one value that REST, `ctl`, metrics and `dump` read.
//!
//! Assembled by the consensus thread and the node's actor; never waits for Raft.
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cluster::facts::Facts;
use super::cluster::state::ClusterState;
use super::cluster::{Millis, RaftId};

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct View {
    /// CLOCK_BOOTTIME of this node when the view was made.
    pub now: Millis,
    pub own_id: RaftId,
    pub own_name: String,
    pub cluster: ClusterState,
    pub raft: RaftView,
    pub lease: LeaseView,
    /// Latest facts of every member that was heard, by raft id; our own included.
    pub facts: BTreeMap<RaftId, Heard>,
    /// Why this node waits, when it is not part of a cluster yet.
    pub joining: Option<String>,
    /// This node holds the lease and does not write, and by what was last heard another member could take over.
    #[serde(default)]
    pub another_can_lead: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Heard {
    pub facts: Facts,
    pub heard_at: Millis,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RaftView {
    pub cluster_id: String,
    pub id: RaftId,
    /// `leader`, `follower`, `candidate`, `pre_candidate`, `outside` (no group yet).
    pub role: String,
    pub term: u64,
    /// The arbiter's id; 0 when unknown.
    pub leader: RaftId,
    pub commit: u64,
    pub applied: u64,
    pub first_index: u64,
    pub last_index: u64,
    pub voters: Vec<RaftId>,
    pub learners: Vec<RaftId>,
    pub peers: Vec<PeerView>,
    /// A majority confirmed the arbiter within the last ttl, as far as this node knows.
    pub quorum: bool,
    /// Last time (own clock) that this node had proof of a quorum.
    pub quorum_at: Millis,
    /// The same on the wall clock, epoch seconds: Patroni's `dcs_last_seen`.
    pub quorum_at_epoch_s: u64,
    /// Durable writes of the Raft log: how many, and how long the last and the slowest took.
    pub fsync_count: u64,
    pub fsync_last_us: u64,
    pub fsync_max_us: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PeerView {
    pub id: RaftId,
    pub name: String,
    pub addr: String,
    pub connected: bool,
    /// Replicated up to here; only known on the arbiter.
    pub matched: Option<u64>,
    pub last_heard: Option<Millis>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LeaseView {
    /// This node is the holder and its deadline has not passed.
    pub held: bool,
    pub epoch: u64,
    /// Until when (own clock) this node's PostgreSQL may write.
    pub deadline: Option<Millis>,
    /// Arbiter only: until when (own clock) the lease cannot be given to another.
    pub not_before: Option<Millis>,
}

/// What the node's own machines are doing; published by the node's actor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LocalView {
    pub machines: Vec<MachineView>,
    /// The HA cycle's one sentence, in Patroni's manner.
    pub sentence: String,
    pub guard: GuardView,
    /// A restart, reinitialise or other long task is running: its Patroni name.
    pub busy: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GuardView {
    pub pid: Option<u32>,
    pub armed: bool,
    pub epoch: u64,
    pub deadline: Option<Millis>,
    /// How many times it had to stop PostgreSQL, and how long that took last.
    pub fenced_count: u64,
    pub fence_last_ms: Option<u64>,
}

/// One machine: where it is, since when, waiting for what, until when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MachineView {
    pub flow: String,
    pub state: String,
    pub since: Millis,
    pub since_wall: String,
    /// The running operation, or the events that would move it.
    pub waiting_for: String,
    pub until: Option<Millis>,
    pub knowledge: serde_json::Value,
    /// The last transitions, oldest first; at most 50.
    pub transitions: Vec<TransitionView>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TransitionView {
    pub seq: u64,
    pub at: Millis,
    pub at_wall: String,
    pub from: String,
    pub to: String,
    pub cause: String,
    /// The journal's record with its input: what `surus replay` goes by.
    #[serde(default)]
    pub record: Recorded,
}

/// JSON that is kept as text, shared, because it is shown seldom and passed on often.
#[derive(Clone, Debug, Default)]
pub struct Recorded(Option<Arc<str>>);

impl Recorded {
    pub fn of(value: &serde_json::Value) -> Recorded {
        Recorded(Some(value.to_string().into()))
    }

    fn value(&self) -> serde_json::Value {
        let text = self.0.as_deref().unwrap_or("null");
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl Serialize for Recorded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Recorded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Recorded, D::Error> {
        serde_json::Value::deserialize(deserializer).map(|value| Recorded::of(&value))
    }
}
