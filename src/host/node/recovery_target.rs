//! Watching a restored cluster recover, and where its recovery stopped.
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::NodeContext;
use crate::host::postgres::session::{Refusal, Session};
use crate::host::postgres::{Connection, Server};
use crate::pure::operation::Report;
use crate::pure::postgres::state::PgState;
use crate::pure::postgres::target::{PARAMETERS, RecoveryEnd, RecoveryProgress, last_switch};

const STEP: Duration = Duration::from_millis(250);
/// A server that lets nobody in is asked so often before that is the answer.
const DENIALS_MAX: u32 = 20;
/// Recovery that stands still for so long is given a hint.
const STILL: Duration = Duration::from_secs(10);

const WHERE: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
    pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_last_xact_replay_timestamp()::text, \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() END";

/// What one look at a recovering server found.
enum Look {
    Ended,
    Goes(RecoveryProgress),
    Denied(String),
}

/// Ends when the operation does.
struct Shown(Rc<NodeContext>);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.seen.borrow_mut().recovery = None;
        self.0.look.notify_one();
    }
}

/// Until PostgreSQL is out of recovery; it says how far it is, and what it waits for.
pub async fn await_recovery(context: &Rc<NodeContext>) -> Result<Report, String> {
    let server = context.server()?;
    let _doing = context.doing(PgState::StartingAfterBootstrap);
    let _shown = Shown(context.clone());
    let mut denials = 0;
    let (mut last, mut since) = (String::new(), Instant::now());
    loop {
        let Some(held) = server.hold_postmaster().await? else {
            return Err(format!("PostgreSQL ended while it recovered{}", server.last_words()));
        };
        match look(&server).await {
            Look::Ended => return Ok(Report::Done),
            Look::Denied(why) if denials >= DENIALS_MAX => return Err(why),
            Look::Denied(_) => denials += 1,
            Look::Goes(mut progress) => {
                let now = format!("{} {}", progress.lsn, progress.doing);
                if now != last {
                    (last, since) = (now, Instant::now());
                }
                progress.hint = hint(&server, &progress, since.elapsed() > STILL);
                show(context, progress);
            }
        }
        held.ended_within(STEP).await;
    }
}

fn show(context: &NodeContext, progress: RecoveryProgress) {
    let before = context.seen.borrow_mut().recovery.replace(progress.clone());
    let hint = before.map(|before| before.hint);
    if !progress.hint.is_empty() && hint.as_ref() != Some(&progress.hint) {
        tracing::warn!("{}", progress.text());
    }
    context.publish();
    context.look.notify_one();
}

/// What a person can do; nothing while recovery goes on by itself.
fn hint(server: &Server, progress: &RecoveryProgress, stands: bool) -> String {
    let Connection { host, port, user, .. } = &server.connection;
    if progress.paused {
        return format!(
            "it is paused at its target: look at it, and when it is what you want run `SELECT \
             pg_wal_replay_resume()` (host {host}, port {port}, user {user}, no password from here)"
        );
    }
    let file = progress.doing.strip_prefix("waiting for ");
    if let (true, Some(file)) = (stands, file) {
        return format!("it waits for {file}: is it in the archive, does restore_command find it?");
    }
    if stands && server.files().exists(&server.data_dir.join("standby.signal")) {
        let dir = server.data_dir.display();
        return format!(
            "standby.signal is there, so only a promotion ends it: pg_ctl promote -D {dir}"
        );
    }
    String::new()
}

async fn look(server: &Server) -> Look {
    let doing = server.startup_doing().await.unwrap_or_default();
    let starting = RecoveryProgress { doing, ..RecoveryProgress::default() };
    let session = match Session::open(&server.connection, "Surus recovery").await {
        Ok(session) => session,
        Err(Refusal::Denied(why)) => return Look::Denied(why),
        Err(Refusal::NotThere(_) | Refusal::Failed(_)) => return Look::Goes(starting),
    };
    let Ok(rows) = session.rows(WHERE).await else { return Look::Goes(starting) };
    let Some(row) = rows.first() else { return Look::Goes(starting) };
    if row.get(0) == Some("f") {
        return Look::Ended;
    }
    Look::Goes(RecoveryProgress {
        lsn: row.get(1).and_then(|text| text.parse().ok()).unwrap_or_default(),
        time: row.get(2).map(str::to_string),
        paused: row.get(3) == Some("t"),
        ..starting
    })
}

/// Where recovery stopped; refused when that is not what was asked for.
pub async fn check_target(context: &Rc<NodeContext>) -> Result<Report, String> {
    let server = context.server()?;
    let _doing = context.doing(PgState::StartingAfterBootstrap);
    let end = recovery_end(&server).await?;
    tracing::info!(
        timeline = end.timeline,
        lsn = %end.lsn,
        time = end.time.as_deref().unwrap_or("unknown"),
        asked = end.asked,
        reached = end.reached,
        "recovery stopped"
    );
    end.judge()?;
    Ok(Report::Recovered(end))
}

async fn recovery_end(server: &Server) -> Result<RecoveryEnd, String> {
    let session = server.session("Surus recovery").await?;
    let asked = PARAMETERS.map(|name| format!("pg_catalog.current_setting('{name}')")).join(", ");
    let question = format!(
        "SELECT ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(\
             pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int, \
         pg_catalog.pg_current_wal_insert_lsn(), \
         pg_catalog.pg_last_xact_replay_timestamp()::text, {asked}"
    );
    let rows = session.rows(&question).await?;
    let row = rows.first().ok_or("PostgreSQL did not say where it is")?;
    let timeline: u32 = row.get(0).and_then(|text| text.parse().ok()).unwrap_or_default();
    let lsn = row.get(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    let targets = PARAMETERS.iter().enumerate().filter_map(|(at, name)| {
        let value = row.get(3 + at).filter(|value| !value.is_empty())?;
        Some(format!("{name} = {value}"))
    });
    let asked = targets.last().unwrap_or_default();
    let switch = server.history_text(timeline).as_deref().and_then(last_switch);
    let (lsn, reached) = switch.unwrap_or((lsn, String::new()));
    let time = row.get(2).map(str::to_string);
    Ok(RecoveryEnd { timeline, lsn, time, asked, reached })
}
