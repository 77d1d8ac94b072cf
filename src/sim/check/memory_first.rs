//! P6: no effect before the record, or the log entry, that it follows from is durable.
use raft::eraftpb::{Message, MessageType};

use super::super::world::World;

impl World {
    /// A operation begins: its machine's last durable record must be the one that ordered it.
    pub fn check_begins_after_record(&mut self, at: usize, serial: u64, visit: u64, resumed: bool) {
        let Some(slot) = self.slot(at, serial) else { return };
        let (flow, state) = (slot.frame.machine().flow(), slot.frame.machine().state());
        let Some(kept) = self.nodes[at].disk.journal.get(flow) else {
            return self.checks.broken("P6", format!("{flow} works and its journal is empty"));
        };
        let ordered = kept.to == state && (kept.visit == visit || (resumed && kept.visit < visit));
        if !ordered {
            let what =
                format!("{flow} works in {state}, visit {visit}; the journal says {}", kept.to);
            self.checks.broken("P6", what);
        }
    }

    /// A vote leaves: in this term this node, in all its lives, may vote for nobody else.
    fn check_votes_once(&mut self, at: usize, message: &Message) {
        let of = (self.nodes[at].raft_id, message.term);
        let given = *self.checks.votes.entry(of).or_insert(message.to);
        if given != message.to {
            let what = format!(
                "n{at} votes for {} in term {}, after it voted for {given}",
                message.to, message.term
            );
            self.checks.broken("P6", what);
        }
    }

    /// A Raft message leaves: what it promises must be on the disk.
    pub fn check_founding_vote_is_durable(&mut self, at: usize, message: &Message) {
        if message.reject {
            return;
        }
        if message.get_msg_type() == MessageType::MsgRequestVoteResponse {
            self.check_votes_once(at, message);
        }
        let log = &self.nodes[at].disk.log;
        let hard_state = log.hard_state.clone().unwrap_or_default();
        let kept = match message.get_msg_type() {
            MessageType::MsgRequestVoteResponse => {
                hard_state.term > message.term
                    || (hard_state.term == message.term && hard_state.vote == message.to)
            }
            MessageType::MsgAppendResponse => log.last().max(1) >= message.index,
            _ => true,
        };
        if !kept {
            let what = format!(
                "n{at} sends {:?} of term {} index {} before it is durable",
                message.get_msg_type(),
                message.term,
                message.index
            );
            self.checks.broken("P6", what);
        }
    }
}
