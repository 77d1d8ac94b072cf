//! Configuration, reload, restart and reinitialize.
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::body::Body;
use super::reply::Reply;
use super::snapshot;
use crate::host::clock;
use crate::host::request::{Handle, Request};
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::operation::ReinitOptions;
use crate::pure::patroni::{dynamic, reinit, restart, standby};

/// A change is waited for at least this long, however short the ttl is.
const PROPOSE_WAIT_MS_MIN: u64 = 10_000;

/// Sends a request and waits for its answer.
///
/// # Errors
/// One sentence: the daemon is stopping, or what it answered.
pub async fn ask<T>(
    handle: &Handle,
    make: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Request,
) -> Result<T, String> {
    let (reply, answer) = oneshot::channel();
    let gone = || "the daemon is stopping and takes no requests".to_owned();
    handle.requests.send(make(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

/// Puts a command into the log; bounded by ttl, after which a quorum is certainly missing.
pub async fn propose(handle: &Handle, command: Command) -> Result<Outcome, String> {
    let wait_ms = handle.dynamic.borrow().ttl_ms.max(PROPOSE_WAIT_MS_MIN);
    let asked = ask(handle, |reply| Request::Propose { command, reply });
    match timeout(Duration::from_millis(wait_ms), asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "no majority confirmed the change within {} s; it may still happen",
            wait_ms / 1000
        )),
    }
}

async fn vet(handle: &Handle, change: &Value) -> Result<(), String> {
    let change = change.clone();
    ask(handle, |reply| Request::Vet { change, reply }).await
}

/// Merges into the dynamic configuration; answers with the whole of it.
pub async fn patch_config(handle: &Handle, body: Body<'_>) -> Reply {
    let patch = match body.required().await {
        Ok(patch) => patch,
        Err(reply) => return reply,
    };
    let Some(current) = snapshot(handle, |snapshot| snapshot.view.cluster.config.clone()) else {
        return Reply::error(503, "the cluster has no configuration yet");
    };
    if let Err(answer) = dynamic::check(&dynamic::different(Some(&current), &patch)) {
        return answer.into();
    }
    let patch = Value::Object(patch);
    if let Err(why) = vet(handle, &patch).await {
        return Reply::error(400, &why);
    }
    let merged = dynamic::patched(&current, &patch);
    match propose(handle, Command::PatchConfig { patch }).await {
        Ok(Outcome::Done) => Reply::json(200, &merged),
        Ok(Outcome::Refused(why)) | Err(why) => Reply::error(409, &why),
    }
}

/// Replaces the dynamic configuration; with `If-Match`, only the version that was read.
pub async fn put_config(handle: &Handle, body: Body<'_>) -> Reply {
    let expected = match body.if_match() {
        Ok(expected) => expected,
        Err(reply) => return reply,
    };
    let config = match body.required().await {
        Ok(config) => config,
        Err(reply) => return reply,
    };
    let current = snapshot(handle, |snapshot| snapshot.view.cluster.config.clone());
    if let Err(answer) = dynamic::check(&dynamic::different(current.as_ref(), &config)) {
        return answer.into();
    }
    let value = Value::Object(config);
    if current.as_ref() == Some(&value) {
        return Reply::json(200, &value);
    }
    if let Err(why) = vet(handle, &value).await {
        return Reply::error(400, &why);
    }
    match propose(handle, Command::SetConfig { value: value.clone(), expected }).await {
        Ok(Outcome::Done) => Reply::json(200, &value),
        Ok(Outcome::Refused(why)) if expected.is_some() => Reply::error(409, &why),
        Ok(Outcome::Refused(why)) | Err(why) => Reply::error(502, &why),
    }
}

/// Orders the promotion of a standby cluster; the leader carries it out when its terms are met.
pub async fn promote_cluster(handle: &Handle, body: Body<'_>) -> Reply {
    let body = match body.optional().await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let order = match snapshot(handle, |snapshot| standby::order(snapshot, &body)) {
        Ok(order) => order,
        Err(answer) => return answer.into(),
    };
    match propose(handle, Command::PromoteCluster { order }).await {
        Ok(Outcome::Done) => Reply::text(202, "promotion of the cluster ordered"),
        Ok(Outcome::Refused(why)) => Reply::text(409, why),
        Err(why) => Reply::text(503, why),
    }
}

/// Reads the configuration file again. A file with faults is answered with them; what needs a restart
/// stands below Patroni's words, a line each.
pub async fn reload(handle: &Handle) -> Reply {
    match ask(handle, |reply| Request::Reload { reply }).await {
        Ok(pending) => {
            let lines = std::iter::once(String::from("reload scheduled")).chain(pending);
            Reply::text(202, lines.collect::<Vec<_>>().join("\n"))
        }
        Err(why) => Reply::text(500, why),
    }
}

/// Restarts PostgreSQL now, or stores when to.
pub async fn restart(handle: &Handle, body: Body<'_>) -> Reply {
    let body = match body.optional().await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let wanted = match restart::parse(&body, clock::epoch_s()) {
        Ok(wanted) => wanted,
        Err(answer) => return answer.into(),
    };
    if let Some(schedule) = restart::scheduled(&wanted) {
        let schedule = Some(schedule);
        return match ask(handle, |reply| Request::ScheduleRestart { schedule, reply }).await {
            Ok(true) => Reply::text(202, "Restart scheduled"),
            Ok(false) => Reply::text(409, "Another restart is already scheduled"),
            Err(why) => Reply::text(503, why),
        };
    }
    if !snapshot(handle, |snapshot| restart::applies(&wanted, snapshot)) {
        return Reply::text(503, "restart conditions are not satisfied");
    }
    let timeout_ms = wanted.timeout_ms;
    match ask(handle, |reply| Request::Restart { timeout_ms, reply }).await {
        Ok(()) => Reply::text(200, "restarted successfully"),
        Err(why) => Reply::text(503, why),
    }
}

pub async fn delete_restart(handle: &Handle) -> Reply {
    match ask(handle, |reply| Request::ScheduleRestart { schedule: None, reply }).await {
        Ok(true) => Reply::text(200, "scheduled restart deleted"),
        Ok(false) => Reply::text(404, "no restarts are scheduled"),
        Err(why) => Reply::text(503, why),
    }
}

/// Rebuilds this replica. A body that cannot be read changes nothing.
pub async fn reinitialize(handle: &Handle, body: Body<'_>) -> Reply {
    let body = match body.optional().await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let wanted = match snapshot(handle, |snapshot| reinit::check(snapshot, &body)) {
        Ok(wanted) => wanted,
        Err(answer) => return answer.into(),
    };
    let reinit::Reinit { force, from_leader, method, source, keep_data } = wanted;
    let reinit = ReinitOptions { from_leader, method, source, keep_data };
    match ask(handle, |reply| Request::Reinitialize { force, reinit, reply }).await {
        Ok(()) => Reply::text(200, "reinitialize started"),
        Err(why) => Reply::text(503, why),
    }
}

/// Calls off a reinitialize that keeps failing, or is not wanted any more.
pub async fn delete_reinitialize(handle: &Handle) -> Reply {
    match ask(handle, |reply| Request::CancelReinitialize { reply }).await {
        Ok(true) => Reply::text(200, "reinitialize cancelled"),
        Ok(false) => Reply::text(404, "no reinitialize is in progress"),
        Err(why) => Reply::text(503, why),
    }
}
