//! What Raft replicates, and the rules over it.
pub mod apply;
pub mod command;
pub mod eligibility;
pub mod facts;
pub mod handover;
pub mod lease;
pub mod poll_sequence;
pub mod rank;
pub mod remote;
pub mod removal;
pub mod slots;
pub mod standby;
pub mod state;
pub mod sync;
pub mod timelines;

/// Milliseconds on a node's own CLOCK_BOOTTIME; never compared across nodes without paying drift.
pub type Millis = u64;

/// A node's identity in Raft: drawn once per state directory, never used again.
pub type RaftId = u64;
