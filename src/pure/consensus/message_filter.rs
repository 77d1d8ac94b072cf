//! What no honest peer sends: raft-rs would end the process over it, so it is not let in.
//!
//! Dropping a message is always safe in Raft: it is as if the network had lost it. What an honest
//! peer sends is never dropped here: it acknowledges, commits and repeats only what this log holds.
use std::collections::BTreeSet;

use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};
use raft::{Raft, StateRole};

use super::core::Proposal;
use super::group::payload;
use super::log::MemoryLog;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::state::ClusterState;

/// No index and no term that anybody has written gets there: at a million a second it takes eight years.
/// raft-rs adds to both.
pub const PLACE_MAX: u64 = 1 << 48;

/// Why this message must not be stepped; nothing when it may.
pub fn rejection(raft: &Raft<MemoryLog>, message: &Message) -> Option<String> {
    let from = message.from;
    let what = implausible(message).or_else(|| misfit(raft, message));
    what.map(|what| format!("a Raft message from {from:016x} was not believed: it {what}"))
}

fn implausible(message: &Message) -> Option<String> {
    let meta = message.get_snapshot().get_metadata();
    let head = [
        (message.term, message.commit_term),
        (message.index, message.log_term),
        (message.commit, message.reject_hint),
        (meta.index, meta.term),
    ];
    let entries = message.entries.iter().map(|entry| (entry.index, entry.term));
    head.into_iter()
        .chain(entries)
        .map(|(index, term)| index.max(term).max(message.request_snapshot))
        .filter(|place| *place >= PLACE_MAX)
        .map(|place| format!("is about index or term {place}, which is implausible"))
        .next()
}

fn misfit(raft: &Raft<MemoryLog>, message: &Message) -> Option<String> {
    match message.get_msg_type() {
        MessageType::MsgHeartbeat => beyond(raft, message.commit),
        MessageType::MsgAppend => rewrites_history(raft, message),
        MessageType::MsgSnapshot => unfit_snapshot(message),
        MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => {
            let leads = raft.state == StateRole::Leader && message.term == raft.term;
            leads.then(|| beyond(raft, message.index.max(message.commit))).flatten()
        }
        MessageType::MsgReadIndexResp => is_empty(message),
        MessageType::MsgPropose => {
            is_empty(message).or_else(|| has_a_term(message)).or_else(|| not_its_own(message))
        }
        MessageType::MsgReadIndex => is_empty(message).or_else(|| has_a_term(message)),
        MessageType::MsgTransferLeader => asks_who_cannot(raft, message),
        MessageType::MsgTimeoutNow
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVoteResponse => makes_leader_too_early(raft),
        _ => None,
    }
}

fn is_empty(message: &Message) -> Option<String> {
    message.entries.is_empty().then(|| String::from("has nothing in it"))
}

/// What is passed on to the leader has none; raft-rs stops over passing on one that has.
fn has_a_term(message: &Message) -> Option<String> {
    let term = message.term;
    (term != 0).then(|| format!("is of term {term}, and what is passed on has none"))
}

/// A member proposes in its own name, never a membership, and never what the arbiter alone decides.
fn not_its_own(message: &Message) -> Option<String> {
    let from = message.from;
    let wrong = |entry: &Entry| {
        let plain = entry.get_entry_type() == EntryType::EntryNormal;
        let proposal =
            payload(entry).and_then(|data| serde_json::from_slice::<Proposal>(data).ok());
        let decides = |command: &Command| {
            use Command::{Grant, LeaseOver, NobodyEligible};
            matches!(command, Grant { .. } | LeaseOver { .. } | NobodyEligible { .. })
        };
        !plain || proposal.is_none_or(|p| p.origin != from || decides(&p.command))
    };
    message.entries.iter().any(wrong).then(|| String::from("proposes what is not its own to say"))
}

