//! PostgreSQL as a struct: a data directory, WAL as a list of records, and perhaps a postmaster.
//!
//! Every record carries a fingerprint of everything before it, so that "is a prefix of" is one
//! comparison and a commit that was lost or brought back from the dead is seen.
use std::collections::{BTreeMap, VecDeque};

use crate::pure::cluster::Millis;
use crate::pure::postgres::history::{Left, Lineage, Switch};
use crate::pure::postgres::lsn::Lsn;

/// Bytes that one record takes in the WAL.
pub const RECORD_BYTES: u64 = 96;

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub timeline: u32,
    /// The transaction; or the bootstrap of a timeline. Never used twice.
    pub id: u64,
    chain: u64,
}

/// A history, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wal(Vec<Record>);

impl Wal {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn lsn(&self) -> Lsn {
        lsn_of(self.0.len())
    }

    pub fn timeline(&self) -> u32 {
        self.0.last().map_or(1, |record| record.timeline)
    }

    pub fn push(&mut self, timeline: u32, id: u64) {
        let mut rng = self.0.last().map_or(7, |record| record.chain) ^ id.rotate_left(17);
        self.0.push(Record { timeline, id, chain: crate::pure::random::next(&mut rng) });
    }

    pub fn has(&self, place: usize, id: u64) -> bool {
        self.0.get(place).is_some_and(|record| record.id == id)
    }

    /// One of the two is a beginning of the other.
    pub fn agrees(&self, other: &Wal) -> bool {
        let both = self.len().min(other.len());
        self.common(other) == both
    }

    pub fn is_prefix_of(&self, other: &Wal) -> bool {
        self.len() <= other.len() && self.agrees(other)
    }

