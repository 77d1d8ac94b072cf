//! What a node's consensus shows of itself. The host fills in clocks and disk times.
use super::core::Core;
use crate::pure::cluster::Millis;
use crate::pure::view::{LeaseView, PeerView, RaftView, View};

impl Core {
    /// The view at `now`; cheap enough for every change.
    pub fn view(&self, now: Millis) -> View {
        View {
            now,
            own_id: self.id,
            own_name: self.member.name.clone(),
            cluster: self.cluster.clone(),
            raft: self.raft_view(now),
            lease: self.lease_view(now),
            facts: self.heard.clone(),
            another_can_lead: self.another_can_lead(),
            joining: match (&self.founding, &self.refused) {
                (Some(founding), Some(reason)) => Some(format!("{}: {reason}", founding.waits_for)),
                (Some(founding), None) => Some(founding.waits_for.clone()),
                (None, refused) => refused.clone(),
            },
        }
    }

    fn lease_view(&self, now: Millis) -> LeaseView {
        let live = self.live_lease(now);
        let lease = self.cluster.lease.as_ref();
        LeaseView {
            held: live.is_some(),
            epoch: lease.map_or(self.cluster.epoch, |l| l.epoch),
            deadline: self.holder.as_ref().and_then(|h| h.deadline),
            not_before: self
                .arbitration
                .as_ref()
                .and_then(|a| lease.map(|l| a.lease.not_before(l.epoch, l.ttl_ms))),
        }
    }

    fn raft_view(&self, now: Millis) -> RaftView {
        let cluster_id = self.founding_record.cluster_id.clone().unwrap_or_default();
        let Some(group) = &self.group else {
            return RaftView {
                cluster_id,
                id: self.id,
                role: String::from("outside"),
                ..RaftView::default()
            };
        };
        RaftView {
            cluster_id,
            id: self.id,
            role: group.role().to_string(),
            term: group.term(),
            leader: group.leader(),
            commit: group.commit(),
            applied: self.cluster.applied,
            first_index: group.log().first(),
            last_index: group.log().last().0,
            voters: group.voters(),
            learners: group.learners(),
            peers: self.peer_views(),
            quorum: self.quorum_at != 0 && now < self.quorum_at + self.ttl_ms(),
            quorum_at: self.quorum_at,
            ..RaftView::default()
        }
    }

    fn peer_views(&self) -> Vec<PeerView> {
        let view = |(id, member): (&u64, &crate::pure::cluster::state::Member)| PeerView {
            id: *id,
            name: member.name.clone(),
            addr: member.raft_addr.clone(),
            connected: self.greetings.contains_key(id),
            matched: self.group.as_ref().and_then(|g| g.progress(*id)).map(|(at, _)| at),
            last_heard: self.heard.get(id).map(|h| h.heard_at),
        };
        self.cluster.members.iter().filter(|(id, _)| **id != self.id).map(view).collect()
    }
}
