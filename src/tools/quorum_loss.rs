//! `surus recover`: a stopped node becomes the only voter of a cluster whose majority is lost.
//!
//! Works on the files alone: the lock of the store refuses while a daemon runs. Everything changes
//! in one durable write or not at all; the journal gets an entry for whoever asks later.
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, openat2};
use serde_json::json;

use crate::ctl::{self, client, prompt};
use crate::host::clock;
use crate::host::journal::Journal;
use crate::host::restored::{founding_record_of, restored};
use crate::host::store::{Identity, LogStore, LogWrite, SledLog};
use crate::pure::cluster::RaftId;
use crate::pure::consensus::quorum_loss::{Recovery, recover};

/// Where the audit entry stands in the journal.
pub const MACHINE: &str = "recover";

/// The words behind `surus recover`.
#[derive(Args, Debug)]
pub struct RecoverArgs {
    /// The node's configuration file
    #[arg(short = 'c', long = "config-file", value_name = "FILE")]
    config: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs `surus recover`; its exit code.
pub fn run(args: &RecoverArgs) -> i32 {
    ctl::exit_code(perform(args))
}

fn perform(args: &RecoverArgs) -> ctl::Outcome {
    let config = client::load_named(&args.config)?;
    if config.postgresql.is_none() {
        return Err(ctl::Stop::Error(String::from(
            "a witness holds no data: recover on a surviving node with a PostgreSQL",
        )));
    }
    let prepared = prepare(&config.raft.data_dir).map_err(ctl::Stop::Error)?;
    ctl::output::line(&prepared.text(&config.name));
    if !args.yes {
        prompt::confirm("Are the lost nodes off, and will they stay off? Go on?")?;
    }
    prepared.write().map_err(ctl::Stop::Error)?;
    ctl::output::line("Recovered. Start the daemon of this node; it leads by itself.");
    Ok(())
}

/// A recovery that was thought through and not yet written.
pub struct Prepared {
    pub id: RaftId,
    pub recovery: Recovery,
    state_dir: PathBuf,
    log: SledLog,
}

/// Opens a stopped node's state directory and plans its recovery; changes nothing.
///
/// # Errors
/// One sentence: a daemon runs on it, it is not there, it is damaged, or it is of no cluster.
pub fn prepare(state_dir: &Path) -> Result<Prepared, String> {
    let path = state_dir.join("log");
    if !path.join("db").exists() {
        return Err(format!(
            "{}: there is no Raft log; is raft.data_dir the right directory?",
            path.display()
        ));
    }
    let (log, loaded) = SledLog::open(&path).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => {
            format!("the daemon of this node runs: stop it first ({error})")
        }
        _ => error.to_string(),
    })?;
    let wrong = |what: &str| format!("{}: {what}", path.display());
    let identity = loaded.identity.clone().ok_or_else(|| wrong("it does not say whose it is"))?;
    let founding_record = founding_record_of(&loaded)?;
    let id = identity.raft_id;
    let recovery = recover(id, &restored(&loaded)?, &founding_record, &clock::wall())?;
    Ok(Prepared { id, recovery, state_dir: state_dir.to_owned(), log })
}

impl Prepared {
    /// What will be done, for the operator's eyes.
    pub fn text(&self, name: &str) -> String {
        let Recovery { term, last_index, voters_before, learners_before, founding_record, .. } =
            &self.recovery;
        let mut lines = vec![
            format!("node           {name} ({:016x})", self.id),
            format!("term           {term}, last index {last_index}"),
            format!("voters before  {}", names(voters_before)),
            format!("voters after   {name} ({:016x})", self.id),
            format!(
                "epoch          {} becomes {}",
                founding_record.cluster_epoch - 1,
                founding_record.cluster_epoch
            ),
        ];
        if !learners_before.is_empty() {
            lines.push(format!("without a vote {}", names(learners_before)));
        }
        if let Some(set) = &self.recovery.not_synchronous {
            lines.push(format!(
                "WARNING: this node was not synchronous ({} were): transactions that were \
                 acknowledged may be missing here",
                set.join(", ")
            ));
        }
        lines.push(String::from(
            "Do this on one node only, the one with the most data. A lost node that still runs \
             would still accept its clients; one that returns is refused until its raft.data_dir \
             is moved away.",
        ));
        lines.join("\n")
    }

    /// Writes it, durably and all at once, and an entry into the journal.
    ///
    /// # Errors
    /// One sentence; if it is about the journal, the recovery itself is done.
    pub fn write(mut self) -> Result<(), String> {
        let recovery = &self.recovery;
        let bytes = |message: &dyn protobuf::Message| {
            message.write_to_bytes().expect("it fits into memory")
        };
        let founding_record = &recovery.founding_record;
        let write = LogWrite {
            snapshot: Some(bytes(&recovery.snapshot)),
            entries: Vec::new(),
            hard_state: Some(bytes(&recovery.hard_state)),
            compact_to: Some(u64::MAX),
            identity: Some(Identity {
                raft_id: self.id,
                cluster_id: founding_record.cluster_id.clone(),
                cluster_epoch: founding_record.cluster_epoch,
            }),
            genesis: Some(serde_json::to_value(founding_record).expect("promises are plain data")),
        };
        self.log.write(write).map_err(|error| format!("nothing was changed: {error}"))?;
        let audited = self.note();
        drop(self.log);
        keep_owner(&self.state_dir)
            .map_err(|error| format!("{}: {error}", self.state_dir.display()))?;
        audited.map_err(|error| format!("it is done, but could not be noted: {error}"))
    }

    fn note(&self) -> io::Result<()> {
        let (mut journal, aside) = Journal::open_or_begin_anew(&self.state_dir.join("journal"))?;
        if let Some(sentence) = aside {
            ctl::output::line(&sentence);
        }
        let seq = journal.last(MACHINE)?.map_or(1, |(seq, _)| seq + 1);
        let recovery = &self.recovery;
        let record = json!({
            "seq": seq,
            "from": "majority_lost",
            "to": "recovered",
            "cause": "surus recover",
            "wall": clock::wall(),
            "knowledge": {
                "raft_id": self.id,
                "term": recovery.term,
                "last_index": recovery.last_index,
                "voters_before": recovery.voters_before,
                "learners_before": recovery.learners_before,
                "cluster_epoch": recovery.founding_record.cluster_epoch,
            },
        });
        journal.append(MACHINE, seq, &record)
    }
}

fn names(ids: &[(RaftId, String)]) -> String {
    let one = |(id, name): &(RaftId, String)| match name.as_str() {
        "" => format!("{id:016x}"),
        name => format!("{name} ({id:016x})"),
    };
    ids.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Files that root's hand made here go to whom the directory belongs: the daemon's user.
fn keep_owner(state_dir: &Path) -> io::Result<()> {
    // Held, and no link is followed: its owner may change what lies there while we, as root, give it away.
    let held = File::open(state_dir)?;
    let owner = held.metadata()?;
    let mut open = vec![PathBuf::from("log"), PathBuf::from("journal")];
    while let Some(path) = open.pop() {
        let way = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = File::from(openat2(&held, &path, flags, Mode::empty(), way)?);
        let meta = found.metadata()?;
        if (meta.uid(), meta.gid()) != (owner.uid(), owner.gid()) {
            let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
            chownat(&found, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        if meta.is_dir() {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            let dir = openat2(&held, &path, flags, Mode::empty(), way)?;
            for entry in Dir::read_from(&dir)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                open.extend((name != "." && name != "..").then(|| path.join(name)));
            }
        }
    }
    Ok(())
}
