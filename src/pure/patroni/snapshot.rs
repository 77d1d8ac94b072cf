//! One look at a node: the published values together with the instant at which they are judged.
use serde_json::{Map, Value};

use crate::pure::cluster::facts::{Facts, SqlFacts};
use crate::pure::cluster::state::{InitializeFailure, Member, Purpose};
use crate::pure::cluster::{Millis, RaftId};
use crate::pure::config::{Config, Dynamic, SynchronousMode};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::{PgState, Role};
use crate::pure::view::{Heard, LocalView, View};

/// What a request sees. `now` is this node's boot clock at the request, not at the view: a view
/// that nobody renews grows old instead of staying true.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    pub view: &'a View,
    pub local: &'a LocalView,
    pub dynamic: &'a Dynamic,
    pub config: &'a Config,
    pub now: Millis,
}

/// A standby that commits wait for, in either synchronous mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncDuty {
    Sync,
    Quorum,
}

impl SyncDuty {
    /// The flag's name in bodies and the role's name in `/cluster`.
    pub fn text(self) -> &'static str {
        match self {
            SyncDuty::Sync => "sync_standby",
            SyncDuty::Quorum => "quorum_standby",
        }
    }
}

impl<'a> Snapshot<'a> {
    /// Why the cluster could not be created. Where a password protects the interface, reads that need
    /// none do not show what a program said.
    pub fn initialize_failure(&self) -> Option<InitializeFailure> {
        let failure = self.view.cluster.initialize_failure.as_ref()?;
        let open = self.config.restapi.authentication.is_none();
        Some(if open { failure.clone() } else { failure.without_output() })
    }

    /// This node's own facts; absent before its actor has said anything.
    pub fn facts(&self) -> Option<&'a Facts> {
        self.view.facts.get(&self.view.own_id).map(|heard| &heard.facts)
    }

    /// SQL facts, where PostgreSQL is in a state in which they can be true.
    pub fn sql(&self) -> Option<&'a SqlFacts> {
        self.facts().and_then(answering)
    }

    pub fn state(&self) -> PgState {
        self.facts().map(|facts| facts.state).unwrap_or_default()
    }

    /// Patroni's `state`: `unknown` where PostgreSQL runs but does not answer.
    pub fn state_text(&self) -> &'static str {
        match (self.state(), self.sql()) {
            (PgState::Running, None) => "unknown",
            (state, _) => state.text(),
        }
    }

    /// Patroni's `role`: what PostgreSQL says it is, else what we last knew.
    pub fn role(&self) -> Role {
        let known = self.facts().map(|facts| facts.role).unwrap_or_default();
        match self.sql() {
            None => known,
            Some(sql) if !sql.in_recovery => Role::Primary,
            Some(_) if self.in_standby_cluster() => known,
            Some(_) => Role::Replica,
        }
    }

    /// This node holds the leader lease and its deadline lies ahead.
    pub fn lease(&self) -> bool {
        let lease = &self.view.lease;
        let leads = self.view.cluster.lease.as_ref().is_some_and(|granted| {
            granted.holder == self.view.own_id && granted.purpose == Purpose::Lead
        });
        leads && lease.held && lease.deadline.is_some_and(|deadline| deadline > self.now)
    }

    /// PostgreSQL here takes writes and may: the condition of every write endpoint.
    pub fn is_writable(&self) -> bool {
        self.lease() && self.facts().is_some_and(Facts::is_writable)
    }

    pub fn in_standby_cluster(&self) -> bool {
        self.dynamic.standby_cluster.is_some()
    }

    /// A quorum was seen within the last ttl: what is known of the cluster is still true.
    pub fn fresh(&self) -> bool {
        let seen = self.view.raft.quorum_at;
        seen > 0 && seen.saturating_add(self.dynamic.ttl_ms) > self.now
    }

    /// Who leads, as a majority said within the last ttl: an older word is not true any more.
    pub fn leader(&self) -> Option<&'a str> {
        self.view.cluster.leader().filter(|_| self.fresh())
    }

    /// No leader, or nothing certain about one.
    pub fn unlocked(&self) -> bool {
        self.leader().is_none()
    }

    /// The furthest position of the leader that this node has heard of.
    pub fn leader_lsn(&self) -> Lsn {
        let cluster = &self.view.cluster;
        let told = cluster.leader().and_then(|name| cluster.member_named(name));
        let heard = told.and_then(|(id, _)| self.view.facts.get(&id));
        let position = heard.and_then(|heard| answering(&heard.facts)).map(SqlFacts::position);
        cluster.status.optime.max(position.unwrap_or_default())
    }

    /// The same, with what our own walreceiver was told.
    pub fn leader_lsn_received(&self) -> Lsn {
        let received = self.sql().map(|sql| sql.latest_end_lsn).unwrap_or_default();
        if self.fresh() { self.leader_lsn().max(received) } else { received }
    }

    /// Whether commits wait for the member of this name.
    pub fn sync_duty(&self, member: &str) -> Option<SyncDuty> {
        if self.in_standby_cluster() {
            return None;
        }
        let duty = match self.dynamic.synchronous_mode {
            SynchronousMode::Off => return None,
            SynchronousMode::On => SyncDuty::Sync,
            SynchronousMode::Quorum => SyncDuty::Quorum,
        };
        let sync = self.view.cluster.sync.as_ref()?;
        let listed = sync.sync_standby.iter().any(|name| name.eq_ignore_ascii_case(member));
        listed.then_some(duty)
    }

    /// This node's own flag in its status body.
    pub fn own_sync_duty(&self) -> Option<SyncDuty> {
        let replica = self.sql().is_some_and(|sql| sql.in_recovery);
        if replica && self.fresh() { self.sync_duty(&self.config.name) } else { None }
    }

    /// Tags of this node as Patroni shows them.
    pub fn tags(&self) -> Map<String, Value> {
        self.facts().map_or(&self.config.tags, |facts| &facts.tags).shown()
    }

    /// Members with PostgreSQL in the order of their names, with the last word heard of each.
    /// Who left in an orderly way disappears with its last word, as Patroni's member keys do.
    pub fn members(&self) -> Vec<(RaftId, &'a Member, Option<&'a Heard>)> {
        let mut rows: Vec<_> = self.view.cluster.members.iter().collect();
        rows.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        rows.into_iter()
            .map(|(id, member)| (*id, member, self.heard(*id)))
            .filter(|(_, member, heard)| !member.witness && (!member.left || heard.is_some()))
            .collect()
    }

    /// The last word of a member, unless it is older than ttl. Our own never is.
    pub fn heard(&self, id: RaftId) -> Option<&'a Heard> {
        let heard = self.view.facts.get(&id)?;
        let young = heard.heard_at.saturating_add(self.dynamic.ttl_ms) > self.now;
        (young || id == self.view.own_id).then_some(heard)
    }
}

/// SQL facts of any node, where its state lets them be true.
pub fn answering(facts: &Facts) -> Option<&SqlFacts> {
    match facts.state {
        PgState::Running | PgState::Restarting | PgState::Starting => facts.sql.as_ref(),
        _ => None,
    }
}