    /// How many records the two have in common.
    pub fn common(&self, other: &Wal) -> usize {
        let both = self.len().min(other.len());
        let same = |at: usize| self.0[at].chain == other.0[at].chain;
        if both == 0 || same(both - 1) {
            return both;
        }
        let (mut low, mut high) = (0, both - 1);
        while low < high {
            let middle = (low + high) / 2;
            if same(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    pub fn cut(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// At most `count` records behind the first `length`.
    pub fn after(&self, length: usize, count: usize) -> Vec<Record> {
        self.0[length..(length + count).min(self.len())].to_vec()
    }

    /// The way to the present timeline, as its history file has it.
    pub fn history(&self) -> Vec<Switch> {
        let turn = |(at, pair): (usize, &[Record])| {
            let switch = Switch { timeline: pair[0].timeline, at: lsn_of(at + 1) };
            (pair[0].timeline != pair[1].timeline).then_some(switch)
        };
        self.0.windows(2).enumerate().filter_map(turn).collect()
    }

    /// Takes over what follows in a history that this one is a prefix of.
    pub fn receive(&mut self, news: Vec<Record>) {
        self.0.extend(news);
    }
}

pub fn lsn_of(length: usize) -> Lsn {
    Lsn(0x100_0000 + length as u64 * RECORD_BYTES)
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub system_identifier: u64,
    pub wal: Wal,
    /// standby.signal lies there.
    pub standby: bool,
    pub clean: bool,
    /// Restored and still on its way to its target.
    pub recovers: bool,
    /// The operator's script has run.
    pub scripted: bool,
    /// Its creation is complete: the mark is gone.
    pub sealed: bool,
    /// Copied or rewound, and not consistent before it has streamed what its source wrote meanwhile.
    pub unripe: bool,
    /// Which copy it is.
    pub copy: u64,
    /// As it stands in the configuration files.
    pub synchronous_standby_names: String,
}

impl Cluster {
    /// One that was created, or copied, long ago, and stopped in good order.
    pub fn whole(system_identifier: u64, wal: Wal, standby: bool) -> Cluster {
        Cluster {
            system_identifier,
            wal,
            standby,
            clean: true,
            recovers: false,
            scripted: true,
            sealed: true,
            unripe: false,
            copy: 0,
            synchronous_standby_names: String::new(),
        }
    }

    /// What it says of itself to whoever wants to stream from it.
    pub fn lineage(&self) -> Lineage {
        Lineage {
            system_identifier: self.system_identifier.to_string(),
            timeline: self.wal.timeline(),
            position: self.wal.lsn(),
            history: self.wal.history(),
        }
    }

    /// How it was left; a shutdown checkpoint is the last that it wrote.
    pub fn left(&self) -> Left {
        let end = self.wal.lsn();
        match (self.standby, self.clean) {
            (true, _) => Left::Standby { end },
            (false, true) => Left::CleanPrimary { checkpoint: Lsn(end.0 - 1) },
            (false, false) => Left::CrashedPrimary,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    Empty,
    /// A copy (or an initdb) that was never finished.
    Incomplete,
    Present(Cluster),
}

/// What the postmaster of a primary knows of one replica.
#[derive(Clone, Debug)]
pub struct Sender {
    pub flushed: usize,
    pub seen_at: Millis,
}

/// A running postmaster.
#[derive(Clone, Debug)]
pub struct Server {
    pub generation: u64,
    pub in_recovery: bool,
    /// Accepts connections.
    pub accepts: bool,
    /// A fast shutdown is under way: no new commit.
    pub stopping: bool,
    /// Node to stream from.
    pub upstream: Option<usize>,
    /// Last time that something came from upstream.
    pub streamed_at: Option<Millis>,
    pub senders: BTreeMap<usize, Sender>,
    /// Commits that wait for a synchronous standby: place and transaction.
    pub waiting: VecDeque<(usize, u64)>,
    /// How much of a replica's WAL is replayed.
    pub replayed: usize,
    /// A promotion begins this timeline or a later one.
    pub next_timeline: u32,
    /// How much of a primary's WAL is on its own disk; of a standby's, all is.
    pub flushed: usize,
    pub flush_is_due: bool,
    /// Commits wait for the synchronous standbys that are named: the checkpointer has seen that some are.
    pub waits: bool,
    /// Surus did not start it.
    pub unmanaged: bool,
}

#[derive(Clone, Debug)]
pub struct Postgres {
    pub data: Data,
    pub server: Option<Server>,
    /// Our own copy, on which no server was ever found to run: it may be removed.
    pub unproven: bool,
    /// A server ran on the copy, and its build is not over: that may remove it, nobody else.
    pub on_trial: bool,
    /// The files are gone beneath the server, which does not know.
    pub removed: bool,
    /// What was moved aside, for a person.
    pub aside: Vec<Cluster>,
    pub generation: u64,
}

impl Default for Postgres {
    fn default() -> Postgres {
        Postgres::new()
    }
}

impl Postgres {
    pub fn new() -> Postgres {
        Postgres {
            data: Data::Empty,
            server: None,
            unproven: false,
            on_trial: false,
            removed: false,
            aside: Vec::new(),
            generation: 0,
        }
    }

    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.data {
            Data::Present(cluster) => Some(cluster),
            Data::Empty | Data::Incomplete => None,
        }
    }

    pub fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        match &mut self.data {
            Data::Present(cluster) => Some(cluster),
            Data::Empty | Data::Incomplete => None,
        }
    }

    /// A copy whose build is not over.
    pub fn is_its_builds(&self) -> bool {
        self.unproven || self.on_trial
    }

    /// It was started as a primary, whether it answers yet or not.
    pub fn runs_as_primary(&self) -> bool {
        self.server.as_ref().is_some_and(|server| !server.in_recovery)
    }

    /// Can it commit? Counted until the last process is gone.
    pub fn is_writable(&self) -> bool {
        self.server.as_ref().is_some_and(|s| s.accepts && !s.in_recovery)
    }

    /// Does it answer queries?
    pub fn answers(&self) -> bool {
        self.server.as_ref().is_some_and(|s| s.accepts && !s.stopping)
    }

    pub fn takes_writes(&self) -> bool {
        self.is_writable() && self.answers()
    }

    /// Starts a postmaster that does not accept connections yet; its generation.
    pub fn start(&mut self, standby: bool, upstream: Option<usize>) -> Option<u64> {
        self.generation += 1;
        let generation = self.generation;
        let cluster = self.cluster_mut()?;
        (cluster.standby, cluster.clean) = (standby, false);
        let replayed = cluster.wal.len();
        let waits = !cluster.synchronous_standby_names.is_empty();
        self.server = Some(Server {
            generation,
            in_recovery: standby,
            accepts: false,
            stopping: false,
            upstream,
            streamed_at: None,
            senders: BTreeMap::new(),
            waiting: VecDeque::new(),
            replayed,
            next_timeline: 0,
            flushed: replayed,
            flush_is_due: false,
            waits,
            unmanaged: false,
        });
        Some(generation)
    }

    /// The power is gone, and what a primary had not flushed with it.
    pub fn forget_unflushed(&mut self) {
        let Some(flushed) = self.server.as_ref().filter(|s| !s.in_recovery).map(|s| s.flushed)
        else {
            return;
        };
        if let Some(cluster) = self.cluster_mut() {
            cluster.wal.cut(flushed.max(1));
        }
    }

    /// No process is left.
    pub fn gone(&mut self, clean: bool) {
        self.server = None;
        if std::mem::take(&mut self.removed) {
            (self.data, self.unproven, self.on_trial) = (Data::Empty, false, false);
        }
        if let Some(cluster) = self.cluster_mut() {
            cluster.clean = clean;
        }
    }

    /// Is this postmaster the one that was meant?
    pub fn is_generation(&self, generation: u64) -> bool {
        self.server.as_ref().is_some_and(|s| s.generation == generation)
    }
}
