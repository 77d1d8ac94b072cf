//! Facts about PostgreSQL as values and text; nothing here runs anything.
pub mod lsn;
pub mod state;
