//! What stands below the table: what is planned, what is going on, and what to doubt.
use serde_json::Value;

/// What stands below the table.
pub fn footers(body: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if body["pause"] == true {
        lines.push(" Maintenance mode: on".to_owned());
    }
    lines.extend(scheduled(&body["scheduled_switchover"]));
    let own = &body["surus"];
    if own["quorum"] == false {
        let node = own["node"].as_str().unwrap_or("?");
        let age = own["quorum_age_s"].as_u64().map_or("?".to_owned(), |s| s.to_string());
        lines.push(format!(" No quorum: shown is what member {node} knew {age} s ago"));
    }
    if own["votes"]["dead"].as_array().is_some_and(|dead| !dead.is_empty()) {
        lines.extend(own["votes"]["sentence"].as_str().map(|text| format!(" Votes: {text}")));
    }
    lines.extend(failed_bootstrap(&own["initialize_failure"]));
    lines.extend(remote(&own["standby"]));
    for (name, member) in own["members"].as_object().into_iter().flatten() {
        lines.extend(member["recovery"].as_str().map(|text| format!(" Restoring {name}: {text}")));
        let failure = member["sql_failure"].as_str();
        lines.extend(failure.map(|text| format!(" {name}: no answer to Surus's own SQL: {text}")));
        lines.extend(building(name, &member["build"]));
    }
    lines
}

/// The time, and below it, right-aligned, from whom and to whom.
fn scheduled(switchover: &Value) -> Vec<String> {
    let Some(at) = switchover["at"].as_str() else {
        return Vec::new();
    };
    let head = " Switchover scheduled at:";
    let mut lines = vec![format!("{head} {at}")];
    for key in ["from", "to"] {
        if let Some(name) = switchover[key].as_str() {
            lines.push(format!("{:>width$} {name}", format!("{key}:"), width = head.len()));
        }
    }
    lines
}

/// ` Creating the cluster failed on pg1 (attempt 2, 2026-11-22 10:00:00): why`
fn failed_bootstrap(failure: &Value) -> Option<String> {
    let (node, reason) = (failure["node"].as_str()?, failure["reason"].as_str()?);
    let at = failure["at"].as_str().unwrap_or_default();
    let attempt = failure["attempts"].as_u64().unwrap_or_default();
    Some(format!(" Creating the cluster failed on {node} (attempt {attempt}, {at}): {reason}"))
}

/// What a standby cluster's operator has to know.
fn remote(own: &Value) -> Vec<String> {
    let problems = own["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut lines: Vec<String> = problems.map(|text| format!(" Remote: {text}")).collect();
    if let Some(why) = own["promotion_waits_for"].as_str() {
        lines.push(format!(" Promotion waits: {why}"));
    }
    if let Some(token) = own["handover_token"].as_str() {
        lines.push(format!(" Demoted; handover token: {token}"));
    }
    lines
}

/// ` Building pg2: basebackup from pg0, copying, 45 %`
fn building(name: &str, build: &Value) -> Option<String> {
    let word = |key: &str| build[key].as_str().filter(|text| !text.is_empty());
    let mut text = format!(" Building {name}: {}", word("method")?);
    if let Some(source) = word("source") {
        text.push_str(&format!(" from {source}"));
    }
    if let Some(phase) = word("phase") {
        text.push_str(&format!(", {phase}"));
    }
    let number = |key: &str| build[key].as_u64().unwrap_or_default();
    if number("bytes_total") > 0 {
        let percent = number("bytes_done").min(number("bytes_total")) * 100 / number("bytes_total");
        text.push_str(&format!(", {percent} %"));
    }
    Some(text)
}
