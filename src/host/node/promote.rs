//! What a leader does: guard, promotion, roles, and words to the log.
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::NodeContext;
use super::execute::until_view_changes;
use crate::host::actor::consensus::{GiveUpVote, Propose, lock};
use crate::host::clock;
use crate::host::guard::{Guard, stray};
use crate::host::postgres::Server;
use crate::host::postgres::bootstrap_marker::Phase;
use crate::host::postgres::create::script_dsn;
use crate::host::postgres::held::Hold;
use crate::host::postgres::processes::blocking;
use crate::host::postgres::removal::make_data_dir;
use crate::host::watchdog::{Mode, Watchdog};
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::consensus::core::Input;
use crate::pure::operation::{Ran, Report};
use crate::pure::postgres::conninfo::pgpass;
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::Role;

/// One attempt to put a command into the log; then it is proposed again.
const PROPOSE_MAX: Duration = Duration::from_millis(1500);
const STEP: Duration = Duration::from_millis(50);
/// Within the flow's own limit.
const PROMOTE_MAX: Duration = Duration::from_secs(110);
/// Between two attempts to replace a guard.
const REPLACE_AGAIN: Duration = Duration::from_millis(500);

/// How those who work with the guard keep out of each other's way.
#[derive(Default)]
pub struct Guarding {
    /// Taken by whoever looks for a guard, or starts one.
    one_at_a_time: tokio::sync::Mutex<()>,
    /// There is another guard than before.
    changed: Notify,
}

/// A guard of an earlier life, if it lives: from now on it is told of every new deadline.
pub async fn find_guard(context: &Rc<NodeContext>) {
    let Ok(server) = context.server() else { return };
    let noted = match guard_home(&server).join("guard.pid").try_exists() {
        Ok(noted) => noted,
        Err(problem) => {
            // One may be armed: nothing is said of what it is bound to.
            tracing::warn!(%problem, "could not look for an earlier life's guard");
            return;
        }
    };
    if context.guard.borrow().is_none() && noted {
        match ensure_guard(context).await {
            Ok(guard) if guard.armed().is_some() => follow_deadline(context, &guard),
            Ok(_) => {}
            Err(problem) => {
                tracing::warn!(problem, "an earlier life's guard was not found");
                return;
            }
        }
    }
    lock(&context.deadline).knows_guard = true;
    end_strays(context).await;
}

/// From now on the guard's page says what the consensus says; at once what that said last.
fn follow_deadline(context: &NodeContext, guard: &Guard) {
    let mut shared = lock(&context.deadline);
    shared.guard = Some(guard.handle());
    let epoch = shared.epoch;
    if let Some(latest) = shared.deadline_of(epoch) {
        guard.set_deadline(epoch, latest);
    }
}

async fn end_strays(context: &Rc<NodeContext>) {
    let Ok(server) = context.server() else { return };
    let known = context.guard.borrow().as_ref().and_then(|g| g.view().pid);
    match blocking(move || stray::end_strays(&server.data_dir, known, None)).await {
        Ok(0) | Err(_) => {}
        Ok(ended) => tracing::warn!(ended, "ended guards that an earlier life had left behind"),
    }
}

/// Where notes about the guard are kept: ours, not PostgreSQL's account's.
fn guard_home(server: &Server) -> &Path {
    server.held.home().unwrap_or(&server.state_dir)
}

async fn ensure_guard(context: &Rc<NodeContext>) -> Result<Rc<Guard>, String> {
    // Two that are started at once would not know of each other.
    let _one_at_a_time = context.guarding.one_at_a_time.lock().await;
    if let Some(guard) = context.guard.borrow().clone().filter(|g| g.is_alive()) {
        return Ok(guard);
    }
    let server = context.server()?;
    // One that replaces another takes over what its page says at some moment from now on.
    lock(&context.deadline).knows_guard = false;
    let guard = blocking(move || Guard::ensure(&server.data_dir, guard_home(&server), None))
        .await?
        .map_err(|error| format!("the guard could not be started: {error}"))?;
    let guard = Rc::new(guard);
    *context.guard.borrow_mut() = Some(guard.clone());
    context.guarding.changed.notify_one();
    Ok(guard)
}

/// A guard that stands, and is armed for this epoch with a deadline that is ahead.
pub async fn arm_guard(context: &Rc<NodeContext>, epoch: u64) -> Result<Report, String> {
    make_room(&context.server()?).await?;
    let guard = ensure_guard(context).await?;
    let deadline = loop {
        let known = { lock(&context.deadline).deadline_of(epoch) };
        if let Some(deadline) = known.filter(|at| *at > clock::now()) {
            break deadline;
        }
        until_view_changes(context, STEP).await;
    };
    // First, so that where one is required and missing nothing is armed.
    wake_watchdog(context)?;
    // From its first armed look on the guard holds whom we hold.
    if let Some(held) = context.server()?.hold_postmaster().await? {
        guard.watch(held.pid);
    }
    let not_armed = |error| format!("the guard was not armed: {error}");
    {
        // In one step: what the consensus says meanwhile is never overwritten by what it said before.
        let mut shared = lock(&context.deadline);
        let latest = shared.deadline_of(epoch).unwrap_or(deadline);
        guard.write_grant(epoch, latest).map_err(not_armed)?;
        (shared.guard, shared.knows_guard) = (Some(guard.handle()), true);
    }
    guard.is_seen().map_err(not_armed)?;
    Ok(Report::Done)
}

