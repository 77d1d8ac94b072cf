//! The dump of a stopped node. Stands in for the reader that is written elsewhere.
use serde_json::Value;

use crate::pure::config::Config;

/// What the state directory knows while no daemon runs.
///
/// # Errors
/// One sentence: which directory cannot be read, and why.
pub fn from_state_dir(config: &Config) -> Result<Value, String> {
    Err(format!("{} cannot be read: not built yet", config.raft.data_dir.display()))
}
