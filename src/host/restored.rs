//! What lay on the disk, as the consensus reads it; all of it, or the sentence why not.
//!
//! The store's checksums were right, so what cannot be read here was written by another version. To
//! go on without it would forget a vote, a promise or the whole cluster: none of that is allowed.
use protobuf::Message;
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::store::Loaded;
use crate::pure::cluster::state::ClusterState;
use crate::pure::consensus::founding::FoundingRecord;
use crate::pure::consensus::log::MemoryLog;
use crate::pure::consensus::message_filter::{PLACE_MAX, can_be};

const WAY_OUT: &str = "start the version that wrote it; if it was damaged, raft.data_dir may be moved \
                       aside only while the other nodes have a majority without this one (`surus ctl \
                       members` there says so)";

/// What this node promised and belongs to, as it is on disk.
///
/// # Errors
/// It cannot be read.
pub fn founding_record_of(loaded: &Loaded) -> Result<FoundingRecord, String> {
    let Some(stored) = loaded.genesis.clone() else { return Ok(FoundingRecord::default()) };
    serde_json::from_value(stored).map_err(|error| unreadable("the record of its founding", &error))
}

/// The log as raft-rs reads it.
///
/// # Errors
/// A part that cannot be read, or that does not fit the others.
pub fn restored(loaded: &Loaded) -> Result<MemoryLog, String> {
    let hard_state: HardState = match &loaded.hard_state {
        Some(bytes) => parsed(bytes, "the record of its votes")?,
        None => HardState::default(),
    };
    let snapshot: Snapshot = match &loaded.snapshot {
        Some(bytes) => parsed(bytes, "the snapshot")?,
        None => founding_record_of(loaded)?.first_snapshot().unwrap_or_default(),
    };
    let membership = snapshot.get_metadata().get_conf_state();
    if *membership != Default::default() && !can_be(membership) {
        let what = format!("{:?} vote and {:?} listen", membership.voters, membership.learners);
        return Err(unreadable("the membership in the snapshot", &what));
    }
    if !snapshot.data.is_empty() {
        serde_json::from_slice::<ClusterState>(&snapshot.data)
            .map_err(|error| unreadable("the cluster's state in the snapshot", &error))?;
    }
    let place = snapshot.get_metadata().index;
    let furthest = place.max(snapshot.get_metadata().term);
    if furthest >= PLACE_MAX {
        return Err(unreadable("the snapshot", &format!("its place {furthest} is implausible")));
    }
    let vote = hard_state.term.max(hard_state.commit);
    if vote >= PLACE_MAX {
        return Err(unreadable(
            "the record of its votes",
            &format!("term or index {vote} is implausible"),
        ));
    }
    let entries = entries(loaded, place)?;
    Ok(MemoryLog::restore(hard_state, snapshot, entries))
}

fn parsed<M: Message>(bytes: &[u8], what: &str) -> Result<M, String> {
    M::parse_from_bytes(bytes).map_err(|error| unreadable(what, &error))
}

fn unreadable(what: &str, error: &dyn std::fmt::Display) -> String {
    format!("the Raft log: {what} cannot be read: {error}; {WAY_OUT}")
}

/// The entries behind the snapshot, none missing.
fn entries(loaded: &Loaded, snapshot: u64) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::with_capacity(loaded.entries.len());
    for (index, term, bytes) in &loaded.entries {
        let entry: Entry = parsed(bytes, &format!("entry {index}"))?;
        let follows = entries.last().is_none_or(|last| entry.index == last.index + 1);
        if (entry.index, entry.term) != (*index, *term)
            || !follows
            || (*index).max(*term) >= PLACE_MAX
        {
            return Err(format!(
                "the Raft log: in the place of entry {index} is another; {WAY_OUT}"
            ));
        }
        entries.push(entry);
    }
    match entries.first() {
        Some(first) if first.index > snapshot + 1 => Err(format!(
            "the Raft log: entries {} to {} are missing behind the snapshot; {WAY_OUT}",
            snapshot + 1,
            first.index - 1
        )),
        _ => Ok(entries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> (u64, u64, Vec<u8>) {
        let entry = Entry { index, term, ..Entry::default() };
        (index, term, entry.write_to_bytes().expect("it fits"))
    }

    fn refused(loaded: &Loaded) -> String {
        restored(loaded).err().expect("this must not be gone on from")
    }

    #[test]
    fn a_whole_log_is_read() {
        let loaded = Loaded { entries: vec![entry(1, 1), entry(2, 1)], ..Loaded::default() };
        assert_eq!(restored(&loaded).map(|log| log.last()), Ok((2, 1)));
        assert_eq!(founding_record_of(&Loaded::default()), Ok(FoundingRecord::default()));
    }

    #[test]
    fn a_place_that_no_log_reaches_is_refused() {
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = u64::MAX;
        let bytes = snapshot.write_to_bytes().expect("it fits");
        let (snapshot, entries) = (Some(bytes), vec![entry(1, 1)]);
        assert!(
            refused(&Loaded { snapshot, entries, ..Loaded::default() }).contains("is implausible")
        );
        let last = Loaded { entries: vec![entry(u64::MAX, 1)], ..Loaded::default() };
        assert!(refused(&last).contains("in the place of entry"));
        let vote = HardState { term: u64::MAX, ..HardState::default() };
        let hard_state = Some(vote.write_to_bytes().expect("it fits"));
        let said = refused(&Loaded { hard_state, ..Loaded::default() });
        assert!(said.contains("its votes cannot be read: term or index 18446744073709551615"));
    }

    /// Going on with a vote, a promise or a state that is forgotten could elect two or found twice.
    #[test]
    fn what_cannot_be_read_is_not_forgotten() {
        let garbage = || Some(vec![0xff; 3]);
        let said = refused(&Loaded { hard_state: garbage(), ..Loaded::default() });
        assert!(said.contains("its votes cannot be read") && said.contains("start the version"));
        let said = refused(&Loaded { snapshot: garbage(), ..Loaded::default() });
        assert!(said.contains("the snapshot cannot be read"), "{said}");
        let snapshot = Snapshot { data: b"{}".to_vec().into(), ..Snapshot::default() };
        let snapshot = Some(snapshot.write_to_bytes().expect("it fits"));
        let said = refused(&Loaded { snapshot, ..Loaded::default() });
        assert!(said.contains("the cluster's state in the snapshot"), "{said}");
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().mut_conf_state().set_learners(vec![1]);
        let snapshot = Some(snapshot.write_to_bytes().expect("it fits"));
        let said = refused(&Loaded { snapshot, ..Loaded::default() });
        assert!(said.contains("the membership in the snapshot"), "{said}");
        let genesis = Some(serde_json::json!({"voted_for": "somebody"}));
        let said =
            founding_record_of(&Loaded { genesis, ..Loaded::default() }).expect_err("no promise");
        assert!(said.contains("the record of its founding"), "{said}");
    }

    #[test]
    fn entries_follow_each_other() {
        let of = |entries| refused(&Loaded { entries, ..Loaded::default() });
        let mut odd = entry(2, 1);
        odd.0 = 1;
        assert!(of(vec![odd]).contains("in the place of entry 1 is another"));
        assert!(of(vec![(1, 1, vec![0xff])]).contains("entry 1 cannot be read"));
        assert!(of(vec![entry(3, 1)]).contains("entries 1 to 2 are missing"));
        assert!(of(vec![entry(1, 1), entry(3, 1)]).contains("in the place of entry 3"));
    }
}
