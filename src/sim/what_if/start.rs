//! A simulated cluster that stands where a dump says a real one stood.
//!
//! Members, votes, lease, dynamic configuration, synchronous set, tags, timelines and lag come from
//! the dump; clocks, network and disks are those of a quiet simulated cluster. WAL is shortened:
//! only its end, where members may differ, has a counterpart.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::pure::cluster::RaftId;
use crate::pure::cluster::facts::{Facts, SqlFacts};
use crate::pure::cluster::lease::MARGIN_MS;
use crate::pure::cluster::state::ClusterState;
use crate::pure::config::Dynamic;
use crate::pure::consensus::founding::FoundingRecord;
use crate::sim::disk::DurableLog;
use crate::sim::guard::Guard;
use crate::sim::node::{addr_of, raft_id};
use crate::sim::plan::Plan;
use crate::sim::postgres::{Cluster, Data, RECORD_BYTES, Wal};
use crate::sim::world::World;

/// So much WAL everybody has in common.
const COMMON_RECORDS: u64 = 200;
/// Further behind than this looks the same.
const LAG_RECORDS_MAX: u64 = 200_000;

/// What of a dump the simulator needs.
#[derive(Clone, Debug)]
pub struct Dumped {
    pub cluster: ClusterState,
    pub cluster_id: String,
    pub term: u64,
    /// Members in the order of their simulated numbers.
    pub members: Vec<DumpedMember>,
    /// What of the real cluster has no counterpart here; for people.
    pub left_out: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct DumpedMember {
    pub id: RaftId,
    pub name: String,
    pub votes: bool,
    /// Heard of shortly before the dump: its daemon runs.
    pub facts: Option<Facts>,
    pub lag_records: u64,
}

impl Dumped {
    /// Reads `surus dump --json`.
    ///
    /// # Errors
    /// One sentence: line and column where it is no JSON, or what is missing.
    pub fn parse(text: &str) -> Result<Dumped, String> {
        let dump: Value = serde_json::from_str(text).map_err(|error| {
            format!(
                "line {}, column {}: no JSON, or cut off: {error}",
                error.line(),
                error.column()
            )
        })?;
        // Of several dumps the first is the one that was asked; it has heard of the others.
        let dump = dump["dumps"].get(0).unwrap_or(&dump);
        let missing = |what: &str| format!("it is no dump of a node: {what}");
        let cluster = dump.get("cluster").ok_or_else(|| missing("`cluster` is not there"))?;
        let cluster: ClusterState = serde_json::from_value(cluster.clone())
            .map_err(|error| missing(&format!("`cluster`: {error}")))?;
        if cluster.system_identifier().is_none() {
            return Err(String::from("the dumped cluster was not initialised yet"));
        }
        let heard: BTreeMap<RaftId, Facts> = facts(dump);
        let ids = |key: &str| -> Vec<RaftId> {
            let list = dump["raft"][key].as_array().into_iter().flatten();
            list.filter_map(Value::as_u64).collect()
        };
        let (voters, learners) = (ids("voters"), ids("learners"));
        if voters.is_empty() {
            return Err(missing("`raft.voters` is empty"));
        }
        let ahead = heard.values().filter_map(position).max().unwrap_or(0);
        let members: Vec<DumpedMember> = cluster
            .members
            .iter()
            .filter(|(id, _)| voters.contains(id) || learners.contains(id))
            .map(|(id, member)| DumpedMember {
                id: *id,
                name: member.name.clone(),
                votes: voters.contains(id),
                facts: heard.get(id).cloned(),
                lag_records: heard.get(id).and_then(position).map_or(0, |at| {
                    (ahead.saturating_sub(at)).div_ceil(RECORD_BYTES).min(LAG_RECORDS_MAX)
                }),
            })
            .collect();
        let left_out = left_out(dump, &cluster, &members);
        Ok(Dumped {
            cluster_id: dump["raft"]["cluster_id"].as_str().unwrap_or("dumped").to_owned(),
            term: dump["raft"]["term"].as_u64().unwrap_or(1).max(1),
            cluster,
            members,
            left_out,
        })
    }

    pub fn number_of(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name == name)
    }

    pub fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// The simulated number of who holds the lease.
    pub fn leader(&self) -> Option<usize> {
        let lease = self.cluster.lease.as_ref()?;
        self.members.iter().position(|member| member.id == lease.holder)
    }

    fn dynamic(&self) -> Dynamic {
        Dynamic::from_value(self.cluster.config.as_ref())
    }

    /// The cluster as it stood, about to go on; a seed gives it its randomness.
    pub fn world(&self, seed: u64) -> World {
        let mut plan = Plan::quiet(seed, self.members.len());
        let dynamic = self.dynamic();
        plan.names = self.names();
        plan.config = self.cluster.config.clone().unwrap_or_default();
        plan.ttl_ms = self.cluster.lease.as_ref().map_or(dynamic.ttl_ms, |lease| lease.ttl_ms);
        plan.loop_wait_ms = dynamic.loop_wait_ms.max(1);
        plan.synchronous = self.cluster.sync.is_some();
        plan.heal_at = u64::MAX / 2;
        let mut world = World::new(plan);
        let state = self.simulated_state();
        for at in 0..self.members.len() {
            self.place(&mut world, at, &state);
        }
        world.checks.cluster_id = Some(self.cluster_id.clone());
        world.checks.identity = state.system_identifier().map(str::to_owned);
        (world.checks.applied, world.checks.epoch) = (state.applied, state.epoch);
        world.checks.synchronous_epochs.extend(state.sync.as_ref().map(|_| state.epoch));
        world
    }

