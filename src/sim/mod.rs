//! The made-up world: whole clusters in one loop, from one seed, checked after every event.
//!
//! It runs the very same values as production: [`crate::pure::consensus::core::Core`], the machines
//! of [`crate::pure::flow`], and [`crate::pure::node::situation::Situation`]. What is made up is only what
//! they touch: clocks that drift, a network that lies, disks that forget what was not flushed,
//! a PostgreSQL that is a struct, a guard, clients that remember what they were promised.
//!
//! Read [`world`] first (the queue), then [`node`] (a host and its daemon), then [`check`].
//! Absent on purpose: threads, real time, real randomness. The same seed gives the same run.
pub mod bootstrap;
pub mod check;
pub mod cli;
pub mod client;
mod clustered;
pub mod copies;
pub mod coverage;
pub mod disk;
mod durability;
pub mod fault;
pub mod flows;
pub mod foreign;
pub mod fuzz;
pub mod guard;
pub mod hosts;
pub mod inject;
pub mod network;
pub mod node;
pub mod observer;
pub mod operations;
mod orders;
pub mod plan;
pub mod postgres;
pub mod remote;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod seeds;
mod settings;
pub mod shrink;
mod sites;
pub mod walked;
pub mod what_if;
pub mod world;
