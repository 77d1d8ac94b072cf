//! A fast shutdown that somebody else holds up: an archive_command that hangs, a replica that takes nothing.
//!
//! Once the control file says that it is shut down, this server takes no write any more, whatever happens: its
//! shutdown checkpoint is the end of the WAL. It only sends and archives what is there. Where that gets no
//! further, what is left is ended, and nothing is missing here.
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Server;
use super::held::Hold;
use super::processes::{blocking, parent, read};

/// Between two looks.
const STEP: Duration = Duration::from_millis(300);
/// What the archiver gets when it is alone; what it leaves is archived later.
const ARCHIVER_MAX: Duration = Duration::from_secs(3);
/// What the clients of logical decoding get, of everything: the shutdown checkpoint waits for them, and where
/// they go on afterwards is kept in their slots.
const LOGICAL_MAX: Duration = Duration::from_secs(5);
/// Their processes. Their titles are those of physical ones.
const LOGICAL: &str = "SELECT active_pid FROM pg_catalog.pg_replication_slots \
    WHERE slot_type OPERATOR(pg_catalog.=) 'logical' AND active_pid IS NOT NULL";
/// How long a replica may take nothing.
const REPLICA_MAX: Duration = Duration::from_secs(10);

impl Server {
    /// The walsenders of logical decoding, asked for before a stop; none where PostgreSQL does not say.
    pub(super) async fn logical_walsenders(&self, postmaster: &Hold) -> Vec<Hold> {
        let Ok(session) = self.session("Surus stop").await else { return Vec::new() };
        let rows = session.rows(LOGICAL).await.unwrap_or_default();
        let pids = rows.iter().filter_map(|row| row.get(0)?.parse().ok());
        pids.filter_map(|pid: i32| {
            let held = Hold::open(pid).ok().flatten()?;
            (parent(pid) == Ok(Some(postmaster.pid))).then_some(held)
        })
        .collect()
    }

    /// Waits for the end of a fast shutdown. `false`: not within `limit`, or all is written and it is held up.
    /// Those that serve logical decoding are ended before that, once they have had their time.
    pub(super) async fn shuts_down_within(
        &self,
        postmaster: &Hold,
        mut logical: Vec<Hold>,
        limit: Duration,
    ) -> bool {
        let begun = Instant::now();
        let mut standstill = Standstill::default();
        while let Some(left) = limit.checked_sub(begun.elapsed()) {
            if postmaster.ended_within(left.min(STEP)).await {
                return true;
            }
            if begun.elapsed() >= LOGICAL_MAX {
                end_all(&mut logical);
            }
            if !self.control().await.is_ok_and(|control| control.clean()) {
                continue;
            }
            let Ok(walsenders) = self.walsenders().await else {
                standstill = Standstill::default();
                continue;
            };
            if standstill.is_over(&walsenders, Instant::now()) {
                tracing::warn!(
                    ?walsenders,
                    "PostgreSQL has shut down by its control file, but its archiver or a walsender gets no \
                     further: what is left of it is ended"
                );
                return false;
            }
        }
        false
    }

    /// The title of every walsender; a physical one's says how far it has sent.
    async fn walsenders(&self) -> Result<Vec<String>, String> {
        let server = self.clone();
        let look = move || {
            let mut titles = Vec::new();
            for pid in server.presence()?.others {
                let bytes = read(pid, "cmdline")?.unwrap_or_default();
                let title = String::from_utf8_lossy(&bytes);
                titles
                    .extend(title.contains("walsender ").then(|| title.trim_matches('\0').into()));
            }
            Ok(titles)
        };
        blocking(look).await?
    }
}

/// As pg_terminate_backend does it, again and again: the first time the walsender may be about to say farewell
/// to a client that takes nothing.
fn end_all(walsenders: &mut Vec<Hold>) {
    walsenders.retain(|walsender| !walsender.is_ended());
    for walsender in walsenders {
        tracing::warn!(
            pid = walsender.pid,
            "a client of logical decoding takes nothing and holds up the shutdown: its walsender is ended"
        );
        if let Err(error) = walsender.signal(Signal::TERM) {
            tracing::debug!(%error, pid = walsender.pid, "could not end a walsender");
        }
    }
}

/// What the walsenders were at, and since when.
#[derive(Default)]
struct Standstill {
    seen: Option<(Vec<String>, Instant)>,
}

impl Standstill {
    /// Nothing has moved for so long that nothing will.
    fn is_over(&mut self, walsenders: &[String], now: Instant) -> bool {
        match &self.seen {
            Some((known, since)) if known == walsenders => {
                patience(walsenders).is_some_and(|patience| now.duration_since(*since) >= patience)
            }
            _ => {
                self.seen = Some((walsenders.to_vec(), now));
                false
            }
        }
    }
}

/// `None`: somebody's progress cannot be seen, so that a standstill cannot be, either.
fn patience(walsenders: &[String]) -> Option<Duration> {
    if walsenders.is_empty() {
        return Some(ARCHIVER_MAX);
    }
    walsenders.iter().all(|title| title.contains(" streaming ")).then_some(REPLICA_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_seen_to_stand_still_is_given_up() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let sender = |at: &str| vec![format!("postgres: demo: walsender boss 127.0.0.1(1) {at}")];
        let mut archiver = Standstill::default();
        assert!(!archiver.is_over(&[], at(0)));
        assert!(!archiver.is_over(&[], at(2)));
        assert!(archiver.is_over(&[], at(3)));
        let mut replica = Standstill::default();
        assert!(!replica.is_over(&sender("streaming 0/1"), at(0)));
        assert!(!replica.is_over(&sender("streaming 0/2"), at(9)), "it moves");
        assert!(!replica.is_over(&sender("streaming 0/2"), at(18)));
        assert!(replica.is_over(&sender("streaming 0/2"), at(19)));
        let mut unseen = Standstill::default();
        assert!(!unseen.is_over(&sender("START_REPLICATION"), at(0)));
        assert!(!unseen.is_over(&sender("START_REPLICATION"), at(600)));
    }
}
