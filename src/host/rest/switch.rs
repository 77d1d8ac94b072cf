//! Switchover and failover: check, put the request into the log, watch what becomes of it.
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::body::Body;
use super::change::propose;
use super::reply::Reply;
use super::snapshot;
use crate::host::clock;
use crate::host::request::Handle;
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::patroni::switchover::{self, Accepted, Action};

/// A view may show the request a moment after the log has it; from then on, absent means gone.
const SEEN_AFTER: Duration = Duration::from_secs(2);

pub async fn post(handle: &Handle, body: Body<'_>, action: Action) -> Reply {
    let body = match body.required().await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let now = clock::epoch_s();
    let accepted =
        match snapshot(handle, |snapshot| switchover::check(snapshot, action, &body, now)) {
            Ok(accepted) => accepted,
            Err(answer) => return answer.into(),
        };
    let leader = snapshot(handle, |snapshot| snapshot.view.cluster.leader().map(str::to_owned));
    let command = Command::SetFailover { request: accepted.request.clone() };
    if let Err(why) = done(propose(handle, command).await) {
        return Reply::text(503, format!("failed to write failover key into DCS: {why}"));
    }
    if accepted.request.scheduled_at.is_some() {
        return Reply::text(202, "Switchover scheduled");
    }
    watch(handle, &accepted, leader.as_deref()).await
}

fn done(answer: Result<Outcome, String>) -> Result<(), String> {
    match answer? {
        Outcome::Done => Ok(()),
        Outcome::Refused(why) => Err(why),
    }
}

/// Waits for the leader to change or the request to vanish; wakes with every new view.
async fn watch(handle: &Handle, accepted: &Accepted, leader: Option<&str>) -> Reply {
    let patience_s = switchover::patience_s(handle.dynamic.borrow().loop_wait_ms);
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(patience_s);
    let mut views = handle.view.clone();
    let mut seen = false;
    loop {
        let view = views.borrow_and_update().clone();
        let pending = view.cluster.failover.as_ref() == Some(&accepted.request);
        seen |= pending || begun.elapsed() >= SEEN_AFTER;
        let settled = seen && !pending;
        if let Some(answer) = switchover::outcome(&view, accepted, leader, settled) {
            return answer.into();
        }
        let wake = if seen { deadline } else { deadline.min(begun + SEEN_AFTER) };
        let woken = timeout_at(wake, views.changed()).await;
        let over = Instant::now() >= deadline;
        if over || matches!(woken, Ok(Err(_))) {
            return switchover::unknown(accepted.action, patience_s).into();
        }
    }
}

/// Takes back a scheduled switchover; one that is under way cannot be.
pub async fn delete(handle: &Handle) -> Reply {
    let request = snapshot(handle, |snapshot| snapshot.view.cluster.failover.clone());
    let Some(request) = request.filter(|request| request.scheduled_at.is_some()) else {
        return Reply::text(404, "no switchover is scheduled");
    };
    let command = Command::ClearFailover { expected: Some(request) };
    match done(propose(handle, command).await) {
        Ok(()) => Reply::text(200, "scheduled switchover deleted"),
        Err(why) => Reply::error(409, &why),
    }
}
