//! Short questions to a node's REST interface.
use std::time::Duration;

use serde_json::Value;

/// Status and body; `None` when nobody answers in time.
pub fn get(at: &str, path: &str) -> Option<(u16, String)> {
    ask(agent(Duration::from_secs(2)).get(format!("http://{at}{path}")).call())
}

pub fn get_json(at: &str, path: &str) -> Option<Value> {
    serde_json::from_str(&get(at, path)?.1).ok()
}

pub fn post(at: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let agent = agent(Duration::from_secs(60));
    ask(agent.post(format!("http://{at}{path}")).send(body))
}

pub fn patch(at: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let agent = agent(Duration::from_secs(20));
    ask(agent.patch(format!("http://{at}{path}")).send(body))
}

pub fn delete(at: &str, path: &str) -> Option<(u16, String)> {
    ask(agent(Duration::from_secs(20)).delete(format!("http://{at}{path}")).call())
}

fn agent(limit: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_idle_connections(0)
        .build();
    config.new_agent()
}

fn ask(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<(u16, String)> {
    let mut answer = answer.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.body_mut().read_to_string().ok()?))
}
