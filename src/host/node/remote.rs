//! The remote of a standby cluster: looked at again and again by whoever leads, before anything
//! is copied from it, and before a change of the section is accepted.
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::NodeContext;
use crate::host::postgres::Server;
use crate::host::postgres::upstream::Probe;
use crate::pure::cluster::apply::merge;
use crate::pure::cluster::remote::{RemoteFacts, RemoteRelation, SLOT_LOOKS};
use crate::pure::config::{Dynamic, HostPort, StandbyCluster};
use crate::pure::operation::{Report, Source};
use crate::pure::postgres::lsn::Lsn;
use crate::pure::postgres::state::Role;
use crate::pure::postgres::wal;

/// Between two looks while all is well; a fault is looked at every `loop_wait`.
const CALM: Duration = Duration::from_secs(10);
/// What PostgreSQL does when the remote raised a parameter beyond ours.
const REPLAY_PAUSED: &str = "replay here is paused: where PostgreSQL's log names a parameter that \
                             is lower than on the remote, raise it in the dynamic configuration \
                             and restart, else resume it by pg_wal_replay_resume()";
const IDLE: Duration = Duration::from_secs(3600);

/// What a look at the remote depends on.
#[derive(Clone, Debug, PartialEq)]
struct Duty {
    section: StandbyCluster,
    config_version: u64,
}

fn duty(context: &NodeContext) -> Option<Duty> {
    let view = context.view();
    let leads = context.standby_role() == Role::StandbyLeader;
    let section = context.dynamic().standby_cluster.clone().filter(|_| leads)?;
    Some(Duty { section, config_version: view.cluster.config_version })
}

/// For as long as the daemon lives.
pub async fn keep_watch(context: Rc<NodeContext>) {
    let mut view = context.view.clone();
    let mut dynamic = context.dynamic.subscribe();
    loop {
        let duty_now = duty(&context);
        let mut streamed = false;
        let nap = match &duty_now {
            None => {
                context.seen.borrow_mut().remote = None;
                IDLE
            }
            Some(duty) => {
                let facts = look(&context, duty).await;
                let calm = facts.as_ref().is_none_or(|facts| is_calm(&context, facts));
                note(&context, facts);
                streamed = calm && streams(&context);
                if calm { CALM } else { Duration::from_millis(context.dynamic().loop_wait_ms) }
            }
        };
        let wake = tokio::time::Instant::now() + nap;
        while duty(&context) == duty_now && (!streamed || streams(&context)) {
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                _ = dynamic.changed() => {}
                () = tokio::time::sleep_until(wake) => break,
            }
        }
    }
}

fn is_calm(context: &NodeContext, facts: &RemoteFacts) -> bool {
    let seen = context.seen.borrow();
    let fed = seen.sql.as_ref().is_some_and(|sql| sql.replication_state.is_some());
    facts.problems.is_empty() && fed && !context.dynamic().leaves_standby
}

fn streams(context: &NodeContext) -> bool {
    let seen = context.seen.borrow();
    let state = seen.sql.as_ref().and_then(|sql| sql.replication_state.as_deref());
    state == Some("streaming")
}

fn note(context: &NodeContext, facts: Option<RemoteFacts>) {
    let before = context.seen.borrow_mut().remote.take();
    if let Some(facts) = &facts {
        let old = before.as_ref().map(|f| f.problems.clone()).unwrap_or_default();
        for problem in facts.problems.iter().filter(|problem| !old.contains(problem)) {
            tracing::warn!(problem, "the remote of this standby cluster");
        }
        if facts.problems.is_empty() && !old.is_empty() {
            tracing::info!(remote = facts.address, "the remote is well again");
        }
    }
    let changed = before != facts;
    context.seen.borrow_mut().remote = facts;
    if changed {
        context.look.notify_one();
        context.changed.notify_one();
    }
}

