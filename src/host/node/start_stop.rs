//! Starting, stopping and pointing: PostgreSQL with the files that its role asks for.
use std::rc::Rc;
use std::time::Duration;

use super::{NodeContext, sync};
use crate::host::postgres::Server;
use crate::host::postgres::conf_files::{ConfFiles, Signal};
use crate::host::postgres::processes::blocking;
use crate::host::postgres::start::Ready;
use crate::host::postgres::stop::StoppedBy;
use crate::pure::cluster::facts::DataDirectory;
use crate::pure::cluster::facts::Phase;
use crate::pure::config::{HostPort, PostgresSettings, Postgresql};
use crate::pure::operation::{Inspection, Report, Source, StartAs, StopMode};
use crate::pure::postgres::conninfo::{PrimaryConninfo, pgpass};
use crate::pure::postgres::hba::{file_text, is_ours, unreadable};
use crate::pure::postgres::recovery::{Upstream, standby_parameters};
use crate::pure::postgres::settings::{self, Parameters, command_line, conf_text};
use crate::pure::postgres::state::{PgState, Role};
use crate::pure::postgres::version::Version;

/// Kept as the base of postgresql.conf; ours includes it.
const BASE_CONF: &str = "postgresql.base.conf";
/// A fast stop that takes longer becomes an immediate one.
const FAST_STOP_MAX: Duration = Duration::from_secs(45);

/// How long a server may replay what it has before it accepts connections.
const RECOVERY_MAX: Duration = Duration::from_secs(24 * 3600);

/// Between two looks of pg_ctl, and as much again.
const PG_CTL_LOOKS: Duration = Duration::from_millis(250);

/// A child whose postmaster died notices that at its first wait.
const CHILD_END_MAX: Duration = Duration::from_secs(2);

/// A look around from outside of any build: a copy that a server has run on is nobody's leftover.
pub async fn inspect(context: &Rc<NodeContext>) -> Result<Report, String> {
    let server = context.server()?;
    let found = server.inspect().await?;
    if found.unfinished.is_some() && matches!(found.data, DataDirectory::Present { .. }) {
        blocking(move || server.mark_finished()).await??;
    }
    look_around(context).await
}

/// Looks at everything that an earlier life may have left, and ends what it had left running.
pub async fn look_around(context: &Rc<NodeContext>) -> Result<Report, String> {
    let server = context.server()?;
    let killed = server.kill_leftovers().await?;
    if killed > 0 {
        tracing::warn!(killed, "ended programs that an earlier life had left running");
    }
    let found = server.inspect().await?;
    super::promote::find_guard(context).await;
    let restored = server
        .bootstrap_marker()
        .is_some_and(|bootstrap_marker| bootstrap_marker.is_worth_keeping());
    let copy = server.copy_id().await;
    let unmanaged = found.postmaster.is_some() && !found.started_by_us;
    let inspection = Inspection {
        data: found.data.clone(),
        postmaster_alive: found.postmaster.is_some(),
        running_as_primary: found.running_as_primary,
        unmanaged,
        numbered: copy != 0,
    };
    {
        let mut seen = context.seen.borrow_mut();
        (seen.data, seen.data_is_gone, seen.copy) = (found.data, false, copy);
        seen.restored = restored;
        seen.postmaster_alive = found.postmaster.is_some();
        if !seen.postmaster_alive {
            seen.sql = None;
        }
    }
    context.started.notify_one();
    context.look.notify_one();
    Ok(Report::Inspected(inspection))
}

/// The version of the binaries that the server uses.
pub async fn version(server: &Server) -> Result<Version, String> {
    server.major().await.map(Version::major_release)
}

/// Passfile lines for streaming from, and rewinding against, one source.
pub fn passfile(config: &Postgresql, source: &Source) -> String {
    let address = HostPort { host: source.host.clone(), port: source.port };
    let rewind = config.rewind.as_ref().unwrap_or(&config.superuser);
    [&config.replication, rewind, &config.superuser].map(|user| pgpass(user, &address)).concat()
}

