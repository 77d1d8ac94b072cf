//! What a journal holds: records of this version, of another one, or damaged ones that still parse.
use super::bytes::Bytes;
use super::flows::resumed;
use crate::pure::chart::{Name, Names};
use crate::pure::deed::Brief;
use crate::pure::flow::bootstrap::Bootstrap;
use crate::pure::flow::cluster_init::ClusterInit;
use crate::pure::flow::demote::Demote;
use crate::pure::flow::node::Node;
use crate::pure::flow::promote::Promote;
use crate::pure::flow::rejoin::Rejoin;
use crate::pure::flow::replica_build::ReplicaBuild;
use crate::pure::flow::restart::Restart;
use crate::pure::flow::standby_leader::StandbyLeader;
use crate::pure::flow::switchover::Switchover;
use crate::pure::machine::Record;
use crate::pure::situation::Situation;
use crate::sim::machine::Hears;

/// The first byte is the flow; then the record's JSON, and, behind a zero byte, what happens next.
pub fn record(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let (json, then) = rest.split_at(end);
    let mut then = Bytes::new(then.get(1..).unwrap_or_default());
    match which % 10 {
        0 => resume::<Node>(json, &mut then),
        1 => resume::<ClusterInit>(json, &mut then),
        2 => resume::<Bootstrap>(json, &mut then),
        3 => resume::<ReplicaBuild>(json, &mut then),
        4 => resume::<Rejoin>(json, &mut then),
        5 => resume::<Promote>(json, &mut then),
        6 => resume::<Demote>(json, &mut then),
        7 => resume::<Switchover>(json, &mut then),
        8 => resume::<Restart>(json, &mut then),
        _ => resume::<StandbyLeader>(json, &mut then),
    }
    drop((serde_json::from_slice::<Brief>(json), serde_json::from_slice::<Situation>(json)));
}

fn resume<F: Hears>(json: &[u8], then: &mut Bytes) {
    let Ok(record) = serde_json::from_slice::<Record<F>>(json) else { return };
    drop(record.sentence());
    if let Some(state) = record.state() {
        assert_eq!(state.text(), record.to, "it goes on where it was");
        assert!(F::Names::CHART.states[state.index()].initial.is_none());
    }
    resumed(record, then);
}
