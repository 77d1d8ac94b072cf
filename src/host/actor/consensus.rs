//! Consensus and lease on a thread of their own: never behind a flow, SQL or a disk.
//!
//! Feeds [`Core`] with what peers, the disk's thread and the node say, and carries out what it
//! answers, in order. Moves the guard's deadline by a plain store to shared memory.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot, watch};

use crate::host::clock;
use crate::host::frame::{Frame, check_raft_message};
use crate::host::guard::GuardHandle;
use crate::host::peer::Hello;
use crate::host::peer::{PeerEvent, Peers};
use crate::host::store::{Identity, LogWrite, LogWriter};
use crate::host::ticker::Ticker;
use crate::host::watchdog::Watchdog;
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::config::HostPort;
use crate::pure::consensus::core::{Core, Input, Output};
use crate::pure::consensus::founding::FoundingRecord;
use crate::pure::consensus::group;
use crate::pure::consensus::message::{FoundingStatus, Greeting, PeerMessage};
use crate::pure::view::View;
use protobuf::Message as _;

/// Writes of promises are numbered from here, so that they can be waited for.
pub const KEEP_NUMBERS: u64 = 1 << 62;

/// People read the core's times; so exact they need to be.
const WALL_EVERY_MS: Millis = 100;

/// The deadline as it stands now, and the guard that is told of it.
#[derive(Default)]
pub struct Deadline {
    pub epoch: u64,
    pub deadline: Option<Millis>,
    pub guard: Option<GuardHandle>,
    /// No guard is armed that this daemon does not know of: an earlier one's was looked for.
    pub knows_guard: bool,
    /// Fed by every answered renewal while this node leads.
    pub watchdog: Option<Watchdog>,
}

impl Deadline {
    /// The deadline, if it is this epoch's.
    pub fn deadline_of(&self, epoch: u64) -> Option<Millis> {
        self.deadline.filter(|_| self.epoch == epoch)
    }
}

/// Shared with the node: whoever arms a guard installs its handle here.
pub type SharedDeadline = Arc<Mutex<Deadline>>;

/// What the consensus tells the node.
pub enum Word {
    /// Query PostgreSQL now; the facts shall carry this round.
    AskFresh(u64),
}

pub struct Consensus {
    pub core: Core,
    pub peers: Peers,
    pub writer: LogWriter,
    pub kept: std::sync::mpsc::Receiver<std::io::Result<Duration>>,
    pub hello: Hello,
    pub view: watch::Sender<Arc<View>>,
    pub deadline: SharedDeadline,
    pub words: mpsc::UnboundedSender<Word>,
    pub receipts: BTreeMap<u64, oneshot::Sender<Result<Outcome, String>>>,
    pub next_ticket: u64,
    pub keeps: u64,
    pub connected: BTreeMap<String, u64>,
    pub disk: Disk,
    /// When the core is told the wall clock again.
    pub wall_due: Millis,
}

/// Durable writes of the Raft log, for people.
#[derive(Default)]
pub struct Disk {
    count: u64,
    last_us: u64,
    max_us: u64,
}

impl Actor for Consensus {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(4096);
        let outputs = vec![Output::Targets(self.core.targets().to_vec())];
        self.carry_out(outputs);
        self.publish();
    }
}

/// Time has passed; answers after how much of it the next tick is due.
#[derive(Message)]
#[rtype(result = "Duration")]
pub struct Tick;

/// One input for the core.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Tell(pub Input);

#[derive(Message)]
#[rtype(result = "()")]
pub struct PeerHeard(pub PeerEvent);

#[derive(Message)]
#[rtype(result = "()")]
pub struct Written(pub u64, pub std::io::Result<Duration>);

/// Put a command into the log; the sender hears when it was applied here, or why not.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Propose(pub Command, pub oneshot::Sender<Result<Outcome, String>>);

/// Become a learner before stopping.
#[derive(Message)]
#[rtype(result = "()")]
pub struct GiveUpVote(pub oneshot::Sender<Result<Outcome, String>>);

/// The file was read again.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetMember(pub crate::pure::cluster::state::Member);

impl Consensus {
    fn tell(&mut self, input: Input) {
        let now = clock::now();
        if now >= self.wall_due {
            self.wall_due = now + WALL_EVERY_MS;
            self.core.set_wall(clock::wall());
        }
        let outputs = self.core.handle(now, input);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        let mut changed = false;
        for output in outputs {
            match output {
                Output::SendRaft { addr, message } => match message.write_to_bytes() {
                    Ok(bytes) => self.send(&addr, Frame::Raft(bytes)),
                    Err(error) => tracing::error!(%error, "a Raft message could not be written"),
                },
                Output::SendPeer { addr, message } => {
                    let bytes = serde_json::to_vec(&message).expect("a message is plain data");
                    self.send(&addr, Frame::Peer(bytes));
                }
                Output::Keep(founding_record) => self.keep(&founding_record),
                Output::Write(write) => self.write(write),
                Output::Deadline { epoch, deadline } => self.move_deadline(epoch, deadline),
                Output::Receipt { ticket, outcome } => self.answer(ticket, outcome),
                Output::AskFresh { round } => {
                    self.words.send(Word::AskFresh(round)).ok();
                }
                Output::Greeting(standing) => self.greet(standing),
                Output::Targets(addrs) => {
                    self.peers
                        .set_targets(addrs.iter().filter_map(|addr| addr.parse().ok()).collect());
                }
                Output::Changed => changed = true,
                Output::Halt(sentence) => halt(&sentence),
                Output::Told(sentence) => tracing::info!(what = sentence, "consensus"),
            }
        }
        if changed {
            self.publish();
        }
    }

