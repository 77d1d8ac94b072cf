//! The other site: the cluster that a simulated standby cluster follows, and what befalls it.
use super::postgres::{Cluster, Wal};
use super::sites::Change;
use super::world::{Event, World};
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::remote::RemoteFacts;
use crate::pure::cluster::state::Purpose;
use crate::pure::consensus::core::Input;
use crate::pure::operation::Source;

/// Stands for a node's number where a server streams from the other site.
pub const REMOTE: usize = usize::MAX;
/// So late after the faults ended an edit of before may still arrive.
const LATE_EDIT_MS: Millis = 40_000;
const WRITE_MS: Millis = 150;

/// One cluster far away, as a struct.
#[derive(Clone, Debug)]
pub struct RemoteSite {
    pub system_identifier: u64,
    pub wal: Wal,
    pub up: bool,
    pub writable: bool,
    /// Another cluster answers under its address.
    pub replaced: bool,
    pub change: Change,
    /// Promoted while this site led, and this site writes still.
    pub by_mistake: bool,
}

impl Default for RemoteSite {
    fn default() -> RemoteSite {
        RemoteSite {
            system_identifier: 6_000_001,
            wal: Wal::default(),
            up: true,
            writable: true,
            replaced: false,
            change: Change::None,
            by_mistake: false,
        }
    }
}

impl RemoteSite {
    /// Whoever asks now hears this identity.
    pub fn identity(&self) -> u64 {
        self.system_identifier + u64::from(self.replaced)
    }

    pub fn is_itself(&self) -> bool {
        self.up && !self.replaced
    }
}

/// `standby_cluster` as the operator writes it.
pub fn section() -> serde_json::Value {
    serde_json::json!({"host": "elsewhere", "port": 5432})
}

pub fn is_remote(source: Option<&Source>) -> bool {
    source.is_some_and(Source::is_remote)
}

impl World {
    /// The other site's clients write.
    pub fn remote_writes(&mut self) {
        let id = self.fresh();
        if self.remote.is_itself() && self.remote.writable {
            self.remote.wal.push(self.remote.wal.timeline(), id);
        }
        self.sites_go_on();
        self.mistake_is_mended();
        self.after(WRITE_MS, Event::RemoteWrites);
    }

    /// What the leader of a standby cluster says of the remote.
    pub fn remote_facts(&self, at: usize) -> Option<RemoteFacts> {
        let core = &self.nodes[at].daemon.as_ref()?.core;
        let section = core.dynamic().standby_cluster.as_ref()?;
        let lease = core.cluster().lease.as_ref().filter(|l| l.purpose == Purpose::Lead)?;
        if lease.holder != core.id() {
            return None;
        }
        let address = section.address();
        let config_version = core.cluster().config_version;
        let remote = &self.remote;
        if !remote.up {
            let problems = vec![String::from("it does not answer")];
            return Some(RemoteFacts { address, config_version, problems, ..Default::default() });
        }
        Some(RemoteFacts {
            address: address.clone(),
            config_version,
            answered_by: Some(address),
            system_identifier: remote.identity().to_string(),
            timeline: remote.wal.timeline(),
            position: remote.wal.lsn(),
            server_version: 150_000,
            accepts_writes: Some(remote.writable),
            ..Default::default()
        })
    }

    pub fn with_remote(&self, at: usize, facts: Facts) -> Facts {
        Facts { remote: self.remote_facts(at), ..facts }
    }

    /// A standby takes what the other site has, if it is the cluster that it copied.
    pub fn stream_from_remote(&mut self, at: usize) {
        let count = 1 + self.rng.below(30);
        let now = self.now;
        let remote = &self.remote;
        let Some(ours) = self.nodes[at].postgres.cluster_mut() else { return };
        let same = remote.is_itself() && ours.system_identifier == remote.system_identifier;
        if !same || !ours.wal.is_prefix_of(&remote.wal) {
            return;
        }
        ours.wal.receive(remote.wal.after(ours.wal.len(), count));
        let replayed = ours.wal.len();
        if let Some(server) = &mut self.nodes[at].postgres.server {
            (server.streamed_at, server.replayed) = (Some(now), replayed);
        }
    }

    /// The operator edits the section of the configuration, on whichever node leads.
    pub fn edit_section(&mut self, section: serde_json::Value) {
        let Some(holder) = self.holder() else { return };
        let ticket = self.fresh();
        let patch = serde_json::json!({ "standby_cluster": section });
        self.feed(holder, Input::Propose { ticket, command: Command::PatchConfig { patch } });
    }

    /// The other site stops writing for good, and the operator takes the section out: until the
    /// cluster has heard of it, and again when an edit from before comes late from a stuck disk.
    pub fn hand_over_here(&mut self) {
        if !self.plan.standby {
            return;
        }
        let own = RemoteSite { wal: std::mem::take(&mut self.remote.wal), ..RemoteSite::default() };
        self.remote = RemoteSite { writable: false, ..own };
        let follows = self.nodes.iter().filter_map(|n| n.daemon.as_ref()).any(|d| {
            let config = d.core.cluster().config.as_ref();
            config.is_none_or(|config| config["standby_cluster"].is_object())
        });
        if follows {
            self.edit_section(serde_json::Value::Null);
        }
        if follows || self.now < self.plan.heal_at + LATE_EDIT_MS {
            self.after(1000, Event::HandOver);
        }
    }

    /// The other site, and nobody else under its address.
    pub fn remote_is_same_cluster(&self, source: &Source) -> bool {
        source.is_remote() && self.remote.is_itself()
    }

    /// What a copy of this source would be.
    pub fn data_of(&self, from: usize) -> Option<Cluster> {
        if from != REMOTE {
            let source = Some(&self.nodes[from].postgres).filter(|source| !source.removed);
            let mut cluster = source?.cluster().cloned()?;
            cluster.wal.cut(self.flushed(from));
            return Some(cluster);
        }
        Some(Cluster::whole(self.remote.system_identifier, self.remote.wal.clone(), true))
    }

    /// Two sites, one writer: nobody here may write while the other site does, as far as it can be asked.
    pub fn check_one_site(&mut self) {
        let theirs = self.plan.standby && self.remote.is_itself() && self.remote.writable;
        let theirs = theirs && !self.remote.by_mistake;
        let writer = self.nodes.iter().find(|n| theirs && self.may_commit(n));
        if let Some(writer) = writer {
            let what = format!("{} can commit while the remote accepts writes", writer.name);
            self.checks.broken("P1", what);
        }
        let mut copies = self
            .nodes
            .iter()
            .filter(|_| self.plan.standby)
            .filter_map(|n| Some((n.name.clone(), n.postgres.cluster()?.system_identifier)));
        let own = self.remote.system_identifier;
        if let Some((name, _)) = copies.find(|(_, id)| *id != own) {
            self.checks.broken("P3", format!("{name} copied a stranger"));
        }
    }
}
