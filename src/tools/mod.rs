//! Programs that stand beside the daemon: replica methods and callbacks of other backup tools.
pub mod barman;
pub mod quorum_loss;
pub mod wale;
