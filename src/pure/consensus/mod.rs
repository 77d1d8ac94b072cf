//! Raft as a value: told what happened, answers with what to write down and what to send.
//!
//! [`core::Core`] is the whole of a node's agreement with the others: founding, Raft, lease,
//! arbiter. The host and the simulator both drive it through [`core::Input`] and carry out its
//! [`core::Output`]s; it holds back every message that depends on a write until told that the
//! write is durable.
pub mod admit;
pub mod arbiter;
pub mod core;
mod creator;
pub mod founding;
pub mod group;
mod halt;
mod holder;
mod inside;
pub mod log;
mod membership;
pub mod message;
mod outside;
pub mod recover;
mod removal;
mod show;
mod trust;