async fn look(context: &Rc<NodeContext>, duty: &Duty) -> Option<RemoteFacts> {
    let server = context.server().ok()?;
    let identity = context.view().cluster.system_identifier().map(str::to_string);
    let mut facts = ask(context, &server, &duty.section).await;
    facts.config_version = duty.config_version;
    judge(&server, &duty.section, identity.as_deref(), &mut facts).await;
    if context.seen.borrow().sql.as_ref().is_some_and(|sql| sql.replay_paused) {
        facts.problems.push(String::from(REPLAY_PAUSED));
    }
    facts.slot_busy_looks = slot_busy_looks(context, duty.config_version);
    let answers = facts.answered_by.is_some();
    if answers && facts.standing(identity.as_deref()) != RemoteRelation::Foreign {
        match see_to_slot(context, &server, &duty.section, &facts).await {
            Ok(true) => facts.slot_busy_looks = SLOT_LOOKS.min(facts.slot_busy_looks + 1),
            Ok(false) => facts.slot_busy_looks = 0,
            Err(problem) => facts.problems.push(problem),
        }
    }
    if facts.slot_is_taken() {
        let slot = duty.section.primary_slot_name.as_deref().unwrap_or_default();
        facts.problems.push(format!(
            "the slot `{slot}` on the remote {} is in use by another server, perhaps by a former \
             standby leader whose daemon does not run: it is streamed without the slot until that \
             is free",
            facts.address
        ));
    }
    Some(facts)
}

/// What the last look counted, under the same configuration.
fn slot_busy_looks(context: &NodeContext, config_version: u64) -> u8 {
    let seen = context.seen.borrow();
    let last = seen.remote.as_ref().filter(|facts| facts.config_version == config_version);
    last.map_or(0, |facts| facts.slot_busy_looks)
}

/// Of several hosts the first that accepts writes counts, else the first that answers.
async fn ask(context: &Rc<NodeContext>, server: &Server, section: &StandbyCluster) -> RemoteFacts {
    let mut facts = RemoteFacts { address: section.address(), ..RemoteFacts::default() };
    let mut silent = Vec::new();
    for host in section.hosts() {
        match probe(context, server, &host).await {
            Ok(probe) => {
                let better = facts.answered_by.is_none() || probe.accepts_writes;
                if better {
                    fill(&mut facts, &host, &probe);
                }
                if probe.accepts_writes {
                    break;
                }
            }
            Err(problem) => silent.push(problem),
        }
    }
    if facts.answered_by.is_none() && !silent.is_empty() {
        let why = silent.join("; ");
        facts.problems.push(format!("the remote {} does not answer: {why}", facts.address));
    }
    facts
}

fn fill(facts: &mut RemoteFacts, host: &HostPort, probe: &Probe) {
    facts.answered_by = Some(host.to_string());
    facts.system_identifier = probe.lineage.system_identifier.clone();
    facts.timeline = probe.lineage.timeline;
    facts.position = probe.lineage.position;
    facts.server_version = probe.server_version;
    facts.accepts_writes = Some(probe.accepts_writes);
}

async fn probe(
    context: &Rc<NodeContext>,
    server: &Server,
    host: &HostPort,
) -> Result<Probe, String> {
    let source = Source::remote(&host.host, host.port, None);
    let from = super::copy::replication_remote(context, &source).await?;
    server.probe(&from).await
}

/// What is wrong with a remote that was asked.
async fn judge(
    server: &Server,
    section: &StandbyCluster,
    identity: Option<&str>,
    facts: &mut RemoteFacts,
) {
    let address = &facts.address;
    if section.host.is_none() && section.restore_command.is_none() {
        facts.problems.push(String::from(
            "standby_cluster has neither a host nor a restore_command: there is nothing to follow",
        ));
    }
    if facts.answered_by.is_none() {
        return;
    }
    if facts.standing(identity) == RemoteRelation::Foreign {
        let own = identity.unwrap_or_default();
        facts.problems.push(format!(
            "the remote {address} has the system identifier {}, this cluster has {own}: it is \
             another cluster and is not followed; correct standby_cluster.host and port",
            facts.system_identifier
        ));
    }
    let theirs = facts.server_version / 10_000;
    if let Ok(ours) = server.major().await
        && ours != theirs
    {
        facts.problems.push(format!(
            "the remote {address} is PostgreSQL {theirs}, here is {ours}: only the same major \
             version can be followed"
        ));
    }
    if section.hosts().len() > 1 && facts.accepts_writes == Some(false) {
        facts.problems.push(format!(
            "none of the hosts {address} accepts writes: PostgreSQL waits for one that does"
        ));
    }
}

