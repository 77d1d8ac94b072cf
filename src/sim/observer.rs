//! What a node's observer sees of its own PostgreSQL, and what the situation is made from.
use std::collections::BTreeMap;

use super::postgres::{Data, Postgres, lsn_of};
use super::world::{Event, World};
use crate::pure::chart::Name;
use crate::pure::cluster::facts::{DataDirectory, Facts, SqlFacts, Walsender};
use crate::pure::cluster::state::Lease;
use crate::pure::cluster::sync;
use crate::pure::config::Dynamic;
use crate::pure::consensus::core::Input;
use crate::pure::flow::node::State;
use crate::pure::node::situation::{Situation, Sources};
use crate::pure::node::status;
use crate::pure::operation::Method;
use crate::pure::postgres::state::{PgState, Role};
use crate::pure::postgres::sync_names;
use crate::pure::view::Heard;

/// A replica that was not heard for this long is no longer streaming, on the primary's books.
const SENDER_MS: u64 = 2500;

impl World {
    pub fn observe_again(&mut self, at: usize, life: u64) {
        self.observe(at, 0);
        let wait = self.rng.between(300, 700);
        self.after(wait, Event::Observe { node: at, life });
    }

    /// Looks at PostgreSQL and tells the consensus; `round` is the arbiter's question. One look at a time: a
    /// slow one tells what was so when it began.
    pub fn observe(&mut self, at: usize, round: u64) {
        if self.plan.look_ms_max == 0 || self.healed {
            return self.look_at_once(at, round);
        }
        self.nodes[at].wanted_looks.insert(round);
        self.look_when_free(at);
    }

    fn look_when_free(&mut self, at: usize) {
        if self.nodes[at].looking {
            return;
        }
        let Some(round) = self.nodes[at].wanted_looks.pop_last() else { return };
        let number = self.nodes[at].looks.begin();
        self.nodes[at].looking = true;
        let (sql, life) = (Box::new(self.sql(at)), self.nodes[at].life);
        let takes = self.rng.between(0, self.plan.look_ms_max);
        self.after(takes, Event::Looked { node: at, life, round, number, sql });
    }

    pub fn look_is_over(&mut self, at: usize, (round, number): (u64, u64), sql: Option<SqlFacts>) {
        self.nodes[at].looking = false;
        self.looked(at, (round, number), sql);
        self.look_when_free(at);
    }

    /// A operation that has changed something looks for itself, beside whatever look is under way.
    pub(super) fn look_at_once(&mut self, at: usize, round: u64) {
        let (number, sql) = (self.nodes[at].looks.begin(), self.sql(at));
        self.looked(at, (round, number), sql);
    }

    /// What PostgreSQL said comes in; what the node knows without it is of now.
    pub fn looked(&mut self, at: usize, (round, number): (u64, u64), sql: Option<SqlFacts>) {
        let known = self.nodes[at].daemon.as_ref().and_then(|daemon| daemon.facts.sql.clone());
        let sql = if self.nodes[at].looks.is_news(number) { sql } else { known };
        let sql = sql.filter(|_| self.nodes[at].postgres.server.is_some());
        self.nodes[at].facts_serial += 1;
        let facts = self.with_remote(at, Facts { round, ..self.facts(at, sql) });
        let Some(daemon) = &mut self.nodes[at].daemon else { return };
        let same_body = Facts { serial: 0, round: 0, ..facts.clone() };
        let changed = Facts { serial: 0, round: 0, ..daemon.facts.clone() } != same_body;
        daemon.facts = facts.clone();
        self.feed(at, Input::Local(Box::new(facts)));
        if changed {
            self.notify_soon(at);
        }
    }

    fn facts(&self, at: usize, sql: Option<SqlFacts>) -> Facts {
        let node = &self.nodes[at];
        let postgres = &node.postgres;
        let (state, role) = match &postgres.server {
            None => (PgState::Stopped, Role::Uninitialized),
            Some(s) if s.stopping => (PgState::Stopping, Role::Replica),
            Some(s) if !s.accepts => (PgState::Starting, Role::Replica),
            Some(s) if s.in_recovery => (PgState::Running, Role::Replica),
            Some(_) => (PgState::Running, Role::Primary),
        };
        Facts {
            raft_id: node.raft_id,
            name: node.name.clone(),
            serial: node.facts_serial,
            has_postgres: true,
            state,
            role,
            postmaster_alive: postgres.server.is_some(),
            data: data_directory(postgres),
            copy: postgres.cluster().map_or(0, |cluster| cluster.copy),
            sql,
            tags: node.member.tags.clone(),
            node_state: self.node_state(at).to_owned(),
            phase: State::from_text(self.node_state(at)).map(status::phase).unwrap_or_default(),
            leaving: node.daemon.as_ref().is_some_and(|daemon| daemon.requests.stop),
            bootstrap_ttl_ms: Some(self.plan.ttl_ms),
            begins_as_standby: self.plan.standby,
            ..Facts::default()
        }
    }

