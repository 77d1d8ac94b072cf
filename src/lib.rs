//! Surus keeps a PostgreSQL cluster alive.
//!
//! # Bird's-eye view
//!
//! One machine, two homes: every decision is made by a plain value that is told what happened and
//! answers with a record to write down and things to do. In production that value lives in an
//! actor, in tests in a simulator; it cannot tell the difference.
//!
//! - [`pure`]: what we decide. No clock, disk, network, randomness or threads.
//! - [`host`]: the real world: actix, sled, sockets, processes, PostgreSQL.
//! - `sim` (feature `sim`): the made-up one: one seed, one queue, faults, and the promises checked
//!   after every event.
//!
//! Outside the daemon, in the same program: [`ctl`], the operator's commands; [`demo`], a cluster on one
//! machine; [`tools`], for other backup tools and a lost majority. They speak REST, or read a stopped node's files.
//!
//! The flows themselves are data: `statecharts/*.json`, one file of [`pure::flow`] for each.
//!
//! # The path of a fact
//!
//! ```text
//! the world     host       pure                                  host
//! fact        ► Input   ►  Machine::handle
//!                            chart: which edge, and is it allowed
//!                            flow:  what do we know now
//!                            Step: a record and effects ► persist ► sled, flushed and synced
//!                                                          └► effects: begin or cancel an operation, wake
//!               Input   ◄─────────────────────────── report ◄── execute(operation)
//! ```
//!
//! 1. Edges decide, states work: after a crash "what should be running?" is where the flow stands.
//! 2. Written before done: the effects of a step can only be had by persisting its record.
//! 3. Answers carry the visit they answer to; late ones are dropped.
//! 4. The world is told in levels: the cycle repeats the whole situation, no flow depends on having
//!    been awake when something happened.
//!
//! Several flows run at once, one in the other: the node's own, and the child that its state runs. The
//! rules among them are one more value, [`pure::machine::stack::Frame`]: each flow's actor owns one and
//! carries out what it orders, and so does the simulator.
//!
//! Consensus is one more such value, [`pure::consensus::core::Core`], on a thread of its own.
//!
//! # The import rule
//!
//! `pure` names neither `host` nor `sim`; these two never name each other. `ctl`, `demo` and `tools` name
//! `pure` and what the doors in `tests/tidy.rs` let them have of `host`; none of the three is named by
//! those. Inside `pure` a table there says who may name whom; one flow runs another only by an operation.
//!
//! # Glossary
//!
//! - *Arbiter*: the current Raft leader. *Holder*: the node that holds the lease.
//! - *Lease*: the right to accept writes; granted by a log entry, extended by renewals.
//! - *Guard*: the process that stops PostgreSQL when the lease's deadline passes.
//! - *Epoch* of the lease: number of the grant. *Epoch* of the cluster: number of recoveries.
//! - *Operation*: one thing that a node does to the world. *Flow input*: what a flow is started with.
//! - *Situation*: everything that may move a flow, at one look. *Facts*: what a node says of itself.
//! - *Witness*: a voter without PostgreSQL.
//!
//! # Absent on purpose
//!
//! - No store beside it, and no PostgreSQL traffic in the log: positions are gossip.
//! - No wall clock in any decision, and no clock compared between nodes.
//! - No parallel regions, history or entry actions in charts: one actor a flow, the journal instead.
//! - No event sourcing: a record holds what is known, old logic is never replayed over new charts.
//! - No log lines from `pure`: its records are the log, and the host prints them.
pub mod ctl;
pub mod demo;
pub mod host;
pub mod pure;
#[cfg(feature = "sim")]
pub mod sim;
pub mod tools;
