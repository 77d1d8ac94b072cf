//! How a cluster begins: exactly one founder, chosen by promises that are given once.
//!
//! Every fresh node knows the configured addresses (its own and its partners'). The one with the
//! lowest address among those it can see asks the others for a promise. A promise is durable
//! before it is answered and is given to one founder only, so two founders can never both hold
//! promises of a majority of the configured nodes (promise P3). The founder then fixes the first
//! voters, durably, and tells them. Whoever was not there joins later as a learner.
//!
//! A promise may move in two cases, both safe because only the founder itself counts promises for
//! its founding: a node takes back the promise to *itself* in favour of a lower address, and a
//! promise to a founder whose address now answers with another id or stands behind somebody else
//! is void.
use std::collections::BTreeMap;

use raft::eraftpb::Snapshot;
use serde::{Deserialize, Serialize};

use super::message::{Genesis, Greeting, PeerMessage};
use crate::pure::cluster::state::Member;
use crate::pure::cluster::{Millis, RaftId};

/// How long a founder waits for configured nodes that do not answer, once it has a majority.
pub const GRACE_MS: Millis = 3000;
/// How often an unanswered question is asked again.
const RETRY_MS: Millis = 500;

/// The durable part: one promise, and the genesis once it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Promises {
    pub promised_to: Option<RaftId>,
    pub genesis: Option<Genesis>,
    /// The cluster this node belongs to, once it does.
    pub cluster_id: Option<String>,
    /// Recoveries that the cluster went through.
    #[serde(default)]
    pub cluster_epoch: u64,
}

impl Promises {
    /// The cluster's first snapshot, until a later one is on disk: the genesis says it all, so
    /// that a founded log needs no write of its own, and a restart reads it from here.
    pub fn first_snapshot(&self) -> Option<Snapshot> {
        self.cluster_id.as_ref()?;
        self.genesis.as_ref().map(Genesis::snapshot)
    }
}

/// What the founding wants done, in order. `Persist` must be durable before what follows it.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    Persist(Promises),
    Say {
        addr: String,
        message: PeerMessage,
    },
    /// The group exists and we are in it.
    Begin(Genesis),
    /// A cluster exists already: ask this node to let us in.
    JoinAt {
        addr: String,
        cluster_id: String,
    },
}

pub struct Founding {
    own: RaftId,
    own_addr: String,
    member: Member,
    /// All configured addresses, our own included, sorted.
    configured: Vec<String>,
    pub promises: Promises,
    peers: BTreeMap<String, Greeting>,
    granted: BTreeMap<RaftId, Member>,
    since: Millis,
    asked_at: Option<Millis>,
    /// In words, for `dump`.
    pub waits_for: String,
    /// Draws the cluster's id; arrives as a value.
    seed: u64,
}

impl Founding {
    pub fn new(
        own: RaftId,
        member: Member,
        partners: &[String],
        promises: Promises,
        now: Millis,
        seed: u64,
    ) -> Self {
        let own_addr = member.raft_addr.clone();
        let mut configured = partners.to_vec();
        configured.push(own_addr.clone());
        configured.sort();
        configured.dedup();
        Founding {
            own,
            own_addr,
            member,
            configured,
            promises,
            peers: BTreeMap::new(),
            granted: BTreeMap::new(),
            since: now,
            asked_at: None,
            waits_for: String::from("the first look at the partners"),
            seed,
        }
    }

    fn majority(&self) -> usize {
        self.configured.len() / 2 + 1
    }

    pub fn greeted(&mut self, greeting: Greeting) {
        let known = self.peers.insert(greeting.addr.clone(), greeting);
        if known.is_none() {
            self.asked_at = None; // whoever just came was not asked yet
        }
    }

    pub fn gone(&mut self, addr: &str) {
        self.peers.remove(addr);
    }

    /// What to do now; called on every change and every tick.
    pub fn advance(&mut self, now: Millis) -> Vec<Wish> {
        if let Some(genesis) = self.promises.genesis.clone() {
            return self.begin(genesis);
        }
        // Nodes that a recovery left behind may be around; they can let nobody in.
        let founded = self.peers.values().filter(|p| p.standing.cluster_id.is_some());
        if let Some(found) = founded.max_by_key(|p| p.standing.cluster_epoch) {
            return self.join(found.clone(), now);
        }
        self.release_void_promise();
        if self.lowest_visible() != self.own_addr && self.promises.promised_to != Some(self.own) {
            self.waits_for = format!(
                "{} to found the cluster (it has the lowest address)",
                self.lowest_visible()
            );
            return Vec::new();
        }
        self.found(now)
    }

    fn begin(&mut self, genesis: Genesis) -> Vec<Wish> {
        self.waits_for = String::from("nothing: the cluster is founded");
        vec![Wish::Begin(genesis)]
    }

    fn join(&mut self, at: Greeting, now: Millis) -> Vec<Wish> {
        self.waits_for = format!("{} to let this node in", at.name);
        if !self.due(now) {
            return Vec::new();
        }
        let cluster_id = at.standing.cluster_id.unwrap_or_default();
        vec![Wish::JoinAt { addr: at.addr, cluster_id }]
    }