/// The kernel's watchdog, where the configuration wants one.
fn wake_watchdog(context: &NodeContext) -> Result<(), String> {
    let config = context.config();
    let mode = Mode::of(&config.watchdog);
    if mode == Mode::Off || lock(&context.deadline).watchdog.is_some() {
        return Ok(());
    }
    let ttl_ms = context.view().cluster.lease.as_ref().map_or(0, |lease| lease.ttl_ms);
    match Watchdog::activate(&config.watchdog, ttl_ms) {
        Ok(watchdog) => lock(&context.deadline).watchdog = Some(watchdog),
        Err(problem) if mode == Mode::Required => return Err(problem),
        Err(problem) => tracing::info!(problem, "goes on without a watchdog"),
    }
    Ok(())
}

/// The section `watchdog` changed: an open device is closed and, while the guard is armed, the one that is
/// wanted now is opened.
///
/// # Errors
/// A device is required and cannot be used.
pub fn change_watchdog(context: &NodeContext) -> Result<(), String> {
    let (open, armed) = {
        let mut shared = lock(&context.deadline);
        (shared.watchdog.take(), shared.guard.is_some())
    };
    open.into_iter().for_each(Watchdog::stand_down);
    if armed { wake_watchdog(context) } else { Ok(()) }
}

/// A data directory that is missing is left to whoever fills it, as far as that one may make it.
async fn make_room(server: &Server) -> Result<(), String> {
    let dir = &server.data_dir;
    if let (false, Some(parent)) = (server.files().exists(dir), dir.parent()) {
        server
            .files()
            .at(parent, || std::fs::create_dir_all(parent))
            .map_err(|error| format!("could not make {}: {error}", parent.display()))?;
        if server.may_write(parent).await {
            return Ok(());
        }
    }
    make_data_dir(dir, server.run_as.as_ref())
}

/// A guard that is killed is replaced at once: its end is an event, not found at the pulse.
pub async fn watch_guard(context: Rc<NodeContext>) {
    loop {
        let guard = context.guard.borrow().clone();
        match guard.as_ref().map(|guard| Hold::of(guard.pid() as i32, guard.hold()?)) {
            Some(Ok(hold)) => {
                tokio::select! { () = hold.ended() => {}, () = context.guarding.changed.notified() => continue }
            }
            // None yet, or no descriptor left: the pulse looks, too.
            None | Some(Err(_)) => {
                tokio::select! {
                    () = tokio::time::sleep(REPLACE_AGAIN) => {}
                    () = context.guarding.changed.notified() => continue,
                }
            }
        }
        super::cycle::replace_dead_guard(&context).await;
        tokio::time::sleep(STEP).await;
    }
}

/// Refuses to go on towards writes unless the guard is armed for this epoch.
pub fn must_be_armed(context: &NodeContext, epoch: u64) -> Result<(), String> {
    let guard = context.guard.borrow();
    match guard.as_ref().and_then(|g| g.armed().filter(|_| g.is_alive())) {
        Some((armed, deadline)) if armed == epoch && deadline > clock::now() => Ok(()),
        other => Err(format!("the guard is not armed for epoch {epoch}: {other:?}")),
    }
}

pub async fn disarm_guard(context: &Rc<NodeContext>) -> Result<Report, String> {
    let Ok(server) = context.server() else { return Ok(Report::Done) };
    if !server.cannot_write().await? {
        return Err(String::from("PostgreSQL still runs: the guard stays armed"));
    }
    let watchdog = {
        let mut shared = lock(&context.deadline);
        shared.guard = None;
        shared.watchdog.take()
    };
    watchdog.into_iter().for_each(Watchdog::stand_down);
    if let Some(guard) = context.guard.borrow().as_ref() {
        guard.disarm();
    }
    Ok(Report::Done)
}

