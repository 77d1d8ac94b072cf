//! The cycle: computes the situation on every change and at least once a `loop_wait`, and tells it
//! to the node's machine. Also the housekeeping that hangs on the pulse.
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use jiff::Timestamp;

use super::{NodeContext, histories, monitor, slots, start_stop, unarchived};
use crate::host::actor::consensus::lock;
use crate::host::actor::flow::{FlowActor, SituationChanged};
use crate::host::clock;
use crate::pure::cluster::facts::Facts;
use crate::pure::cluster::sync;
use crate::pure::cluster::{Millis, RaftId};
use crate::pure::config::Dynamic;
use crate::pure::node::situation::{Situation, Sources};
use crate::pure::operation::Method;
use crate::pure::patroni::restart;
use crate::pure::view::View;

/// Until the node's machine is gone.
pub async fn run_cycles(context: Rc<NodeContext>, node: Addr<FlowActor>) {
    let mut view = context.view.clone();
    let mut pulse_at = clock::now();
    while !context.gone.get() {
        view.mark_unchanged();
        refresh_dynamic(&context);
        run_scheduled_restart(&context);
        super::callbacks::adopted(&context);
        super::callbacks::gave_up(&context);
        node.do_send(SituationChanged(Arc::new(situation(&context))));
        if clock::now() >= pulse_at || context.pulse_now.replace(false) {
            pulse_at = clock::now() + context.dynamic().loop_wait_ms;
            pulse(&context).await;
        }
        let nap = Duration::from_millis(next_wake(&context, pulse_at));
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = context.changed.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// The pulse, or the lease's deadline if that is sooner.
fn next_wake(context: &NodeContext, pulse_at: u64) -> u64 {
    let now = clock::now();
    let deadline = context.view().lease.deadline.filter(|at| *at > now);
    let next = deadline.map_or(pulse_at, |at| at.min(pulse_at)).saturating_sub(now);
    restart_due_in_ms(context).map_or(next, |due| due.min(next)).max(1)
}

async fn pulse(context: &Rc<NodeContext>) {
    monitor::watch_data(context).await;
    follow_configuration(context).await;
    slots::keep_slots(context).await;
    histories::keep_histories(context);
    unarchived::keep_offering(context);
    replace_dead_guard(context).await;
    context.publish();
}

/// What is decided from now on knows the configuration in force.
fn refresh_dynamic(context: &Rc<NodeContext>) {
    let view = context.view();
    let version = view.cluster.config.as_ref().map(|_| view.cluster.config_version);
    if context.seen.borrow().dynamic_version == version {
        return;
    }
    context.seen.borrow_mut().dynamic_version = version;
    let dynamic = view.cluster.dynamic();
    for warning in &dynamic.warnings {
        tracing::warn!(warning, "dynamic configuration");
    }
    context.dynamic.send_replace(Arc::new(dynamic));
    context.pulse_now.set(true);
}

async fn follow_configuration(context: &Rc<NodeContext>) {
    let version = context.seen.borrow().dynamic_version;
    if context.seen.borrow().config_version == version {
        return;
    }
    context.seen.borrow_mut().config_version = version;
    if let Err(problem) = start_stop::apply_configuration(context).await {
        tracing::warn!(problem, "the configuration could not be applied");
    }
    context.changed.notify_one();
}

/// A guard that died is replaced at once, while the lease lasts.
pub(super) async fn replace_dead_guard(context: &Rc<NodeContext>) {
    let held = context.view().lease.held;
    let dead = context.guard.borrow().as_ref().is_none_or(|g| !g.is_alive());
    let armed = lock(&context.deadline).guard.is_some();
    if held && dead && armed {
        tracing::warn!("the guard died; starts another");
        *context.guard.borrow_mut() = None;
        let epoch = lock(&context.deadline).epoch;
        let arming = super::promote::arm_guard(context, epoch);
        if !matches!(tokio::time::timeout(Duration::from_secs(2), arming).await, Ok(Ok(_))) {
            tracing::error!("no guard could be armed");
        }
        context.publish();
    }
}

fn run_scheduled_restart(context: &Rc<NodeContext>) {
    let due = context.scheduled_restart.borrow().as_ref().is_some_and(|s| {
        let at = s.get("schedule").and_then(|v| v.as_str());
        at.and_then(|text| text.parse::<Timestamp>().ok()).is_some_and(|at| at <= Timestamp::now())
    });
    if !due {
        return;
    }
    let Some(schedule) = context.scheduled_restart.borrow_mut().take() else { return };
    let wanted = restart::of_schedule(&schedule);
    if context.with_snapshot(|look| restart::applies(&wanted, look)) {
        context.seen.borrow_mut().restart_timeout_ms = wanted.timeout_ms;
        context.requests.borrow_mut().restart = true;
        context.changed.notify_one();
    } else {
        tracing::info!(%schedule, "the scheduled restart's conditions are not met: not restarted");
    }
    context.look.notify_one();
}

/// When the next restart is due, if that is before the pulse.
fn restart_due_in_ms(context: &NodeContext) -> Option<u64> {
    let schedule = context.scheduled_restart.borrow();
    let at: Timestamp = schedule.as_ref()?.get("schedule")?.as_str()?.parse().ok()?;
    let left_ms = at.as_millisecond() - Timestamp::now().as_millisecond();
    Some(u64::try_from(left_ms).unwrap_or(0))
}

/// Where this node stands, right now.
pub fn situation(context: &NodeContext) -> Situation {
    let view = context.view();
    let dynamic = context.dynamic();
    let settings = context.settings();
    let own = context.facts(0);
    let mut heard: BTreeMap<RaftId, &Facts> =
        view.facts.iter().map(|(id, heard)| (*id, &heard.facts)).collect();
    heard.insert(context.id, &own);
    let now = clock::now();
    let live = view.lease.held && view.lease.deadline.is_some_and(|at| now < at);
    let seen_alive = context.seen.borrow().postmaster_alive;
    Situation::compute(Sources {
        own: context.id,
        cluster: &view.cluster,
        dynamic: &dynamic,
        live_epoch: live.then_some(view.lease.epoch),
        sync_step: sync_step(context, &view, &dynamic, &own),
        heard: &heard,
        requests: context.requests.borrow().clone(),
        methods: methods(context),
        postmaster_alive: seen_alive,
        data_is_gone: context.seen.borrow().data_is_gone,
        guarded: guarded_epoch(context),
        armed: armed(context).map(|(epoch, _)| epoch),
        failover_is_due: failover_is_due(&view),
        use_pg_rewind: settings.use_pg_rewind == Some(true),
        use_slots: settings.use_slots != Some(false),
        remove_on_rewind_failure: settings.remove_data_directory_on_rewind_failure == Some(true),
        remove_on_diverged_timelines: settings.remove_data_directory_on_diverged_timelines
            == Some(true),
        pre_promote: settings.pre_promote.is_some(),
        another_can_lead: view.another_can_lead,
    })
}

fn guarded_epoch(context: &NodeContext) -> Option<u64> {
    armed(context).filter(|(_, deadline)| clock::now() < *deadline).map(|(epoch, _)| epoch)
}

/// Epoch and deadline of a guard that is armed.
fn armed(context: &NodeContext) -> Option<(u64, Millis)> {
    context.guard.borrow().as_ref().and_then(|guard| guard.armed())
}

fn methods(context: &NodeContext) -> Vec<Method> {
    let (config, dynamic) = (context.config(), context.dynamic());
    let methods = config.postgresql.as_ref().map(|p| p.methods(dynamic.standby_cluster.as_ref()));
    let plain = |m: crate::pure::config::ReplicaMethod| Method {
        name: m.name,
        keep_data: m.keep_data,
        no_leader: m.no_leader,
    };
    methods.unwrap_or_default().into_iter().map(plain).collect()
}

fn sync_step(
    context: &NodeContext,
    view: &View,
    dynamic: &Dynamic,
    own: &Facts,
) -> Option<sync::SyncStep> {
    let sql = own.sql.as_ref().filter(|sql| !sql.in_recovery && view.lease.held)?;
    let members: Vec<&Facts> = view.facts.values().map(|h| &h.facts).collect();
    let name = context.config().name.clone();
    sync::next_step((&name, own.copy), &view.cluster, dynamic, sql, &members)
}

fn failover_is_due(view: &View) -> bool {
    let Some(request) = &view.cluster.failover else { return false };
    let at = request.scheduled_at.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    request.scheduled_at.is_none() || at.is_some_and(|at| at <= Timestamp::now())
}
