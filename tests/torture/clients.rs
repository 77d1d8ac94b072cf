//! Clients that write and read all the time, and remember what they were told.
//!
//! One is bound to each node, so that two writable PostgreSQL at once are seen from outside by whoever
//! asks them; the others go where writes are taken. Nothing they remember is in the cluster.
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cluster::Address;
use super::history::{Act, Entry, Micros, Position};
use super::sql::{Refusal, Sql};

const PAUSE: Duration = Duration::from_millis(15);
const LIMIT: Duration = Duration::from_millis(2500);
/// Clients that add to the set wherever they can.
const ROAMING: usize = 2;
const SWAPPING: usize = 2;

const POSITION: &str =
    "pg_walfile_name(pg_current_wal_insert_lsn()) || ' ' || pg_current_wal_insert_lsn()";

/// The tables, made before anything happens to the cluster.
pub const TABLES: &[&str] = &[
    "CREATE TABLE torture_set
       (client int, seq bigint, place bigint GENERATED ALWAYS AS IDENTITY)",
    "CREATE TABLE torture_register (version bigint, stamp bigint)",
    "CREATE TABLE torture_steps (version bigint, stamp bigint)",
    "INSERT INTO torture_register VALUES (0, 0)",
    "INSERT INTO torture_steps VALUES (0, 0)",
];

/// What all clients share.
struct Common {
    nodes: Vec<Address>,
    began: Instant,
    stop: AtomicBool,
    /// The node that acknowledged a write last.
    writable: AtomicUsize,
    history: Mutex<Vec<Entry>>,
}

pub struct Clients {
    common: Arc<Common>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(nodes: Vec<Address>, leader: usize) -> Clients {
        let count = nodes.len();
        let common = Arc::new(Common {
            nodes,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            writable: AtomicUsize::new(leader),
            history: Mutex::new(Vec::new()),
        });
        let mut threads = Vec::new();
        let mut spawn = |work: fn(&mut Client), bound: Option<usize>| {
            let (number, common) = (threads.len(), common.clone());
            threads.push(std::thread::spawn(move || Client::new(number, bound, common).run(work)));
        };
        (0..count).for_each(|k| spawn(Client::add, Some(k)));
        (0..ROAMING).for_each(|_| spawn(Client::add, None));
        (0..SWAPPING).for_each(|_| spawn(Client::swap, None));
        spawn(Client::read_set, None);
        spawn(Client::read_register, None);
        Clients { common, threads }
    }

    pub fn began(&self) -> Instant {
        self.common.began
    }

    /// The node that acknowledged a write last.
    pub fn writable(&self) -> usize {
        self.common.writable.load(SeqCst)
    }

    pub fn writes_since(&self, since: Instant) -> usize {
        let since = since.saturating_duration_since(self.common.began).as_micros() as Micros;
        let history = self.common.history.lock().expect("no client panics");
        let late = history.iter().rev().take_while(|e| e.answered > since);
        late.filter(|e| e.sent > since && e.written_at().is_some()).count()
    }

    /// Ends all clients; what they remember, in the order of their questions.
    pub fn stop(mut self) -> Vec<Entry> {
        self.end();
        let mut history = std::mem::take(&mut *self.common.history.lock().expect("all ended"));
        history.sort_by_key(|e| e.sent);
        history
    }