pub async fn promote(context: &Rc<NodeContext>, timeline: u32) -> Result<Report, String> {
    let server = context.server()?;
    let epoch = lock(&context.deadline).epoch;
    must_be_armed(context, epoch)?;
    super::start_stop::must_be_ours(context, &server).await?;
    server.skip_timelines(timeline).await?;
    let patience = Duration::from_millis(context.dynamic().retry_timeout_ms);
    let promoted = tokio::select! {
        promoted = server.promote(PROMOTE_MAX) => promoted?,
        child = server.restore_command_hangs(patience) => {
            tracing::warn!(
                child,
                "recovery waits for a restore_command that does not come back: PostgreSQL is started again \
                 without it, and promoted then"
            );
            super::start_stop::restart_without_archive(context).await?;
            server.promote(PROMOTE_MAX).await?
        }
    };
    let (timeline, _) = promoted;
    let way = server.own_history(timeline)?.unwrap_or_default();
    context.seen.borrow_mut().role = Role::Primary;
    super::monitor::look(context, 0).await;
    super::slots::keep_slots(context).await;
    super::callbacks::started(context, Role::Primary);
    actix::spawn(async move {
        // Others rewind against us: the control file must name the new timeline soon.
        if let Err(problem) = server.checkpoint().await {
            tracing::warn!(problem, "the checkpoint after the promotion failed");
        }
    });
    Ok(Report::Promoted { timeline, way })
}

pub async fn post_bootstrap(context: &Rc<NodeContext>) -> Result<Report, String> {
    let config = context.config();
    let script = config.bootstrap.as_ref().and_then(|b| b.post_bootstrap.clone());
    let (Some(script), Some(own)) = (script, &config.postgresql) else { return Ok(Report::Done) };
    let server = context.server()?;
    let to = server.script_connection().await?;
    let dsn = script_dsn(&to);
    let address = crate::pure::config::HostPort { host: to.host.clone(), port: own.port };
    let bootstrap_marker = server.bootstrap_marker();
    if bootstrap_marker
        .as_ref()
        .is_some_and(|bootstrap_marker| bootstrap_marker.phase == Phase::Scripted)
    {
        tracing::info!("post_bootstrap ended well before the daemon died; it is not run again");
        return Ok(Report::Done);
    }
    let output = server.post_bootstrap(&script, &dsn, &pgpass(&own.superuser, &address)).await?;
    if let Some(bootstrap_marker) = bootstrap_marker {
        server.mark_bootstrap(&bootstrap_marker.at(Phase::Scripted)).await?;
    }
    let program = String::from("post_bootstrap");
    Ok(Report::Ran(Ran { program, code: output.code, tail: output.tail }))
}

pub async fn pre_promote(context: &Rc<NodeContext>) -> Result<Report, String> {
    let Some(command) = context.settings().pre_promote else { return Ok(Report::Done) };
    context.server()?.script(&command)?.run().await?;
    Ok(Report::Done)
}

/// Until the command was applied, or refused; the flow's own time bounds it.
pub async fn propose(context: &Rc<NodeContext>, command: Command) -> Result<Report, String> {
    let command = with_wall_clock(command);
    loop {
        let (reply, answer) = oneshot::channel();
        context.consensus.do_send(Propose(command.clone(), reply));
        match tokio::time::timeout(PROPOSE_MAX, answer).await {
            Ok(Ok(Ok(Outcome::Done))) => return Ok(Report::Applied),
            Ok(Ok(Ok(Outcome::Refused(why)))) => return Err(why),
            Ok(Ok(Err(why))) => tracing::debug!(why, "proposes again"),
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Pure code has no clock: texts for people get theirs here.
fn with_wall_clock(command: Command) -> Command {
    match command {
        Command::AddHistory { mut row, timeline, way } => {
            row.timestamp = clock::wall();
            Command::AddHistory { row, timeline, way }
        }
        Command::InitialiseFailed { epoch, node, reason, .. } => {
            Command::InitialiseFailed { epoch, node, reason, at: clock::wall() }
        }
        other => other,
    }
}

/// Until the member says that it has our WAL up to the shutdown checkpoint, and that record too.
pub async fn await_received(
    context: &Rc<NodeContext>,
    member: &str,
    (timeline, lsn): (u32, Lsn),
) -> Result<Report, String> {
    if lsn == Lsn(0) {
        return Err(String::from("PostgreSQL did not stop cleanly"));
    }
    loop {
        let view = context.view();
        let Some((id, _)) = view.cluster.member_named(member) else {
            return Err(format!("{member} is not a member"));
        };
        let heard = view.facts.get(&id).and_then(|h| h.facts.sql.as_ref());
        if heard.is_some_and(|sql| sql.has_received(timeline, Lsn(lsn.0 + 1))) {
            return Ok(Report::Done);
        }
        context.feed_consensus(Input::AskMember { id });
        until_view_changes(context, STEP).await;
    }
}

pub async fn give_up_vote(context: &Rc<NodeContext>) -> Result<Report, String> {
    let (reply, answer) = oneshot::channel();
    context.consensus.do_send(GiveUpVote(reply));
    answer.await.map_err(|_| String::from("the consensus is gone"))?.map(|_| Report::Done)
}