/// Whoever does not lead, or no longer leads once it knows this term, would pass that on.
fn asks_who_cannot(raft: &Raft<MemoryLog>, message: &Message) -> Option<String> {
    let leads = raft.state == StateRole::Leader && message.term <= raft.term;
    (!leads).then(|| String::from("asks for a transfer of what is not held here"))
}

/// An honest answer comes after the write: a vote is asked for when everything here is on disk. (Who
/// leads already hears the other answers while it writes its first entry.)
fn makes_leader_too_early(raft: &Raft<MemoryLog>) -> Option<String> {
    let too_early = raft.state != StateRole::Leader && is_unwritten(raft);
    too_early.then(|| String::from("would make a leader of what is not written yet"))
}

/// raft-rs stops over a leader whose log is not on disk.
pub fn is_unwritten(raft: &Raft<MemoryLog>) -> bool {
    raft.raft_log.last_index() != raft.raft_log.persisted
}

fn beyond(raft: &Raft<MemoryLog>, index: u64) -> Option<String> {
    let last = raft.raft_log.last_index();
    (index > last).then(|| format!("counts on entry {index}, and the log here ends at {last}"))
}

/// Entries that are committed here never become others; and raft-rs takes an entry that is not there
/// for one of term 0, so nothing comes after an entry of no term.
fn rewrites_history(raft: &Raft<MemoryLog>, message: &Message) -> Option<String> {
    let log = &raft.raft_log;
    if message.index > 0 && message.log_term == 0 {
        return Some(format!("goes on after entry {}, of no term", message.index));
    }
    let settled = message.entries.iter().filter(|entry| entry.index <= log.committed);
    let other = settled
        .filter(|entry| log.term(entry.index).is_ok_and(|term| term != 0 && term != entry.term))
        .map(|entry| entry.index)
        .next()?;
    Some(format!("has another entry {other} than the one that is committed here"))
}

/// Somebody votes, nobody is named twice, and no change is half done.
pub fn can_be(membership: &ConfState) -> bool {
    let all: Vec<u64> = membership.voters.iter().chain(&membership.learners).copied().collect();
    let different: BTreeSet<u64> = all.iter().copied().collect();
    let joint = !membership.voters_outgoing.is_empty()
        || !membership.learners_next.is_empty()
        || membership.auto_leave;
    let twice = different.len() < all.len();
    !(membership.voters.is_empty() || twice || joint || different.contains(&0))
}

