//! The flows: one file per chart in `statecharts/`, same names, one to one.
//!
//! A flow file is the struct of what the flow knows, the enum of what can happen to it, and five
//! `match`es over the names that `statecharts/build.rs` generates. A name in a chart without code
//! here does not compile. No flow imports another: it runs one by an operation.
pub mod any;
pub mod bootstrap;
pub mod cluster_init;
pub mod demote;
pub mod node;
pub mod promote;
pub mod rejoin;
pub mod replica_build;
pub mod restart;
pub mod standby_leader;
pub mod switchover;

/// Every chart compiled into the binary: its id and its JSON.
pub static BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));
