//! Inside the group: Raft's rounds, and what becomes of committed entries.
use raft::eraftpb::{ConfChangeType, Entry, EntryType, Message};

use super::core::{Core, Output, Proposal};
use super::group::{Round, change_of, payload};
use super::message::PeerMessage;
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::cluster::state::{ClusterState, Member};
use crate::pure::cluster::{Millis, RaftId};

/// How often an unanswered request to leave, or to be described rightly, is repeated.
const REPEAT_MS: Millis = 500;

impl Core {
    /// What is for who was at this address before, under an id that is no more, is not for us: taken for
    /// an invitation it would keep a node outside for ever.
    pub(super) fn raft_message(&mut self, from: RaftId, message: Message) {
        if message.to != self.id || self.cluster.removed.contains(&from) {
            return;
        }
        if self.group.is_none() && self.founding.is_some() {
            self.joined(from);
        }
        if !self.is_known(from) || self.halts_over_snapshot(&message) {
            return;
        }
        let Some(group) = &mut self.group else { return };
        self.answered.insert(from, self.now);
        let led = from == group.leader();
        match group.step(message) {
            Ok(()) if led => self.quorum_at = self.now,
            Ok(()) => {}
            Err(rejection) => self.not_believed(rejection),
        }
    }

    fn not_believed(&mut self, rejection: String) {
        self.say_once(&rejection);
    }

    /// Said once, not with every repetition.
    pub(super) fn say_once(&mut self, rejection: &str) {
        if self.rejected_message.as_deref() != Some(rejection) {
            self.tell(rejection);
            self.rejected_message = Some(rejection.to_string());
        }
    }

    pub(super) fn peer_message(&mut self, from: RaftId, message: PeerMessage) {
        if !self.may_say(from, &message) {
            return;
        }
        match message {
            PeerMessage::Facts(facts) if facts.raft_id == from => self.hear(*facts),
            PeerMessage::Facts(_) => {}
            PeerMessage::Renew { epoch, serial, nonce } => {
                self.renewal(from, (epoch, serial, nonce));
            }
            PeerMessage::RenewAck { epoch, serial, applied, nonce, ttl_ms }
                if self.is_arbiter(from) =>
            {
                self.renewal_answered((epoch, serial, nonce), applied, ttl_ms);
            }
            PeerMessage::RenewAck { .. } => {}
            PeerMessage::Book(book) => self.note_book(from, book),
            PeerMessage::Ask { round } => {
                self.asked_by = Some((from, round));
                self.out.push(Output::AskFresh { round });
            }
            PeerMessage::Join { id, member } => self.asked_to_join(id, member),
            PeerMessage::JoinRefused { reason } => self.join_refused(reason),
            PeerMessage::Leave { id } if id == from => self.asked_to_leave(id),
            PeerMessage::Leave { .. } => {}
            founding @ (PeerMessage::FoundingVoteRequest { .. }
            | PeerMessage::FoundingVote { .. }
            | PeerMessage::VotedForAnother { .. }
            | PeerMessage::Genesis(_)) => self.about_founding(from, founding),
        }
    }

    pub(super) fn persisted(&mut self, number: u64) {
        let Some(group) = &mut self.group else { return };
        let messages = group.persisted(number);
        self.send_all(messages);
    }

    fn send_all(&mut self, messages: Vec<Message>) {
        for message in messages {
            if let Some(addr) = self.addr_of(message.to) {
                self.out.push(Output::SendRaft { addr, message: Box::new(message) });
            }
        }
    }

    pub(super) fn propose(&mut self, ticket: u64, command: Command) {
        self.give_up_lease(&command);
        let refused = match &mut self.group {
            None => Some("this node is not part of a cluster yet"),
            Some(group) => {
                let proposal = Proposal { origin: self.id, ticket, command };
                let data = serde_json::to_vec(&proposal).expect("a proposal is plain data");
                (!group.propose(data)).then_some("no quorum: no arbiter is known at the moment")
            }
        };
        if let Some(why) = refused {
            self.out.push(Output::Receipt { ticket, outcome: Err(why.to_string()) });
        }
    }

    /// Proposes on our own behalf; nobody waits for a receipt.
    pub(super) fn put(&mut self, command: Command) {
        if let Some(group) = &mut self.group {
            let proposal = Proposal { origin: self.id, ticket: 0, command };
            group.propose(serde_json::to_vec(&proposal).expect("a proposal is plain data"));
        }
    }

    /// Raft's rounds until nothing is ready.
    pub(super) fn drain(&mut self) {
        loop {
            let Some(group) = &mut self.group else { return };
            let round = group.round(self.now);
            let idle = round.committed.is_empty() && round.confirmed.is_empty();
            self.one_round(round);
            if self.halted.is_some() {
                return;
            }
            if idle {
                break;
            }
        }
        self.watch_arbiter();
        self.compact();
    }