    fn send(&self, addr: &str, frame: Frame) {
        if let Ok(addr) = addr.parse::<HostPort>() {
            self.peers.send(&addr, frame);
        }
    }

    /// Durable before this returns; happens a few times in a node's life.
    fn keep(&mut self, founding_record: &FoundingRecord) {
        self.keeps += 1;
        let identity = Identity {
            raft_id: self.core.id(),
            cluster_id: founding_record.cluster_id.clone(),
            cluster_epoch: founding_record.cluster_epoch,
        };
        let genesis = serde_json::to_value(founding_record).expect("promises are plain data");
        let write =
            LogWrite { identity: Some(identity), genesis: Some(genesis), ..LogWrite::default() };
        self.writer.submit(KEEP_NUMBERS + self.keeps, write);
        match self.kept.recv() {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => fence("the promise could not be written", &error.to_string()),
            Err(_) => fence("the promise could not be written", "the log's thread is gone"),
        }
    }

    fn write(&mut self, write: group::LogWrite) {
        let from_leader = write.number != 0 && write.snapshot.is_some();
        let compact_to = match (from_leader, write.compact_to) {
            (true, _) => Some(u64::MAX),
            (false, first_kept) => first_kept.map(|index| index.saturating_sub(1)),
        };
        let stored = LogWrite {
            snapshot: write.snapshot,
            entries: write.entries,
            hard_state: write.hard_state,
            compact_to,
            identity: None,
            genesis: None,
        };
        self.writer.submit(write.number, stored);
    }

    fn move_deadline(&mut self, epoch: u64, deadline: Option<Millis>) {
        let ttl_ms = self.core.ttl_ms();
        let mut shared = lock(&self.deadline);
        (shared.epoch, shared.deadline) = (epoch, deadline);
        if let (Some(watchdog), Some(_)) = (&mut shared.watchdog, deadline) {
            watchdog.follow_ttl(ttl_ms);
        }
        if let (Some(guard), Some(at)) = (&shared.guard, deadline) {
            guard.set_deadline(epoch, at);
        }
        if let (true, Some(at)) = (shared.knows_guard, deadline) {
            self.core.guard_is_bound(epoch, at);
        }
        if let (Some(watchdog), Some(_)) = (&mut shared.watchdog, deadline) {
            watchdog.feed();
        }
    }

    fn answer(&mut self, ticket: u64, outcome: Result<Outcome, String>) {
        if let Some(reply) = self.receipts.remove(&ticket) {
            reply.send(outcome).ok();
        }
    }

    fn greet(&mut self, standing: FoundingStatus) {
        self.hello.cluster_id = standing.cluster_id.clone();
        self.hello.cluster_epoch = standing.cluster_epoch;
        self.hello.state = serde_json::to_value(&standing).expect("a standing is plain data");
        self.peers.set_hello(self.hello.clone());
    }

    fn publish(&mut self) {
        let mut view = self.core.view(clock::now());
        let ago_s = view.now.saturating_sub(view.raft.quorum_at) / 1000;
        if view.raft.quorum_at != 0 {
            view.raft.quorum_at_epoch_s = clock::epoch_s().saturating_sub(ago_s);
        }
        view.raft.fsync_count = self.disk.count;
        view.raft.fsync_last_us = self.disk.last_us;
        view.raft.fsync_max_us = self.disk.max_us;
        self.view.send_replace(Arc::new(view));
    }

    fn ticket(&mut self, reply: oneshot::Sender<Result<Outcome, String>>) -> u64 {
        self.receipts.retain(|_, reply| !reply.is_closed());
        self.next_ticket += 1;
        self.receipts.insert(self.next_ticket, reply);
        self.next_ticket
    }

