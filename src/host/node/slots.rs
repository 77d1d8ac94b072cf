//! The replication slots of a node: one for each that needs it, none that holds WAL for nobody.
use std::rc::Rc;

use super::NodeContext;
use super::monitor::look;
use crate::host::clock;
use crate::host::postgres::Server;
use crate::host::postgres::slots::Followed;
use crate::pure::cluster::facts::{Slot, SqlFacts};
use crate::pure::cluster::state::Member;
use crate::pure::postgres::slot::slot_name;

/// Every node has a slot for every other member that streams, and for each permanent one that fits
/// the kind of cluster. On a replica they stand where the leader's stand: whoever was away while the leader
/// changed finds its WAL at the new one. One that never leads holds none.
pub async fn keep_slots(context: &Rc<NodeContext>) {
    if context.settings().use_slots == Some(false) {
        return;
    }
    let Some(sql) = context.seen.borrow().sql.clone() else { return };
    let view = context.view();
    let others = view.cluster.members.iter().filter(|(id, m)| **id != context.id && !m.witness);
    let (idle, streaming): (Vec<_>, Vec<_>) =
        others.map(|(_, member)| member).partition(|member| member.tags.nostream());
    let names = |members: Vec<&Member>| -> Vec<String> {
        members.into_iter().map(|member| slot_name(&member.name)).collect()
    };
    let (mut idle, mut wanted) = (names(idle), names(streaming));
    let dynamic = context.dynamic();
    let follows = dynamic.standby_cluster.is_some();
    for slot in &dynamic.permanent_slots {
        let fits = slot.in_standby_cluster.is_none_or(|standby| standby == follows);
        if fits { &mut wanted } else { &mut idle }.push(slot.name.clone());
    }
    let Ok(server) = context.server() else { return };
    let leads = view.lease.held && (!sql.in_recovery || follows);
    let due = orphans(context, &wanted, &idle, &sql);
    let outcome = if sql.in_recovery && !leads && never_leads(context) {
        idle_slots(&server, &wanted, &sql).await
    } else if sql.in_recovery && !leads {
        followed_slots(context, &server, &wanted, &sql).await
    } else if leads {
        leaders_slots(&server, &wanted, &idle, &sql).await
    } else {
        Ok(0)
    };
    let outcome = match outcome {
        Ok(changed) => ensure(&server, &[], &due).await.map(|dropped| changed + dropped),
        other => other,
    };
    match outcome {
        Ok(0) => {}
        Ok(changed) => {
            tracing::info!(changed, "saw to the slots");
            look(context, 0).await;
        }
        Err(problem) => tracing::warn!(problem, "could not see to the slots"),
    }
}

/// Tagged `nofailover`, or with no priority: no other member will ever follow it as the leader.
fn never_leads(context: &NodeContext) -> bool {
    context.facts(0).nofailover()
}

/// A replica's slots, behind the leader's.
async fn followed_slots(
    context: &NodeContext,
    server: &Server,
    wanted: &[String],
    sql: &SqlFacts,
) -> Result<usize, String> {
    let view = context.view();
    let Some(leader) = view.cluster.lease.as_ref().map(|lease| lease.holder) else {
        // Whatever is held stays held until somebody leads.
        return Ok(0);
    };
    let Some(theirs) = view.facts.get(&leader).and_then(|heard| heard.facts.sql.as_ref()) else {
        return Ok(0);
    };
    let place = |name: &String| {
        let found = theirs.slots.iter().find(|slot| slot.name == *name && slot.physical);
        found.map(|slot| slot.restart_lsn).filter(|at| at.0 > 0)
    };
    let wanted: Vec<Followed> = wanted.iter().map(|name| (name.clone(), place(name))).collect();
    let changes = server.follow_slots(&wanted, &sql.slots).await?;
    match changes.problems.into_iter().next() {
        Some(problem) => Err(problem),
        None => Ok(changes.created.len()),
    }
}

fn is_lost(sql: &SqlFacts, name: &str) -> bool {
    sql.slots.iter().any(|slot| slot.name == name && slot.lost && slot.physical && !slot.active)
}

/// It was made without a position, and holds nothing until somebody uses it.
fn is_empty(sql: &SqlFacts, name: &str) -> bool {
    let empty =
        |slot: &Slot| slot.physical && !slot.active && !slot.lost && slot.restart_lsn.0 == 0;
    sql.slots.iter().any(|slot| slot.name == name && empty(slot))
}

/// What PostgreSQL gave up is made anew. Whoever does not stream needs no slot: one left from before
/// would hold WAL for ever.
async fn leaders_slots(
    server: &Server,
    wanted: &[String],
    idle: &[String],
    sql: &SqlFacts,
) -> Result<usize, String> {
    let left = |name: &&String| sql.slots.iter().any(|slot| slot.name == **name && !slot.active);
    let left: Vec<String> = idle.iter().filter(left).cloned().collect();
    let lost: Vec<String> = wanted.iter().filter(|name| is_lost(sql, name)).cloned().collect();
    let empty: Vec<String> = wanted.iter().filter(|name| is_empty(sql, name)).cloned().collect();
    ensure(server, &[], &empty).await?;
    if !lost.is_empty() {
        tracing::warn!(
            ?lost,
            "slots were given up by PostgreSQL and are made anew; their members \
             may need a reinitialize"
        );
        ensure(server, &[], &lost).await?;
    }
    let there = |name: &String| {
        !empty.contains(name) && sql.slots.iter().any(|slot| slot.name == *name && !slot.lost)
    };
    let missing: Vec<String> = wanted.iter().filter(|name| !there(name)).cloned().collect();
    ensure(server, &missing, &left).await
}

/// How many slots it made and dropped; the first that it could not is the problem.
async fn ensure(server: &Server, wanted: &[String], drop: &[String]) -> Result<usize, String> {
    if wanted.is_empty() && drop.is_empty() {
        return Ok(0);
    }
    let changes = server.ensure_slots(wanted, drop).await?;
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

/// Slots that nobody has spoken for as long as `member_slots_ttl`; of new ones it is said when.
fn orphans(
    context: &NodeContext,
    wanted: &[String],
    idle: &[String],
    sql: &SqlFacts,
) -> Vec<String> {
    let dynamic = context.dynamic();
    let known: Vec<&str> = wanted.iter().chain(idle).map(String::as_str).collect();
    let mut seen = context.seen.borrow_mut();
    let (new, due) = seen.orphans.look(&sql.slots, &known, &dynamic, clock::now());
    for name in new {
        let after_s = dynamic.member_slots_ttl_ms / 1000;
        tracing::warn!(
            name,
            after_s,
            "nobody uses this replication slot, and it holds WAL: it is dropped after \
             member_slots_ttl unless `slots` or `ignore_slots` of the dynamic configuration name it"
        );
    }
    due
}
