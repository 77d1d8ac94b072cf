//! Building a replica: the checks before, the copy with its progress, and what follows it.
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::NodeContext;
use super::copy::{arguments, clear, replication_remote};
use crate::host::clock;
use crate::host::postgres::processes::blocking;
use crate::host::postgres::replica::{Call, CopyProgress, Meter, News, Remote};
use crate::host::postgres::{Server, disk, method};
use crate::pure::cluster::facts::BuildProgress;
use crate::pure::config::{HostPort, ReplicaMethod};
use crate::pure::flow::replica_build::{BASEBACKUP, ReplicaBuild, State};
use crate::pure::machine::Flow;
use crate::pure::operation::{Report, Source, WipePermission};
use crate::pure::postgres::conninfo::pgpass;
use crate::pure::postgres::state::{PgState, Role};

/// Lines of a method's output that are shown.
const LINES_SHOWN: usize = 5;
const LINE_CHARS_MAX: usize = 300;
/// pg_basebackup says how far it is every second: one that says the same for so long hangs.
const STALL: Duration = Duration::from_secs(600);
/// Between two looks at how much a custom method has written; ten times a look's own time at least.
const DISK_LOOK: Duration = Duration::from_secs(1);
/// A copy whose recovery asks for the same segment for so long will not get it.
const SEGMENT_WAIT: Duration = Duration::from_secs(60);

/// What is seen of a copy while it is made.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub seen: CopyProgress,
    pub lines: Vec<String>,
}

/// Can the method run, and is its source the cluster that we want? Nothing is touched.
pub async fn check(
    context: &Rc<NodeContext>,
    name: &str,
    source: Option<Source>,
) -> Result<Report, String> {
    let server = context.server()?;
    let own = context.postgresql()?;
    *context.copying.borrow_mut() = Live::default();
    if source.as_ref().is_some_and(Source::is_remote) {
        super::remote::must_be_same_cluster(context).await?;
    }
    if let Some(custom) = custom(context, name)? {
        let program = server.script(method::command(&custom))?;
        if let Some(shown) = program.missing() {
            return Err(format!(
                "postgresql.{name}: there is no program `{shown}` that can be run: correct `command`"
            ));
        }
        if !custom.keep_data {
            super::room::for_copy(context, &server, source.as_ref()).await?;
        }
        return Ok(Report::Done);
    }
    server.check_basebackup(&arguments(&own.basebackup)).await?;
    let source = source.ok_or("there is nobody to copy from")?;
    let lineage = server.lineage(&remote(context, Some(&source)).await?).await?;
    match context.view().cluster.system_identifier() {
        Some(wanted) if wanted != lineage.system_identifier => Err(format!(
            "{} at {}:{} has the system identifier {}, this cluster has {wanted}: nothing is copied \
             from it",
            source.member, source.host, source.port, lineage.system_identifier
        )),
        _ => {
            super::room::for_copy(context, &server, Some(&source)).await?;
            Ok(Report::Done)
        }
    }
}

/// The user's method of this name; nothing for the one that is built in.
fn custom(context: &NodeContext, name: &str) -> Result<Option<ReplicaMethod>, String> {
    if name == BASEBACKUP {
        return Ok(None);
    }
    let own = context.postgresql()?;
    let all = own.methods(context.dynamic().standby_cluster.as_ref());
    let found = all.into_iter().find(|method| method.name == name);
    found.map(Some).ok_or_else(|| {
        format!("`{name}` is no longer among postgresql.create_replica_methods: reinitialize")
    })
}

/// How a tool reaches the source; only the replication user's password goes with it.
async fn remote(context: &Rc<NodeContext>, source: Option<&Source>) -> Result<Remote, String> {
    let Some(source) = source else { return Ok(Remote::default()) };
    let address = HostPort { host: source.host.clone(), port: source.port };
    let passfile = pgpass(&context.postgresql()?.replication, &address);
    Ok(Remote { passfile, ..replication_remote(context, source).await? })
}

