//! `surus demo` from the outside, with a shell script in place of the daemon and of PostgreSQL.
//!
//! One test, because a signal that ends a demo ends every demo of this process.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use surus::demo::{DemoArgs, run_with};

/// Far from the ports of the other tests and of a real demo.
const BASE_PORT: u16 = 28740;

struct Stage {
    /// Open to all: as root, PostgreSQL's user has to get in.
    root: tempfile::TempDir,
}

impl Stage {
    fn set() -> Stage {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let bin = root.path().join("bin");
        fs::create_dir(&bin).expect("it is new");
        for name in surus::host::programs::PROGRAMS {
            script(&bin.join(name), "echo 'postgres (PostgreSQL) 15.18'");
        }
        script(
            &root.path().join("surus"),
            "trap 'echo orderly; exit 0' TERM\necho started $$\nwhile :; do sleep 0.05; done",
        );
        Stage { root }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("demo")
    }

    fn args(&self) -> DemoArgs {
        DemoArgs {
            nodes: None,
            dir: Some(self.dir()),
            base_port: None,
            fresh: false,
            bin_dir: Some(self.root.path().join("bin")),
        }
    }

    fn start(&self, args: DemoArgs) -> JoinHandle<Result<i32, String>> {
        let program = self.root.path().join("surus");
        std::thread::spawn(move || run_with(args, program).map_err(|error| format!("{error:#}")))
    }

    /// Process ids that the node's daemon has had so far.
    fn pids(&self, node: &str) -> Vec<i32> {
        let log = fs::read_to_string(self.dir().join(node).join("surus.log")).unwrap_or_default();
        let words = log.lines().filter_map(|line| line.strip_prefix("started "));
        words.filter_map(|pid| pid.parse().ok()).collect()
    }

    fn log_has(&self, node: &str, text: &str) -> bool {
        let log = fs::read_to_string(self.dir().join(node).join("surus.log")).unwrap_or_default();
        log.contains(text)
    }
}

fn script(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).expect("it can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited 20 s for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id is not zero");
    rustix::process::kill_process(pid, signal).expect("it is there and ours");
}

fn ended(running: JoinHandle<Result<i32, String>>) -> Result<i32, String> {
    wait_for("the demo to end", || running.is_finished());
    running.join().expect("it does not panic")
}

fn stop(running: JoinHandle<Result<i32, String>>) {
    signal(std::process::id() as i32, rustix::process::Signal::TERM);
    assert_eq!(ended(running), Ok(0));
}

fn can_run_here() -> bool {
    let root = rustix::process::geteuid().is_root();
    let known = std::process::Command::new("id").args(["-u", "postgres"]).output();
    let possible = !root || known.is_ok_and(|output| output.status.success());
    if !possible {
        eprintln!("skipped: as root this needs the user postgres");
    }
    possible
}

#[test]
fn a_demo_lives_is_resumed_and_starts_over() {
    if !can_run_here() {
        return;
    }
    let stage = Stage::set();

    refusals_leave_nothing(&stage);

    let running = stage.start(DemoArgs { base_port: Some(BASE_PORT), ..stage.args() });
    wait_for("three daemons", || ["n1", "n2", "n3"].iter().all(|n| stage.pids(n).len() == 1));
    let second = ended(stage.start(stage.args())).expect_err("one demo per directory");
    assert!(second.contains("another `surus demo` runs in"), "{second}");

    signal(stage.pids("n2")[0], rustix::process::Signal::KILL);
    wait_for("n2's second daemon", || stage.pids("n2").len() == 2);
    stop(running);
    assert!(["n1", "n2", "n3"].iter().all(|node| stage.log_has(node, "orderly")));

    resumed(&stage);
    started_over(&stage);
}

fn refusals_leave_nothing(stage: &Stage) {
    let _taken = std::net::TcpListener::bind(("127.0.0.1", BASE_PORT + 11)).expect("it is free");
    let args = DemoArgs { base_port: Some(BASE_PORT), ..stage.args() };
    let refused = ended(stage.start(args)).expect_err("a port is in use");
    assert!(refused.contains(&format!("{} (REST of n2)", BASE_PORT + 11)), "{refused}");
    let args = DemoArgs { bin_dir: Some(stage.root.path().join("none")), ..stage.args() };
    assert!(ended(stage.start(args)).is_err());
    assert!(!stage.dir().exists());

    let foreign = stage.root.path().join("bin");
    let args = DemoArgs { dir: Some(foreign.clone()), fresh: true, ..stage.args() };
    let refused = ended(stage.start(args)).expect_err("it is somebody else's directory");
    assert!(refused.contains("no demo directory"), "{refused}");
    assert!(foreign.join("initdb").exists());
}

/// The same ports, passwords and files; more nodes are welcome, fewer are not.
fn resumed(stage: &Stage) {
    let config = || fs::read_to_string(stage.dir().join("n1/surus.yml")).expect("it is there");
    let before = config();
    let fewer = ended(stage.start(DemoArgs { nodes: Some(2), ..stage.args() }));
    assert!(fewer.is_err_and(|why| why.contains("--fresh starts over")));
    let mut leftover = std::process::Command::new(stage.root.path().join("surus"))
        .arg("run")
        .arg(stage.dir().join("n1/surus.yml"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the script runs");
    let running = stage.start(DemoArgs { nodes: Some(4), ..stage.args() });
    wait_for("the daemon of an earlier demo to end", || {
        leftover.try_wait().expect("it is our child").is_some()
    });
    wait_for("a fourth daemon", || stage.pids("n4").len() == 1 && stage.pids("n1").len() == 2);
    stop(running);
    assert_eq!(config(), before);
}

fn started_over(stage: &Stage) {
    let own = stage.dir().join("notes.txt");
    fs::write(&own, "mine").expect("it can be written");
    let args = DemoArgs { base_port: Some(BASE_PORT + 50), fresh: true, ..stage.args() };
    let running = stage.start(args);
    wait_for("three new daemons", || stage.pids("n3").len() == 1);
    stop(running);
    assert!(!stage.dir().join("n4").exists());
    assert!(own.exists(), "only what a demo makes may be removed");
}