/// The slot on the remote, made where our role may; whoever streams by it has it. Answers whether
/// another has.
async fn see_to_slot(
    context: &Rc<NodeContext>,
    server: &Server,
    section: &StandbyCluster,
    facts: &RemoteFacts,
) -> Result<bool, String> {
    let slots = context.settings().use_slots != Some(false);
    let Some(slot) = section.primary_slot_name.as_ref().filter(|_| slots) else { return Ok(false) };
    if streams(context) && !facts.slot_is_taken() {
        return Ok(false);
    }
    let Some(host) = answering_host(section, facts) else { return Ok(false) };
    let source = Source::remote(&host.host, host.port, None);
    let from = super::copy::replication_remote(context, &source).await?;
    match server.ensure_remote_slot(&from, slot).await {
        Ok(true) => {
            tracing::info!(slot, remote = facts.address, "created the slot on the remote");
            Ok(false)
        }
        Ok(false) => server.remote_slot_is_busy(&from, slot).await,
        Err(problem) => Err(format!(
            "the slot `{slot}` is missing on the remote {} and could not be created: {problem}",
            facts.address
        )),
    }
}

fn answering_host(section: &StandbyCluster, facts: &RemoteFacts) -> Option<HostPort> {
    let wanted = facts.answered_by.as_deref()?;
    section.hosts().into_iter().find(|host| host.to_string() == wanted)
}

/// Before anything is copied from the remote, or compared with it.
///
/// # Errors
/// It does not answer, or it is another cluster.
pub async fn must_be_same_cluster(context: &Rc<NodeContext>) -> Result<RemoteFacts, String> {
    let section = context.dynamic().standby_cluster.clone();
    let section = section.ok_or("this is no standby cluster any more")?;
    let config_version = context.view().cluster.config_version;
    let facts = look(context, &Duty { section, config_version }).await;
    let facts = facts.ok_or("a witness has no PostgreSQL")?;
    note(context, Some(facts.clone()));
    let identity = context.view().cluster.system_identifier().map(str::to_string);
    match facts.standing(identity.as_deref()) {
        RemoteRelation::Same => Ok(facts),
        _ => Err(facts.problems.first().cloned().unwrap_or_default()),
    }
}

/// May this become (part of) the dynamic configuration? A remote that is known to be wrong is
/// refused; one that does not answer may only be down.
pub async fn vet(context: &Rc<NodeContext>, change: &Value) -> Result<(), String> {
    if !change["standby_cluster"].is_object() {
        return Ok(());
    }
    let view = context.view();
    let mut config = view.cluster.config.clone().unwrap_or_default();
    if config["standby_cluster"] == change["standby_cluster"] {
        return Ok(());
    }
    merge(&mut config, change);
    let wanted = Dynamic::from_value(Some(&config)).standby_cluster;
    let Some(section) = wanted.filter(|_| context.server().is_ok()) else { return Ok(()) };
    if let Some(name) = own_member(&view.cluster, &section) {
        return Err(format!(
            "standby_cluster names {name}, a member of this very cluster; nothing was changed"
        ));
    }
    let facts = ask(context, &context.server()?, &section).await;
    let identity = view.cluster.system_identifier();
    if facts.standing(identity) == RemoteRelation::Foreign {
        return Err(format!(
            "standby_cluster: {} has the system identifier {}, this cluster has {}: it cannot be \
             followed; nothing was changed",
            facts.address,
            facts.system_identifier,
            identity.unwrap_or_default()
        ));
    }
    Ok(())
}

fn own_member(
    cluster: &crate::pure::cluster::state::ClusterState,
    section: &StandbyCluster,
) -> Option<String> {
    let hosts = section.hosts();
    let named = |at: HostPort| hosts.iter().any(|h| h.host == at.host && h.port == at.port);
    let mut members = cluster.members.values();
    let own = members.find(|member| member.host_port().is_some_and(named))?;
    Some(own.name.clone())
}

/// The switchover that waits for it has its own limit.
const SHIP_MAX: Duration = Duration::from_secs(600);

/// Runs archive_command, if there is one, for the file that holds the shutdown checkpoint.
pub async fn ship_wal(
    context: &Rc<NodeContext>,
    timeline: u32,
    lsn: Lsn,
) -> Result<Report, String> {
    let server = context.server()?;
    let Some(command) = server.archive_command().await? else { return Ok(Report::Done) };
    let control = server.control().await?;
    let file = wal::file_name(timeline, lsn, control.wal_segment_bytes);
    server.archive(&command, &file, SHIP_MAX).await?;
    tracing::info!(file, "the archive has the WAL file of the shutdown checkpoint");
    Ok(Report::Done)
}