    fn one_round(&mut self, round: Round) {
        for write in round.writes {
            self.out.push(Output::Write(write));
        }
        self.send_all(round.messages);
        if let Some(snapshot) = round.installed {
            self.install(&snapshot);
        }
        for entry in &round.committed {
            self.commit(entry);
        }
        for (index, context) in round.confirmed {
            self.renewal_confirmed(index, context);
        }
        self.answer_confirmed();
    }

    fn install(&mut self, snapshot: &[u8]) {
        match serde_json::from_slice::<ClusterState>(snapshot) {
            Ok(state) => self.cluster = state,
            Err(error) => return self.halt("the snapshot of the cluster's state", &error),
        }
        self.refresh_dynamic();
        self.out.push(Output::Changed);
    }

    fn commit(&mut self, entry: &Entry) {
        if self.halted.is_some() {
            return;
        }
        match entry.get_entry_type() {
            EntryType::EntryNormal => self.commit_command(entry),
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                self.commit_membership(entry);
            }
        }
        if self.halted.is_none() {
            self.cluster.applied = entry.index;
            self.out.push(Output::Changed);
        }
    }

    fn commit_command(&mut self, entry: &Entry) {
        let Some(bytes) = payload(entry) else { return }; // an arbiter's empty first entry
        let proposal: Proposal = match serde_json::from_slice(bytes) {
            Ok(proposal) => proposal,
            Err(error) => return self.halt(&format!("entry {} of the log", entry.index), &error),
        };
        let said = format!("{:?}", CommandName(&proposal.command));
        if matches!(proposal.command, Command::InitialiseFailed { .. }) {
            self.failure_seen_at = Some(self.now);
        }
        let outcome = self.cluster.apply_of(proposal.origin, entry.index, proposal.command);
        if entry.index <= self.replayed_to {
            if entry.index == self.replayed_to {
                self.tell(format!("knows again what was agreed on up to entry {}", entry.index));
            }
        } else if let Outcome::Refused(why) = &outcome {
            self.tell(format!("entry {} ({said}) changed nothing: {why}", entry.index));
        } else {
            self.tell(format!("entry {} applied: {said}", entry.index));
        }
        self.refresh_dynamic();
        if proposal.origin == self.id && proposal.ticket != 0 {
            let outcome = Ok(outcome);
            self.out.push(Output::Receipt { ticket: proposal.ticket, outcome });
        }
    }

    fn commit_membership(&mut self, entry: &Entry) {
        let Some(group) = &mut self.group else { return };
        if let Err(error) = change_of(entry) {
            return self.halt(&format!("the membership change in entry {}", entry.index), &error);
        }
        let Some((change, context)) = group.apply_membership(entry) else { return };
        let news = entry.index > self.replayed_to;
        for single in change.get_changes() {
            let id = single.node_id;
            match single.get_change_type() {
                ConfChangeType::RemoveNode => {
                    let name = self.cluster.name_of(id).unwrap_or("a node").to_string();
                    self.cluster.forget_member(id);
                    self.heard.remove(&id);
                    self.tell(format!("{name} ({id:016x}) is no longer a member"));
                }
                ConfChangeType::AddNode => self.vote_changed(id, true, news),
                ConfChangeType::AddLearnerNode => {
                    if let Ok(member) = serde_json::from_slice::<Member>(&context) {
                        self.cluster.members.insert(id, member);
                    }
                    self.vote_changed(id, false, news);
                }
            }
        }
    }

    fn vote_changed(&mut self, id: RaftId, votes: bool, news: bool) {
        if news {
            let name = self.cluster.name_of(id).unwrap_or("a new member").to_string();
            self.tell(format!("{name} is now a {}", if votes { "voter" } else { "learner" }));
        }
        if id == self.id
            && !votes
            && let Some(ticket) = self.leaving
        {
            self.out.push(Output::Receipt { ticket, outcome: Ok(Outcome::Done) });
        }
    }

    pub(super) fn refresh_dynamic(&mut self) {
        let version = self.cluster.config.as_ref().map(|_| self.cluster.config_version);
        if version != self.dynamic_version {
            self.dynamic_version = version;
            self.dynamic = self.cluster.dynamic();
        }
    }

    fn compact(&mut self) {
        let Some(group) = &mut self.group else { return };
        let cluster = &self.cluster;
        let state = || serde_json::to_vec(cluster).expect("a state is plain data");
        if let Some(write) = group.compact(cluster.applied, state) {
            self.out.push(Output::Write(write));
        }
    }

    pub(super) fn give_up_vote(&mut self, ticket: u64) {
        self.leaving = Some(ticket);
        self.leave_asked_at = 0;
        // Said at once: an arbiter that does not know would make us a voter again.
        self.own.leaving = true;
        let own = self.own.clone();
        self.hear(own.clone());
        self.say_to_all(PeerMessage::Facts(Box::new(own)));
        let must_ask = self.group.as_ref().is_some_and(|g| {
            let voters = g.voters();
            voters.len() > 1 && voters.contains(&self.id)
        });
        if !must_ask {
            self.out.push(Output::Receipt { ticket, outcome: Ok(Outcome::Done) });
        }
    }

    /// Repeats what we request for until it is so: to leave, or to be described rightly.
    pub(super) fn repeat_requests(&mut self) {
        let Some(group) = &self.group else { return };
        let arbiter = group.leader();
        let votes = group.voters();
        if self.leaving.is_some() && votes.len() > 1 && votes.contains(&self.id) {
            if self.now >= self.leave_asked_at + REPEAT_MS && arbiter != 0 {
                self.leave_asked_at = self.now;
                if arbiter == self.id {
                    self.asked_to_leave(self.id);
                } else {
                    self.say(arbiter, PeerMessage::Leave { id: self.id });
                }
            }
            return;
        }
        self.propose_own_member(arbiter);
    }

    fn propose_own_member(&mut self, arbiter: RaftId) {
        let Some(known) = self.cluster.members.get(&self.id) else { return };
        let wanted = Member { left: self.leaving.is_some(), ..self.member.clone() };
        let due = self.member_told_at.is_none_or(|at| self.now >= at + 2 * REPEAT_MS);
        if *known != wanted && due && arbiter != 0 {
            self.member_told_at = Some(self.now);
            self.put(Command::SetMember { id: self.id, member: wanted });
        }
    }

    /// The file was read again: tags or addresses may be others.
    pub fn set_member(&mut self, member: Member) {
        self.member = member;
        self.member_told_at = None;
    }
}

