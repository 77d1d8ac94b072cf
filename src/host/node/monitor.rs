//! The observer: asks PostgreSQL, tells the others, and notices its death at once.
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::Addr;
use serde_json::json;
use tokio::sync::mpsc;

use super::NodeContext;
use crate::host::actor::consensus::Word;
use crate::host::actor::flow::{FlowActor, PostgresDied};
use crate::host::postgres::Server;
use crate::host::postgres::conf_files::ConfFiles;
use crate::host::postgres::processes::blocking;
use crate::host::postgres::query::Monitor;
use crate::host::postgres::session::Refusal;
use crate::pure::cluster::facts::{SqlFacts, SqlFailure};
use crate::pure::consensus::core::Input;
use crate::pure::postgres::history::Switch;
use crate::pure::postgres::state::Role;

/// Between two looks that fail.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A look at one file.
const DATA_LOOK_MAX: Duration = Duration::from_secs(2);

thread_local! {
    /// The one monitoring connection of this thread; taken out while it is in use.
    static MONITOR: RefCell<Option<Monitor>> = const { RefCell::new(None) };
}

/// Looks at every pulse, whenever somebody asks, and whenever something changed.
pub async fn keep_polling(context: Rc<NodeContext>, mut words: mpsc::UnboundedReceiver<Word>) {
    loop {
        let pulse = Duration::from_millis(context.dynamic().loop_wait_ms);
        let round = tokio::select! {
            word = words.recv() => match word {
                Some(Word::AskFresh(round)) => round,
                None => return,
            },
            () = context.look.notified() => 0,
            () = tokio::time::sleep(pulse) => 0,
        };
        look(&context, round).await;
    }
}

/// One look; the facts go to the others, with the round that asked for them.
pub async fn look(context: &Rc<NodeContext>, round: u64) {
    let before = fingerprint(context);
    if context.seen.borrow().postmaster_alive {
        let ours = context.sync_names.borrow().is_some();
        let number = context.seen.borrow_mut().looks.begin();
        let answer = query(context).await;
        let answer =
            answer.map(|sql| SqlFacts { names_are_ours: ours, left: left(context, &sql), ..sql });
        note(context, number, answer);
    }
    let facts = context.facts(round);
    context.feed_consensus(Input::Local(Box::new(facts)));
    if fingerprint(context) != before {
        context.changed.notify_one();
    }
}

/// What a primary's timeline left: read once for each.
fn left(context: &NodeContext, sql: &SqlFacts) -> Option<Switch> {
    if sql.in_recovery {
        return None;
    }
    let known = context.seen.borrow().left.filter(|(timeline, _)| *timeline == sql.timeline);
    if let Some((_, left)) = known {
        return left;
    }
    let way = context.server().and_then(|server| server.own_history(sql.timeline));
    let left = match way {
        Ok(way) => way.and_then(|way| way.last().copied()),
        Err(problem) => {
            context.warn_once(&format!(
                "cannot read where timeline {} began: {problem}",
                sql.timeline
            ));
            return None;
        }
    };
    context.seen.borrow_mut().left = Some((sql.timeline, left));
    left
}

/// Several look at once: an operation that changed something does, and so does whoever asks.
fn note(context: &NodeContext, number: u64, answer: Answer) {
    let standby = context.standby_role();
    let mut seen = context.seen.borrow_mut();
    if !seen.looks.is_news(number) {
        return;
    }
    match &answer {
        Ok(sql) => seen.role = if sql.in_recovery { standby } else { Role::Primary },
        Err((_, Some(in_recovery))) => {
            seen.role = if *in_recovery { standby } else { Role::Primary }
        }
        Err(_) => {}
    }
    let alive = seen.postmaster_alive;
    let failure = answer.as_ref().err().and_then(|(failure, _)| failure.clone()).filter(|_| alive);
    note_failure(&seen.sql_failure, &failure, answer.is_ok());
    seen.sql_failure = failure;
    seen.sql = answer.ok().filter(|_| alive);
}

/// A sentence when it changes; that all is well again is one, too.
fn note_failure(before: &Option<SqlFailure>, now: &Option<SqlFailure>, answers: bool) {
    match now {
        Some(now) if before.as_ref() != Some(now) && now.denied => tracing::error!(
            "PostgreSQL refuses Surus's own login: {}; check postgresql.authentication.superuser and \
             pg_hba.conf",
            now.text
        ),
        Some(now) if before.as_ref() != Some(now) => {
            tracing::warn!("PostgreSQL answers Surus's own questions with an error: {}", now.text);
        }
        None if before.is_some() && answers => {
            tracing::info!("PostgreSQL answers Surus's own questions again");
        }
        _ => {}
    }
}

fn fingerprint(context: &NodeContext) -> (Option<bool>, bool, bool) {
    let seen = context.seen.borrow();
    let in_recovery = seen.sql.as_ref().map(|sql| sql.in_recovery);
    (in_recovery, seen.postmaster_alive, seen.sql_failure.is_some())
}

/// Facts, or why there are none and whether the control file says that it is in recovery.
type Answer = Result<SqlFacts, (Option<SqlFailure>, Option<bool>)>;

