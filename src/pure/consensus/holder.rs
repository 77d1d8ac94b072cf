//! The lease from below: beats to the arbiter, and the deadline that follows from the answers.
use super::core::{Core, Output};
use super::message::PeerMessage;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::lease::{Holder, Nonce, beat_every};
use crate::pure::cluster::state::Lease;

/// A change of the ttl that was not applied is proposed again after this long.
const RETIME_REPEAT_MS: u64 = 1000;

impl Core {
    /// Keeps our side of the lease in step with what was applied, and beats when it is due.
    pub(super) fn hold_lease(&mut self) {
        let counts = |lease: &Lease| lease.holder == self.id && Some(lease.epoch) > self.given_up;
        let mine = self.cluster.lease.clone().filter(counts);
        let Some(lease) = mine else {
            if let Some(old) = self.holder.take() {
                self.out.push(Output::Deadline { epoch: old.epoch, deadline: None });
            }
            return;
        };
        if self.holder.as_ref().is_none_or(|held| held.epoch != lease.epoch) {
            self.holder = Some(Holder::new(lease.epoch, self.seed));
        }
        let ttl_ms = self.counted_ttl(lease.epoch, lease.ttl_ms);
        let due = self
            .holder
            .as_ref()
            .and_then(|h| h.last_sent)
            .is_none_or(|at| self.now >= at + beat_every(ttl_ms));
        if due && self.group.as_ref().is_some_and(|g| g.leader() != 0) {
            self.send_beat(ttl_ms);
        }
    }

    /// Whoever asks for the end of its own lease never counts on it again, whatever becomes of that: it
    /// may be in the log, and another lead, long before we hear of it.
    pub(super) fn give_up_lease(&mut self, command: &Command) {
        let (Command::Release { epoch, .. } | Command::InitialiseFailed { epoch, .. }) = command
        else {
            return;
        };
        self.given_up = self.given_up.max(Some(*epoch));
    }

    /// The ttl we count on: never more than what the arbiter knows (the lease's), and less as soon
    /// as the configuration says so. A change is told to the log once we count on it.
    fn counted_ttl(&mut self, epoch: u64, lease_ttl_ms: u64) -> u64 {
        if self.cluster.config.is_none() || self.dynamic.ttl_ms == lease_ttl_ms {
            return lease_ttl_ms;
        }
        let wanted = self.dynamic.ttl_ms;
        let known = self.retimed.filter(|(e, ttl, _)| (*e, *ttl) == (epoch, wanted));
        if known.is_none()
            && wanted < lease_ttl_ms
            && let Some(holder) = &mut self.holder
        {
            holder.shorten(lease_ttl_ms - wanted);
            let deadline = holder.deadline;
            self.out.push(Output::Deadline { epoch, deadline });
        }
        if known.is_none_or(|(_, _, at)| self.now >= at + RETIME_REPEAT_MS) {
            self.retimed = Some((epoch, wanted, self.now));
            self.put(Command::Retime { epoch, ttl_ms: wanted });
        }
        lease_ttl_ms.min(wanted)
    }

    fn send_beat(&mut self, ttl_ms: u64) {
        let Some(holder) = &mut self.holder else { return };
        let epoch = holder.epoch;
        let (serial, nonce) = holder.beat(self.now, ttl_ms);
        let arbiter = self.group.as_ref().map_or(0, |g| g.leader());
        if arbiter == self.id {
            self.beat(self.id, (epoch, serial, nonce), ttl_ms);
        } else {
            self.say(arbiter, PeerMessage::Beat { epoch, serial, ttl_ms, nonce });
        }
    }

    pub(super) fn beat_answered(&mut self, epoch: u64, serial: u64, nonce: Nonce, applied: u64) {
        let Some(holder) = &mut self.holder else { return };
        if holder.answered(epoch, serial, nonce) {
            holder.abreast_at.get_or_insert(applied);
            let deadline = holder.deadline;
            self.quorum_at = self.now;
            self.out.push(Output::Deadline { epoch, deadline });
            self.out.push(Output::Changed);
        }
    }
}