    fn due(&mut self, now: Millis) -> bool {
        let due = self.asked_at.is_none_or(|at| now >= at + RETRY_MS);
        if due {
            self.asked_at = Some(now);
        }
        due
    }

    fn fresh_configured(&self) -> impl Iterator<Item = &Greeting> {
        self.peers.values().filter(|p| self.configured.contains(&p.addr))
    }

    fn lowest_visible(&self) -> String {
        let peers = self.fresh_configured().map(|p| p.addr.clone());
        peers.chain([self.own_addr.clone()]).min().expect("our own address is there")
    }

    /// A promise to a founder that can never found is no promise.
    fn release_void_promise(&mut self) {
        let Some(to) = self.promises.promised_to.filter(|to| *to != self.own) else { return };
        let founder_stands = self.peers.values().any(|p| p.id == to);
        let stands_behind_another = self
            .peers
            .values()
            .any(|p| p.id == to && p.standing.promised_to.is_some_and(|s| s != to));
        let address_reborn =
            !founder_stands && self.fresh_configured().count() + 1 == self.configured.len();
        if stands_behind_another || address_reborn {
            self.promises.promised_to = None;
        }
    }

    fn found(&mut self, now: Millis) -> Vec<Wish> {
        let visible = self.fresh_configured().count() + 1;
        let all = visible == self.configured.len();
        if visible < self.majority() || (!all && now < self.since + GRACE_MS) {
            let missing: Vec<&str> = self
                .configured
                .iter()
                .filter(|a| **a != self.own_addr && !self.peers.contains_key(*a))
                .map(String::as_str)
                .collect();
            self.waits_for = format!("partners to answer: {}", missing.join(", "));
            return Vec::new();
        }
        let mut wishes = Vec::new();
        if self.promises.promised_to.is_none() {
            self.promises.promised_to = Some(self.own);
            wishes.push(Wish::Persist(self.promises.clone()));
        }
        if self.promises.promised_to != Some(self.own) {
            return Vec::new();
        }
        self.granted.insert(self.own, self.member.clone());
        if self.due(now) {
            wishes.extend(self.ask_everybody());
        }
        self.waits_for = String::from("promises of a majority of the configured nodes");
        let everybody = self.granted.len() >= visible;
        let waited = now >= self.since + GRACE_MS;
        if self.granted.len() >= self.majority() && (everybody || waited) {
            wishes.extend(self.conclude());
        }
        wishes
    }

    fn ask_everybody(&self) -> Vec<Wish> {
        let say = |peer: &Greeting| Wish::Say {
            addr: peer.addr.clone(),
            message: PeerMessage::Found { founder: self.own },
        };
        self.fresh_configured().map(say).collect()
    }

    fn conclude(&mut self) -> Vec<Wish> {
        let voters: Vec<(RaftId, Member)> =
            self.granted.iter().map(|(id, member)| (*id, member.clone())).collect();
        let cluster_id = format!("{:016x}{:016x}", self.seed, self.own);
        let genesis = Genesis { cluster_id, voters };
        self.promises.genesis = Some(genesis.clone());
        vec![Wish::Persist(self.promises.clone()), Wish::Begin(genesis)]
    }

    /// A message about founding from the node `from`.
    pub fn heard(&mut self, from: RaftId, addr: &str, message: PeerMessage) -> Vec<Wish> {
        match message {
            PeerMessage::Found { founder } if founder == from => self.asked(founder, addr),
            PeerMessage::Promised { founder, id, member } if founder == self.own && id == from => {
                self.granted.insert(id, member);
                Vec::new()
            }
            PeerMessage::Genesis(genesis) => self.told(genesis),
            _ => Vec::new(),
        }
    }

    fn asked(&mut self, founder: RaftId, addr: &str) -> Vec<Wish> {
        self.release_void_promise();
        let yields_to_lower =
            self.promises.promised_to == Some(self.own) && addr < self.own_addr.as_str();
        let mut wishes = Vec::new();
        if self.promises.genesis.is_none()
            && (self.promises.promised_to.is_none() || yields_to_lower)
        {
            self.promises.promised_to = Some(founder);
            self.granted.clear();
            wishes.push(Wish::Persist(self.promises.clone()));
        }
        let answer = match self.promises.promised_to {
            Some(to) if to == founder => {
                PeerMessage::Promised { founder, id: self.own, member: self.member.clone() }
            }
            to => PeerMessage::PromisedToAnother { founder, promised_to: to.unwrap_or_default() },
        };
        wishes.push(Wish::Say { addr: addr.to_string(), message: answer });
        wishes
    }

    /// The founder concluded. Only a genesis that counts us in is ours.
    fn told(&mut self, genesis: Genesis) -> Vec<Wish> {
        let ours = genesis.voters.iter().any(|(id, _)| *id == self.own);
        if !ours || self.promises.genesis.is_some() {
            return Vec::new();
        }
        self.promises.genesis = Some(genesis.clone());
        vec![Wish::Persist(self.promises.clone()), Wish::Begin(genesis)]
    }
}