/// It must be a cluster's state, with a membership that can be.
fn unfit_snapshot(message: &Message) -> Option<String> {
    let snapshot = message.get_snapshot();
    let meta = snapshot.get_metadata();
    if !can_be(meta.get_conf_state()) || meta.index == 0 || meta.term == 0 {
        return Some(format!("has a snapshot for voters {:?}", meta.get_conf_state().voters));
    }
    let state = serde_json::from_slice::<ClusterState>(&snapshot.data);
    state.err().map(|error| format!("has a snapshot that is no cluster's state: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::group::{Group, genesis_hard_state};
    use super::super::message::Genesis;
    use super::*;
    use crate::pure::cluster::state::Member;
    use raft::Storage;

    /// One of three, with the first snapshot and nothing else.
    fn group() -> Group {
        let voters = (1..4).map(|id| (id, Member::default())).collect();
        let genesis = Genesis { cluster_id: "c".into(), voters };
        let log = MemoryLog::restore(genesis_hard_state(), genesis.snapshot(), Vec::new());
        Group::new(1, log, 1, 7)
    }

    fn message(kind: MessageType) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term) = (2, 1, 2);
        message
    }

    fn said(message: Message) -> String {
        group().step(message).expect_err("it must not be stepped")
    }

    #[test]
    fn what_would_end_the_process_is_not_believed() {
        let mut heartbeat = message(MessageType::MsgHeartbeat);
        heartbeat.commit = 9;
        let wanted = "a Raft message from 0000000000000002 was not believed: it counts on entry 9, \
                      and the log here ends at 1";
        assert_eq!(said(heartbeat.clone()), wanted);
        heartbeat.commit = 1;
        assert_eq!(group().step(heartbeat), Ok(()));
        let mut append = message(MessageType::MsgAppend);
        append.mut_entries().push(Entry { index: 1, term: 2, ..Entry::default() });
        assert!(said(append).contains("has another entry 1"));
        let mut append = message(MessageType::MsgAppend);
        (append.index, append.commit) = (4, 4);
        assert!(said(append).contains("goes on after entry 4, of no term"));
        assert!(said(message(MessageType::MsgPropose)).ends_with("it has nothing in it"));
        let mut proposal = message(MessageType::MsgPropose);
        proposal.mut_entries().push(Entry::default());
        assert!(said(proposal).contains("is of term 2, and what is passed on has none"));
        assert!(said(message(MessageType::MsgTransferLeader)).contains("asks for a transfer"));
        let mut old = message(MessageType::MsgRequestVote);
        old.term = u64::MAX;
        assert!(said(old).contains("index or term 18446744073709551615, which is implausible"));
        let mut unwritten = group();
        let mut append = message(MessageType::MsgAppend);
        (append.index, append.log_term) =
            (1, Storage::term(unwritten.log(), 1).expect("the first snapshot"));
        append.mut_entries().push(Entry { index: 2, term: 2, ..Entry::default() });
        assert_eq!(unwritten.step(append), Ok(()));
        let order = unwritten.step(message(MessageType::MsgTimeoutNow)).expect_err("too early");
        assert!(order.ends_with("it would make a leader of what is not written yet"), "{order}");
    }

    /// SEC-9: in another's name, about the membership, or what the arbiter decides.
    #[test]
    fn a_member_proposes_only_what_is_its_own() {
        let with = |origin, command| {
            let mut message = message(MessageType::MsgPropose);
            message.term = 0;
            let proposal = Proposal { origin, ticket: 1, command };
            let data = serde_json::to_vec(&proposal).expect("plain data").into();
            message.mut_entries().push(Entry { data, ..Entry::default() });
            message
        };
        let asks = || Command::PatchConfig { patch: serde_json::Value::Null };
        let own = group().step(with(2, asks()));
        assert!(!own.is_err_and(|why| why.contains("not its own")));
        assert!(said(with(3, asks())).contains("not its own"));
        let over = Command::LeaseOver { epoch: 1, reason: String::new() };
        assert!(said(with(2, over)).contains("not its own"));
        let mut change = with(2, asks());
        change.mut_entries()[0].set_entry_type(EntryType::EntryConfChange);
        assert!(said(change).contains("not its own"));
        let mut odd = with(2, asks());
        odd.mut_entries()[0].data = vec![1].into();
        assert!(said(odd).contains("not its own"));
    }

    #[test]
    fn a_snapshot_is_a_state_and_a_membership() {
        let with = |voters: &[u64], data: &[u8]| {
            let mut message = message(MessageType::MsgSnapshot);
            let mut snapshot = Genesis::default().snapshot();
            snapshot.data = data.to_vec().into();
            snapshot.mut_metadata().index = 5;
            snapshot.mut_metadata().mut_conf_state().set_voters(voters.to_vec());
            message.set_snapshot(snapshot);
            message
        };
        let state = serde_json::to_vec(&ClusterState::default()).expect("plain data");
        assert!(said(with(&[1, 2], b"{}")).contains("no cluster's state"));
        for odd in [&[][..], &[0, 1], &[1, 1]] {
            assert!(said(with(odd, &state)).contains("a snapshot for voters"), "{odd:?}");
        }
        assert_eq!(group().step(with(&[1, 2], &state)), Ok(()));
        let mut half_done = with(&[1, 2], &state);
        half_done.mut_snapshot().mut_metadata().mut_conf_state().auto_leave = true;
        assert!(said(half_done).contains("a snapshot for voters"));
    }
}
