//! The made-up world: whole clusters in one loop, from one seed, checked after every event.
//!
//! It runs the very same values as production: [`crate::pure::consensus::core::Core`], the machines
//! of [`crate::pure::flow`], and [`crate::pure::situation::Situation`]. What is made up is only what
//! they touch: clocks that drift, a network that lies, disks that forget what was not flushed,
//! a PostgreSQL that is a struct, a guard, clients that remember what they were promised.
//!
//! Read [`world`] first (the queue), then [`node`] (a host and its daemon), then [`check`].
//! Absent on purpose: threads, real time, real luck. The same seed gives the same run.
pub mod births;
pub mod check;
pub mod cli;
pub mod client;
pub mod copies;
pub mod crew;
pub mod deeds;
mod dense;
pub mod disk;
mod durability;
pub mod explore;
pub mod fault;
pub mod fuzz;
pub mod guard;
pub mod hosts;
pub mod luck;
pub mod network;
pub mod node;
pub mod observer;
mod orders;
pub mod plan;
pub mod postgres;
pub mod reach;
pub mod remote;
pub mod run;
pub mod scenario;
mod settings;
pub mod shrink;
mod sites;
pub mod strangers;
pub mod strike;
pub mod walked;
pub mod what_if;
pub mod world;