/// The files for one role.
pub(super) async fn files(
    context: &NodeContext,
    server: &Server,
    standby: Option<&Option<Source>>,
) -> Result<ConfFiles, String> {
    let config = context.postgresql()?;
    let version = version(server).await?;
    let control = server.control().await.unwrap_or_default();
    let settings = with_defaults(context.settings());
    let sync_names = if standby.is_none() { sync::names(context, server) } else { None };
    let config_dir = server.config_dir().display().to_string();
    let rendered = settings::parameters(&settings::Server {
        scope: &context.config().scope,
        listen_addresses: &config.listen_addresses,
        port: config.port,
        config_dir: config_dir.trim_end_matches('/'),
        version,
        settings: &settings,
        control: &control.settings,
        standby: standby.is_some(),
        synchronous_standby_names: sync_names.as_deref(),
        hot_standby_feedback: false,
        known: None,
    });
    for warning in &rendered.warnings {
        tracing::warn!(warning, "configuration");
    }
    let parameters = without_refused(context, server, rendered.parameters).await;
    context.seen.borrow_mut().raised = rendered.raised;
    let recovery = match standby {
        Some(source) => recovery(context, &config, version, source.as_ref()),
        None => Parameters::new(),
    };
    let custom = config.custom_conf.as_ref().map(|path| path.display().to_string());
    let include = custom.as_deref().unwrap_or(BASE_CONF);
    Ok(ConfFiles {
        postgresql_conf: Some(conf_text(include, &parameters, &recovery)),
        pg_hba: settings.pg_hba.as_deref().and_then(|lines| readable_hba(server, lines)),
        pg_ident: settings.pg_ident.as_ref().map(|lines| file_text(lines)),
        hba_where_missing: bootstrap_hba(context),
        signal: if standby.is_some() { Signal::Standby } else { Signal::None },
        arguments: command_line(&parameters),
        keep_auto_conf: false,
    })
}

/// `bootstrap.pg_hba`, unless hba_file names a file of the user's.
pub fn bootstrap_hba(context: &NodeContext) -> Vec<String> {
    if context.settings().parameters.contains_key("hba_file") {
        return Vec::new();
    }
    context.config().bootstrap.as_ref().map(|section| section.pg_hba.clone()).unwrap_or_default()
}

/// The files that the next start would write, ahead of it: pg_rewind reads restore_command there.
pub async fn write_standby_files(
    context: &NodeContext,
    server: &Server,
    source: &Source,
) -> Result<(), String> {
    let files = files(context, server, Some(&Some(source.clone()))).await?;
    let (server, files) = (server.clone(), ConfFiles { signal: Signal::Keep, ..files });
    blocking(move || server.write_conf_files(&files)).await?
}

/// Has the settings checked that a start will want: while a copy runs, there is time.
pub async fn foresee(context: &NodeContext, server: &Server, source: &Source) {
    files(context, server, Some(&Some(source.clone()))).await.ok();
}

/// The text of pg_hba.conf; nothing to keep the one that is there. With a line that PostgreSQL cannot read
/// the next start would fail, and without it the lines below might let in whom it was to keep out: the
/// last rules of ours stay in force, and where there are none yet, those above it alone count.
fn readable_hba(server: &Server, lines: &[String]) -> Option<String> {
    let bad = unreadable(lines);
    let Some(first) = bad.first() else { return Some(file_text(lines)) };
    let kept = server.files().read(&server.config_dir().join("pg_hba.conf"));
    let kept = kept.is_ok_and(|text| text.is_some_and(|text| is_ours(&text)));
    let instead = if kept { "the rules written last stay" } else { "only those above it count" };
    for line in &bad {
        tracing::error!(line, "postgresql.pg_hba: PostgreSQL cannot read this line; {instead}");
    }
    let above: Vec<String> = lines.iter().take_while(|line| line != first).cloned().collect();
    (!kept).then(|| file_text(&above))
}

/// What PostgreSQL would not even start with is left out, and said: the node stays in service.
async fn without_refused(
    context: &NodeContext,
    server: &Server,
    mut all: Parameters,
) -> Parameters {
    if context.seen.borrow().vetted.as_ref() == Some(&all) {
        return all;
    }
    match server.refused_settings(&all).await {
        Ok(refused) => {
            for (name, said) in &refused {
                let warning = format!("postgresql.parameters.{name} is left out: {said}");
                tracing::warn!(warning, "configuration");
            }
            all.retain(|name, _| !refused.keys().any(|bad| bad.eq_ignore_ascii_case(name)));
            context.seen.borrow_mut().vetted = Some(all.clone());
        }
        Err(problem) => tracing::warn!(problem, "could not have the settings checked"),
    }
    all
}

