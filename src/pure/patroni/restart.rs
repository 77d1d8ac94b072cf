//! `POST /restart`: the conditions in its body, and whether this node meets them.
use serde_json::{Map, Value, json};

use super::snapshot::Snapshot;
use super::{Answer, quantity, schedule};

/// A restart that was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restart {
    /// ISO 8601; absent means now.
    pub schedule: Option<String>,
    pub role: Option<String>,
    /// Only if the server is older than this, as text and as PostgreSQL's number.
    pub postgres_version: Option<(String, u32)>,
    pub timeout_ms: Option<u64>,
    /// Only if a restart is pending.
    pub restart_pending: bool,
}

/// Reads the body key by key, in its own order; the first wrong one is the answer.
pub fn parse(body: &Map<String, Value>, now_epoch_s: u64) -> Result<Restart, Answer> {
    let mut restart = Restart::default();
    for (key, value) in body {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match key.as_str() {
            "schedule" => {
                restart.schedule = Some(schedule::check(&text, now_epoch_s, "restart")?);
            }
            "role" => restart.role = Some(role(text)?),
            "postgres_version" => {
                let number = version(&text).ok_or_else(|| {
                    Answer::new(400, format!("Invalid PostgreSQL version format: {text}"))
                })?;
                restart.postgres_version = Some((text, number));
            }
            "timeout" => {
                let ms = quantity::milliseconds(&text).filter(|ms| *ms > 0).ok_or_else(|| {
                    Answer::new(400, "Timeout should be a positive number of seconds")
                })?;
                restart.timeout_ms = Some(ms as u64);
            }
            "restart_pending" => restart.restart_pending = true,
            other => {
                let text = format!("Unknown filter for the scheduled restart: {other}");
                return Err(Answer::new(400, text));
            }
        }
    }
    Ok(restart)
}

fn role(text: String) -> Result<String, Answer> {
    match text.as_str() {
        "primary" | "standby_leader" | "replica" => Ok(text),
        _ => Err(Answer::new(
            400,
            "PostgreSQL role should be either primary, standby_leader, or replica",
        )),
    }
}

/// `15.4` or `9.6.2` as PostgreSQL numbers its releases; two parts from 10 on, three before.
pub fn version(text: &str) -> Option<u32> {
    let digits = |part: &&str| !part.is_empty() && part.len() <= 2;
    let parts: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| part.parse::<u32>().ok();
    let numbers: Vec<u32> = parts.iter().filter(|p| digits(p)).filter_map(number).collect();
    match (parts.len(), numbers.as_slice()) {
        (2, [major, minor]) if *major >= 10 => Some(major * 10_000 + minor),
        (3, [major, minor, patch]) if *major < 10 => Some(major * 10_000 + minor * 100 + patch),
        _ => None,
    }
}

/// This node meets the conditions now.
pub fn applies(restart: &Restart, snapshot: &Snapshot) -> bool {
    let role = snapshot.facts().map(|facts| facts.role.text()).unwrap_or_default();
    let version = snapshot.sql().map_or(0, |sql| sql.server_version);
    let pending = snapshot.facts().is_some_and(|facts| !facts.pending_restart.is_empty());
    restart.role.as_deref().is_none_or(|wanted| wanted == role)
        && restart.postgres_version.as_ref().is_none_or(|(_, wanted)| version < *wanted)
        && (!restart.restart_pending || pending)
}

/// The body of `scheduled_restart` as members show it: the schedule and its conditions.
pub fn scheduled(restart: &Restart) -> Option<Value> {
    let mut value = json!({"schedule": restart.schedule.as_deref()?});
    if let Some(role) = &restart.role {
        value["role"] = role.as_str().into();
    }
    if let Some((text, _)) = &restart.postgres_version {
        value["postgres_version"] = text.as_str().into();
    }
    if let Some(ms) = restart.timeout_ms {
        value["timeout"] = (ms / 1000).into();
    }
    if restart.restart_pending {
        value["restart_pending"] = true.into();
    }
    Some(value)
}

/// The conditions of a schedule that [`scheduled`] wrote.
pub fn of_schedule(value: &Value) -> Restart {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    Restart {
        schedule: text("schedule"),
        role: text("role"),
        postgres_version: text("postgres_version").and_then(|t| version(&t).map(|n| (t, n))),
        timeout_ms: value["timeout"].as_u64().map(|s| s * 1000),
        restart_pending: value["restart_pending"] == true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_332_227;

    fn refusal(body: Value) -> (u16, String) {
        let answer = parse(body.as_object().expect("an object"), NOW).expect_err("refused");
        (answer.code, answer.text)
    }

    #[test]
    fn every_wrong_key_is_named() {
        let role = "PostgreSQL role should be either primary, standby_leader, or replica";
        assert_eq!(refusal(json!({"role": "master"})), (400, role.into()));
        let timeout = "Timeout should be a positive number of seconds";
        for bad in [json!(0), json!(-1), json!("soon"), json!([])] {
            assert_eq!(refusal(json!({"timeout": bad})), (400, timeout.into()));
        }
        let unknown = "Unknown filter for the scheduled restart: x";
        assert_eq!(refusal(json!({"x": 1})), (400, unknown.into()));
        assert_eq!(refusal(json!({"postgres_version": "9.6"})).0, 400);
        assert_eq!(refusal(json!({"schedule": "2020-01-01T00:00:00Z"})).0, 422);
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("15.4"), Some(150_004));
        assert_eq!(version("9.6.2"), Some(90_602));
        for bad in ["9.6", "15", "15.4.1", "a.b", "", "15.x", "15.", "100.1"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_schedule_is_shown_with_its_conditions() {
        let body = json!({"schedule": "2030-01-01T00:00:00+00:00", "postgres_version": "15.99"});
        let restart = parse(body.as_object().expect("an object"), NOW).expect("good");
        assert_eq!(scheduled(&restart), Some(body));
        assert_eq!(of_schedule(&scheduled(&restart).expect("a schedule")), restart);
        assert_eq!(scheduled(&Restart::default()), None);
    }
}
