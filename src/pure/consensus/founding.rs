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
use crate::pure::postgres::slot::share_a_name;

/// How long a founder waits for configured nodes that do not answer, once it has a majority.
pub const GRACE_MS: Millis = 3000;
/// How often an unanswered question is asked again.
const RETRY_MS: Millis = 500;

/// The durable part: one promise, and the genesis once it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundingRecord {
    #[serde(alias = "promised_to")]
    pub voted_for: Option<RaftId>,
    pub genesis: Option<Genesis>,
    /// The cluster this node belongs to, once it does.
    pub cluster_id: Option<String>,
    /// Recoveries that the cluster went through.
    #[serde(default)]
    pub cluster_epoch: u64,
    /// A member of a cluster that exists; since it was heard, none is founded here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_of: Option<HeardOf>,
}

/// Who was heard to belong to a cluster while this node was outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeardOf {
    pub cluster_id: String,
    pub name: String,
    pub addr: String,
}

/// What the data directories of those that would found a cluster say.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Traces {
    /// No data that Surus ever managed.
    #[default]
    None,
    /// This node has not said yet what lies there.
    Unknown(String),
    /// The data of this node was managed by Surus: there was a cluster.
    Managed(String),
}

impl FoundingRecord {
    /// The cluster's first snapshot, until a later one is on disk: the genesis says it all, so
    /// that a founded log needs no write of its own, and a restart reads it from here.
    pub fn first_snapshot(&self) -> Option<Snapshot> {
        self.cluster_id.as_ref()?;
        self.genesis.as_ref().map(Genesis::snapshot)
    }
}

/// What the founding wants done, in order. `Persist` must be durable before what follows it.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundingOutput {
    Persist(FoundingRecord),
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
    pub founding_record: FoundingRecord,
    peers: BTreeMap<String, Greeting>,
    granted: BTreeMap<RaftId, Member>,
    since: Millis,
    asked_at: Option<Millis>,
    /// In words, for `dump`.
    pub waits_for: String,
    /// `waits_for` is something that only the operator can mend.
    pub is_held_up: bool,
    /// Told from outside before every [`Founding::advance`].
    pub traces: Traces,
    /// What was heard of is not on disk yet.
    unsaved: bool,
    /// Draws the cluster's id; arrives as a value.
    seed: u64,
}

