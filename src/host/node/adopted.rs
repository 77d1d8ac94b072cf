//! What an adoption cannot carry over: Patroni's store is not read, so what stood only there is named.
use std::rc::Rc;

use serde_json::{Map, Value};

use super::{NodeContext, start_stop};
use crate::host::postgres::Server;
use crate::host::postgres::processes::blocking;
use crate::pure::operation::Report;

/// Patroni's own copy of its dynamic configuration; it may be old, so it is compared and never taken.
const CACHE: &str = "patroni.dynamic.json";

/// Keys that differ are worth so many names.
const NAMED_MAX: usize = 40;

/// Looks around; a copy is numbered only where this state directory saw its number given.
///
/// # Errors
/// Something cannot be looked at: nothing is known, and nothing follows from it.
pub async fn inspect(context: &Rc<NodeContext>) -> Result<Report, String> {
    let report = start_stop::inspect(context).await?;
    let Report::Inspected(mut inspection) = report else { return Ok(report) };
    let server = context.server()?;
    inspection.numbered = server.knows_copy(server.copy_id().await).await?;
    Ok(Report::Inspected(inspection))
}

/// Warns, once, of a running server that is adopted; nothing of it stands in the way of the adoption.
pub async fn warn(context: &NodeContext, server: &Server) {
    let config = context.config();
    let ours = config.bootstrap.as_ref().map(|b| b.dcs.clone()).unwrap_or_default();
    tracing::warn!(
        "adopts a running PostgreSQL: what stood only in its former manager's store (ttl, synchronous_mode, \
         slots, ignore_slots, standby_cluster, parameters, pg_hba, …) cannot be seen; compare `patronictl \
         show-config` with `surus ctl show-config`, and set what is missing with `surus ctl edit-config`"
    );
    let path = server.data_dir.join(CACHE);
    let (reader, at) = (server.clone(), path.clone());
    let text = match blocking(move || reader.files().read(&at)).await.and_then(|read| read) {
        Ok(text) => text,
        Err(problem) => return tracing::warn!(problem, "what Patroni kept could not be compared"),
    };
    let cached = text.map(|text| serde_json::from_str::<Value>(&text));
    match cached {
        Some(Ok(cached)) => {
            let names = differing(&cached, &ours);
            if !names.is_empty() {
                let names = names[..names.len().min(NAMED_MAX)].join(", ");
                tracing::warn!(keys = names, file = %path.display(), "Patroni had set otherwise");
            }
        }
        Some(Err(_)) => tracing::warn!(file = %path.display(), "is no JSON: not compared"),
        None => {}
    }
    synchronous(server, &ours).await;
}

/// A server that waits for standbys, adopted without the mode: acknowledged would mean less from now on.
async fn synchronous(server: &Server, ours: &Value) {
    let query = "SELECT pg_catalog.current_setting('synchronous_standby_names')";
    let Ok(session) = server.session("Surus adoption").await else { return };
    let Ok(Some(names)) = session.value(query).await else { return };
    let on = ours.get("synchronous_mode").is_some_and(|mode| *mode != Value::Bool(false));
    if !names.is_empty() && !on {
        tracing::warn!(
            synchronous_standby_names = names,
            "the server waits for standbys, and bootstrap.dcs has no synchronous_mode: set it with `surus ctl \
             edit-config` if commits shall wait on"
        );
    }
}

/// Dotted names of what is set there and is not the same here; never values, which may be secret.
fn differing(theirs: &Value, ours: &Value) -> Vec<String> {
    let mut names = Vec::new();
    if let Value::Object(theirs) = theirs {
        collect("", theirs, ours, &mut names);
    }
    names
}

fn collect(prefix: &str, theirs: &Map<String, Value>, ours: &Value, names: &mut Vec<String>) {
    for (key, value) in theirs {
        let name = format!("{prefix}{key}");
        match (value, ours.get(key)) {
            (value, Some(own)) if value == own => {}
            (Value::Null, None) => {}
            (Value::Object(inner), own) if !inner.is_empty() => {
                collect(&format!("{name}."), inner, own.unwrap_or(&Value::Null), names);
            }
            _ => names.push(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Spec: A-1.
    #[test]
    fn what_patroni_had_set_otherwise_is_named_without_values() {
        let theirs = json!({"ttl": 30, "loop_wait": 2, "synchronous_mode": true, "slots": {"etl": {"type":
            "physical"}}, "postgresql": {"parameters": {"work_mem": "8MB", "fsync": null}}});
        let ours =
            json!({"ttl": 6, "loop_wait": 2, "postgresql": {"parameters": {"work_mem": "4MB"}}});
        let mut names = differing(&theirs, &ours);
        names.sort();
        let expected =
            ["postgresql.parameters.work_mem", "slots.etl.type", "synchronous_mode", "ttl"];
        assert_eq!(names, expected);
        assert!(differing(&ours, &ours).is_empty() && differing(&json!(7), &ours).is_empty());
    }
}