    fn peer_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Up { addr, hello } => {
                self.connected.insert(hello.raft_addr.clone(), hello.raft_id);
                tracing::info!(peer = hello.name, %addr, "connected");
                self.tell(Input::Greeted(greeting(&hello)));
            }
            PeerEvent::Hello { hello, confirmed } => {
                if confirmed && self.connected.contains_key(&hello.raft_addr) {
                    self.connected.insert(hello.raft_addr.clone(), hello.raft_id);
                    self.tell(Input::Greeted(greeting(&hello)));
                }
            }
            PeerEvent::Frame { from, confirmed, frame } => self.frame(from, confirmed, frame),
            PeerEvent::Down { addr, raft_id } => {
                self.connected.remove(&addr.to_string());
                tracing::info!(%addr, "disconnected");
                self.tell(Input::Gone { addr: addr.to_string(), id: raft_id });
            }
            PeerEvent::Refused { addr, reason } => tracing::warn!(addr, reason, "refused"),
        }
    }

    /// A frame of a peer. What is not confirmed comes from anybody who knows the password: it may ask to
    /// be let in or to found the cluster, and nothing else (SEC-9).
    fn frame(&mut self, from: u64, confirmed: bool, frame: Frame) {
        match frame {
            Frame::Raft(_) if !confirmed => {}
            Frame::Raft(bytes) => match check_raft_message(&bytes, from, self.core.id()) {
                Ok(message) => self.tell(Input::Raft { from, message: Box::new(message) }),
                Err(reason) => tracing::warn!(from, reason, "a Raft message was dropped"),
            },
            Frame::Peer(bytes) => match serde_json::from_slice::<PeerMessage>(&bytes) {
                Ok(message) if confirmed || message.is_of_strangers(from) => {
                    self.tell(Input::Peer { from, message });
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(from, %error, "a message was dropped"),
            },
            Frame::Challenge(_) | Frame::Echo(_) => {}
        }
    }
}

impl Handler<Tick> for Consensus {
    type Result = MessageResult<Tick>;
    fn handle(&mut self, _: Tick, _: &mut Self::Context) -> Self::Result {
        self.tell(Input::Tick);
        MessageResult(Duration::from_millis(self.core.tick_every()))
    }
}

/// Keeps the consensus ticking at the pace it asks for, as long as it lives.
pub async fn keep_ticking(consensus: Addr<Consensus>, mut ticker: Ticker) {
    while consensus.connected() {
        let ticked = ticker.tick().await;
        let Ok(every) = consensus.send(Tick).await else { return };
        if let Err(error) = ticked.and_then(|()| ticker.set(every)) {
            fence("the consensus has no timer", &error.to_string());
        }
    }
}

impl Handler<Tell> for Consensus {
    type Result = ();
    fn handle(&mut self, message: Tell, _: &mut Self::Context) {
        self.tell(message.0);
    }
}

impl Handler<PeerHeard> for Consensus {
    type Result = ();
    fn handle(&mut self, message: PeerHeard, _: &mut Self::Context) {
        self.peer_event(message.0);
    }
}

impl Handler<Written> for Consensus {
    type Result = ();
    fn handle(&mut self, Written(number, result): Written, _: &mut Self::Context) {
        match result {
            Ok(took) => {
                let us = took.as_micros() as u64;
                self.disk.count += 1;
                self.disk.last_us = us;
                self.disk.max_us = self.disk.max_us.max(us);
                if number != 0 {
                    self.tell(Input::Persisted { number });
                }
            }
            Err(error) => fence("the Raft log could not be written", &error.to_string()),
        }
    }
}

impl Handler<Propose> for Consensus {
    type Result = ();
    fn handle(&mut self, Propose(command, reply): Propose, _: &mut Self::Context) {
        let ticket = self.ticket(reply);
        self.tell(Input::Propose { ticket, command });
    }
}

impl Handler<GiveUpVote> for Consensus {
    type Result = ();
    fn handle(&mut self, GiveUpVote(reply): GiveUpVote, _: &mut Self::Context) {
        let ticket = self.ticket(reply);
        self.tell(Input::GiveUpVote { ticket });
    }
}

impl Handler<SetMember> for Consensus {
    type Result = ();
    fn handle(&mut self, SetMember(member): SetMember, _: &mut Self::Context) {
        self.core.set_member(member);
    }
}

fn greeting(hello: &Hello) -> Greeting {
    Greeting {
        id: hello.raft_id,
        name: hello.name.clone(),
        addr: hello.raft_addr.clone(),
        standing: serde_json::from_value(hello.state.clone()).unwrap_or_default(),
    }
}

pub fn lock(deadline: &SharedDeadline) -> std::sync::MutexGuard<'_, Deadline> {
    deadline.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// We cannot remember, so we must not act: the guard stops PostgreSQL when the lease runs out.
pub fn fence(what: &str, why: &str) -> ! {
    tracing::error!(why, "{what}: this node stops; its guard ends PostgreSQL with the lease");
    std::process::exit(3);
}

/// sysexits' EX_CONFIG: to start this version again changes nothing.
pub const HALTED: i32 = 78;

/// What is agreed on is not known to this version: nothing may be done on half of it.
fn halt(sentence: &str) -> ! {
    tracing::error!("{sentence}; its guard ends PostgreSQL with the lease");
    eprintln!("{sentence}");
    std::process::exit(HALTED);
}
