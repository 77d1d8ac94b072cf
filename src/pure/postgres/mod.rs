//! Facts about PostgreSQL as values and text; nothing here runs anything.
pub mod backup_label;
pub mod control;
pub mod history;
pub mod lsn;
pub mod postmaster_pid;
pub mod progress;
pub mod state;
