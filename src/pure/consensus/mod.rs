//! Raft as a value: told what happened, answers with what to write down and what to send.
//!
//! [`core::Core`] is the whole of a node's agreement with the others: founding, Raft, lease,
//! arbiter. The host and the simulator both drive it through [`core::Input`] and carry out its
//! [`core::Output`]s; it holds back every message that depends on a write until told that the
//! write is durable.
mod apply;
pub mod arbiter;
pub mod core;
pub mod founding;
pub mod group;
mod halt;
mod holder;
mod initializer;
mod joining;
pub mod log;
mod membership;
pub mod message;
pub mod message_filter;
pub mod quorum_loss;
mod removal;
mod trust;
mod view;
