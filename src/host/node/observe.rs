//! The observer: asks PostgreSQL, tells the others, and notices its death at once.
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use actix::Addr;
use serde_json::json;
use tokio::sync::mpsc;

use super::World;
use crate::host::actor::consensus::Word;
use crate::host::actor::flow::{FlowActor, Happened};
use crate::host::postgres::Server;
use crate::host::postgres::conf_files::ConfFiles;
use crate::host::postgres::query::Monitor;
use crate::pure::cluster::facts::SqlFacts;
use crate::pure::cluster::state::Member;
use crate::pure::consensus::core::Input;
use crate::pure::flow::node::{Event, Node};
use crate::pure::postgres::slot::slot_name;
use crate::pure::postgres::state::Role;

thread_local! {
    /// The one monitoring connection of this thread; taken out while it is in use.
    static MONITOR: RefCell<Option<Monitor>> = const { RefCell::new(None) };
}

/// Looks at every pulse, whenever somebody asks, and whenever something changed.
pub async fn keep_looking(world: Rc<World>, mut words: mpsc::UnboundedReceiver<Word>) {
    loop {
        let pulse = Duration::from_millis(world.dynamic().loop_wait_ms);
        let round = tokio::select! {
            word = words.recv() => match word {
                Some(Word::AskFresh(round)) => round,
                None => return,
            },
            () = world.look.notified() => 0,
            () = tokio::time::sleep(pulse) => 0,
        };
        look(&world, round).await;
    }
}

/// One look; the facts go to the others, with the round that asked for them.
pub async fn look(world: &Rc<World>, round: u64) {
    let before = fingerprint(world);
    if world.seen.borrow().postmaster_alive {
        let sql = query(world).await;
        let standby = world.standby_role();
        let mut seen = world.seen.borrow_mut();
        if let Some(sql) = &sql {
            seen.role = if sql.in_recovery { standby } else { Role::Primary };
        }
        seen.sql = sql.filter(|_| seen.postmaster_alive);
    }
    let facts = world.facts(round);
    world.tell_consensus(Input::Local(Box::new(facts)));
    if fingerprint(world) != before {
        world.changed.notify_one();
    }
}

fn fingerprint(world: &World) -> (Option<bool>, bool) {
    let seen = world.seen.borrow();
    (seen.sql.as_ref().map(|sql| sql.in_recovery), seen.postmaster_alive)
}

async fn query(world: &World) -> Option<SqlFacts> {
    let server = world.server().ok()?;
    let mut monitor = MONITOR
        .with_borrow_mut(Option::take)
        .unwrap_or_else(|| Monitor::new(server.connection.clone()));
    let facts = monitor.facts().await;
    MONITOR.with_borrow_mut(|place| *place = Some(monitor));
    match facts {
        Ok(facts) => Some(facts),
        Err(problem) => {
            tracing::debug!(problem, "PostgreSQL did not answer");
            None
        }
    }
}

/// Holds on to whichever postmaster lives, and says so when it dies.
pub async fn watch_postmaster(world: Rc<World>, node: Addr<FlowActor<Node>>) {
    loop {
        let Ok(server) = world.server() else { return };
        let looked = server.hold_postmaster().await;
        // What was taken for a running server may have been a child of one that had just died.
        let missing = matches!(looked, Ok(None)) && world.seen.borrow().postmaster_alive;
        match looked.ok().flatten() {
            None if missing => died(&world, &node),
            None => {
                let nap = tokio::time::sleep(Duration::from_secs(5));
                tokio::select! { () = world.started.notified() => {}, () = nap => {} }
            }
            Some(held) => {
                world.seen.borrow_mut().postmaster_alive = true;
                held.ended().await;
                died(&world, &node);
            }
        }
    }
}

fn died(world: &Rc<World>, node: &Addr<FlowActor<Node>>) {
    let expected = {
        let mut seen = world.seen.borrow_mut();
        (seen.postmaster_alive, seen.sql) = (false, None);
        seen.doing.is_some()
    };
    if !expected {
        tracing::warn!("the postmaster died");
    }
    node.do_send(Happened(Event::PostgresDied));
    world.changed.notify_one();
    world.look.notify_one();
}

