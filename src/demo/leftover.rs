//! Processes of this directory that an earlier demo, or a killed daemon, has left running.
//!
//! Nothing is found by name alone: a daemon is recognised by the configuration file in its
//! arguments, a PostgreSQL by the data directory it stands in.
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::plan::Plan;

/// How long a PostgreSQL may take for its fast shutdown before it is stopped at once.
const SERVER_WAIT: Duration = Duration::from_secs(20);
/// How long a daemon may take for its orderly stop.
const DAEMON_WAIT: Duration = Duration::from_secs(60);

/// Daemons that run with one of this plan's configuration files.
pub fn daemons(plan: &Plan) -> Vec<Pid> {
    let configs: Vec<Vec<u8>> = plan
        .names()
        .iter()
        .map(|node| plan.config(node).into_os_string().into_encoded_bytes())
        .collect();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| runs_one_of(*pid, &configs)).filter_map(Pid::from_raw).collect()
}

fn runs_one_of(pid: i32, configs: &[Vec<u8>]) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
    words.windows(2).any(|pair| pair[0] == b"run" && configs.iter().any(|c| c == pair[1]))
}

/// Ends daemons of an earlier demo in good order; one sentence if there were any.
pub fn stop_daemons(plan: &Plan) -> Option<String> {
    let found = daemons(plan);
    if found.is_empty() {
        return None;
    }
    end(&found, Signal::TERM, DAEMON_WAIT);
    Some(format!("Ended {} daemon(s) that an earlier demo had left running.", found.len()))
}

/// The postmaster of this data directory, if one is alive.
pub fn postmaster(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let stands_in = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (stands_in == data.canonicalize().ok()?).then(|| Pid::from_raw(pid)).flatten()
}

/// Ends every PostgreSQL whose daemon is no longer there to do it; one sentence for each.
pub fn stop_servers(plan: &Plan) -> Vec<String> {
    let names = plan.names();
    let alive = names.iter().filter_map(|node| Some((node, postmaster(&plan.data(node))?)));
    let (nodes, pids): (Vec<&String>, Vec<Pid>) = alive.unzip();
    end(&pids, Signal::INT, SERVER_WAIT);
    end(&pids, Signal::QUIT, SERVER_WAIT);
    nodes.iter().map(|node| format!("Stopped the PostgreSQL that {node}'s daemon left.")).collect()
}

/// Signals all of them, then waits until none is left or the time is over.
fn end(pids: &[Pid], signal: Signal, wait: Duration) {
    for pid in pids {
        let _ = kill_process(*pid, signal);
    }
    let began = Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) && began.elapsed() < wait {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process that has ended but was not reaped (some containers' init never does) is not alive.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|text| {
        let state = text.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        !matches!(state, Some('Z' | 'X') | None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_foreign_process_in_the_pid_file_is_no_postmaster() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let file = data.path().join("postmaster.pid");
        fs::write(&file, format!("{}\n", std::process::id())).expect("it can be written");
        assert_eq!(postmaster(data.path()), None);

        let mut child =
            Command::new("sleep").arg("60").current_dir(data.path()).spawn().expect("sleep runs");
        fs::write(&file, format!("{}\n", child.id())).expect("it can be written");
        let found = postmaster(data.path());
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        assert_eq!(found, Pid::from_raw(child.id() as i32));
        assert_eq!(postmaster(data.path()), None);
    }
}
