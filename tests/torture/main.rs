//! Torture of real clusters: daemons, PostgreSQL, networks and disks fail by a seed's plan while
//! clients write, and a checker says what became of what they were promised.
//!
//! `scripts/torture MINUTES` runs it for longer; the tests run a short slice. Each node has a
//! network namespace, a disk for its Raft log and journal, a time namespace (their CLOCK_BOOTTIME and
//! CLOCK_MONOTONIC differ by days, and cannot jump), and a wall clock that is set wrong now and then.
#![allow(dead_code)] // the harness offers more than is used here
mod checker;
mod checker_tests;
mod clients;
mod clocks;
#[path = "../cluster_postgres/cluster.rs"]
mod cluster;
#[path = "../differential/mod.rs"]
mod differential;
#[path = "../common/disk.rs"]
mod disk;
mod faults;
mod history;
#[path = "../cluster_postgres/http.rs"]
mod http;
mod inject;
#[path = "../cluster_postgres/network.rs"]
mod network;
#[path = "../cluster_postgres/node.rs"]
mod node;
#[path = "../cluster_postgres/process.rs"]
mod process;
mod run;
#[path = "../cluster_postgres/sql.rs"]
mod sql;
#[path = "../cluster_postgres/state_disks.rs"]
mod state_disks;
mod wall_clock;
#[path = "../cluster_postgres/writers.rs"]
mod writers;
