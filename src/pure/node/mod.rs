//! A node as a value: the situation that its flows are given, and what others are shown of it.
pub mod situation;
