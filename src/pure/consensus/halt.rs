//! What a later version wrote is never skipped: this member stops, and the others go on.
use raft::eraftpb::{Message, MessageType};
use serde_json::Value;

use super::core::{Core, Output};
use super::message_filter::can_be;
use crate::pure::cluster::state::ClusterState;

impl Core {
    /// Stops for good over `what`, of which `why` is not known here.
    pub(super) fn halt(&mut self, what: &str, why: &dyn std::fmt::Display) {
        if self.halted.is_some() {
            return;
        }
        let version = env!("CARGO_PKG_VERSION");
        let sentence = format!(
            "{what} was written by another version of surus and is not known to this one ({version}: \
             {why}); it is never skipped, so this node stops: install the version that the others run"
        );
        if let Some(holder) = self.holder.take() {
            self.out.push(Output::Deadline { epoch: holder.epoch, deadline: None });
        }
        self.halted = Some(sentence.clone());
        self.out.push(Output::Halt(sentence));
    }

    /// Before it is taken in, so that what is on the disk stays what this version can read.
    pub(super) fn halts_over_snapshot(&mut self, message: &Message) -> bool {
        let term = self.group.as_ref().map_or(0, |group| group.term());
        let error = later_state(message).filter(|_| message.term >= term);
        if let Some(error) = &error {
            let index = message.get_snapshot().get_metadata().index;
            self.halt(&format!("the snapshot of the cluster's state at entry {index}"), error);
        }
        error.is_some()
    }
}

/// A snapshot that is a cluster's state in all but what this version knows.
fn later_state(message: &Message) -> Option<serde_json::Error> {
    let snapshot = message.get_snapshot();
    let fits = message.get_msg_type() == MessageType::MsgSnapshot
        && can_be(snapshot.get_metadata().get_conf_state());
    let value = || serde_json::from_slice::<Value>(&snapshot.data).ok();
    let looks = || value().is_some_and(|v| v["applied"].is_u64() && v["members"].is_object());
    let error = serde_json::from_slice::<ClusterState>(&snapshot.data).err();
    error.filter(|_| fits && looks())
}
