//! What the fuzzers call of what only the host parses; see `src/sim/fuzz` for the rest.
//!
//! Everything that comes from a peer is stepped into a real consensus behind the same checks as in
//! production: what passes them must be safe to step.
use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState, Message, MessageType, Snapshot};

use super::frame::{Frame, check_raft_message};
use super::peer::Hello;
use super::peer::handshake::{Greeting as Opened, judge};
use super::peer::wire::{self, Wire};
use super::postgres::bootstrap_marker::BootstrapMarker;
use super::postgres::{check_settings, passfile, replica, upstream};
use super::rest::{access, read};
use super::restored::{founding_record_of, restored};
use super::store::Loaded;
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::state::Member;
use crate::pure::config::HostPort;
use crate::pure::consensus::core::{Core, Input, Options, Output};
use crate::pure::consensus::founding::FoundingRecord;
use crate::pure::consensus::log::MemoryLog;
use crate::pure::consensus::message::{FoundingStatus, Genesis, Greeting, PeerMessage};
use crate::pure::consensus::quorum_loss::recover;
use crate::pure::postgres::recovery;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target of the host: its name and its function.
pub static TARGETS: &[(&str, Target)] = &[
    ("consensus_inputs", consensus_inputs),
    ("host_texts", host_texts),
    ("peer_frame", peer_frame),
    ("stored_log", stored_log),
];

const OWN: u64 = 1;

/// Choices from bytes; zero when they are used up.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(*first)
    }

    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX - self.byte(),
            254 => (1 << 47) + self.byte(),
            253 => self.byte() << 4,
            small => small % 16,
        }
    }

    fn piece(&mut self) -> &'a [u8] {
        let length = (self.byte() << 8 | self.byte()) as usize;
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }
}

/// One frame as it comes from the wire: any kind, from anybody.
pub fn peer_frame(bytes: &[u8]) {
    let Ok(frame) = wire::parse(bytes.into()) else { return };
    if !matches!(frame, Wire::Refusal(_) | Wire::Welcome) {
        assert_eq!(wire::render(&frame), bytes, "a frame is sent as it was received");
    }
    match frame {
        Wire::Hello(greeting) => {
            let own = Hello::new("/service/batman", OWN, "n1", "n1:2380");
            if let Ok(peer) = serde_json::from_slice::<Opened>(&greeting) {
                drop(judge(&own, None, &peer));
            }
        }
        Wire::Payload(Frame::Raft(message)) => drop(check_raft_message(&message, 2, OWN)),
        Wire::Payload(Frame::Peer(message)) => {
            drop(serde_json::from_slice::<PeerMessage>(&message));
        }
        Wire::Payload(Frame::Challenge(_) | Frame::Echo(_)) => {}
        Wire::Proof(_) | Wire::Welcome | Wire::Refusal(_) => {}
    }
}

fn member(name: &str) -> Member {
    let (name, raft_addr) = (name.to_owned(), format!("{name}:2380"));
    Member { name, raft_addr, ..Member::default() }
}

fn genesis() -> Genesis {
    let voters = (1..4).map(|id| (id, member(&format!("n{id}")))).collect();
    Genesis { cluster_id: "c".to_owned(), voters }
}

fn founding_record() -> FoundingRecord {
    FoundingRecord {
        voted_for: Some(OWN),
        genesis: Some(genesis()),
        cluster_id: Some("c".to_owned()),
        cluster_epoch: 0,
        heard_of: None,
    }
}

fn seated(log: Option<MemoryLog>, founding_record: FoundingRecord) -> Core {
    Core::new(Options {
        id: OWN,
        member: member("n1"),
        partners: vec!["n2:2380".to_owned(), "n3:2380".to_owned()],
        voters_max: 5,
        ttl_ms: 3000,
        seed: 7,
        log,
        founding_record,
        now: 1000,
    })
}

/// Two peers that know the password and lie: frames, gossip, greetings, in any order.
pub fn consensus_inputs(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let founding_record =
        if choices.byte() & 1 == 0 { founding_record() } else { FoundingRecord::default() };
    let genesis = serde_json::to_value(&founding_record).ok();
    let log = restored(&Loaded { genesis, ..Loaded::default() }).expect("a founded log is whole");
    let mut core = seated(founding_record.cluster_id.as_ref().map(|_| log), founding_record);
    let (mut now, mut written) = (1000, Vec::new());
    let cluster_id = core.founding_record().cluster_id.clone();
    for id in 2..4 {
        tell(&mut core, now, greeting(id, cluster_id.clone()), &mut written);
    }
    while !choices.0.is_empty() {
        now += choices.byte() * 8;
        let input = one(&mut choices, &mut written);
        if let Some(input) = input {
            tell(&mut core, now, input, &mut written);
        }
    }
}

fn tell(core: &mut Core, now: u64, input: Input, written: &mut Vec<u64>) {
    for output in core.handle(now, input) {
        match output {
            Output::Write(write) => written.push(write.number),
            Output::SendRaft { message, .. } => {
                drop(message.write_to_bytes().expect("what we send can be written"));
            }
            _ => {}
        }
    }
}

fn greeting(id: u64, cluster_id: Option<String>) -> Input {
    Input::Greeted(Greeting {
        id,
        name: format!("n{id}"),
        addr: format!("n{id}:2380"),
        standing: FoundingStatus { cluster_id, ..FoundingStatus::default() },
    })
}

