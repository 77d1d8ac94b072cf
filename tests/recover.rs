//! `surus recover`: a majority that is lost for ever, on real stores and with real daemons.
use std::path::Path;
use std::process::Command;

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, HardState, Snapshot,
};
use serde_json::json;
use surus::host::journal::Journal;
use surus::host::restored::restored;
use surus::host::store::{Identity, LogStore, LogWrite, SledLog};
use surus::pure::cluster::command::Command as Change;
use surus::pure::cluster::state::{ClusterState, Initialize, Member, Sync};
use surus::pure::consensus::core::Proposal;
use surus::pure::consensus::founding::FoundingRecord;
use surus::tools::quorum_loss::{MACHINE, prepare};

#[allow(dead_code, reason = "the harness is shared; this file needs a part of it")]
#[path = "cluster_postgres/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "the harness is shared; this file needs a part of it")]
#[path = "cluster_postgres/http.rs"]
mod http;
#[allow(dead_code, reason = "the harness is shared; this file needs a part of it")]
#[path = "cluster_postgres/node.rs"]
mod node;
#[allow(dead_code, reason = "the harness is shared; this file needs a part of it")]
#[path = "cluster_postgres/process.rs"]
mod process;
#[allow(dead_code, reason = "the harness is shared; this file needs a part of it")]
#[path = "cluster_postgres/sql.rs"]
mod sql;
#[allow(dead_code, reason = "the harness is shared; this file needs a part of it")]
#[path = "cluster_postgres/writers.rs"]
mod writers;

use cluster::{Cluster, Spec, wait_until};

fn member(name: &str) -> Member {
    Member { name: name.into(), raft_addr: format!("{name}:1"), ..Member::default() }
}

fn normal(index: u64, command: Change) -> Entry {
    let proposal = Proposal { origin: 1, ticket: 0, command };
    let data = serde_json::to_vec(&proposal).expect("plain data").into();
    Entry { index, term: 3, data, ..Entry::default() }
}

fn learner(index: u64, id: u64, name: &str) -> Entry {
    let mut single = ConfChangeSingle::default();
    single.set_change_type(ConfChangeType::AddLearnerNode);
    single.node_id = id;
    let mut change = ConfChangeV2::default();
    change.set_changes(vec![single].into());
    change.set_context(serde_json::to_vec(&member(name)).expect("plain data").into());
    let data = change.write_to_bytes().expect("it fits").into();
    let mut entry = Entry { index, term: 3, data, ..Entry::default() };
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    entry
}

/// Node 1 of three, whose log has an entry that nobody confirmed and a learner that joined.
fn write_store(state_dir: &Path) {
    let mut state = ClusterState { applied: 1, ..ClusterState::default() };
    state.members = [(1, member("a")), (2, member("b")), (3, member("c"))].into();
    state.initialize = Initialize::Done { system_identifier: "77".into() };
    state.config = Some(json!({"ttl": 7}));
    state.sync =
        Some(Sync { leader: "b".into(), sync_standby: vec!["c".into()], ..Sync::default() });
    let mut snapshot = Snapshot::default();
    let meta = snapshot.mut_metadata();
    (meta.index, meta.term) = (1, 1);
    meta.mut_conf_state().set_voters(vec![1, 2, 3]);
    snapshot.data = serde_json::to_vec(&state).expect("plain data").into();
    let entries = [
        learner(2, 4, "d"),
        normal(3, Change::PatchConfig { patch: json!({"ttl": 9}) }),
        normal(4, Change::SetConfig { value: json!({"ttl": 8}), expected: None }),
    ];
    let bytes = |entry: &Entry| (entry.index, entry.term, entry.write_to_bytes().expect("it fits"));
    let hard_state = HardState { term: 5, vote: 2, commit: 2, ..HardState::default() };
    let founding_record =
        FoundingRecord { cluster_id: Some("cafe".into()), ..FoundingRecord::default() };
    let (mut log, _) = SledLog::open(&state_dir.join("log")).expect("a new log");
    log.write(LogWrite {
        snapshot: Some(snapshot.write_to_bytes().expect("it fits")),
        entries: entries.iter().map(bytes).collect(),
        hard_state: Some(hard_state.write_to_bytes().expect("it fits")),
        identity: Some(Identity {
            raft_id: 1,
            cluster_id: founding_record.cluster_id.clone(),
            cluster_epoch: 0,
        }),
        genesis: Some(serde_json::to_value(&founding_record).expect("plain data")),
        ..LogWrite::default()
    })
    .expect("written");
}