/// Every node has a slot for every other member that streams, and for each permanent one that fits
/// the kind of cluster. On the leader they hold WAL; on a replica they
/// hold none, they are there so that whoever follows it after a promotion is let in at once.
pub async fn keep_slots(world: &Rc<World>) {
    if world.settings().use_slots == Some(false) {
        return;
    }
    let Some(sql) = world.seen.borrow().sql.clone() else { return };
    let view = world.view();
    let others = view.cluster.members.iter().filter(|(id, m)| **id != world.id && !m.witness);
    let (idle, streaming): (Vec<_>, Vec<_>) = others
        .map(|(_, member)| member)
        .partition(|member| member.tags.get("nostream").is_some_and(|tag| tag == true));
    let names = |members: Vec<&Member>| -> Vec<String> {
        members.into_iter().map(|member| slot_name(&member.name)).collect()
    };
    let (mut idle, mut wanted) = (names(idle), names(streaming));
    let dynamic = world.dynamic();
    let follows = dynamic.standby_cluster.is_some();
    for slot in &dynamic.permanent_slots {
        let fits = slot.in_standby_cluster.is_none_or(|standby| standby == follows);
        if fits { &mut wanted } else { &mut idle }.push(slot.name.clone());
    }
    let Ok(server) = world.server() else { return };
    let leads = view.lease.held && (!sql.in_recovery || follows);
    let outcome = if sql.in_recovery && !leads {
        idle_slots(&server, &wanted, &sql).await
    } else if leads {
        leaders_slots(&server, &wanted, &idle, &sql).await
    } else {
        Ok(0)
    };
    match outcome {
        Ok(0) => {}
        Ok(changed) => {
            tracing::info!(changed, "saw to the slots");
            look(world, 0).await;
        }
        Err(problem) => tracing::warn!(problem, "could not see to the slots"),
    }
}

/// Whoever does not stream needs no slot: one left from before would hold WAL for ever.
async fn leaders_slots(
    server: &Server,
    wanted: &[String],
    idle: &[String],
    sql: &SqlFacts,
) -> Result<usize, String> {
    let left = |name: &&String| sql.slots.iter().any(|slot| slot.name == **name && !slot.active);
    let left: Vec<String> = idle.iter().filter(left).cloned().collect();
    let missing: Vec<String> = wanted
        .iter()
        .filter(|name| !sql.slots.iter().any(|slot| slot.name == **name))
        .cloned()
        .collect();
    if missing.is_empty() && left.is_empty() {
        return Ok(0);
    }
    let changes = server.ensure_slots(&missing, &left).await?;
    match changes.problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(changes.created.len() + changes.dropped.len()),
    }
}

/// A slot that holds WAL on a replica is a leftover of its time as leader: it is made anew, empty.
async fn idle_slots(server: &Server, wanted: &[String], sql: &SqlFacts) -> Result<usize, String> {
    let held = |name: &String| {
        sql.slots.iter().any(|s| s.name == *name && s.physical && !s.active && s.restart_lsn.0 > 0)
    };
    let missing = |name: &String| !sql.slots.iter().any(|slot| slot.name == *name);
    let due: Vec<&String> = wanted.iter().filter(|n| held(n) || missing(n)).collect();
    if due.is_empty() {
        return Ok(0);
    }
    let session = server.session("Surus slots").await?;
    for name in &due {
        if held(name) {
            session.run(&format!("SELECT pg_catalog.pg_drop_replication_slot('{name}')")).await?;
        }
        let create =
            format!("SELECT pg_catalog.pg_create_physical_replication_slot('{name}', false)");
        session.run(&create).await?;
    }
    Ok(due.len())
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
pub async fn pending_restart(world: &Rc<World>, server: &Server, files: &ConfFiles) {
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
    let mut seen = world.seen.borrow_mut();
    for (name, wanted, raised) in &seen.raised {
        pending.insert(name.clone(), json!({"old_value": raised, "new_value": wanted}));
    }
    seen.pending_restart = pending;
    drop(seen);
    world.look.notify_one();
}
