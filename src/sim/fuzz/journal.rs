//! What a journal holds: records of this version, of another one, or damaged ones that still parse.
use super::bytes::Bytes;
use super::flows::resumed;
use crate::pure::chart::{Name, Names};
use crate::pure::flow::any;
use crate::pure::machine::{FollowsSituation, Record};
use crate::pure::node::situation::Situation;
use crate::pure::operation::FlowInput;

/// The first byte is the flow; then the record's JSON, and, behind a zero byte, what happens next.
pub fn record(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let (json, then) = rest.split_at(end);
    let mut then = Bytes::new(then.get(1..).unwrap_or_default());
    let id = any::IDS[usize::from(*which) % any::IDS.len()];
    any::visit(id, Resume { json, then: &mut then });
    drop((serde_json::from_slice::<FlowInput>(json), serde_json::from_slice::<Situation>(json)));
}

struct Resume<'a, 'b> {
    json: &'a [u8],
    then: &'a mut Bytes<'b>,
}

impl any::Visitor for Resume<'_, '_> {
    type Output = ();
    fn visit<F: FollowsSituation>(self) {
        resume::<F>(self.json, self.then);
    }
}

fn resume<F: FollowsSituation>(json: &[u8], then: &mut Bytes) {
    let Ok(record) = serde_json::from_slice::<Record<F>>(json) else { return };
    drop(record.sentence());
    if let Some(state) = record.state() {
        assert_eq!(state.text(), record.to, "it goes on where it was");
        assert!(F::Names::CHART.states[state.index()].initial.is_none());
    }
    resumed(record, then);
}
