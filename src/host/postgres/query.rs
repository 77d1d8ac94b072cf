//! The monitoring query: everything the cluster wants to know of a running server, in one answer.
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio_postgres::SimpleQueryRow;

use super::Connection;
use super::session::{Refusal, Session};
use crate::pure::cluster::facts::{Slot, SqlFacts, Walsender};
use crate::pure::postgres::lsn::Lsn;

/// One statement for PostgreSQL 13 to 18. Functions that recovery forbids stand behind a CASE. Once nothing streams,
/// the control file may be a timeline behind what was received and replayed: the names of the WAL files tell.
const FACTS: &str = r#"
WITH here AS (SELECT pg_catalog.pg_is_in_recovery() AS rec),
receiver AS (
    SELECT status, received_tli, latest_end_lsn FROM pg_catalog.pg_stat_wal_receiver LIMIT 1)
SELECT here.rec AS in_recovery,
    pg_catalog.current_setting('server_version_num') AS server_version,
    (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system_identifier,
    pg_catalog.to_char(pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC',
        'YYYY-MM-DD HH24:MI:SS.US') || '+00:00' AS postmaster_start_time,
    CASE WHEN here.rec THEN GREATEST(
            (SELECT received_tli FROM receiver),
            CASE WHEN NOT EXISTS (SELECT FROM receiver) THEN (
                SELECT max(('x' || pg_catalog.substr(name, 1, 8))::bit(32)::int)
                FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$') END,
            (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()),
            (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))
        ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(
            pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline,
    CASE WHEN here.rec THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END AS flush_lsn,
    CASE WHEN here.rec THEN pg_catalog.pg_last_wal_receive_lsn() END AS receive_lsn,
    CASE WHEN here.rec THEN pg_catalog.pg_last_wal_replay_lsn() END AS replay_lsn,
    CASE WHEN here.rec THEN pg_catalog.to_char(
        pg_catalog.pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC',
        'YYYY-MM-DD HH24:MI:SS.US') || '+00:00' END AS replay_timestamp,
    CASE WHEN here.rec THEN pg_catalog.pg_is_wal_replay_paused() ELSE false END AS replay_paused,
    CASE WHEN NOT here.rec THEN NULL
        WHEN (SELECT status FROM receiver) = 'streaming' THEN 'streaming'
        WHEN pg_catalog.current_setting('restore_command', true) <> ''
        THEN 'in archive recovery' END AS replication_state,
    (SELECT latest_end_lsn FROM receiver) AS latest_end_lsn,
    pg_catalog.current_setting('synchronous_standby_names') AS synchronous_standby_names,
    (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', slot_name, 'physical', slot_type = 'physical', 'active', active,
        'restart_lsn', restart_lsn::text, 'lost', wal_status = 'lost') ORDER BY slot_name)
        FROM pg_catalog.pg_replication_slots) AS slots,
    (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'usename', usename, 'application_name', application_name,
        'client_addr', pg_catalog.host(client_addr), 'state', state, 'sync_state', sync_state,
        'sync_priority', sync_priority, 'flush_lsn', flush_lsn::text)
        ORDER BY application_name, pid)
        FROM pg_catalog.pg_stat_replication) AS replication
FROM here"#;

/// Keeps one connection open and asks over it; a login that is refused is tried again with a pause.
#[derive(Default)]
pub struct Monitor {
    connection: Connection,
    session: Option<Session>,
    refused: Option<Refused>,
}

struct Refused {
    why: Refusal,
    until: Instant,
    pause: Duration,
}