    /// Where the node's own machine is.
    pub(super) fn node_state(&self, at: usize) -> &'static str {
        let flows = self.nodes[at].daemon.as_ref().map(|daemon| &daemon.flows.slots);
        flows
            .and_then(|slots| slots.first())
            .map_or("starting", |slot| slot.frame.machine().state())
    }

    pub(super) fn sql(&self, at: usize) -> Option<SqlFacts> {
        let postgres = &self.nodes[at].postgres;
        let server = postgres.server.as_ref().filter(|_| postgres.answers())?;
        let cluster = postgres.cluster()?;
        let end = lsn_of(self.flushed(at));
        let recovers = server.in_recovery;
        let streams = server.streamed_at.is_some_and(|t| self.now < t + 1000);
        Some(SqlFacts {
            in_recovery: recovers,
            system_identifier: cluster.system_identifier.to_string(),
            timeline: cluster.wal.timeline(),
            left: cluster.wal.history().last().copied().filter(|_| !recovers),
            flush_lsn: if recovers { Default::default() } else { end },
            receive_lsn: if recovers { end } else { Default::default() },
            replay_lsn: if recovers { lsn_of(server.replayed) } else { Default::default() },
            replication_state: (recovers && streams).then(|| String::from("streaming")),
            replication: self.walsenders(at),
            synchronous_standby_names: cluster.synchronous_standby_names.clone(),
            names_are_ours: !cluster.synchronous_standby_names.is_empty(),
            ..SqlFacts::default()
        })
    }

    fn walsenders(&self, at: usize) -> Vec<Walsender> {
        let postgres = &self.nodes[at].postgres;
        let (Some(server), Some(cluster)) = (&postgres.server, postgres.cluster()) else {
            return Vec::new();
        };
        let wanted = sync_names::read(&cluster.synchronous_standby_names);
        let fresh = server.senders.iter().filter(|(_, s)| self.now < s.seen_at + SENDER_MS);
        let sender = |(other, sender): (&usize, &super::postgres::Sender)| {
            let name = self.nodes[*other].name.clone();
            let counts = wanted
                .as_ref()
                .is_some_and(|(n, names)| names.iter().take(*n).any(|wanted| *wanted == name));
            Walsender {
                application_name: name,
                state: String::from("streaming"),
                sync_state: String::from(if counts { "sync" } else { "async" }),
                flush_lsn: lsn_of(sender.flushed),
                ..Walsender::default()
            }
        };
        fresh.map(sender).collect()
    }

    /// The level that the flows is told. `None` while the daemon still finds out what it holds.
    pub fn situation(&mut self, at: usize) -> Option<Situation> {
        let local = self.local(at);
        let known = self.nodes[at].daemon.as_ref().map(|daemon| daemon.core.cluster());
        let is_due = known.is_some_and(|cluster| self.is_due(cluster));
        let node = &mut self.nodes[at];
        let guard_epoch = node.guard.as_ref().map(|g| g.epoch);
        let guarded = node.guard.as_ref().filter(|g| !g.page.is_over(local)).map(|g| g.epoch);
        let daemon = node.daemon.as_mut()?;
        let live = daemon.core.live_lease(local).map(|(epoch, _)| epoch);
        if let Some(until) = daemon.settles_until {
            let moved_on = guard_epoch.is_none_or(|epoch| daemon.core.cluster().epoch > epoch);
            if live.is_none() && local < until && !moved_on {
                return None;
            }
            daemon.settles_until = None;
        }
        let heard = daemon.core.heard();
        let facts: BTreeMap<u64, &Facts> = heard.iter().map(|(id, h)| (*id, &h.facts)).collect();
        let cluster = daemon.core.cluster();
        // Before there is a cluster, its founder reads its own file.
        let first = cluster.config.is_none().then(|| Dynamic::from_value(Some(&self.plan.config)));
        let dynamic = first.as_ref().unwrap_or(daemon.core.dynamic());
        let sync_step = live.and_then(|epoch| {
            let leads = cluster.lease.as_ref().is_some_and(|l: &Lease| l.epoch == epoch);
            let sql = daemon.facts.sql.as_ref().filter(|s| leads && !s.in_recovery)?;
            let members: Vec<&Facts> = heard.values().map(|h: &Heard| &h.facts).collect();
            let copy = node.postgres.cluster().map_or(0, |cluster| cluster.copy);
            let own = (node.name.as_str(), copy);
            sync::next_step(own, cluster, daemon.core.dynamic(), sql, &members)
        });
        Some(Situation::compute(Sources {
            own: daemon.core.id(),
            cluster,
            dynamic,
            live_epoch: live,
            heard: &facts,
            requests: daemon.requests.clone(),
            methods: if self.plan.has_tool { tool_first() } else { Vec::new() },
            postmaster_alive: node.postgres.server.is_some(),
            data_is_gone: node.postgres.removed,
            guarded,
            armed: guard_epoch,
            failover_is_due: is_due,
            use_pg_rewind: self.plan.use_pg_rewind,
            use_slots: true,
            remove_on_rewind_failure: false,
            remove_on_diverged_timelines: false,
            pre_promote: self.plan.pre_promote,
            sync_step,
            another_can_lead: daemon.core.another_can_lead(),
        }))
    }
}

/// `create_replica_methods: [tool, basebackup]`.
fn tool_first() -> Vec<Method> {
    let method = |name: &str| Method { name: name.to_owned(), keep_data: false, no_leader: false };
    vec![method("tool"), method("basebackup")]
}

pub fn data_directory(postgres: &Postgres) -> DataDirectory {
    match &postgres.data {
        _ if postgres.removed => DataDirectory::Empty,
        Data::Present(_) if postgres.unproven || postgres.on_trial => DataDirectory::Incomplete,
        Data::Empty => DataDirectory::Empty,
        Data::Incomplete => DataDirectory::Incomplete,
        Data::Present(cluster) if !cluster.sealed => DataDirectory::Incomplete,
        Data::Present(cluster) => DataDirectory::Present {
            system_identifier: cluster.system_identifier.to_string(),
            timeline: cluster.wal.timeline(),
            lsn: cluster.wal.lsn(),
            was_primary: !cluster.standby,
            clean: cluster.clean,
        },
    }
}