/// Refuses a change of the dynamic configuration whose settings PostgreSQL here cannot read. Those that are
/// as they were are not asked about: what an earlier version left there must not keep anybody from
/// changing something else.
pub async fn vet(context: &NodeContext, change: &serde_json::Value) -> Result<(), String> {
    let Ok(server) = context.server() else { return Ok(()) };
    let Some(given) = change["postgresql"]["parameters"].as_object() else { return Ok(()) };
    let view = context.view();
    let before = view.cluster.config.as_ref().map(|config| &config["postgresql"]["parameters"]);
    let texts = settings::to_vet(given, before);
    let refused = server.refused_settings(&texts).await?;
    match refused.into_iter().next() {
        None => Ok(()),
        Some((name, said)) => {
            Err(format!("postgresql.parameters.{name}: {said}; nothing was changed"))
        }
    }
}

/// Where the user says nothing: a replica that lost its upstream looks for it twice a second.
fn with_defaults(mut settings: PostgresSettings) -> PostgresSettings {
    let retry = "wal_retrieve_retry_interval";
    if !settings.parameters.contains_key(retry) {
        settings.parameters.insert(retry.into(), "500ms".into());
    }
    settings
}

fn recovery(
    context: &NodeContext,
    config: &Postgresql,
    version: Version,
    source: Option<&Source>,
) -> Parameters {
    let name = context.config().name.clone();
    let passfile = config.pgpass.display().to_string();
    let conninfo = source.map(|source| {
        let upstream = HostPort { host: source.host.clone(), port: source.port };
        let has_password = config.replication.password.is_some();
        PrimaryConninfo {
            upstream: &upstream,
            user: &config.replication,
            database: &config.database,
            passfile: has_password.then_some(passfile.as_str()),
            application_name: &name,
            version,
        }
        .text()
    });
    let settings = context.settings();
    let dynamic = context.dynamic();
    let leads = context.standby_role() == Role::StandbyLeader;
    let remote = dynamic.standby_cluster.as_ref().filter(|_| source.is_some_and(Source::is_remote));
    let slot_is_meant = remote.is_some_and(|section| section.primary_slot_name.is_some());
    let slot = source.and_then(|s| s.slot.as_deref());
    let mut parameters = standby_parameters(
        &settings.recovery_conf,
        Upstream {
            primary_conninfo: conninfo.as_deref().unwrap_or(""),
            primary_slot_name: slot,
            lacks_its_slot: slot_is_meant && slot.is_none() && settings.use_slots != Some(false),
            standby_cluster: dynamic.standby_cluster.as_ref(),
            leads_standby_cluster: leads,
        },
    );
    if !parameters.contains_key("restore_command")
        && let Some(kept) = context.server().ok().and_then(|server| server.kept_restore_command())
    {
        parameters.insert("restore_command".into(), kept);
    }
    parameters
}

/// PostgreSQL flushes every file before it recovers a copy, one by one. Whoever made the copy has
/// just done that, so one call for the whole file system is as good.
fn trust_the_flush(version: Version) -> Option<String> {
    let has_it = version >= Version::major_release(14);
    has_it.then(|| String::from("--recovery_init_sync_method=syncfs"))
}