/// Between two attempts to log in where the last one was refused: doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Monitor {
    /// Asks once; a connection that turns out to be lost is opened again once. Bounded by about
    /// 5 s. Where `to` is not what it was, the old connection is closed.
    ///
    /// # Errors
    /// [`Refusal`]; within the pause after a refused login the same one again.
    pub async fn facts(&mut self, to: &Connection) -> Result<SqlFacts, Refusal> {
        if self.connection != *to {
            *self = Monitor { connection: to.clone(), ..Monitor::default() };
        }
        // Taken out: whatever goes wrong, or cancels us, a half-read session is not used again.
        if let Some(session) = self.session.take() {
            match ask(&session).await {
                Ok(facts) => {
                    self.session = Some(session);
                    return Ok(facts);
                }
                Err(error) if !session.is_closed() => return Err(Refusal::Failed(error)),
                Err(_) => {}
            }
        }
        let session = self.open().await?;
        let facts = ask(&session).await.map_err(Refusal::Failed)?;
        self.session = Some(session);
        Ok(facts)
    }

    async fn open(&mut self) -> Result<Session, Refusal> {
        if let Some(refused) = self.refused.as_ref().filter(|it| Instant::now() < it.until) {
            return Err(refused.why.clone());
        }
        let opened = Session::open(&self.connection, "Surus heartbeat").await;
        let last = self.refused.take();
        if let Err(why) = &opened
            && why.is_denied()
        {
            let pause = last.map_or(PAUSE_MIN, |last| (last.pause * 2).min(PAUSE_MAX));
            let until = Instant::now() + pause;
            self.refused = Some(Refused { why: why.clone(), until, pause });
        }
        opened
    }
}

async fn ask(session: &Session) -> Result<SqlFacts, String> {
    let rows = session.rows(FACTS).await?;
    let row = rows.first().ok_or("PostgreSQL gave no facts")?;
    facts(row).ok_or_else(|| "PostgreSQL gave facts that cannot be read".into())
}

fn facts(row: &SimpleQueryRow) -> Option<SqlFacts> {
    let text = |name: &str| row.get(name);
    let lsn = |name: &str| text(name).and_then(|t| t.parse().ok()).unwrap_or(Lsn(0));
    Some(SqlFacts {
        left: None,
        in_recovery: text("in_recovery")? == "t",
        server_version: text("server_version")?.parse().ok()?,
        system_identifier: text("system_identifier")?.to_owned(),
        postmaster_start_time: text("postmaster_start_time")?.to_owned(),
        timeline: text("timeline")?.parse().ok()?,
        flush_lsn: lsn("flush_lsn"),
        receive_lsn: lsn("receive_lsn"),
        replay_lsn: lsn("replay_lsn"),
        replay_timestamp: text("replay_timestamp").map(str::to_owned),
        replay_paused: text("replay_paused")? == "t",
        replication_state: text("replication_state").map(str::to_owned),
        latest_end_lsn: lsn("latest_end_lsn"),
        replication: list(text("replication"), WalsenderRow::into)?,
        synchronous_standby_names: text("synchronous_standby_names")?.to_owned(),
        names_are_ours: false,
        waits_since: Lsn::default(),
        waits_for: Default::default(),
        slots: list(text("slots"), SlotRow::into)?,
    })
}

fn list<R: serde::de::DeserializeOwned, T>(
    json: Option<&str>,
    convert: impl Fn(R) -> T,
) -> Option<Vec<T>> {
    let Some(json) = json else { return Some(Vec::new()) };
    let rows: Vec<R> = serde_json::from_str(json).ok()?;
    Some(rows.into_iter().map(convert).collect())
}

#[derive(Deserialize)]
struct SlotRow {
    name: String,
    physical: bool,
    active: bool,
    restart_lsn: Option<String>,
    lost: Option<bool>,
}

impl From<SlotRow> for Slot {
    fn from(row: SlotRow) -> Slot {
        Slot {
            name: row.name,
            physical: row.physical,
            active: row.active,
            restart_lsn: position(row.restart_lsn),
            lost: row.lost == Some(true),
        }
    }
}

/// A superuser sees every column; anybody else nulls.
#[derive(Deserialize)]
struct WalsenderRow {
    usename: Option<String>,
    application_name: Option<String>,
    client_addr: Option<String>,
    state: Option<String>,
    sync_state: Option<String>,
    sync_priority: Option<i32>,
    flush_lsn: Option<String>,
}

impl From<WalsenderRow> for Walsender {
    fn from(row: WalsenderRow) -> Walsender {
        Walsender {
            usename: row.usename.unwrap_or_default(),
            application_name: row.application_name.unwrap_or_default(),
            client_addr: row.client_addr,
            state: row.state.unwrap_or_default(),
            sync_state: row.sync_state.unwrap_or_default(),
            sync_priority: row.sync_priority.unwrap_or_default(),
            flush_lsn: position(row.flush_lsn),
        }
    }
}

fn position(text: Option<String>) -> Lsn {
    text.and_then(|text| text.parse().ok()).unwrap_or(Lsn(0))
}
