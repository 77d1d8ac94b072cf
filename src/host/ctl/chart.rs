//! `surus chart`: look at statecharts, built in or from any file.
pub use crate::pure::flow::BUILT_IN;
