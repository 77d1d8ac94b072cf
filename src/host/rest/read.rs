//! GET, HEAD and OPTIONS: everything that only looks.
use std::time::Duration;

use actix_web::web::Query;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::reply::Reply;
use super::snapshot;
use crate::host::clock;
use crate::host::request::{Handle, Request};
use crate::pure::dump;
use crate::pure::patroni::{cluster, health, keys, members, metrics, probe, status};

/// How long `/dump` waits for the node before it answers from what was published last.
const DUMP_WAIT: Duration = Duration::from_secs(3);

pub(in crate::host) fn parameters(query: &str) -> Vec<(String, String)> {
    Query::<Vec<(String, String)>>::from_query(query).map(Query::into_inner).unwrap_or_default()
}

/// HEAD and OPTIONS: health paths only, no body.
pub fn bare(handle: &Handle, path: &str, query: &str) -> Reply {
    let query = parameters(query);
    Reply::bare(snapshot(handle, |snapshot| health::code(snapshot, path, &query)))
}

/// GET, by the first segment of the path.
pub async fn get(handle: &Handle, segment: &str, path: &str, query: &str) -> Reply {
    match segment {
        "dump" => Reply::json(200, &dumped(handle).await),
        "dcs" => key(handle, path),
        _ => snapshot(handle, |snapshot| {
            let query = parameters(query);
            let probe = |healthy| Reply::bare(if healthy { 200 } else { 503 });
            match segment {
                "patroni" => Reply::json(200, &status::body(snapshot)),
                "cluster" => Reply::json(200, &cluster::body(snapshot)),
                "members" => Reply::json(200, &members::body(snapshot)),
                "history" => Reply::json(200, &cluster::history(snapshot)),
                "metrics" => Reply::metrics(metrics::text(snapshot)),
                "liveness" => probe(probe::liveness(snapshot)),
                "readiness" => probe(probe::readiness(snapshot, &query)),
                "replica-build" => Reply::json(200, &replica_build(snapshot)),
                "failsafe" => Reply::error(502, "failsafe_mode is not built yet"),
                "config" => match &snapshot.view.cluster.config {
                    Some(config) => {
                        Reply::json(200, config).versioned(snapshot.view.cluster.config_version)
                    }
                    None => Reply::error(502, "the cluster has no configuration yet"),
                },
                _ => Reply::json(health::code(snapshot, path, &query), &status::body(snapshot)),
            }
        }),
    }
}

fn key(handle: &Handle, path: &str) -> Reply {
    let key = path.trim_start_matches('/').strip_prefix("dcs").unwrap_or_default();
    match snapshot(handle, |snapshot| keys::value(snapshot, key)) {
        Some(text) => Reply::text(200, text),
        None => Reply::text(404, format!("there is no key {}", key.trim_matches('/'))),
    }
}

/// This node's replica build: progress, and the machine that runs it with its last attempts.
fn replica_build(snapshot: &crate::pure::patroni::snapshot::Snapshot) -> Value {
    let build = snapshot.facts().and_then(|facts| facts.build.as_ref());
    let machine = snapshot.local.machines.iter().find(|machine| machine.flow == "replica_build");
    json!({"name": snapshot.config.name, "state": snapshot.state_text(), "build": build,
        "failures": machine.map(|machine| machine.knowledge["failures"].clone()),
        "sentence": snapshot.local.sentence, "machine": machine})
}

/// The dump as the node makes it; a node that does not answer is itself worth a dump.
async fn dumped(handle: &Handle) -> Value {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        handle.requests.send(Request::Dump { reply }).await.ok()?;
        answer.await.ok()
    };
    match timeout(DUMP_WAIT, asked).await {
        Ok(Some(value)) => value,
        _ => {
            let postgres = json!({"unknown": "the node's actor did not answer in time"});
            let mut value = snapshot(handle, |snapshot| {
                dump::assemble(
                    snapshot.view,
                    snapshot.local,
                    snapshot.dynamic,
                    snapshot.config,
                    postgres,
                )
            });
            value["wall"] = clock::wall().into();
            value
        }
    }
}
