//! Patroni's shapes as pure functions: bodies, status codes, metrics, member JSON, store keys.
//!
//! Everything here reads one [`snapshot::Snapshot`], the values a node has published of itself. Nothing
//! waits, so every answer is as old as the view it was made from and never older.
pub mod basic_auth;
pub mod cluster;
pub mod dynamic;
pub mod health;
pub mod json;
pub mod keys;
pub mod members;
pub mod metrics;
pub mod probe;
pub mod quantity;
pub mod reinit;
pub mod restart;
pub mod schedule;
pub mod snapshot;
pub mod standby;
pub mod status;
pub mod switchover;
pub mod tags;

/// The Patroni release whose interfaces these are. Clients parse it as integers: `N.N.N`, no more.
pub const PATRONI_VERSION: &str = "4.1.4";

/// What a request about pause is told.
pub const PAUSE_NOT_BUILT: &str =
    "Pause is not built yet: this cluster is always managed, so nothing was changed";

/// A status code and the plain text that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    pub text: String,
}

impl Answer {
    pub fn new(code: u16, text: impl Into<String>) -> Answer {
        Answer { code, text: text.into() }
    }
}
