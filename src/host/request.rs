//! What REST and `ctl` may ask of the running daemon, and how it answers.
//!
//! REST handlers hold a [`Handle`]; nobody else does. Reads never wait: they take the latest
//! published [`View`]. Changes go over a channel to the node and come back on a oneshot.
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::config::{Config, Dynamic};
use crate::pure::operation::ReinitOptions;
use crate::pure::view::{LocalView, View};

/// A request that the node's actor answers.
pub enum Request {
    /// Put a command into the log; answered when applied here, or with why not (no quorum, refused).
    Propose { command: Command, reply: oneshot::Sender<Result<Outcome, String>> },
    /// May this be stored as (part of) the dynamic configuration? `Err` says which setting not.
    Vet { change: Value, reply: oneshot::Sender<Result<(), String>> },
    /// Restart PostgreSQL now. `Err` is Patroni's reason (`restart failed`, `<task> already in progress`, …).
    Restart { timeout_ms: Option<u64>, reply: oneshot::Sender<Result<(), String>> },
    /// Rebuild this replica. Answered when started or refused.
    Reinitialize { force: bool, reinit: ReinitOptions, reply: oneshot::Sender<Result<(), String>> },
    /// Call off a reinitialize; answered with whether there was one.
    CancelReinitialize { reply: oneshot::Sender<Result<bool, String>> },
    /// Read the configuration file again and apply it. Answered with what of it is not in force yet,
    /// a sentence each; `Err` is what is wrong with the file.
    Reload { reply: oneshot::Sender<Result<Vec<String>, String>> },
    /// Set or clear what `/patroni` shows as `scheduled_restart`; the node runs it when due.
    ScheduleRestart { schedule: Option<Value>, reply: oneshot::Sender<Result<bool, String>> },
    /// The whole dump of this node as JSON.
    Dump { reply: oneshot::Sender<Value> },
}

/// The REST side's end of the wire.
#[derive(Clone)]
pub struct Handle {
    pub config: Arc<std::sync::RwLock<Arc<Config>>>,
    pub view: watch::Receiver<Arc<View>>,
    pub local: watch::Receiver<Arc<LocalView>>,
    pub dynamic: watch::Receiver<Arc<Dynamic>>,
    pub requests: mpsc::Sender<Request>,
}
