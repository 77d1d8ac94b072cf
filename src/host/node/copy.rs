//! Filling, comparing and mending the data directory.
use std::rc::Rc;
use std::time::Duration;

use super::NodeContext;
use super::execute::until_view_changes;
use super::start_stop::passfile;
use crate::host::postgres::replica::{Remote, STARTED};
use crate::host::postgres::{Connection, Server};
use crate::pure::cluster::facts::{DataDirectory, Facts, Phase};
use crate::pure::config::{CommandOption, HostPort, Postgresql};
use crate::pure::operation::{Report, Source, WipePermission};
use crate::pure::postgres::conninfo::user_conninfo;
use crate::pure::postgres::history::Divergence;
use crate::pure::postgres::state::PgState;

/// A standby that was pointed elsewhere streams within this many looks, or does not.
const STREAM_LOOKS: u32 = 10;
const STREAM_PAUSE: Duration = Duration::from_millis(300);

/// What became of an attempt to create the cluster, which nobody ever wrote to. So many are kept.
const FAILED: &str = "failed";
const FAILED_KEPT: usize = 3;

/// Empties the data directory, if the permission covers what lies there (promise P4).
pub async fn clear(
    context: &Rc<NodeContext>,
    permission: WipePermission,
) -> Result<Report, String> {
    let server = context.server()?;
    let found = server.inspect().await?;
    if found.postmaster.is_some() {
        return Err(String::from("PostgreSQL runs on the directory that is to be emptied"));
    }
    match (&permission, &found.data) {
        (_, DataDirectory::Empty) => return Ok(Report::Done),
        (WipePermission::OwnLeftovers, DataDirectory::Incomplete)
            if found.unfinished.as_deref() == Some("rewind") =>
        {
            let aside = server.move_aside("rewind").await?;
            tracing::warn!(to = %aside.display(), "moved aside what a failed pg_rewind left");
            return Ok(Report::Done);
        }
        (WipePermission::OwnLeftovers, DataDirectory::Incomplete)
            if server
                .bootstrap_marker()
                .is_some_and(|bootstrap_marker| bootstrap_marker.is_worth_keeping()) =>
        {
            let aside = server.move_aside("failed_bootstrap").await?;
            tracing::warn!(to = %aside.display(), "moved aside what was restored here for a cluster \
                 that another node has created since");
            return Ok(Report::Done);
        }
        (WipePermission::OwnLeftovers, DataDirectory::Incomplete) => {}
        (WipePermission::OwnLeftovers, _) if found.unfinished.as_deref() == Some(STARTED) => {}
        (WipePermission::OwnLeftovers, found) => {
            return Err(format!("the data directory holds {found} and is not removed"));
        }
        (WipePermission::Operator { .. }, _) => {}
        (WipePermission::NewerCopyElsewhere { epoch, .. }, _) => {
            let view = context.view();
            if view.cluster.epoch != *epoch || view.cluster.leader().is_none() {
                return Err(String::from("the newer copy elsewhere is no longer attested"));
            }
        }
    }
    super::unarchived::hand_over(context, &server).await?;
    tracing::warn!(because = ?permission, "empties the data directory");
    context.seen.borrow_mut().flushed_copy = false;
    server.clear_data_directory().await?;
    context.seen.borrow_mut().data = DataDirectory::Empty;
    Ok(Report::Done)
}

pub async fn move_aside(context: &Rc<NodeContext>, suffix: &str) -> Result<Report, String> {
    let server = context.server()?;
    if matches!(server.inspect().await?.data, DataDirectory::Empty) {
        return Ok(Report::Done);
    }
    if suffix == FAILED && server.kept_aside(suffix) >= FAILED_KEPT {
        tracing::warn!("removes what this attempt left: enough failed ones are kept for a look");
        server.clear_data_directory().await?;
        context.seen.borrow_mut().data = DataDirectory::Empty;
        return Ok(Report::Done);
    }
    if suffix == "diverged" {
        super::room::beside(context, &server).await?;
    }
    super::unarchived::hand_over(context, &server).await?;
    let aside = server.move_aside(suffix).await?;
    tracing::warn!(to = %aside.display(), "moved the data directory aside");
    context.seen.borrow_mut().data = DataDirectory::Empty;
    Ok(Report::Done)
}

pub fn arguments(options: &[CommandOption]) -> Vec<String> {
    options.iter().map(CommandOption::argument).collect()
}

pub async fn verify(context: &Rc<NodeContext>, wanted: Option<String>) -> Result<Report, String> {
    let cluster = context.view().cluster.system_identifier().map(str::to_string);
    let wanted = wanted.or(cluster);
    let server = context.server()?;
    if server.hold_postmaster().await?.is_some() && wanted.is_none() {
        let known = server.knows_copy(server.copy_id().await).await?;
        if !known && !server.inspect().await?.started_by_us {
            super::adopted::warn(context, &server).await;
        }
        // What runs was verified before it started: all that is asked is who it is. What was created or
        // adopted has no number yet; asked again, it has, and the log may count on it.
        context.seen.borrow_mut().copy = server.number_copy().await?;
        let system_identifier = server.control().await?.system_identifier;
        return Ok(Report::Identified { system_identifier });
    }
    let system_identifier = server.verify_copy(wanted.as_deref()).await?;
    context.seen.borrow_mut().copy = server.name_copy().await?;
    Ok(Report::Identified { system_identifier })
}

