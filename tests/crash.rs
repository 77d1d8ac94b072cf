//! Nothing acknowledged is lost: under kill -9, under a power cut, and when files rot.
//!
//! The writers are this test binary, started again with a variable that says where to write.
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use surus::host::journal::Journal;
use surus::host::store::{LogStore, LogWrite, SledLog};
use tempfile::TempDir;

#[path = "common/disk.rs"]
mod disk;
use disk::{Loop, run, text};

const ROLE: &str = "SURUS_CRASH_WRITER";

/// Not a test by itself: the child that writes until it is killed.
#[test]
fn writer() {
    let Some(home) = std::env::var_os(ROLE).map(PathBuf::from) else { return };
    let (mut log, loaded) = SledLog::open(&home.join("log")).expect("the log opens");
    let mut journal = Journal::open(&home.join("journal")).expect("the journal opens");
    let mut next = loaded.entries.last().map_or(1, |entry| entry.0 + 1);
    loop {
        let entry = (next, next / 10, body(next));
        let write = LogWrite {
            entries: vec![entry],
            hard_state: Some(next.to_be_bytes().to_vec()),
            compact_to: next.checked_sub(60),
            ..LogWrite::default()
        };
        log.write(write).expect("the log writes");
        journal.append("node", next, &json!({ "n": next })).expect("the journal writes");
        // Straight to the pipe: libtest would keep what println! says.
        std::io::stderr().write_all(format!("{next}\n").as_bytes()).expect("the parent listens");
        next += 1;
    }
}

fn body(index: u64) -> Vec<u8> {
    vec![index as u8; (index as usize * 37) % 5_000]
}

fn start_writer(home: &Path) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = Command::new(std::env::current_exe().expect("a test has a file"))
        .args(["writer", "--exact", "--nocapture"])
        .env(ROLE, home)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the writer starts");
    let acknowledged = BufReader::new(child.stderr.take().expect("it is piped"));
    (child, acknowledged)
}

/// Everything acknowledged up to the end of the pipe; at least `count` lines.
fn read_numbers(from: &mut impl BufRead, count: usize) -> u64 {
    let mut last = 0;
    for line in from.lines().map_while(Result::ok).take(count) {
        last = line.trim().parse().unwrap_or_else(|_| panic!("the writer says: {line}"));
    }
    last
}

/// Both stores hold everything up to `acknowledged`, and at most one write more.
fn check(home: &Path, acknowledged: u64) {
    let (_, loaded) = SledLog::open(&home.join("log")).expect("the log opens");
    let last = loaded.entries.last().expect("it has entries").0;
    assert!(last == acknowledged || last == acknowledged + 1, "{last} for {acknowledged}");
    assert_eq!(loaded.hard_state, Some(last.to_be_bytes().to_vec()), "batches are atomic");
    for (index, term, bytes) in &loaded.entries {
        assert_eq!((*term, bytes), (index / 10, &body(*index)));
    }
    let journal = Journal::open(&home.join("journal")).expect("the journal opens");
    let (seq, record) = journal.last("node").expect("it reads").expect("it has records");
    assert!(seq == acknowledged || seq == acknowledged + 1, "{seq} for {acknowledged}");
    assert_eq!(record, json!({ "n": seq }));
}

#[test]
fn kill_9_loses_nothing_acknowledged() {
    let home = TempDir::new().expect("a directory");
    let mut acknowledged = 0;
    for round in 0..8 {
        let (mut child, mut pipe) = start_writer(home.path());
        let first = read_numbers(&mut pipe, 10 + round * 7);
        assert!(first > acknowledged, "it goes on where it was");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        acknowledged = read_numbers(&mut pipe, usize::MAX).max(first);
        check(home.path(), acknowledged);
    }
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let home = TempDir::new().expect("a directory");
    let image = home.path().join("disk");
    let attached =
        disk::make_image(&image).and_then(|()| Loop::attach(&image, home.path().join("mount")));
    let disk = match attached {
        Ok(disk) => disk,
        Err(why) if std::env::var_os("SURUS_REQUIRE_LOOP").is_none() => {
            return eprintln!("SKIPPED: no power cut can be played here: {why}");
        }
        Err(why) => panic!("{why}"),
    };
    for round in 0..6 {
        let stores = disk.mount.join(format!("round{round}"));
        fs::create_dir(&stores).expect("a directory can be made");
        // The parent's directory entry is the daemon's administrator's business, not the store's.
        run("sync", &["-f", text(&disk.mount)]).expect("it syncs");
        let (mut child, mut pipe) = start_writer(&stores);
        let first = read_numbers(&mut pipe, 5 + round * 20);
        // The writer is frozen, then the disk as it is: no sync, no unmount, dirty pages lost.
        rustix::process::kill_process(pid(&child), rustix::process::Signal::STOP).expect("stops");
        std::thread::sleep(Duration::from_millis(20));
        let after = home.path().join(format!("after{round}"));
        let (from, to) = (format!("if={}", image.display()), format!("of={}", after.display()));
        run("dd", &[&from, &to, "bs=1M", "iflag=direct"]).expect("it copies");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        let acknowledged = read_numbers(&mut pipe, usize::MAX).max(first);
        let cut = Loop::attach(&after, home.path().join(format!("cut{round}"))).expect("mounts");
        check(&cut.mount.join(format!("round{round}")), acknowledged);
        drop(cut);
        fs::remove_file(after).expect("it can be removed");
    }
}

fn pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_child(child)
}
