//! A node as a value: the situation that its flows are given, and what others are shown of it.
pub mod known;
pub mod requests;
pub mod situation;
pub mod status;
