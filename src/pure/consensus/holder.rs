//! The lease from below: renewals to the arbiter, and the deadline that follows from the answers.
use super::core::{Core, Output};
use super::message::PeerMessage;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::lease::{Holder, Nonce};
use crate::pure::cluster::state::Lease;

/// A change of the ttl that was not applied is proposed again after this long.
const RETIME_REPEAT_MS: Millis = 1000;

impl Core {
    /// Keeps our side of the lease in step with what was applied, and renewals when it is due.
    pub(super) fn hold_lease(&mut self) {
        let counts =
            |lease: &Lease| lease.holder == self.id && Some(lease.epoch) > self.relinquished_epoch;
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
        let ttl_ms = lease.counted_ms();
        let due = self.holder.as_ref().is_some_and(|holder| holder.is_due(self.now, ttl_ms));
        if due && self.group.as_ref().is_some_and(|g| g.leader() != 0) {
            self.send_renewal(ttl_ms);
        }
        self.retime(&lease);
    }

    /// The host's word: a guard that is armed for this epoch stops PostgreSQL at this deadline or earlier,
    /// and none that it does not know of may be armed.
    pub fn guard_is_bound(&mut self, epoch: u64, deadline: Millis) {
        if let Some(holder) = self.holder.as_mut().filter(|holder| holder.epoch == epoch) {
            holder.guard_is_bound(deadline);
        }
    }

    /// Whoever asks for the end of its own lease never counts on it again, whatever becomes of that: it
    /// may be in the log, and another lead, long before we hear of it.
    pub(super) fn give_up_lease(&mut self, command: &Command) {
        let (Command::Release { epoch, .. } | Command::InitialiseFailed { epoch, .. }) = command
        else {
            return;
        };
        self.relinquished_epoch = self.relinquished_epoch.max(Some(*epoch));
    }

    /// Tells the log that the configuration's ttl counts. A shorter one only when our guard is bound to it:
    /// from then on an arbiter may respect the lease for no longer.
    fn retime(&mut self, lease: &Lease) {
        let wanted = self.dynamic.ttl_ms;
        let settled = wanted == lease.ttl_ms && lease.lowest_ms.is_none();
        if self.cluster.config.is_none() || settled {
            return;
        }
        let bound = self.holder.as_ref().is_some_and(|holder| holder.is_bound_to(wanted));
        if wanted < lease.ttl_ms && !bound {
            return;
        }
        let (epoch, expected) = (lease.epoch, lease.retimes);
        let reinit = (epoch, expected, wanted);
        let said = self.proposed_ttl.filter(|(known, _)| *known == reinit);
        if said.is_none_or(|(_, at)| self.now >= at + RETIME_REPEAT_MS) {
            self.proposed_ttl = Some((reinit, self.now));
            self.put(Command::Retime { epoch, ttl_ms: wanted, expected });
        }
    }

    fn send_renewal(&mut self, ttl_ms: u64) {
        let Some(holder) = &mut self.holder else { return };
        let epoch = holder.epoch;
        let (serial, nonce) = holder.renewal(self.now, ttl_ms);
        let arbiter = self.group.as_ref().map_or(0, |g| g.leader());
        if arbiter == self.id {
            self.renewal(self.id, (epoch, serial, nonce));
        } else {
            self.say(arbiter, PeerMessage::Renew { epoch, serial, nonce });
        }
    }

    /// An answer speaks for the ttl that the arbiter knows, and the renewal for the one that was known when it
    /// left: a daemon that has just come back may not have heard again what it told the log itself.
    pub(super) fn renewal_answered(
        &mut self,
        (epoch, serial, nonce): (u64, u64, Nonce),
        applied: u64,
        ttl_ms: Option<Millis>,
    ) {
        let lease = self.cluster.lease.as_ref().filter(|lease| lease.epoch == epoch);
        let (Some(holder), Some(lease)) = (&mut self.holder, lease) else { return };
        let ttl_ms = ttl_ms.map_or(lease.counted_ms(), |theirs| theirs.min(lease.counted_ms()));
        if holder.answered(epoch, serial, nonce, ttl_ms) {
            holder.caught_up_at.get_or_insert(applied);
            let deadline = holder.deadline;
            self.quorum_at = self.now;
            self.out.push(Output::Deadline { epoch, deadline });
            self.out.push(Output::Changed);
        }
    }
}
