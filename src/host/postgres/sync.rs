//! Whether commits wait for synchronous standbys.
use std::time::{Duration, Instant};

use super::Server;
use super::session::Session;
use crate::pure::cluster::sync::STRICT_PLACEHOLDER;

/// Between two looks at whether the commit waits.
const STEP: Duration = Duration::from_millis(5);
/// Between two commits, once the first ones have not waited.
const PAUSE_MAX: Duration = Duration::from_millis(100);
const NAMES: &str = "SELECT pg_catalog.current_setting('synchronous_standby_names')";
/// The smallest transaction that has something to wait for; what is cancelled on purpose is not logged.
const COMMIT: &str = "SET synchronous_commit TO on; SET log_min_messages TO error; \
    SELECT pg_catalog.pg_logical_emit_message(true, 'surus', '')";

impl Server {
    /// Nobody is named who could ever have confirmed a commit.
    pub async fn may_wait_for_nobody(&self) -> Result<bool, String> {
        let names = self.session("Surus reload").await?.value(NAMES).await?;
        Ok(names.is_none_or(|names| names.is_empty() || names == STRICT_PLACEHOLDER))
    }

    /// Returns when commits are seen to wait; `synchronous_standby_names` names nobody who exists.
    ///
    /// A setting that is shown is not yet in force: backends ask a flag in shared memory that only the
    /// checkpointer sets, once it reads its files again, and it may hang in a flush for as long as the disk
    /// does (SyncRepUpdateSyncStandbysDefined in PostgreSQL's syncrep.c).
    ///
    /// # Errors
    /// They do not wait within `timeout`, or PostgreSQL does not answer.
    pub async fn await_commits_wait(&self, timeout: Duration) -> Result<(), String> {
        let begun = Instant::now();
        let (watcher, committer) =
            tokio::try_join!(self.session("Surus reload"), self.session("Surus commit"))?;
        let mut pause = STEP;
        while begun.elapsed() < timeout {
            if waits(&watcher, &committer, timeout.saturating_sub(begun.elapsed())).await? {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
        Err(format!("commits do not wait for synchronous standbys {timeout:?} after the reload"))
    }
}

/// Commits, and watches whether that waits; a commit that waits is cancelled.
async fn waits(watcher: &Session, committer: &Session, limit: Duration) -> Result<bool, String> {
    let pid = committer.value("SELECT pg_catalog.pg_backend_pid()").await?.unwrap_or_default();
    tokio::select! {
        done = committer.run(COMMIT) => done.map(|()| false),
        seen = tokio::time::timeout(limit, seen_waiting(watcher, &pid)) => match seen {
            Ok(seen) => seen.map(|()| true),
            Err(_) => Ok(false),
        },
    }
}

async fn seen_waiting(watcher: &Session, pid: &str) -> Result<(), String> {
    let event = format!("SELECT wait_event FROM pg_catalog.pg_stat_activity WHERE pid = {pid}");
    while watcher.value(&event).await?.as_deref() != Some("SyncRep") {
        tokio::time::sleep(STEP).await;
    }
    watcher.run(&format!("SELECT pg_catalog.pg_cancel_backend({pid})")).await
}