/// Runs one replica method. What an earlier life left running or lying here goes first.
pub async fn copy(
    context: &Rc<NodeContext>,
    name: &str,
    source: Option<Source>,
    keep_data: bool,
) -> Result<Report, String> {
    let server = context.server()?;
    if server.kill_leftovers().await? > 0 {
        tracing::warn!("ended a copy that an earlier life had left running");
    }
    if !keep_data {
        clear(context, WipePermission::OwnLeftovers).await?;
    } else {
        super::unarchived::hand_over(context, &server).await?;
    }
    let _doing = context.doing(PgState::CreatingReplica);
    context.seen.borrow_mut().role = Role::Uninitialized;
    *context.copying.borrow_mut() = Live::default();
    let remote = remote(context, source.as_ref()).await?;
    match (custom(context, name)?, source) {
        (Some(method), _) => {
            run_method(context, &server, &method, &remote, keep_data).await?;
            if server.files().exists(&server.data_dir.join("PG_VERSION")) {
                server.complete_restored(Vec::new()).await?;
                keep_recovery(context, &server, &method).await?;
            }
        }
        (None, Some(source)) => {
            let options = arguments(&context.postgresql()?.basebackup);
            let copying = basebackup(context, &server, &remote, &options);
            tokio::join!(copying, super::start_stop::foresee(context, &server, &source)).0?;
            server.keep_restore_command(None).await?;
            context.seen.borrow_mut().flushed_copy = true;
        }
        (None, None) => return Err(String::from("there is nobody to copy from")),
    }
    Ok(Report::Done)
}

/// The restore_command that the tool wrote: kept, or left out with a word.
async fn keep_recovery(
    context: &NodeContext,
    server: &Server,
    method: &ReplicaMethod,
) -> Result<(), String> {
    let left = server.restore_command_of_tool().await?;
    let dynamic = context.dynamic();
    let section = dynamic.standby_cluster.as_ref();
    let named = context.settings().recovery_conf.contains_key("restore_command")
        || section.is_some_and(|section| section.restore_command.is_some());
    if left.is_some() && !named && !method.keep_existing_recovery_conf {
        tracing::warn!(
            method = method.name,
            "the restore_command that the method wrote is left out: set \
             postgresql.recovery_conf.restore_command, or keep_existing_recovery_conf: true in the \
             method's section"
        );
    }
    server.keep_restore_command(left.filter(|_| method.keep_existing_recovery_conf)).await
}

