//! Two sites change places and back: the operator takes the section out, the other site follows us, and
//! later it is the other way round again.
use super::remote::section;
use super::world::World;
use crate::pure::cluster::Millis;

/// So many records at once go to the other site while it follows.
const FOLLOWS_AT_ONCE: usize = 60;

/// How far the operator is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    #[default]
    None,
    /// Nobody writes there any more; the section is being taken out.
    Leaving(Millis),
    /// We lead, until then.
    Away(Millis),
    /// The section is being put back; the other site is promoted when it holds everything.
    Returning,
}

impl World {
    /// The operator begins. Every command is given once: one that comes twice, and late, would
    /// contradict the next.
    pub fn sites_change(&mut self, ms: Millis) {
        if self.healed || self.remote.change != Change::None || !self.remote.writable {
            return;
        }
        self.remote.writable = false;
        self.remote.change = Change::Leaving(self.now + ms);
        self.edit_section(serde_json::Value::Null);
    }

    /// The operator looks, and goes on when the step before is seen to be done.
    pub fn sites_go_on(&mut self) {
        let follows = self.follows_by_the_log();
        match self.remote.change {
            Change::None => return,
            Change::Leaving(until) if follows == Some(false) => {
                self.remote.change = Change::Away(until);
            }
            Change::Away(until) if self.now >= until => {
                self.remote.change = Change::Returning;
                self.edit_section(section());
            }
            Change::Returning if follows == Some(true) && self.remote_holds_all() => {
                self.remote_is_promoted();
            }
            _ => {}
        }
        self.remote_follows();
    }

    /// What the node that has applied most says: is the section there?
    fn follows_by_the_log(&self) -> Option<bool> {
        let states = self.nodes.iter().filter_map(|n| n.daemon.as_ref()).map(|d| d.core.cluster());
        let newest = states.max_by_key(|state| state.applied)?;
        Some(newest.config.as_ref()?["standby_cluster"].is_object())
    }

    /// Whoever leads here is a standby leader and holds nothing that the other site lacks.
    fn remote_holds_all(&self) -> bool {
        let Some(leader) = self.holder().map(|at| &self.nodes[at]) else { return false };
        let copy = leader.postgres.cluster();
        self.node_state(leader.at) == "standby_leading"
            && copy.is_some_and(|copy| copy.wal.is_prefix_of(&self.remote.wal))
    }

    fn remote_is_promoted(&mut self) {
        let (timeline, length) = (self.remote.wal.timeline() + 1, self.remote.wal.len());
        self.say(
            0,
            &format!("the other site is promoted to timeline {timeline} after {length} records"),
        );
        let id = self.fresh();
        let remote = &mut self.remote;
        remote.wal.push(timeline, id);
        (remote.writable, remote.change) = (true, Change::None);
    }

    /// It streams from our leader, and is rewound where it went another way.
    fn remote_follows(&mut self) {
        let led = matches!(self.remote.change, Change::Away(_) | Change::Returning);
        let leader = self.holder().filter(|_| led && self.remote.is_itself());
        let Some(theirs) = leader.and_then(|at| self.nodes[at].postgres.cluster()) else { return };
        let ours = &mut self.remote.wal;
        if theirs.wal.is_prefix_of(ours) {
            return;
        }
        ours.cut(ours.common(&theirs.wal));
        ours.receive(theirs.wal.after(ours.len(), FOLLOWS_AT_ONCE));
    }
}
