//! Orders to a running server: leave recovery, read the configuration again, checkpoint.
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Server;
use super::held::Hold;
use super::processes::blocking;
use super::session::{Refusal, Session, literal};
use super::timelines::skip;
use crate::pure::postgres::lsn::Lsn;

/// Between two looks at a server that leaves recovery.
const STEP: Duration = Duration::from_millis(10);

/// Needs a transaction id, which no server in recovery and none that is stopping gives.
const POSITION: &str = "SELECT pg_catalog.txid_current() IS NOT NULL, \
    ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(\
        pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int, \
    pg_catalog.pg_current_wal_flush_lsn()";

/// The timeline that a standby streams.
const RECEIVED: &str = "SELECT received_tli FROM pg_catalog.pg_stat_get_wal_receiver()";

impl Server {
    /// Leaves recovery; done when writes are possible. Answers the new timeline and position.
    pub async fn promote(&self, timeout: Duration) -> Result<(u32, Lsn), String> {
        let begun = Instant::now();
        let postmaster = self.running().await?;
        let mut session = self.session("Surus promote").await.ok();
        if !in_recovery(session.as_ref()).await.is_ok_and(|answer| !answer) {
            let server = self.clone();
            let order = move || server.files().write(&server.data_dir.join("promote"), "");
            blocking(order).await??;
            postmaster.signal(Signal::USR1).map_err(|error| {
                format!("could not signal the postmaster, process {}: {error}", postmaster.pid)
            })?;
        }
        let mut problem = String::new();
        while begun.elapsed() < timeout {
            if postmaster.ended_within(Duration::ZERO).await {
                return Err(format!(
                    "PostgreSQL died while it was promoted: see {}",
                    self.log_path().display()
                ));
            }
            if session.as_ref().is_none_or(Session::is_closed) {
                session = self.session("Surus promote").await.ok();
            }
            match in_recovery(session.as_ref()).await {
                Ok(false) => return self.position(session.as_ref()).await,
                Ok(true) => {}
                Err(text) => problem = format!(": {text}"),
            }
            tokio::time::sleep(STEP).await;
        }
        Err(format!("PostgreSQL is still in recovery {timeout:?} after the order{problem}"))
    }

    /// Makes the promotion that follows begin the timeline that was set aside for this lease: PostgreSQL
    /// takes the first number that has no history file. What is put there for the numbers between is no
    /// way from our timeline, so a running recovery leaves it alone.
    ///
    /// # Errors
    /// That number is behind us: under this lease it was begun before.
    pub async fn skip_timelines(&self, wanted: u32) -> Result<(), String> {
        let session = self.session("Surus promote").await.ok();
        let recovers = in_recovery(session.as_ref()).await.unwrap_or(true);
        if wanted == 0 || !recovers {
            return Ok(()); // set aside by an older version, or promoted before the daemon died
        }
        let received = match &session {
            Some(session) => session.value(RECEIVED).await.ok().flatten(),
            None => None,
        };
        let received = received.and_then(|text| text.parse().ok()).unwrap_or(0);
        let own = self.control().await?.position().0.max(received);
        let server = self.clone();
        blocking(move || skip(&server.data_dir.join("pg_wal"), own, wanted, server.files())).await?
    }

    async fn position(&self, session: Option<&Session>) -> Result<(u32, Lsn), String> {
        let session = session.ok_or("the connection was lost")?;
        session.run("SET synchronous_commit TO local").await?;
        let rows = session.rows(POSITION).await?;
        let row = rows.first().ok_or("PostgreSQL did not say where it is")?;
        let timeline = row.get(1).and_then(|text| text.parse().ok());
        let lsn = row.get(2).and_then(|text| text.parse().ok());
        timeline.zip(lsn).ok_or_else(|| "PostgreSQL did not say where it is".into())
    }

    /// Makes the server read its configuration files again.
    pub async fn reload(&self) -> Result<(), String> {
        let postmaster = self.running().await?;
        postmaster.signal(Signal::HUP).map_err(|error| format!("could not reload: {error}"))
    }

    /// Writes new configuration files and reloads; the signal files stay as they are.
    pub async fn reload_with(&self, files: &super::conf_files::ConfFiles) -> Result<(), String> {
        let (server, mut files) = (self.clone(), files.clone());
        files.signal = super::conf_files::Signal::Keep;
        blocking(move || server.write_conf_files(&files)).await??;
        self.reload().await
    }

    /// Waits until a reload has put `name` to `value`, as every new statement sees it.
    pub async fn await_setting(
        &self,
        name: &str,
        value: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let session = self.session("Surus reload").await?;
        let question = format!("SELECT pg_catalog.current_setting({})", literal(name));
        loop {
            let now = session.value(&question).await?.unwrap_or_default();
            if now == value {
                return Ok(());
            }
            if begun.elapsed() > timeout {
                return Err(format!("{name} is still `{now}` {timeout:?} after the reload"));
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// A checkpoint, as long as it takes.
    pub async fn checkpoint(&self) -> Result<(), String> {
        let session = Session::open_patient(&self.connection, "Surus checkpoint").await;
        session.map_err(Refusal::text)?.run("CHECKPOINT").await
    }

    /// A connection with short limits.
    pub async fn session(&self, application_name: &str) -> Result<Session, String> {
        Session::open(&self.connection, application_name).await.map_err(Refusal::text)
    }

    async fn running(&self) -> Result<Arc<Hold>, String> {
        self.hold_postmaster()
            .await?
            .ok_or_else(|| format!("PostgreSQL does not run on {}", self.data_dir.display()))
    }
}

async fn in_recovery(session: Option<&Session>) -> Result<bool, String> {
    let session = session.ok_or("no connection")?;
    let value = session.value("SELECT pg_catalog.pg_is_in_recovery()").await?;
    Ok(value.as_deref() != Some("f"))
}