async fn basebackup(
    context: &Rc<NodeContext>,
    server: &Server,
    remote: &Remote,
    options: &[String],
) -> Result<(), String> {
    let (told, mut heard) = unbounded_channel();
    let mut on_news = move |news| {
        told.send(news).ok();
    };
    let copying = server.basebackup(remote, options, &mut on_news);
    tokio::pin!(copying);
    let mut moved = Instant::now();
    loop {
        let before = context.copying.borrow().seen.bytes_done;
        tokio::select! {
            done = &mut copying => return done,
            Some(news) = heard.recv() => note(context, news),
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        if context.copying.borrow().seen.bytes_done != before {
            moved = Instant::now();
        } else if before > 0 && moved.elapsed() > STALL {
            return Err(format!("no byte came for {} s: given up", STALL.as_secs()));
        }
    }
}

async fn run_method(
    context: &Rc<NodeContext>,
    server: &Server,
    method: &ReplicaMethod,
    remote: &Remote,
    keep_data: bool,
) -> Result<(), String> {
    let config = context.config();
    let call = method::MethodCall {
        scope: &config.scope,
        data_dir: &server.data_dir,
        connstring: &remote.conninfo,
    };
    let call = Call {
        name: &method.name,
        command: method::command(method),
        arguments: method::arguments(method, &call),
        keep_data,
    };
    let (told, heard) = unbounded_channel();
    let mut on_news = move |news| {
        told.send(news).ok();
    };
    tokio::select! {
        ran = server.run_method(&call, remote, &mut on_news) => ran.map(|_| ()),
        () = weigh(context, server, heard) => Err(String::from("nobody watches the copy")),
    }
}

/// How much of the copy is on the disk, and what the method says; never ends by itself.
async fn weigh(context: &Rc<NodeContext>, server: &Server, mut heard: UnboundedReceiver<News>) {
    let mut meter = Meter::default();
    let mut nap = DISK_LOOK;
    loop {
        tokio::select! {
            Some(news) = heard.recv() => note(context, news),
            () = tokio::time::sleep(nap) => {
                let (weighed, begun) = (server.clone(), Instant::now());
                let weigh = move || disk::bytes_in(weighed.files(), &weighed.data_dir);
                let bytes = blocking(weigh).await.unwrap_or(0);
                nap = DISK_LOOK.max(begun.elapsed() * 10);
                note(context, News::Bytes(meter.read(bytes, 0)));
            }
        }
    }
}

fn note(context: &NodeContext, news: News) {
    match news {
        News::Bytes(seen) => {
            context.copying.borrow_mut().seen = seen;
            context.look.notify_one();
        }
        News::Said(line) => {
            tracing::debug!(line, "the method says");
            let live = &mut *context.copying.borrow_mut();
            live.lines.push(line.chars().take(LINE_CHARS_MAX).collect());
            let excess = live.lines.len().saturating_sub(LINES_SHOWN);
            live.lines.drain(..excess);
        }
    }
}

/// The build that is under way here, as people are shown it.
pub fn progress(context: &NodeContext) -> Option<BuildProgress> {
    let flows = context.flows.borrow();
    let (state, known) = flows.running_build()?;
    let mut progress = known.progress(*state)?;
    let until = context.machines.borrow().get(ReplicaBuild::ID)?.until;
    let live = context.copying.borrow();
    if !matches!(state, State::Waiting | State::Leaderless | State::BackingOff) {
        let seen = live.seen;
        (progress.bytes_done, progress.bytes_total) = (seen.bytes_done, seen.bytes_total);
        progress.bytes_per_second = seen.bytes_per_second;
        let left = seen.bytes_total.saturating_sub(seen.bytes_done);
        let eta = left.checked_div(seen.bytes_per_second);
        progress.eta_s = eta.filter(|_| seen.bytes_total > 0 && *state == State::Copying);
        let waits = live.lines.last().is_some_and(|line| line.contains("waiting for checkpoint"));
        if waits && seen.bytes_done == 0 && *state == State::Copying {
            progress.phase = String::from("waiting for a checkpoint of the source");
        }
    }
    progress.last_lines = live.lines.clone();
    let until = until.filter(|_| *state == State::BackingOff);
    progress.next_attempt_s = until.map(|at| at.saturating_sub(clock::now()).div_ceil(1000));
    Some(progress)
}

/// Resolves, with a sentence, when recovery of a copy has asked for one segment of WAL for too long.
pub async fn waits_in_vain(server: &Server) -> String {
    let mut asked: Option<(String, Instant)> = None;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let doing = server.startup_doing().await.unwrap_or_default();
        let wanted = doing.strip_prefix("waiting for ").map(str::to_owned);
        asked = match (wanted, asked) {
            (None, _) => None,
            (Some(now), Some((before, since))) if now == before => Some((before, since)),
            (Some(now), _) => Some((now, Instant::now())),
        };
        if let Some((segment, since)) = &asked
            && since.elapsed() > SEGMENT_WAIT
        {
            return format!(
                "the copy needs the WAL segment {segment}, which neither the upstream nor \
                 restore_command has"
            );
        }
    }
}

/// Until the walreceiver streams; a node that shall not stream is done when it runs.
pub async fn watch_replay(context: &Rc<NodeContext>) -> Result<Report, String> {
    let nostream = context.config().tags.nostream();
    loop {
        super::monitor::look(context, 0).await;
        let (alive, streams) = {
            let seen = context.seen.borrow();
            let streams = seen
                .sql
                .as_ref()
                .is_some_and(|sql| nostream || sql.replication_state.is_some() || !sql.in_recovery);
            (seen.postmaster_alive, streams)
        };
        if streams {
            return Ok(Report::Done);
        }
        if !alive {
            return Err(String::from("PostgreSQL died before it streamed"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
