//! The operator's commands, one file each.
pub mod chart;
pub mod validate;
