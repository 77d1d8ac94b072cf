//! The text of `postmaster.pid`: who runs on this data directory, and how far it is.

/// What the lock file says; lines that are not written yet are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostmasterPid {
    pub pid: i32,
    pub data_dir: String,
    /// Seconds since 1970.
    pub start_time: u64,
    pub port: Option<u16>,
    pub socket_dir: Option<String>,
    pub listen_addr: Option<String>,
    pub status: Option<Status>,
}

/// The last line: how far the postmaster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Starting,
    Stopping,
    /// Accepts connections, in or out of recovery.
    Ready,
    /// In recovery and not accepting connections.
    Standby,
}

/// Reads the file; a file without a first line or with a stand-alone backend's negative pid is
/// an error, as nothing can be said about a postmaster then.
pub fn parse(text: &str) -> Result<PostmasterPid, String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let line = |number: usize| lines.get(number).copied().filter(|text| !text.is_empty());
    let first = line(0).ok_or("postmaster.pid is empty: a server is just starting, or crashed")?;
    let pid: i32 = first
        .parse()
        .map_err(|_| format!("postmaster.pid, line 1: `{first}` is not a process id"))?;
    if pid <= 0 {
        return Err(format!("postmaster.pid names the stand-alone backend {}", -i64::from(pid)));
    }
    Ok(PostmasterPid {
        pid,
        data_dir: line(1).unwrap_or_default().to_owned(),
        start_time: line(2).and_then(|text| text.parse().ok()).unwrap_or(0),
        port: line(3).and_then(|text| text.parse().ok()),
        socket_dir: line(4).map(str::to_owned),
        listen_addr: line(5).map(str::to_owned),
        status: line(7).and_then(status),
    })
}

fn status(word: &str) -> Option<Status> {
    match word {
        "starting" => Some(Status::Starting),
        "stopping" => Some(Status::Stopping),
        "ready" => Some(Status::Ready),
        "standby" => Some(Status::Standby),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str =
        "4711\n/data/pg\n1795318965\n5433\n/run/pg\nlocalhost\n  5432  3\nready   \n";

    #[test]
    fn reads_a_running_server() {
        let file = parse(SAMPLE).expect("whole");
        assert_eq!((file.pid, file.port, file.start_time), (4711, Some(5433), 1_795_318_965));
        assert_eq!(file.status, Some(Status::Ready));
        assert_eq!(file.socket_dir.as_deref(), Some("/run/pg"));
    }

    #[test]
    fn reads_a_half_written_file_and_no_socket_dir() {
        let file = parse("4711\n/data/pg\n1795318965\n5433\n\n").expect("half");
        assert_eq!((file.status, file.socket_dir), (None, None));
        assert!(parse("").is_err());
        assert!(parse("-12\n/data\n").expect_err("single user").contains("12"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-0-9a-z/\n ]{0,60}") {
            if let Ok(file) = parse(&text) {
                prop_assert!(file.pid > 0);
            }
        }
    }
}