async fn query(context: &NodeContext) -> Answer {
    let Ok(server) = context.server() else { return Err((None, None)) };
    let mut monitor = MONITOR.with_borrow_mut(Option::take).unwrap_or_default();
    let facts = monitor.facts(&server.connection).await;
    MONITOR.with_borrow_mut(|place| *place = Some(monitor));
    match facts {
        Ok(facts) => Ok(facts),
        Err(Refusal::Denied(text)) => {
            // Who is asked for a password is past recovery or in hot standby: the file is up to date.
            let control = server.control().await.ok();
            let in_recovery = control.map(|control| !control.out_of_recovery());
            Err((Some(SqlFailure { text, denied: true }), in_recovery))
        }
        Err(Refusal::Failed(text)) => Err((Some(SqlFailure { text, denied: false }), None)),
        Err(Refusal::NotThere(problem)) => {
            tracing::debug!(problem, "PostgreSQL did not answer");
            Err((None, None))
        }
    }
}

/// Holds on to whichever postmaster lives, and says so when it dies.
pub async fn watch_postmaster(context: Rc<NodeContext>, node: Addr<FlowActor>) {
    loop {
        let Ok(server) = context.server() else { return };
        let looked = server.hold_postmaster().await;
        // What was taken for a running server may have been a child of one that had just died.
        let missing = matches!(looked, Ok(None)) && context.seen.borrow().postmaster_alive;
        match looked {
            Ok(None) if missing => died(&context, &node),
            Ok(None) => {
                let nap = tokio::time::sleep(Duration::from_secs(5));
                tokio::select! {
                    () = context.started.notified() => {}
                    () = server.held.changed() => {}
                    () = nap => {}
                }
            }
            Ok(Some(held)) => {
                if let Some(guard) = context.guard.borrow().as_ref() {
                    guard.watch(held.pid);
                }
                context.seen.borrow_mut().postmaster_alive = true;
                held.ended().await;
                died(&context, &node);
            }
            Err(problem) => {
                context.warn_once(&format!("cannot see whether PostgreSQL runs: {problem}"));
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}

fn died(context: &Rc<NodeContext>, node: &Addr<FlowActor>) {
    let expected = {
        let mut seen = context.seen.borrow_mut();
        let number = seen.looks.begin();
        seen.looks.is_news(number); // whatever is being asked now answers for a server that is gone
        (seen.postmaster_alive, seen.sql, seen.data_is_gone) = (false, None, false);
        seen.sql_failure = None;
        let expected = seen.doing.is_some();
        seen.died_at = (!expected).then(tokio::time::Instant::now);
        expected
    };
    if !expected {
        tracing::warn!("the postmaster died");
    }
    node.do_send(PostgresDied);
    context.changed.notify_one();
    context.look.notify_one();
}

/// A server goes on for a while when its directory is removed or replaced under it, and what it
/// acknowledges then is nowhere. A disk that does not answer in time says nothing either way.
pub async fn watch_data(context: &Rc<NodeContext>) {
    let Ok(server) = context.server() else { return };
    let dir = server.data_dir.clone();
    let looked = blocking(move || server.data_is_in_place());
    let gone = match tokio::time::timeout(DATA_LOOK_MAX, looked)
        .await
        .map(|told| told.and_then(|told| told))
    {
        Err(_) => return,
        Ok(Ok(in_place)) => !in_place && context.seen.borrow().postmaster_alive,
        Ok(Err(problem)) => {
            tracing::warn!(problem, "nothing follows from that");
            return;
        }
    };
    if gone && !context.seen.borrow().data_is_gone {
        tracing::error!(dir = %dir.display(), "the data directory is gone, or is another one now");
        context.changed.notify_one();
    }
    context.seen.borrow_mut().data_is_gone = gone;
}

/// What a file changed that only a restart brings into force; recovery's own do not count.
const CHANGED_IN_FILES: &str = "SELECT coalesce(json_object_agg(s.name, json_build_object(
        'old_value', current_setting(s.name), 'new_value', coalesce(f.setting, s.boot_val))), '{}')
    FROM pg_catalog.pg_settings s
    LEFT JOIN LATERAL (SELECT setting FROM pg_catalog.pg_file_settings
        WHERE name = s.name ORDER BY seqno DESC LIMIT 1) f ON true
    WHERE s.pending_restart AND s.name !~ '^(hot_standby$|recovery_|primary_|promote_trigger)'";

/// Which settings differ from what runs: they wait for a restart.
///
/// Those on the command line are compared here (PostgreSQL then ignores the file's), those that
/// a standby must keep for its primary's sake are told apart, the others PostgreSQL knows itself.
pub async fn pending_restart(context: &Rc<NodeContext>, server: &Server, files: &ConfFiles) {
    let Ok(session) = server.session("Surus settings").await else { return };
    let told = session.value(CHANGED_IN_FILES).await.ok().flatten();
    let mut pending: serde_json::Map<String, serde_json::Value> =
        told.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    for argument in &files.arguments {
        let Some((name, value)) = argument.trim_start_matches("--").split_once('=') else {
            continue;
        };
        let question = format!("SELECT setting FROM pg_catalog.pg_settings WHERE name = '{name}'");
        if let Ok(Some(running)) = session.value(&question).await
            && running != value
            && !["listen_addresses", "cluster_name"].contains(&name)
        {
            pending.insert(name.to_string(), json!({"old_value": running, "new_value": value}));
        }
    }
    let mut seen = context.seen.borrow_mut();
    for (name, wanted, raised) in &seen.raised {
        pending.insert(name.clone(), json!({"old_value": raised, "new_value": wanted}));
    }
    seen.pending_restart = pending;
    drop(seen);
    context.look.notify_one();
}