    fn end(&mut self) {
        self.common.stop.store(true, SeqCst);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

struct Client {
    number: usize,
    bound: Option<usize>,
    common: Arc<Common>,
    at: usize,
    sql: Option<Sql>,
    seq: u64,
}

impl Client {
    fn new(number: usize, bound: Option<usize>, common: Arc<Common>) -> Client {
        let at = bound.unwrap_or_else(|| common.writable.load(SeqCst));
        Client { number, bound, common, at, sql: None, seq: 0 }
    }

    fn run(&mut self, work: fn(&mut Client)) {
        while !self.common.stop.load(SeqCst) {
            if self.is_connected() {
                work(self);
                std::thread::sleep(PAUSE);
            } else {
                std::thread::sleep(3 * PAUSE);
            }
        }
    }

    fn is_connected(&mut self) -> bool {
        if self.sql.as_ref().is_none_or(Sql::is_closed) {
            let at = &self.common.nodes[self.at];
            self.sql = Sql::connect(&at.host, at.postgresql, LIMIT / 2).ok();
        }
        if self.sql.is_none() {
            self.move_on();
        }
        self.sql.is_some()
    }

    /// To where somebody was served last, or to the next node.
    fn move_on(&mut self) {
        self.sql = None;
        if self.bound.is_none() {
            let known = self.common.writable.load(SeqCst);
            let next = (self.at + 1) % self.common.nodes.len();
            self.at = if known == self.at { next } else { known };
        }
    }

    fn now(&self) -> Micros {
        self.common.began.elapsed().as_micros() as Micros
    }

    fn remember(&self, sent: Micros, act: Act) {
        self.remember_at(self.at, sent, act);
    }

    fn remember_at(&self, node: usize, sent: Micros, act: Act) {
        let entry = Entry { client: self.number, node, sent, answered: self.now(), act };
        if entry.written_at().is_some() {
            self.common.writable.store(node, SeqCst);
        }
        self.common.history.lock().expect("no client panics").push(entry);
    }

    fn ask(&self, statement: &str) -> Result<Option<String>, Refusal> {
        self.sql.as_ref().expect("it is connected").value(statement)
    }

    /// After an answer that was none: the connection is left. True if nothing can have been done.
    fn was_refused(&mut self, refusal: &Refusal) -> bool {
        let read_only = refusal.code.as_deref() == Some("25006");
        if !(read_only && self.bound.is_some()) {
            self.move_on();
        }
        read_only
    }

    fn add(&mut self) {
        self.seq += 1;
        let (sent, seq) = (self.now(), self.seq);
        let statement = format!(
            "INSERT INTO torture_set (client, seq) VALUES ({}, {seq}) RETURNING {POSITION}",
            self.number
        );
        match self.ask(&statement) {
            Ok(text) => {
                let at = position(text.as_deref());
                self.remember(sent, Act::Added { seq, at });
            }
            Err(refusal) => {
                let at = self.at;
                if !self.was_refused(&refusal) {
                    self.remember_at(at, sent, Act::MaybeAdded { seq });
                }
            }
        }
    }

    /// Compares and sets, with the step in the same transaction.
    fn swap(&mut self) {
        let Some((_, from)) = self.read() else { return };
        self.seq += 1;
        let (sent, to) = (self.now(), ((self.number as u64) << 40) + self.seq);
        let statement = format!(
            "WITH moved AS (UPDATE torture_register SET version = version + 1, stamp = {to}
               WHERE stamp = {from} RETURNING version)
             INSERT INTO torture_steps SELECT version, {to} FROM moved
             RETURNING version || ' ' || {POSITION}"
        );
        match self.ask(&statement) {
            Ok(None) => {} // somebody else was faster
            Ok(Some(text)) => {
                let (version, at) = text.split_once(' ').expect("as it was asked for");
                let version = version.parse().expect("a version is a number");
                self.remember(sent, Act::Swapped { from, to, version, at: position(Some(at)) });
            }
            Err(refusal) => {
                let at = self.at;
                if !self.was_refused(&refusal) {
                    self.remember_at(at, sent, Act::MaybeSwapped { from, to });
                }
            }
        }
    }

    /// Version and stamp, as a server that takes writes shows them.
    fn read(&mut self) -> Option<(u64, u64)> {
        let statement = "SELECT version || ' ' || stamp FROM torture_register
                         WHERE NOT pg_is_in_recovery()";
        let text = self.ask_primary(statement)?;
        let (version, stamp) = text.split_once(' ')?;
        Some((version.parse().ok()?, stamp.parse().ok()?))
    }

    fn ask_primary(&mut self, statement: &str) -> Option<String> {
        let answer = self.ask(statement).ok().flatten();
        if answer.is_none() {
            self.move_on();
        }
        answer
    }

    fn read_register(&mut self) {
        let sent = self.now();
        if let Some((version, stamp)) = self.read() {
            self.remember(sent, Act::ReadRegister { version, stamp });
        }
    }

    fn read_set(&mut self) {
        let sent = self.now();
        let statement = "SELECT string_agg(client || '=' || seq, ' ') FROM
             (SELECT client, max(seq) AS seq FROM torture_set GROUP BY client) AS highest
             WHERE NOT pg_is_in_recovery()";
        if let Some(text) = self.ask_primary(statement) {
            let pair = |word: &str| {
                let (client, seq) = word.split_once('=')?;
                Some((client.parse().ok()?, seq.parse().ok()?))
            };
            let highest: BTreeMap<usize, u64> = text.split(' ').filter_map(pair).collect();
            self.remember(sent, Act::ReadSet { highest });
            std::thread::sleep(10 * PAUSE);
        }
    }
}

fn position(text: Option<&str>) -> Position {
    text.and_then(Position::parse).expect("a primary says where its WAL is")
}
