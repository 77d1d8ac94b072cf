//! Programs that the daemon starts die with their purpose; leftovers of an earlier life are found.
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use surus::host::postgres::callback::{Action, Callbacks};
use surus::host::postgres::processes::{self, kill_all};
use surus::host::postgres::program::{Program, Stream};

fn shell(script: &str, mark: &Path) -> Program {
    Program::new("sh", mark, None).args(["-c", script])
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until the file has a line, and answers it.
async fn line_of(path: &Path) -> String {
    until(|| text(path).ends_with('\n')).await;
    text(path).trim().to_owned()
}

async fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "never came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn alive(pid: &str) -> bool {
    // A zombie has an empty command line.
    !std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty()
}

#[tokio::test]
async fn output_and_exit_code_are_in_the_sentence() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = shell("seq 1 30; echo oops >&2; exit 7", dir.path()).run().await;
    let error = error.expect_err("exit 7");
    assert!(error.contains("exit code 7") && error.contains("oops"), "{error}");
    assert!(!error.contains(" 5 |") && error.contains(" 30"), "only the tail: {error}");
    let output = shell("printf 'a\\rb\\nc'", dir.path()).run().await.expect("fine");
    assert_eq!((output.stdout.as_str(), output.code), ("a\nb\nc\n", 0));
    let missing = Program::new("/no/such/program", dir.path(), None).run().await;
    assert!(missing.expect_err("missing").contains("/no/such/program"));
    let killed = shell("kill -9 $$", dir.path()).run_any(&mut |_, _| true).await;
    assert_eq!(killed.expect("an answer").code, -9);
}

#[tokio::test]
async fn lines_are_heard_as_they_come() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut heard = Vec::new();
    let script = "echo one; echo two >&2; echo three";
    let mut on_line = |stream: Stream, line: &str| {
        heard.push((stream, line.to_owned()));
        line != "three"
    };
    let output = shell(script, dir.path()).run_with(&mut on_line).await.expect("fine");
    assert_eq!(heard.len(), 3);
    assert!(heard.contains(&(Stream::Stderr, "two".into())));
    assert!(!output.tail.contains(&"three".to_owned()));
}

#[tokio::test]
async fn the_environment_is_marked_and_has_no_configuration() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // SAFETY: no other thread of this process reads the environment now.
    unsafe { std::env::set_var("PATRONI_SUPERUSER_PASSWORD", "hunter2") };
    let output = shell("env", dir.path()).env("PGPASSFILE", "/p").run().await.expect("fine");
    assert!(output.stdout.contains(&format!("SURUS_OPERATION={}\n", dir.path().display())));
    assert!(output.stdout.contains("PGPASSFILE=/p\n"));
    assert!(!output.stdout.contains("hunter2"));
}

#[tokio::test]
async fn a_dropped_program_takes_its_descendants_along() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let note = dir.path().join("pids");
    let script = format!("sleep 300 & echo $! $$ > {}; wait", note.display());
    let running = tokio::spawn(shell(&script, dir.path()).run());
    let pids = line_of(&note).await;
    assert!(pids.split(' ').all(alive));
    running.abort();
    until(|| !pids.split(' ').any(alive)).await;
}

#[tokio::test]
async fn descendants_do_not_outlive_an_ended_program() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let note = dir.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}", note.display());
    let begun = Instant::now();
    shell(&script, dir.path()).run().await.expect("fine");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let pid = line_of(&note).await;
    until(|| !alive(&pid)).await;
}

#[tokio::test]
async fn a_timeout_kills_and_says_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let note = dir.path().join("pid");
    let script = format!("echo $$ > {}; echo working; sleep 300", note.display());
    let limit = Duration::from_millis(300);
    let error = shell(&script, dir.path()).timeout(limit).run().await.expect_err("too slow");
    assert!(error.contains("300ms") && error.contains("working"), "{error}");
    let pid = line_of(&note).await;
    until(|| !alive(&pid)).await;
}

#[tokio::test]
async fn leftovers_of_an_earlier_life_are_killed_with_their_group() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let note = dir.path().join("pids");
    let script = format!("sleep 300 & setsid sleep 301 & echo $$ $! > {}; wait", note.display());
    let mut left = Command::new("setsid")
        .args(["sh", "-c", &script])
        .env(processes::MARK, dir.path())
        .env(processes::LIFE, "1-1")
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let own_note = dir.path().join("own");
    let script = format!("echo $$ > {}; exec sleep 302", own_note.display());
    let own = tokio::spawn(shell(&script, dir.path()).run());
    let own_pid = line_of(&own_note).await;
    let pids = line_of(&note).await;
    let mark = dir.path().display().to_string();
    let life = processes::this_life();
    until(|| processes::leftovers(&mark, &life).is_ok_and(|left| left.len() >= 3)).await;
    let killed = kill_all(|| processes::leftovers(&mark, &life), true, Duration::from_secs(5));
    assert!(killed.expect("killed") >= 3);
    left.wait().expect("reaped");
    assert!(!pids.split(' ').any(alive));
    assert!(alive(&own_pid), "what this life started goes on");
    own.abort();
}

/// Not a test of its own: the daemon that the next test kills.
#[tokio::test]
async fn daemon_that_is_killed() {
    let Some(dir) = std::env::var_os("DAEMON_DIR") else { return };
    let note = Path::new(&dir).join("pid");
    let script = format!("echo $$ > {}; exec sleep 300", note.display());
    let _ = shell(&script, Path::new(&dir)).run().await;
}

#[tokio::test]
async fn a_program_dies_with_a_killed_daemon() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let own = std::env::current_exe().expect("our own path");
    let mut daemon = Command::new(own)
        .args(["--exact", "daemon_that_is_killed"])
        .env("DAEMON_DIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let pid = line_of(&dir.path().join("pid")).await;
    assert!(alive(&pid));
    daemon.kill().expect("killed");
    daemon.wait().expect("reaped");
    until(|| !alive(&pid)).await;
}

/// Spec: CB-1.
#[tokio::test]
async fn a_newer_callback_kills_the_older_but_not_a_reload() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = dir.path().join("callback.sh");
    let body = format!(
        "echo $$ > {0}/$1.pid; echo \"$@\" > {0}/$1.said; [ $1 = on_role_change ] || sleep 300\n",
        dir.path().display()
    );
    std::fs::write(&script, body).expect("write");
    let command = format!("sh '{}'", script.display());
    let mut callbacks = Callbacks::new(dir.path().to_owned(), None);
    callbacks.call(Action::OnReload, &command, "replica", "demo");
    callbacks.call(Action::OnStart, &command, "replica", "demo");
    let older = line_of(&dir.path().join("on_start.pid")).await;
    let reload = line_of(&dir.path().join("on_reload.pid")).await;
    callbacks.call(Action::OnRoleChange, &command, "promoted", "demo");
    let said = line_of(&dir.path().join("on_role_change.said")).await;
    assert_eq!(said, "on_role_change primary demo");
    assert!(!alive(&older) && alive(&reload));
    drop(callbacks);
    until(|| !alive(&reload)).await;
}
