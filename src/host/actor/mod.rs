//! The actors: consensus on a thread of its own, one generic actor for every flow.
pub mod consensus;
pub mod flow;
