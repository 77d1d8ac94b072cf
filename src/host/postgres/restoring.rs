//! A recovery that waits for a restore_command which does not come back: until it does, PostgreSQL looks at no
//! order to promote. It takes the command's death by a signal for a reason to end, so the way out is a restart.
use std::time::{Duration, Instant};

use super::Server;
use super::processes::{blocking, parent, pids, read, start_ticks};

/// Between two looks.
const STEP: Duration = Duration::from_millis(500);

/// One run of a program: a pid alone may be another's by now.
type Run = (i32, u64);

impl Server {
    /// Comes back once the startup process has waited for one and the same child for `patience`; which.
    /// What cannot be seen is not taken for a child that hangs.
    pub async fn restore_command_hangs(&self, patience: Duration) -> i32 {
        let mut since: Option<(Run, Instant)> = None;
        loop {
            let server = self.clone();
            let child = blocking(move || server.child_of_recovery()).await;
            since = match (child.and_then(|found| found).ok().flatten(), since) {
                (Some(run), Some((known, begun))) if run == known => {
                    if begun.elapsed() >= patience {
                        return run.0;
                    }
                    Some((known, begun))
                }
                (Some(run), _) => Some((run, Instant::now())),
                (None, _) => None,
            };
            tokio::time::sleep(STEP).await;
        }
    }

    /// The program that the startup process of this server has started.
    fn child_of_recovery(&self) -> Result<Option<Run>, String> {
        let Some(startup) = self.startup_process()? else { return Ok(None) };
        for pid in pids()? {
            if parent(pid)? == Some(startup) {
                return Ok(start_ticks(pid)?.map(|begun| (pid, begun)));
            }
        }
        Ok(None)
    }

    fn startup_process(&self) -> Result<Option<i32>, String> {
        for pid in self.presence()?.others {
            let title = read(pid, "cmdline")?.unwrap_or_default();
            if recovers(&String::from_utf8_lossy(&title)) {
                return Ok(Some(pid));
            }
        }
        Ok(None)
    }
}

/// `postgres: demo: startup recovering 000000010000000000000003`, with or without a cluster_name.
fn recovers(title: &str) -> bool {
    let title = title.trim_end_matches(['\0', ' ']);
    title.starts_with("postgres:")
        && [" startup recovering ", " startup waiting for "]
            .iter()
            .any(|words| title.contains(words))
        || title.ends_with(": startup")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_startup_process_is_told_by_its_title() {
        let title = "postgres: demo: startup recovering 000000010000000000000003\0\0";
        assert!(
            recovers(title) && recovers("postgres: startup waiting for 000000020000000000000003")
        );
        assert!(recovers("postgres: demo: startup  \0"));
        assert!(
            !recovers("postgres: demo: startup postgres 127.0.0.1(5) idle"),
            "a user of that name"
        );
        assert!(!recovers("postgres: demo: checkpointer "));
    }
}