/// Waits until the source is out of recovery, then compares our WAL with its history.
pub async fn check_divergence(context: &Rc<NodeContext>, source: Source) -> Result<Report, String> {
    let server = context.server()?;
    if source.is_remote()
        && super::remote::must_be_same_cluster(context).await?.accepts_writes != Some(true)
    {
        let because = String::from("the remote is a standby itself: nobody is mended by it");
        return Ok(Report::Diverged { yes: false, because });
    }
    leader_is_ready(context, &source).await?;
    let remote = replication_remote(context, &source).await?;
    let lineage = server.lineage(&remote).await?;
    wait_for_standby_leader(context, &source, lineage.timeline)?;
    let replayed =
        context.seen.borrow().sql.as_ref().filter(|sql| sql.in_recovery).map(|sql| sql.replay_lsn);
    let mut divergence = server.check_divergence(&lineage, replayed).await?;
    let certain = server.namesake(&lineage).await?.is_some();
    if divergence.yes && !certain && streams_on(context, lineage.timeline).await {
        let timeline = lineage.timeline;
        let because = format!("we stream the leader's timeline {timeline}");
        divergence = Divergence { yes: false, because };
    }
    tracing::info!(
        diverged = divergence.yes,
        because = divergence.because,
        "compared with the leader"
    );
    if divergence.yes {
        super::room::for_rewind(context, &server).await?;
    }
    Ok(Report::Diverged { yes: divergence.yes, because: divergence.because })
}

/// A standby that runs knows its timeline for sure only while it streams: its control file is as old
/// as its last restartpoint. What has really diverged cannot stream, and costs this wait.
async fn streams_on(context: &Rc<NodeContext>, timeline: u32) -> bool {
    for _ in 0..STREAM_LOOKS {
        if !context.seen.borrow().postmaster_alive {
            return false;
        }
        super::monitor::look(context, 0).await;
        let streams = context.seen.borrow().sql.as_ref().is_some_and(|sql| {
            let streaming = sql.replication_state.as_deref() == Some("streaming");
            sql.in_recovery && streaming && sql.timeline == timeline
        });
        if streams {
            return true;
        }
        tokio::time::sleep(STREAM_PAUSE).await;
    }
    false
}

/// The leader of a standby cluster may have less than we have: it gets that from the remote, and
/// until then nobody has gone another way.
fn wait_for_standby_leader(
    context: &NodeContext,
    source: &Source,
    timeline: u32,
) -> Result<(), String> {
    let follows = context.dynamic().standby_cluster.is_some() && !source.is_remote();
    let ours = context.seen.borrow().sql.as_ref().map_or(0, |sql| sql.timeline);
    if follows && ours > timeline {
        return Err(format!("{} is still on timeline {timeline}, we on {ours}", source.member));
    }
    Ok(())
}

/// A leader that is about to be promoted has its old history still; one of a standby cluster is
/// never written to, and has to run.
///
/// # Errors
/// It no longer leads: then it is not the one to be compared with.
async fn leader_is_ready(context: &NodeContext, source: &Source) -> Result<(), String> {
    let follows = context.dynamic().standby_cluster.is_some();
    let ready = |facts: &Facts| {
        let standby = follows && facts.phase == Phase::LeadingStandby && facts.sql.is_some();
        facts.is_writable() || standby
    };
    let writable = || {
        let view = context.view();
        view.facts.values().any(|h| h.facts.name == source.member && ready(&h.facts))
    };
    let leads = || context.view().cluster.leader() == Some(source.member.as_str());
    let cascades = !leads();
    while !cascades && !writable() {
        if !leads() {
            return Err(format!("{} no longer leads", source.member));
        }
        until_view_changes(context, Duration::from_millis(500)).await;
    }
    Ok(())
}

pub async fn replication_remote(
    context: &Rc<NodeContext>,
    source: &Source,
) -> Result<Remote, String> {
    let own = context.postgresql()?;
    let version = super::start_stop::version(&context.server()?).await?;
    let address = HostPort { host: source.host.clone(), port: source.port };
    Ok(Remote {
        conninfo: user_conninfo(&own.replication, &address, Some(&own.database), version),
        passfile: passfile(&own, source),
    })
}

/// pg_rewind against the leader, after a checkpoint there (its control file must name the new
/// timeline, or pg_rewind sees nothing to do).
pub async fn rewind(context: &Rc<NodeContext>, source: Source) -> Result<Report, String> {
    let server = context.server()?;
    let own = context.postgresql()?;
    let _doing = context.doing(PgState::Starting);
    let lineage = server.lineage(&replication_remote(context, &source).await?).await?;
    if let Some(because) = server.namesake(&lineage).await? {
        // pg_rewind goes by the numbers of timelines and the names of WAL files.
        return Err(format!("pg_rewind would mix two histories: {because}"));
    }
    let user = own.rewind.as_ref().unwrap_or(&own.superuser);
    checkpoint_there(&server, &own, &source).await;
    let version = super::start_stop::version(&server).await?;
    let address = HostPort { host: source.host.clone(), port: source.port };
    let remote = Remote {
        conninfo: user_conninfo(user, &address, Some(&own.database), version),
        passfile: passfile(&own, &source),
    };
    super::unarchived::hand_over(context, &server).await?;
    super::start_stop::write_standby_files(context, &server, &source).await?;
    server.rewind(&remote, &arguments(&own.rewind_options)).await?;
    context.seen.borrow_mut().copy = server.name_copy().await?;
    Ok(Report::Done)
}

/// As superuser to another member.
pub fn superuser_at(own: &Postgresql, source: &Source) -> Connection {
    Connection {
        host: source.host.clone(),
        port: source.port,
        user: own.superuser.username.clone(),
        password: own.superuser.password.clone(),
        database: own.database.clone(),
        options: own.superuser.options.clone(),
        socket: None,
    }
}

async fn checkpoint_there(server: &Server, own: &Postgresql, source: &Source) {
    let connection = superuser_at(own, source);
    let there = Server { connection, ..server.clone() };
    if let Err(problem) = there.checkpoint().await {
        tracing::warn!(problem, "could not ask the leader for a checkpoint");
    }
}
