//! Before there is a group: founding it, or being let into one.
use super::core::{Core, Output};
use super::founding::{FoundingOutput, FoundingRecord, Traces};
use super::group::{Group, genesis_hard_state};
use super::log::MemoryLog;
use super::message::{FoundingStatus, Genesis, Greeting, PeerMessage};
use crate::pure::cluster::RaftId;
use crate::pure::cluster::facts::DataDirectory;
use crate::pure::cluster::state::ClusterState;

impl Core {
    pub(super) fn standing(&self) -> FoundingStatus {
        FoundingStatus {
            cluster_id: self.founding_record.cluster_id.clone(),
            cluster_epoch: self.founding_record.cluster_epoch,
            voted_for: self.founding_record.voted_for,
            heard_of: self
                .founding_record
                .heard_of
                .clone()
                .filter(|_| self.founding_record.cluster_id.is_none()),
        }
    }

    /// What the founding wants done now, while there is no group.
    pub(super) fn outside(&mut self) {
        let traces = self.traces();
        let Some(founding) = &mut self.founding else { return };
        founding.traces = traces;
        let requests = founding.advance(self.now);
        if founding.is_held_up {
            let sentence =
                format!("does not found a cluster, and waits for {}", founding.waits_for);
            self.say_once(&sentence);
        }
        self.carry_out_founding(requests);
    }

    /// Of this node and of those it is connected to; a witness has no data.
    fn traces(&self) -> Traces {
        let peers = self.greetings.values().map(|peer| (peer.id, &peer.name));
        let all: Vec<_> = std::iter::once((self.id, &self.member.name)).chain(peers).collect();
        let facts = |id: RaftId| match id == self.id {
            true => Some(&self.own).filter(|own| own.serial > 0),
            false => self.heard.get(&id).map(|heard| &heard.facts),
        };
        if let Some((_, name)) = all.iter().find(|(id, _)| facts(*id).is_some_and(|f| f.copy != 0))
        {
            return Traces::Managed(name.to_string());
        }
        let unknown = |id: RaftId| {
            facts(id).is_none_or(|f| f.has_postgres && f.data == DataDirectory::Unknown)
        };
        let silent = all.iter().find(|(id, _)| unknown(*id));
        silent.map_or(Traces::None, |(_, name)| Traces::Unknown(name.to_string()))
    }

    pub(super) fn about_founding(&mut self, from: RaftId, message: PeerMessage) {
        let Some(addr) = self.addr_of(from) else { return };
        if let Some(founding) = &mut self.founding {
            let requests = founding.heard(from, &addr, message);
            self.carry_out_founding(requests);
        }
    }

    fn carry_out_founding(&mut self, requests: Vec<FoundingOutput>) {
        for reinit in requests {
            match reinit {
                FoundingOutput::Persist(founding_record) => self.keep(founding_record),
                FoundingOutput::Say { addr, message } => {
                    self.out.push(Output::SendPeer { addr, message })
                }
                FoundingOutput::Begin(genesis) => self.begin(genesis),
                FoundingOutput::JoinAt { addr, cluster_id } => self.join_at(addr, cluster_id),
            }
        }
    }

    fn keep(&mut self, founding_record: FoundingRecord) {
        self.founding_record = founding_record;
        self.out.push(Output::Keep(self.founding_record.clone()));
        self.out.push(Output::Greeting(self.standing()));
    }

    /// The cluster was founded and we are one of its first voters.
    fn begin(&mut self, genesis: Genesis) {
        let cluster = genesis.cluster();
        let snapshot = genesis.snapshot();
        let log = MemoryLog::restore(genesis_hard_state(), snapshot, Vec::new());
        self.enter(genesis.cluster_id.clone(), 0, log);
        self.cluster = cluster;
        if self.founding_record.voted_for == Some(self.id) {
            self.campaign_as_founder(genesis);
        }
        self.tell("the cluster is founded");
        self.out.push(Output::Changed);
    }

    /// The founder tells the first voters, and stands for election at once.
    fn campaign_as_founder(&mut self, genesis: Genesis) {
        let own = self.id;
        for (id, _) in genesis.voters.iter().filter(|(id, _)| *id != own) {
            self.say(*id, PeerMessage::Genesis(genesis.clone()));
        }
        if let Some(group) = &mut self.group {
            group.campaign();
        }
    }

    /// A cluster exists: take its identity and ask to be let in.
    fn join_at(&mut self, addr: String, cluster_id: String) {
        if self.group.is_none() && self.asked.as_ref() != Some(&addr) {
            self.asked = Some(addr.clone());
            self.tell(format!("asks {addr} to be let into the cluster {cluster_id}"));
        }
        let message = PeerMessage::Join { id: self.id, member: self.member.clone() };
        self.out.push(Output::SendPeer { addr, message });
    }

    /// The arbiter's first message reached us: we are in.
    pub(super) fn joined(&mut self, from: RaftId) {
        let Some(standing) = self.greetings.get(&from).map(|g| g.standing.clone()) else { return };
        let Some(cluster_id) = standing.cluster_id else { return };
        self.tell("was let into the cluster");
        self.refused = None;
        self.enter(cluster_id, standing.cluster_epoch, MemoryLog::default());
    }

    pub(super) fn join_refused(&mut self, reason: String) {
        if self.refused.as_ref() != Some(&reason) {
            self.tell(format!("was not let into the cluster: {reason}"));
            self.refused = Some(reason);
            self.out.push(Output::Changed);
        }
    }

    fn enter(&mut self, cluster_id: String, cluster_epoch: u64, log: MemoryLog) {
        let cluster_id = Some(cluster_id);
        let founding_record =
            FoundingRecord { cluster_id, cluster_epoch, ..self.founding_record.clone() };
        self.keep(founding_record);
        self.founding = None;
        self.group = Some(Group::new(self.id, log, 0, self.seed));
    }

    /// After a restart: the log tells where we were.
    pub(super) fn restore(&mut self, log: MemoryLog) {
        match serde_json::from_slice::<ClusterState>(&log.snapshot.data) {
            Ok(cluster) => self.cluster = cluster,
            Err(_) if log.snapshot.data.is_empty() => {}
            Err(error) => self.halt("the snapshot in this node's log", &error),
        }
        let applied = log.snapshot.get_metadata().index;
        self.replayed_to = log.hard_state.commit;
        self.founding = None;
        self.group = Some(Group::new(self.id, log, applied, self.seed));
        self.refresh_dynamic();
    }

    /// A first voter that was away when the founder concluded hears of it now.
    pub(super) fn resend_genesis(&mut self, greeting: &Greeting) {
        let Some(genesis) = &self.founding_record.genesis else { return };
        let waits = greeting.standing.cluster_id.is_none() && self.group.is_some();
        if waits && genesis.voters.iter().any(|(id, _)| *id == greeting.id) {
            let message = PeerMessage::Genesis(genesis.clone());
            self.out.push(Output::SendPeer { addr: greeting.addr.clone(), message });
        }
    }
}