impl Founding {
    pub fn new(
        own: RaftId,
        member: Member,
        partners: &[String],
        founding_record: FoundingRecord,
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
            founding_record,
            peers: BTreeMap::new(),
            granted: BTreeMap::new(),
            since: now,
            asked_at: None,
            waits_for: String::from("the first look at the partners"),
            is_held_up: false,
            traces: Traces::None,
            unsaved: false,
            seed,
        }
    }

    fn majority(&self) -> usize {
        self.configured.len() / 2 + 1
    }

    pub fn greeted(&mut self, greeting: Greeting) {
        self.note_cluster(&greeting);
        let known = self.peers.insert(greeting.addr.clone(), greeting);
        if known.is_none() {
            self.asked_at = None; // whoever just came was not asked yet
        }
    }

    /// Whoever belongs to a cluster may be away at the next look: what was heard is kept.
    fn note_cluster(&mut self, greeting: &Greeting) {
        let Some(cluster_id) = greeting.standing.cluster_id.clone() else { return };
        let outside =
            self.founding_record.genesis.is_none() && self.founding_record.cluster_id.is_none();
        if outside && self.founding_record.heard_of.is_none() {
            let (name, addr) = (greeting.name.clone(), greeting.addr.clone());
            self.founding_record.heard_of = Some(HeardOf { cluster_id, name, addr });
            self.unsaved = true;
        }
    }

    pub fn gone(&mut self, addr: &str) {
        self.peers.remove(addr);
    }

    /// What to do now; called on every change and every tick.
    pub fn advance(&mut self, now: Millis) -> Vec<FoundingOutput> {
        let mut outputs = Vec::new();
        if std::mem::take(&mut self.unsaved) {
            outputs.push(FoundingOutput::Persist(self.founding_record.clone()));
        }
        self.is_held_up = false;
        outputs.extend(self.next(now));
        outputs
    }

    fn next(&mut self, now: Millis) -> Vec<FoundingOutput> {
        if let Some(genesis) = self.founding_record.genesis.clone() {
            return self.begin(genesis);
        }
        // Nodes that a recovery left behind may be around; they can let nobody in.
        let founded = self.peers.values().filter(|p| p.standing.cluster_id.is_some());
        if let Some(found) = founded.max_by_key(|p| p.standing.cluster_epoch) {
            return self.join(found.clone(), now);
        }
        if let Some(obstacle) = self.namesake().or_else(|| self.cluster_elsewhere()) {
            (self.waits_for, self.is_held_up) = (obstacle, true);
            return Vec::new();
        }
        self.release_void_vote();
        if self.lowest_visible() != self.own_addr
            && self.founding_record.voted_for != Some(self.own)
        {
            self.waits_for = format!(
                "{} to found the cluster (it has the lowest address)",
                self.lowest_visible()
            );
            return Vec::new();
        }
        self.found(now)
    }

    fn begin(&mut self, genesis: Genesis) -> Vec<FoundingOutput> {
        self.waits_for = String::from("nothing: the cluster is founded");
        vec![FoundingOutput::Begin(genesis)]
    }

    fn join(&mut self, at: Greeting, now: Millis) -> Vec<FoundingOutput> {
        self.waits_for = format!("{} to let this node in", at.name);
        if !self.due(now) {
            return Vec::new();
        }
        let cluster_id = at.standing.cluster_id.unwrap_or_default();
        vec![FoundingOutput::JoinAt { addr: at.addr, cluster_id }]
    }

    fn due(&mut self, now: Millis) -> bool {
        let due = self.asked_at.is_none_or(|at| now >= at + RETRY_MS);
        if due {
            self.asked_at = Some(now);
        }
        due
    }

    fn all_visible(&self) -> bool {
        self.fresh_configured().count() + 1 == self.configured.len()
    }

    fn missing(&self) -> String {
        let seen = |addr: &&String| **addr == self.own_addr || self.peers.contains_key(*addr);
        let missing: Vec<&str> =
            self.configured.iter().filter(|a| !seen(a)).map(String::as_str).collect();
        missing.join(", ")
    }

    /// A cluster exists, or may: a second one must not be founded beside it (promise P3). When all
    /// configured nodes are there and none belongs to a cluster, nobody is left who could.
    fn cluster_elsewhere(&self) -> Option<String> {
        let told = self.peers.values().find_map(|peer| peer.standing.heard_of.as_ref());
        if let Some(heard) = self.founding_record.heard_of.as_ref().or(told) {
            let reborn =
                self.peers.get(&heard.addr).is_some_and(|p| p.standing.cluster_id.is_none());
            return (!(reborn && self.all_visible())).then(|| {
                format!(
                    "{} at {}, a member of the cluster {} that exists: start it and those that still have \
                     their raft.data_dir; if their majority is lost for good, `surus recover` on one of them",
                    heard.name, heard.addr, heard.cluster_id
                )
            });
        }
        let Traces::Managed(name) = &self.traces else { return None };
        (!self.all_visible()).then(|| {
            format!(
                "{} to answer: the data of {name} belonged to a cluster of Surus, and whoever is missing may \
                 still be a member of it; start them (`surus recover` on one that still has its \
                 raft.data_dir, if the majority is lost), or take those that are lost for good out of \
                 raft.partner_addrs",
                self.missing()
            )
        })
    }

    /// Two of those that are to found it cannot be told apart.
    fn namesake(&self) -> Option<String> {
        let own = (&self.member.name, &self.own_addr);
        let peers = self.fresh_configured().map(|peer| (&peer.name, &peer.addr));
        let all: Vec<_> = std::iter::once(own).chain(peers).collect();
        let pairs = all
            .iter()
            .enumerate()
            .flat_map(|(at, one)| all[at + 1..].iter().map(move |o| (one, o)));
        let mut same = pairs.filter(|((one, _), (other, _))| share_a_name(one, other));
        same.next().map(|((one, at), (other, there))| {
            format!(
                "other names: {one} at {at} and {other} at {there} are one name to PostgreSQL; give one of \
                 them another"
            )
        })
    }

    fn fresh_configured(&self) -> impl Iterator<Item = &Greeting> {
        self.peers.values().filter(|p| self.configured.contains(&p.addr))
    }

    fn lowest_visible(&self) -> String {
        let peers = self.fresh_configured().map(|p| p.addr.clone());
        peers.chain([self.own_addr.clone()]).min().expect("our own address is there")
    }

    /// A promise to a founder that can never found is no promise.
    fn release_void_vote(&mut self) {
        let Some(to) = self.founding_record.voted_for.filter(|to| *to != self.own) else { return };
        let founder_stands = self.peers.values().any(|p| p.id == to);
        let stands_behind_another = self
            .peers
            .values()
            .any(|p| p.id == to && p.standing.voted_for.is_some_and(|s| s != to));
        let address_reborn =
            !founder_stands && self.fresh_configured().count() + 1 == self.configured.len();
        if stands_behind_another || address_reborn {
            self.founding_record.voted_for = None;
        }
    }

    fn found(&mut self, now: Millis) -> Vec<FoundingOutput> {
        let visible = self.fresh_configured().count() + 1;
        let all = visible == self.configured.len();
        if visible < self.majority() || (!all && now < self.since + GRACE_MS) {
            self.waits_for = format!("partners to answer: {}", self.missing());
            return Vec::new();
        }
        if let (Traces::Unknown(name), false) = (&self.traces, all) {
            self.waits_for = format!("{name} to say what lies in its data directory");
            return Vec::new();
        }
        let mut outputs = Vec::new();
        if self.founding_record.voted_for.is_none() {
            self.founding_record.voted_for = Some(self.own);
            outputs.push(FoundingOutput::Persist(self.founding_record.clone()));
        }
        if self.founding_record.voted_for != Some(self.own) {
            return Vec::new();
        }
        self.granted.insert(self.own, self.member.clone());
        if self.due(now) {
            outputs.extend(self.ask_everybody());
        }
        self.waits_for = String::from("promises of a majority of the configured nodes");
        let everybody = self.granted.len() >= visible;
        let waited = now >= self.since + GRACE_MS;
        if self.granted.len() >= self.majority() && (everybody || waited) {
            outputs.extend(self.conclude());
        }
        outputs
    }

    fn ask_everybody(&self) -> Vec<FoundingOutput> {
        let say = |peer: &Greeting| FoundingOutput::Say {
            addr: peer.addr.clone(),
            message: PeerMessage::FoundingVoteRequest { founder: self.own },
        };
        self.fresh_configured().map(say).collect()
    }

    fn conclude(&mut self) -> Vec<FoundingOutput> {
        let voters: Vec<(RaftId, Member)> =
            self.granted.iter().map(|(id, member)| (*id, member.clone())).collect();
        let cluster_id = format!("{:016x}{:016x}", self.seed, self.own);
        let genesis = Genesis { cluster_id, voters };
        self.founding_record.genesis = Some(genesis.clone());
        vec![FoundingOutput::Persist(self.founding_record.clone()), FoundingOutput::Begin(genesis)]
    }

    /// A message about founding from the node `from`.
    pub fn heard(&mut self, from: RaftId, addr: &str, message: PeerMessage) -> Vec<FoundingOutput> {
        match message {
            PeerMessage::FoundingVoteRequest { founder } if founder == from => {
                self.asked(founder, addr)
            }
            PeerMessage::FoundingVote { founder, id, member }
                if founder == self.own && id == from =>
            {
                self.granted.insert(id, member);
                Vec::new()
            }
            PeerMessage::Genesis(genesis) => self.told(genesis),
            _ => Vec::new(),
        }
    }

    fn asked(&mut self, founder: RaftId, addr: &str) -> Vec<FoundingOutput> {
        if self.cluster_elsewhere().is_some() {
            return Vec::new();
        }
        self.release_void_vote();
        let yields_to_lower =
            self.founding_record.voted_for == Some(self.own) && addr < self.own_addr.as_str();
        let mut outputs = Vec::new();
        if self.founding_record.genesis.is_none()
            && (self.founding_record.voted_for.is_none() || yields_to_lower)
        {
            self.founding_record.voted_for = Some(founder);
            self.granted.clear();
            outputs.push(FoundingOutput::Persist(self.founding_record.clone()));
        }
        let answer = match self.founding_record.voted_for {
            Some(to) if to == founder => {
                PeerMessage::FoundingVote { founder, id: self.own, member: self.member.clone() }
            }
            to => PeerMessage::VotedForAnother { founder, voted_for: to.unwrap_or_default() },
        };
        outputs.push(FoundingOutput::Say { addr: addr.to_string(), message: answer });
        outputs
    }

    /// The founder concluded. Only a genesis that counts us in is ours.
    fn told(&mut self, genesis: Genesis) -> Vec<FoundingOutput> {
        let ours = genesis.voters.iter().any(|(id, _)| *id == self.own);
        if !ours || self.founding_record.genesis.is_some() {
            return Vec::new();
        }
        self.founding_record.genesis = Some(genesis.clone());
        vec![FoundingOutput::Persist(self.founding_record.clone()), FoundingOutput::Begin(genesis)]
    }
}
