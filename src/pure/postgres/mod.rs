//! Facts about PostgreSQL as values and text; nothing here runs anything.
pub mod conninfo;
pub mod hba;
pub mod lsn;
pub mod owned;
pub mod recovery;
pub mod settings;
pub mod slot;
pub mod backup_label;
pub mod control;
pub mod history;
pub mod postmaster_pid;
pub mod progress;
pub mod state;
pub mod sync_names;
pub mod version;