/// Starts with the files that the role asks for; one that runs already is left alone.
pub async fn start(context: &Rc<NodeContext>, start_as: StartAs) -> Result<Report, String> {
    if let StartAs::Restored { epoch, method } = &start_as {
        return super::bootstrap::start_restored(context, *epoch, method).await;
    }
    let server = context.server()?;
    let _doing = context.doing(PgState::Starting);
    if let Some(held) = server.hold_postmaster().await? {
        // A child that its dead postmaster had just forked looks like one until it ends.
        let named = server.pid_file().ok().flatten().is_some_and(|file| file.pid == held.pid);
        if named || !held.ended_within(CHILD_END_MAX).await {
            must_be_ours(context, &server).await?;
            return started(context, &server, &start_as).await;
        }
    }
    let (standby, ready) = match &start_as {
        StartAs::Primary { epoch } | StartAs::Restored { epoch, .. } => {
            super::promote::must_be_armed(context, *epoch)?;
            (None, Ready::ReadWrite)
        }
        StartAs::Standby { source } => (Some(source), Ready::Accepting),
    };
    if !server.files().is_there(&server.data_dir.join("PG_VERSION"))? {
        // Files of ours in an empty directory would look like somebody else's.
        return Err(format!("{} holds no cluster to start", server.data_dir.display()));
    }
    must_be_ours(context, &server).await?;
    let config = context.postgresql()?;
    if standby.is_some() && !server.files().exists(&server.data_dir.join("standby.signal")) {
        super::unarchived::hand_over(context, &server).await?;
    }
    let server = context.listening_as_configured()?;
    let mut files = files(context, &server, standby).await?;
    if std::mem::take(&mut context.seen.borrow_mut().flushed_copy) {
        files.arguments.extend(trust_the_flush(version(&server).await?));
    }
    if let StartAs::Standby { source: Some(source) } = &start_as {
        server.write_passfile(&passfile(&config, source)).await?;
    }
    let_pg_ctl_see(context, &server).await?;
    let builds = context.seen.borrow().phase() == Phase::Building;
    tokio::select! {
        begun = server.start(&files, RECOVERY_MAX, ready) => begun.map(|_| ())?,
        why = super::build::waits_in_vain(&server), if builds => return Err(why),
    }
    started(context, &server, &start_as).await
}

/// A standby that is to be promoted, with all that it has received and without an archive: its restore_command
/// hangs. The files are written anew, with the command, by whoever points or starts it next.
///
/// # Errors
/// It does not stop, or does not start again.
pub async fn restart_without_archive(context: &Rc<NodeContext>) -> Result<(), String> {
    let server = context.server()?;
    let _doing = context.doing(PgState::Restarting);
    server.stop(StopMode::Fast, Some(FAST_STOP_MAX)).await?;
    must_be_ours(context, &server).await?;
    let mut files = files(context, &server, Some(&None)).await?;
    if let Some(text) = &mut files.postgresql_conf {
        text.push_str("restore_command = ''\n");
    }
    server.start(&files, RECOVERY_MAX, Ready::Accepting).await?;
    context.seen.borrow_mut().postmaster_alive = true;
    context.started.notify_one();
    Ok(())
}

/// `pg_ctl stop` looks ten times a second for a server without a lock file; one that is back before
/// the next look would seem never to have stopped. A crash leaves its lock file and waits for nobody.
async fn let_pg_ctl_see(context: &NodeContext, server: &Server) -> Result<(), String> {
    let Some(at) = context.seen.borrow_mut().died_at.take() else { return Ok(()) };
    if !server.files().is_there(&server.data_dir.join("postmaster.pid"))? {
        tokio::time::sleep_until(at + PG_CTL_LOOKS).await;
    }
    Ok(())
}

/// Whatever was put there since the last look: two clusters never serve under one scope (promise P3). A copy
/// that somebody else made or started has no number until now, and without one it is never counted on.
pub(super) async fn must_be_ours(context: &NodeContext, server: &Server) -> Result<(), String> {
    let view = context.view();
    let Some(cluster) = view.cluster.system_identifier() else { return Ok(()) };
    let found = server.control().await?.system_identifier;
    if found == cluster {
        context.seen.borrow_mut().copy = server.number_copy().await?;
        return Ok(());
    }
    Err(format!(
        "{} holds data of the cluster {found}, this one is {cluster}: it is not started",
        server.data_dir.display()
    ))
}

