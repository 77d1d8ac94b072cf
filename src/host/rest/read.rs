//! GET, HEAD and OPTIONS: everything that only looks.
use std::time::Duration;

use actix_web::web::Query;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::look;
use super::reply::Reply;
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
    Reply::bare(look(handle, |look| health::code(look, path, &query)))
}

/// GET, by the first segment of the path.
pub async fn get(handle: &Handle, segment: &str, path: &str, query: &str) -> Reply {
    match segment {
        "dump" => Reply::json(200, &dumped(handle).await),
        "dcs" => key(handle, path),
        _ => look(handle, |look| {
            let query = parameters(query);
            let probe = |healthy| Reply::bare(if healthy { 200 } else { 503 });
            match segment {
                "patroni" => Reply::json(200, &status::body(look)),
                "cluster" => Reply::json(200, &cluster::body(look)),
                "members" => Reply::json(200, &members::body(look)),
                "history" => Reply::json(200, &cluster::history(look)),
                "metrics" => Reply::metrics(metrics::text(look)),
                "liveness" => probe(probe::liveness(look)),
                "readiness" => probe(probe::readiness(look, &query)),
                "replica-build" => Reply::json(200, &replica_build(look)),
                "failsafe" => Reply::error(502, "failsafe_mode is not built yet"),
                "config" => match &look.view.cluster.config {
                    Some(config) => {
                        Reply::json(200, config).versioned(look.view.cluster.config_version)
                    }
                    None => Reply::error(502, "the cluster has no configuration yet"),
                },
                _ => Reply::json(health::code(look, path, &query), &status::body(look)),
            }
        }),
    }
}

fn key(handle: &Handle, path: &str) -> Reply {
    let key = path.trim_start_matches('/').strip_prefix("dcs").unwrap_or_default();
    match look(handle, |look| keys::value(look, key)) {
        Some(text) => Reply::text(200, text),
        None => Reply::text(404, format!("there is no key {}", key.trim_matches('/'))),
    }
}

/// This node's replica build: progress, and the machine that runs it with its last attempts.
fn replica_build(look: &crate::pure::patroni::look::Look) -> Value {
    let build = look.facts().and_then(|facts| facts.build.as_ref());
    let machine = look.local.machines.iter().find(|machine| machine.flow == "replica_build");
    json!({"name": look.config.name, "state": look.state_text(), "build": build,
        "failures": machine.map(|machine| machine.knowledge["failures"].clone()),
        "sentence": look.local.sentence, "machine": machine})
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
            let mut value = look(handle, |look| {
                dump::assemble(look.view, look.local, look.dynamic, look.config, postgres)
            });
            value["wall"] = clock::wall().into();
            value
        }
    }
}
