//! A writer per node that tries all the time, and remembers what was acknowledged and when.
//!
//! They are the proof of both promises: what was acknowledged must be there later, and no two
//! nodes may acknowledge writes in the same span of time.
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cluster::Address;
use super::sql::{Refusal, Sql};

const PAUSE: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_millis(1500);
/// A pause between two acknowledged writes of one node that ends its span.
const GAP: Duration = Duration::from_millis(500);

/// One attempt; `sent` and the answer's time are of CLOCK_MONOTONIC.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: u64,
    pub node: usize,
    pub sent: Instant,
    pub answered: Instant,
    pub refused: Option<Refusal>,
}

impl Attempt {
    fn is_read_only(&self) -> bool {
        self.refused.as_ref().is_some_and(|r| r.code.as_deref() == Some("25006"))
    }
}

pub struct Writers {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Attempt>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    pub fn start(nodes: &[Address]) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::new(Vec::new()));
        let next = Arc::new(AtomicU64::new(1));
        let thread = |(node, at): (usize, &Address)| {
            let (at, stop, log, next) = (at.clone(), stop.clone(), log.clone(), next.clone());
            std::thread::spawn(move || write(node, &at, &stop, &log, &next))
        };
        let threads = nodes.iter().enumerate().map(thread).collect();
        Writers { stop, log, threads }
    }

    pub fn log(&self) -> Vec<Attempt> {
        self.log.lock().expect("no writer panics").clone()
    }

    /// Ids acknowledged so far.
    pub fn acked(&self) -> BTreeSet<u64> {
        self.log().iter().filter(|a| a.refused.is_none()).map(|a| a.id).collect()
    }

    pub fn acked_since(&self, since: Instant) -> usize {
        self.log().iter().filter(|a| a.refused.is_none() && a.sent > since).count()
    }

    /// Attempts on this node since then that failed, for whatever reason.
    pub fn failures(&self, node: usize, since: Instant) -> Vec<Attempt> {
        let failed = |a: &Attempt| a.node == node && a.answered > since && a.refused.is_some();
        self.log().into_iter().filter(failed).collect()
    }

    /// Ends the writers and says what they have seen.
    pub fn stop(mut self) -> Seen {
        self.end();
        Seen { log: self.log() }
    }

    fn end(&mut self) {
        self.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

fn write(
    node: usize,
    at: &Address,
    stop: &AtomicBool,
    log: &Mutex<Vec<Attempt>>,
    next: &AtomicU64,
) {
    let mut connection: Option<Sql> = None;
    while !stop.load(SeqCst) {
        let sent = Instant::now();
        let id = next.fetch_add(1, SeqCst);
        let result = attempt(&mut connection, at, node, id);
        let refused = result.err();
        let attempt = Attempt { id, node, sent, answered: Instant::now(), refused };
        let nap = if attempt.refused.is_some() { PAUSE * 3 } else { PAUSE };
        if attempt.refused.is_some() && !attempt.is_read_only() {
            connection = None;
        }
        log.lock().expect("no writer panics").push(attempt);
        std::thread::sleep(nap);
    }
}

fn attempt(to: &mut Option<Sql>, at: &Address, node: usize, id: u64) -> Result<(), Refusal> {
    if to.as_ref().is_none_or(Sql::is_closed) {
        *to = Some(Sql::connect(&at.host, at.postgresql, LIMIT)?);
    }
    let sql = to.as_ref().expect("just connected");
    sql.value(&format!("INSERT INTO acked (id, node) VALUES ({id}, {node})")).map(|_| ())
}

/// What the writers have seen, when they are done.
pub struct Seen {
    pub log: Vec<Attempt>,
}

/// A time in which one node certainly could commit: from the first answer to the last question.
struct Span {
    node: usize,
    from: Instant,
    to: Instant,
    writes: Vec<Attempt>,
}

impl Seen {
    pub fn acked(&self) -> BTreeSet<u64> {
        self.log.iter().filter(|a| a.refused.is_none()).map(|a| a.id).collect()
    }

    /// Ids that were acknowledged before then.
    pub fn acked_before(&self, before: Instant) -> BTreeSet<u64> {
        let early = |a: &&Attempt| a.refused.is_none() && a.answered < before;
        self.log.iter().filter(early).map(|a| a.id).collect()
    }

    /// Nodes that acknowledged anything after `since`.
    pub fn nodes_since(&self, since: Instant) -> BTreeSet<usize> {
        let acked = self.log.iter().filter(|a| a.refused.is_none() && a.sent > since);
        acked.map(|a| a.node).collect()
    }

    /// The longest time between two acknowledged writes, whoever answered.
    pub fn longest_gap(&self) -> Duration {
        let mut times: Vec<Instant> =
            self.log.iter().filter(|a| a.refused.is_none()).map(|a| a.answered).collect();
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// For how long two nodes certainly could commit at the same time, in milliseconds.
    pub fn overlap_ms(&self) -> u128 {
        let spans = self.spans();
        let mut worst = 0;
        for (k, one) in spans.iter().enumerate() {
            for other in spans[k + 1..].iter().filter(|other| other.node != one.node) {
                let common = one.to.min(other.to).checked_duration_since(one.from.max(other.from));
                worst = worst.max(common.map_or(0, |common| common.as_millis().max(1)));
                worst = worst.max(u128::from(intrudes(one, other) || intrudes(other, one)));
            }
        }
        worst
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let nodes: BTreeSet<usize> = self.log.iter().map(|a| a.node).collect();
        for node in nodes {
            let mut open = false;
            for attempt in self.log.iter().filter(|a| a.node == node) {
                if attempt.refused.is_some() {
                    open = false;
                    continue;
                }
                match spans.last_mut().filter(|s| open && attempt.sent < s.to + GAP) {
                    Some(span) => {
                        span.to = attempt.sent;
                        span.writes.push(attempt.clone());
                    }
                    None => spans.push(Span {
                        node,
                        from: attempt.answered,
                        to: attempt.sent,
                        writes: vec![attempt.clone()],
                    }),
                }
                open = true;
            }
        }
        spans
    }
}

/// A whole write of `one` lies within the span of `other`.
fn intrudes(one: &Span, other: &Span) -> bool {
    one.writes.iter().any(|w| w.sent > other.from && w.answered < other.to)
}

#[test]
fn overlapping_writers_are_noticed() {
    let began = Instant::now();
    let at = |ms| began + Duration::from_millis(ms);
    let write = |node, sent, answered| Attempt {
        id: sent,
        node,
        sent: at(sent),
        answered: at(answered),
        refused: None,
    };
    let seen = |log| Seen { log };
    let apart = seen(vec![write(0, 0, 1), write(0, 10, 11), write(1, 20, 21), write(1, 30, 31)]);
    assert_eq!(apart.overlap_ms(), 0);
    let both = seen(vec![write(0, 0, 1), write(0, 60, 61), write(1, 20, 21), write(1, 100, 101)]);
    assert_eq!(both.overlap_ms(), 39);
    let one = seen(vec![write(0, 0, 1), write(0, 60, 61), write(1, 20, 21)]);
    assert_eq!(one.overlap_ms(), 1);
}