fn one(choices: &mut Choices, written: &mut Vec<u64>) -> Option<Input> {
    let from = 2 + choices.byte() % 2;
    match choices.byte() % 10 {
        0 => Some(Input::Tick),
        1 => raft(choices.piece(), from),
        2..=4 => raft(&message(choices, from).write_to_bytes().ok()?, from),
        5 => {
            let message = serde_json::from_slice::<PeerMessage>(choices.piece()).ok()?;
            Some(Input::Peer { from, message })
        }
        6 => {
            let number = written.drain(..).next_back()?;
            Some(Input::Persisted { number })
        }
        7 => {
            let facts = serde_json::from_slice::<Facts>(choices.piece()).unwrap_or_default();
            Some(Input::Local(Box::new(Facts { raft_id: OWN, ..facts })))
        }
        8 => {
            let command = serde_json::from_slice(choices.piece()).ok()?;
            Some(Input::Propose { ticket: choices.number(), command })
        }
        _ => {
            let standing = serde_json::from_slice::<Greeting>(choices.piece()).ok();
            let gone = Input::Gone { addr: format!("n{from}:2380"), id: from };
            Some(standing.map_or(gone, Input::Greeted))
        }
    }
}

fn raft(bytes: &[u8], from: u64) -> Option<Input> {
    let message = check_raft_message(bytes, from, OWN).ok()?;
    Some(Input::Raft { from, message: Box::new(message) })
}

/// A Raft message of small numbers, so that terms and indexes meet those of the log.
fn message(choices: &mut Choices, from: u64) -> Message {
    use protobuf::ProtobufEnum;
    let kind = MessageType::from_i32((choices.byte() % 20) as i32).unwrap_or_default();
    let mut message = Message::default();
    message.set_msg_type(kind);
    (message.from, message.to) = (from, OWN);
    (message.term, message.log_term) = (choices.number(), choices.number());
    (message.index, message.commit) = (choices.number(), choices.number());
    (message.reject_hint, message.commit_term) = (choices.number(), choices.number());
    let flags = choices.byte();
    message.reject = flags & 1 == 1;
    if flags & 2 == 2 {
        message.context = choices.piece().to_vec().into();
    }
    let (mut index, mut term) = (message.index, message.log_term);
    for _ in 0..choices.byte() % 4 {
        (index, term) = (index.wrapping_add(1), term.wrapping_add(choices.byte() % 2));
        let data = choices.piece().to_vec().into();
        let kind = raft::eraftpb::EntryType::from_i32((choices.byte() % 4) as i32);
        let mut entry = Entry { index, term, data, ..Entry::default() };
        entry.set_entry_type(kind.unwrap_or_default());
        message.mut_entries().push(entry);
    }
    if kind == MessageType::MsgSnapshot {
        message.set_snapshot(snapshot(choices));
    }
    message
}

fn snapshot(choices: &mut Choices) -> Snapshot {
    let data = choices.piece().to_vec().into();
    let mut snapshot = Snapshot { data, ..Snapshot::default() };
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (choices.number(), choices.number());
    let voters = (0..choices.byte() % 4).map(|_| choices.number()).collect();
    meta.mut_conf_state().set_voters(voters);
    snapshot
}

/// What lay on the disk: hard state, snapshot, genesis and entries, as another version left them.
pub fn stored_log(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let state = HardState {
        term: choices.number(),
        vote: choices.number() % 4,
        commit: choices.number(),
        ..HardState::default()
    };
    let snapshot = match choices.byte() % 3 {
        0 => None,
        1 => Some(choices.piece().to_vec()),
        _ => self::snapshot(&mut choices).write_to_bytes().ok(),
    };
    let genesis = serde_json::from_slice(choices.piece()).ok();
    let mut entries = Vec::new();
    let (mut index, mut term) = (choices.number().clamp(1, 1 << 40), 1);
    while !choices.0.is_empty() {
        term += choices.byte() % 2;
        let raw = choices.byte() & 1 == 1;
        let data = choices.piece().to_vec();
        let entry = Entry { index, term, data: data.clone().into(), ..Entry::default() };
        let bytes = if raw { data } else { entry.write_to_bytes().expect("it fits") };
        entries.push((index, term, bytes));
        index += 1;
    }
    let loaded = Loaded {
        hard_state: state.write_to_bytes().ok(),
        entries,
        snapshot,
        identity: None,
        genesis,
    };
    let (Ok(founding_record), Ok(log)) = (founding_record_of(&loaded), restored(&loaded)) else {
        return;
    };
    drop(recover(OWN, &log, &founding_record, "now"));
    let mut core = seated(Some(log), founding_record);
    let mut written = Vec::new();
    for round in 0..40 {
        tell(&mut core, 1000 + round * 100, Input::Tick, &mut written);
    }
}

/// What programs and strangers write, where only the host reads it.
pub fn host_texts(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest).replace('\r', "");
    let (first, second) = text.split_once('\0').unwrap_or((&text, ""));
    match which % 8 {
        0 => {
            let options = replica::long_options(&text);
            assert!(options.iter().all(|name| !name.contains(char::is_whitespace)));
        }
        1 => drop(check_settings::complaint(&text)),
        2 => drop(upstream::probed(&text)),
        3 => {
            let merged = passfile::merge(first, second);
            assert_eq!(passfile::merge(&merged, second), merged, "a line is put in once");
        }
        4 => drop(super::programs::refusals(rest)),
        5 => {
            let clean = recovery::without_recovery(&text);
            assert_eq!(recovery::without_recovery(&clean), clean);
        }
        6 => {
            if let Some(bootstrap_marker) = BootstrapMarker::parse(&text) {
                assert_eq!(
                    BootstrapMarker::parse(&bootstrap_marker.text()).as_ref(),
                    Some(&bootstrap_marker)
                );
            }
        }
        _ => {
            drop((read::parameters(&text), HostPort::of_url(&text, 80)));
            let client = second.parse().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
            let _ = access::network_contains(first, client);
        }
    }
}