#[test]
fn the_survivors_log_becomes_a_cluster_of_one() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(prepare(dir.path()).is_err_and(|why| why.contains("no Raft log")));
    assert!(!dir.path().join("log").exists(), "looking creates nothing");
    write_store(dir.path());

    let prepared = prepare(dir.path()).expect("it can be recovered");
    let busy = prepare(dir.path()).err().expect("its lock is held");
    assert!(busy.contains("daemon of this node runs: stop it first"), "{busy}");
    let text = prepared.text("a");
    for part in [
        "term           5, last index 4",
        "b (0000000000000002)",
        "d (0000000000000004)",
        "0 becomes 1",
        "not synchronous (b, c were)",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    prepared.write().expect("written");

    let (log, loaded) = SledLog::open(&dir.path().join("log")).expect("it opens");
    drop(log);
    let memory = restored(&loaded).expect("the log is whole");
    assert_eq!(memory.last(), (4, 3), "nothing that the survivor had is lost");
    assert_eq!(
        (memory.hard_state.term, memory.hard_state.vote, memory.hard_state.commit),
        (6, 0, 4)
    );
    assert_eq!(memory.conf_state.voters, [1]);
    assert!(memory.conf_state.learners.is_empty() && loaded.entries.is_empty());
    let state: ClusterState = serde_json::from_slice(&memory.snapshot.data).expect("a state");
    assert_eq!(state.members.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!((state.applied, state.config, state.sync), (4, Some(json!({"ttl": 8})), None));
    assert!(state.decisions.last().is_some_and(|d| d.reason.contains("surus recover")));
    let identity = loaded.identity.expect("it knows who it is");
    assert_eq!((identity.raft_id, identity.cluster_epoch), (1, 1));
    assert_eq!(identity.cluster_id.as_deref(), Some("cafe+1.1"));
    let journal = Journal::open(&dir.path().join("journal")).expect("a journal");
    let (_, record) = journal.last(MACHINE).expect("readable").expect("an audit entry");
    assert_eq!(record["knowledge"]["voters_before"], json!([[1, "a"], [2, "b"], [3, "c"]]));
}

#[test]
fn who_was_never_in_a_cluster_has_nothing_to_recover() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut log, _) = SledLog::open(&dir.path().join("log")).expect("a new log");
    log.write_identity(&Identity { raft_id: 7, ..Identity::default() }).expect("written");
    drop(log);
    assert!(prepare(dir.path()).is_err_and(|why| why.contains("never belonged to a cluster")));
}

fn recover(cluster: &Cluster, k: usize, words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_surus"))
        .args(["recover", "-c"])
        .arg(cluster.nodes[k].config())
        .args(words)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn dump_of_stopped(cluster: &Cluster, k: usize) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_surus"));
    command.args(["dump", "--json", "-c"]).arg(cluster.nodes[k].config());
    let output = command.output().expect("it runs");
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

#[test]
fn two_of_three_are_lost_for_ever() {
    let Some(mut cluster) = Cluster::start_all(Spec { ttl_s: 3, ..Spec::default() }) else {
        return;
    };
    let lost = cluster.leader();
    let [survivor, other] = cluster.others(lost)[..] else { panic!("three nodes") };
    let sysid = cluster.system_identifier(lost);
    cluster.nodes[lost].column("CREATE TABLE kept AS SELECT 1 AS one").expect("written");
    wait_until("the row on the survivor", 10, || {
        cluster.nodes[survivor].sql("SELECT one FROM kept").as_deref() == Some("1")
    });
    cluster.nodes[lost].kill();
    cluster.nodes[other].kill();

    let (done, text) = recover(&cluster, survivor, &["--yes"]);
    assert!(!done && text.contains("stop it first"), "{text}");
    cluster.nodes[survivor].kill_daemon();
    let stopped = dump_of_stopped(&cluster, survivor);
    let known = &stopped["cluster"]["initialize"]["Done"]["system_identifier"];
    assert_eq!(*known, json!(sysid), "the entries since the last snapshot count");
    let (done, text) = recover(&cluster, survivor, &[]);
    assert!(!done && text.contains("Aborted"), "nobody is there to say yes: {text}");
    let (done, text) = recover(&cluster, survivor, &["--yes"]);
    assert!(done && text.contains("0 becomes 1"), "{text}");
    cluster.start(survivor);
    assert_eq!(cluster.wait_writable(30), survivor);
    assert_eq!(cluster.nodes[survivor].sql("SELECT one FROM kept").as_deref(), Some("1"));
    assert_eq!(cluster.system_identifier(survivor), sysid);

    // One that kept its raft directory is told to give it up, and has no part in anything.
    cluster.start(other);
    wait_until("words for the node that was left behind", 20, || {
        cluster.nodes[other].said("this node was left behind by `surus recover`") > 0
            && cluster.nodes[survivor].said("it was left behind by `surus recover`") > 0
    });
    assert_eq!(cluster.leader(), survivor);
    cluster.nodes[other].kill();
    for k in [lost, other] {
        std::fs::remove_dir_all(cluster.nodes[k].state()).expect("nobody lives there");
        cluster.start(k);
    }
    assert_eq!(cluster.wait_settled(60), survivor);
    wait_until("three voters of the new epoch", 20, || {
        let dump = cluster.nodes[survivor].dump().unwrap_or_default();
        dump["raft"]["voters"].as_array().is_some_and(|voters| voters.len() == 3)
    });
    assert_eq!(cluster.nodes[other].sql("SELECT one FROM kept").as_deref(), Some("1"));

    // The new majority is one: it does without the node that was recovered.
    cluster.nodes[survivor].kill();
    let next = cluster.wait_writable(30);
    assert_ne!(next, survivor);
}
