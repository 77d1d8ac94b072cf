//! What we decide: no clock, no disk, no network, no randomness, no actors.
//!
//! Time arrives as a value, randomness arrives as a value, maps are ordered. Pure code does not
//! log: its records are the log, and the host prints them.
pub mod chart;
pub mod cluster;
pub mod config;
pub mod consensus;
pub mod dump;
pub mod flow;
pub mod guard;
pub mod machine;
pub mod node;
pub mod operation;
pub mod patroni;
pub mod postgres;
pub mod random;
pub mod replay;
pub mod view;