async fn started(
    context: &Rc<NodeContext>,
    server: &Server,
    start_as: &StartAs,
) -> Result<Report, String> {
    let role = match start_as {
        StartAs::Primary { .. } | StartAs::Restored { .. } => Role::Primary,
        StartAs::Standby { .. } => context.standby_role(),
    };
    {
        let mut seen = context.seen.borrow_mut();
        seen.postmaster_alive = true;
        seen.role = role;
        seen.rest = PgState::Crashed;
    }
    context.started.notify_one();
    if role != Role::Primary {
        let server = server.clone();
        blocking(move || server.mark_started()).await??;
    }
    let standby = match start_as {
        StartAs::Primary { .. } | StartAs::Restored { .. } => None,
        StartAs::Standby { source } => Some(source),
    };
    if let Ok(files) = files(context, server, standby).await {
        super::monitor::pending_restart(context, server, &files).await;
    }
    super::monitor::look(context, 0).await;
    super::callbacks::started(context, role);
    let control = server.control().await.unwrap_or_default();
    Ok(Report::At { timeline: control.timeline, lsn: control.checkpoint })
}

/// Stops; done when no process of the data directory is left.
pub async fn stop(context: &Rc<NodeContext>, mode: StopMode) -> Result<Report, String> {
    let server = context.server()?;
    // Until the cluster exists there is nothing that anybody could have to be prepared for.
    let exists = context.view().cluster.system_identifier().is_some();
    let before_stop = context.settings().before_stop.filter(|_| exists);
    let _doing = context.doing(PgState::Stopping);
    {
        let mut seen = context.seen.borrow_mut();
        seen.rest = PgState::Stopped;
    }
    if let (StopMode::Fast, Some(command)) = (mode, before_stop)
        && let Err(problem) = run_before_stop(&server, &command).await
    {
        tracing::warn!(problem, "before_stop");
    }
    let stopped = server.stop(mode, Some(FAST_STOP_MAX)).await?;
    let led = {
        let mut seen = context.seen.borrow_mut();
        (seen.postmaster_alive, seen.sql) = (false, None);
        seen.role == Role::Primary
    };
    if stopped.by != StoppedBy::Nothing {
        super::callbacks::stopped(context, if led { Role::Primary } else { Role::Replica });
    }
    if led {
        context.seen.borrow_mut().role = Role::Demoted;
    }
    if !stopped.clean {
        return Ok(Report::Done);
    }
    Ok(Report::At { timeline: stopped.timeline, lsn: stopped.checkpoint })
}

async fn run_before_stop(server: &Server, command: &str) -> Result<(), String> {
    server.script(command)?.run().await.map(|_| ())
}

/// Streams from another upstream, by reload.
pub async fn point_upstream(
    context: &Rc<NodeContext>,
    source: Option<Source>,
) -> Result<Report, String> {
    let server = context.server()?;
    if server.hold_postmaster().await?.is_none() {
        return start(context, StartAs::Standby { source }).await;
    }
    if !server.files().is_there(&server.data_dir.join("standby.signal"))? {
        return Err(String::from("PostgreSQL runs as a primary: it has to be stopped first"));
    }
    must_be_ours(context, &server).await?;
    let config = context.postgresql()?;
    let files = files(context, &server, Some(&source)).await?;
    if let Some(source) = &source {
        server.write_passfile(&passfile(&config, source)).await?;
    }
    server.reload_with(&files).await?;
    super::callbacks::pointed(context);
    context.look.notify_one();
    Ok(Report::Done)
}

/// The configuration changed: write the files again and reload a server that runs.
pub async fn apply_configuration(context: &Rc<NodeContext>) -> Result<(), String> {
    let server = context.server()?;
    if server.hold_postmaster().await?.is_none() {
        return Ok(());
    }
    if context.is_creating() {
        tracing::info!("the cluster is being created: its configuration is left alone until then");
        return Ok(());
    }
    // Where the server lets nobody in (its password was changed), the signal file says what it is.
    let told = context.seen.borrow().sql.as_ref().map(|sql| sql.in_recovery);
    let in_recovery = match told {
        Some(in_recovery) => in_recovery,
        None => server.files().is_there(&server.data_dir.join("standby.signal"))?,
    };
    let standby = match in_recovery {
        true => match context.flows.borrow().upstream_in_use() {
            None => return Ok(()),
            some => some,
        },
        false => None,
    };
    let files = files(context, &server, standby.as_ref()).await?;
    if let Some(Some(source)) = &standby {
        server.write_passfile(&passfile(&context.postgresql()?, source)).await?;
    }
    server.reload_with(&files).await?;
    super::callbacks::reloaded(context);
    super::monitor::pending_restart(context, &server, &files).await;
    Ok(())
}
