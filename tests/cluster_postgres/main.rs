//! Whole clusters: real daemons, real PostgreSQL, real signals and networks.
//!
//! Each test has its own nodes on ports of its own, is bounded in time, and ends every process it
//! caused, also when it fails. Without PostgreSQL's programs the tests say so and pass, unless
//! SURUS_REQUIRE_POSTGRES is set.
#![allow(dead_code)] // the harness offers more than each test uses
mod cluster;
#[path = "../common/disk.rs"]
mod disk;
mod http;
mod network;
mod node;
mod process;
mod scripts;
mod sql;
mod state_disks;
mod writers;

mod adopt;
mod bootstrap;
mod bring_up;
mod builds;
mod crash;
mod foreign;
mod forged;
mod leader_loss;
mod members;
mod moved;
mod node_loss;
mod origin;
mod partition;
mod recipe;
mod rewind;
mod single;
mod slots;
mod standby;
mod standby_archive;
mod stops;
mod stuck_disk;
mod sync;
mod upgrade;
mod wale;
mod wiped;
