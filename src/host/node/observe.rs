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
        let mut seen = world.seen.borrow_mut();
        if let Some(sql) = &sql {
            seen.role = match (sql.in_recovery, seen.role) {
                (false, _) => Role::Primary,
                (true, Role::StandbyLeader) => Role::StandbyLeader,
                (true, _) => Role::Replica,
            };
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
        let held = server.hold_postmaster().await.ok().flatten();
        match held {
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

/// A leader keeps a slot for every member that streams from it.
pub async fn keep_slots(world: &Rc<World>) {
    let writable = world.seen.borrow().sql.as_ref().is_some_and(|sql| !sql.in_recovery);
    let view = world.view();
    if !writable || !view.lease.held || world.settings().use_slots == Some(false) {
        return;
    }
    let known: Vec<String> = {
        let seen = world.seen.borrow();
        let sql = seen.sql.as_ref();
        sql.map(|s| s.slots.iter().map(|slot| slot.name.clone()).collect()).unwrap_or_default()
    };
    let wanted: Vec<String> = view
        .cluster
        .members
        .iter()
        .filter(|(id, member)| **id != world.id && !member.witness)
        .map(|(_, member)| slot_name(&member.name))
        .filter(|name| !known.contains(name))
        .collect();
    let Ok(server) = world.server() else { return };
    if wanted.is_empty() {
        return;
    }
    match server.ensure_slots(&wanted, &[]).await {
        Ok(changes) if !changes.created.is_empty() => {
            tracing::info!(slots = changes.created.join(","), "created slots");
            look(world, 0).await;
        }
        Ok(changes) => {
            for problem in changes.problems {
                tracing::warn!(problem, "slots");
            }
        }
        Err(problem) => tracing::warn!(problem, "could not see to the slots"),
    }
}

/// Which settings differ from what runs: they wait for a restart.
pub async fn pending_restart(world: &Rc<World>, server: &Server, files: &ConfFiles) {
    let Ok(session) = server.session("Surus settings").await else { return };
    let mut pending = serde_json::Map::new();
    for argument in &files.arguments {
        let Some((name, value)) = argument.trim_start_matches("--").split_once('=') else {
            continue;
        };
        let question =
            format!("SELECT setting FROM pg_catalog.pg_settings WHERE name = '{name}'");
        if let Ok(Some(running)) = session.value(&question).await
            && running != value
            && !["listen_addresses", "cluster_name"].contains(&name)
        {
            pending.insert(name.to_string(), json!({"old_value": running, "new_value": value}));
        }
    }
    world.seen.borrow_mut().pending_restart = pending;
    world.look.notify_one();
}