/// A command's name and what identifies it, without its bulk.
struct CommandName<'a>(&'a Command);

impl std::fmt::Debug for CommandName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Command::SetMember { id, member } => write!(f, "set member {} {id:016x}", member.name),
            Command::RemoveMember { id } => write!(f, "remove member {id:016x}"),
            Command::KeepMember { id, reason } => write!(f, "member {id:016x} stays: {reason}"),
            Command::Grant { epoch, decision, .. } => write!(
                f,
                "grant of epoch {epoch} to {}: {}",
                decision.winner.as_deref().unwrap_or("nobody"),
                decision.reason
            ),
            Command::LeaseOver { epoch, reason } => {
                write!(f, "lease of epoch {epoch} over: {reason}")
            }
            Command::Release { epoch, reason, .. } => {
                write!(f, "lease of epoch {epoch} released: {reason}")
            }
            Command::Retime { epoch, ttl_ms, .. } => {
                write!(f, "ttl of epoch {epoch} is {ttl_ms} ms")
            }
            Command::Initialised { system_identifier, .. } => {
                write!(f, "cluster initialised, system identifier {system_identifier}")
            }
            Command::InitialiseFailed { node, reason, .. } => {
                write!(f, "{node} failed to create the cluster: {reason}")
            }
            Command::NobodyEligible { decision } => {
                let why = decision.verdicts.iter().map(|v| format!("{} {}", v.member, v.rule));
                write!(f, "nobody may lead: {}", why.collect::<Vec<_>>().join(", "))
            }
            Command::SetConfig { .. } => f.write_str("configuration replaced"),
            Command::PatchConfig { .. } => f.write_str("configuration patched"),
            Command::SetFailover { request } => write!(
                f,
                "failover requested from {} to {}",
                request.leader.as_deref().unwrap_or("whoever leads"),
                request.candidate.as_deref().unwrap_or("the best")
            ),
            Command::ClearFailover { .. } => f.write_str("failover request cleared"),
            Command::SetSync { sync, .. } => write!(f, "synchronous set is {sync:?}"),
            Command::AddHistory { row, timeline, .. } => {
                write!(f, "timeline {timeline} began on {} at {}", row.timeline, row.lsn)
            }
            Command::PromoteCluster { order } => match &order.token {
                Some(token) => write!(f, "promotion of the cluster ordered, not before {token}"),
                None => f.write_str("promotion of the cluster ordered"),
            },
            Command::LeaveStandby { .. } => f.write_str("this is a primary cluster from now on"),
            Command::Demoted { shutdown, .. } => {
                let (timeline, lsn) = (shutdown.timeline, shutdown.optime);
                write!(f, "the cluster was demoted on timeline {timeline} at {lsn}")
            }
            Command::SetStatus { status, .. } => write!(f, "leader is at {}", status.optime),
        }
    }
}