    /// The replicated state with simulated ids and addresses.
    fn simulated_state(&self) -> ClusterState {
        let mut state = self.cluster.clone();
        state.applied = state.applied.max(1);
        state.members.clear();
        for (at, member) in self.members.iter().enumerate() {
            let mut own = self.cluster.members[&member.id].clone();
            own.raft_addr = addr_of(at);
            own.conn_url = format!("postgres://10.0.0.{}:5432/postgres", at + 1);
            state.members.insert(raft_id(at), own);
        }
        match self.leader() {
            Some(at) => {
                state.lease.iter_mut().for_each(|lease| lease.holder = raft_id(at));
            }
            None => state.lease = None,
        }
        state
    }

    fn place(&self, world: &mut World, at: usize, state: &ClusterState) {
        let votes = |wanted: bool| -> Vec<RaftId> {
            let of = self.members.iter().enumerate().filter(move |(_, m)| m.votes == wanted);
            of.map(|(number, _)| raft_id(number)).collect()
        };
        let log = DurableLog::standing(state, self.term, (votes(true), votes(false)));
        let local = world.local(at);
        let (leads, now) = (self.leader() == Some(at), world.now);
        let life = world.fresh();
        let node = &mut world.nodes[at];
        node.disk.log = log;
        node.disk.founding_record = FoundingRecord {
            cluster_id: Some(self.cluster_id.clone()),
            ..FoundingRecord::default()
        };
        node.member = state.members[&raft_id(at)].clone();
        let member = &self.members[at];
        node.held_back = member.lag_records as usize;
        node.is_away = member.facts.is_none();
        let sql = member.facts.as_ref().and_then(|facts| facts.sql.as_ref());
        node.postgres.data = Data::Present(self.data(member, sql, leads));
        if node.is_away || sql.is_none() && !leads {
            return;
        }
        let upstream = self.leader().filter(|leader| *leader != at);
        node.postgres.start(!leads, upstream);
        if let Some(server) = &mut node.postgres.server {
            (server.accepts, server.streamed_at) = (true, Some(now));
        }
        if let Some(lease) = state.lease.as_ref().filter(|_| leads) {
            let ttl = lease.ttl_ms.saturating_sub(MARGIN_MS);
            node.guard = Some(Guard::new(lease.epoch, local + ttl, life));
            world.guard_sleeps(at);
        }
    }

    fn data(&self, member: &DumpedMember, sql: Option<&SqlFacts>, leads: bool) -> Cluster {
        let newest = self.members.iter().filter_map(|m| m.facts.as_ref()?.sql.as_ref());
        let timeline = newest.map(|sql| sql.timeline).max().unwrap_or(1).max(1);
        let mut wal = Wal::default();
        let most = self.members.iter().map(|m| m.lag_records).max().unwrap_or(0);
        for id in 0..COMMON_RECORDS + most - member.lag_records {
            wal.push(timeline, 1_000_000_000 + id);
        }
        let identity = self.cluster.system_identifier().and_then(|text| text.parse().ok());
        Cluster {
            clean: false,
            copy: member.facts.as_ref().map_or(0, |facts| facts.copy),
            synchronous_standby_names: sql
                .map(|sql| sql.synchronous_standby_names.clone())
                .unwrap_or_default(),
            ..Cluster::whole(identity.unwrap_or_default(), wal, !leads)
        }
    }
}

fn facts(dump: &Value) -> BTreeMap<RaftId, Facts> {
    let heard = dump["facts"].as_object().into_iter().flatten();
    let read = |(id, heard): (&String, &Value)| {
        let facts = serde_json::from_value::<Facts>(heard["facts"].clone()).ok()?;
        Some((id.parse().ok()?, facts))
    };
    heard.filter_map(read).collect()
}

/// How far it is, in bytes.
fn position(facts: &Facts) -> Option<u64> {
    let sql = facts.sql.as_ref()?;
    let at = if sql.in_recovery { sql.receive_lsn.max(sql.replay_lsn) } else { sql.flush_lsn };
    Some(at.0)
}

fn left_out(dump: &Value, cluster: &ClusterState, members: &[DumpedMember]) -> Vec<String> {
    let mut left_out = Vec::new();
    if dump["facts"].as_object().is_none_or(serde_json::Map::is_empty) {
        left_out.push(String::from("the dump is of a stopped node: every member counts as away"));
    }
    for member in members.iter().filter(|member| member.facts.is_none()) {
        left_out.push(format!("{} was not heard of: it is away", member.name));
    }
    let witnesses = cluster.members.values().filter(|member| member.witness);
    for witness in witnesses {
        left_out.push(format!("{} is a witness", witness.name));
    }
    if cluster.standby.is_some() {
        left_out.push(String::from("the other site that this standby cluster follows is made up"));
    }
    left_out
}
