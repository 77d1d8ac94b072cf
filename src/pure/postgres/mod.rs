//! Facts about PostgreSQL as values and text; nothing here runs anything.
pub mod backup_label;
pub mod conninfo;
pub mod control;
pub mod hba;
pub mod history;
pub mod lsn;
pub mod owned;
pub mod postmaster_pid;
pub mod progress;
pub mod recovery;
pub mod settings;
pub mod slot;
pub mod state;
pub mod sync_names;
pub mod target;
pub mod version;
pub mod wal_e;
