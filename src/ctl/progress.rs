//! A replica build in one line, for the listing and for whoever waits.
use indicatif::{BinaryBytes, HumanDuration};
use serde_json::Value;
use std::time::Duration;

fn number(build: &Value, key: &str) -> u64 {
    build[key].as_u64().unwrap_or_default()
}

fn text<'a>(build: &'a Value, key: &str) -> &'a str {
    build[key].as_str().unwrap_or_default()
}

/// `basebackup from n1: copying, 10.00 MiB of 40.00 MiB, 5.00 MiB/s, 6 seconds left`.
/// What is not known is not said.
pub fn line(build: &Value) -> String {
    let mut words = vec![headline(build)];
    words.extend(bytes(build));
    let attempt = number(build, "attempt");
    if attempt > 1 {
        words.push(format!("attempt {attempt}"));
    }
    let phase = text(build, "phase");
    if let Some(seconds) = build["next_attempt_s"].as_u64() {
        words.push(format!("again in {seconds} s"));
    }
    if phase == "backing off" {
        words.push(text(build, "problem").to_owned());
    }
    words.retain(|word| !word.is_empty());
    words.join(", ")
}

/// `basebackup from n1: copying`; with its place among several methods.
pub fn headline(build: &Value) -> String {
    let (method, source) = (text(build, "method"), text(build, "source"));
    let of = match number(build, "methods") {
        0 | 1 => String::new(),
        methods => format!(" ({} of {methods})", number(build, "method_number")),
    };
    let from = if source.is_empty() { String::new() } else { format!(" from {source}") };
    format!("{method}{of}{from}: {}", text(build, "phase"))
}

fn bytes(build: &Value) -> Vec<String> {
    let (done, total) = (number(build, "bytes_done"), number(build, "bytes_total"));
    let mut words = vec![];
    match (done, total) {
        (0, 0) => return words,
        (done, 0) => words.push(format!("{} so far", BinaryBytes(done))),
        (done, total) => words.push(format!("{} of {}", BinaryBytes(done), BinaryBytes(total))),
    }
    let rate = number(build, "bytes_per_second");
    if rate > 0 {
        words.push(format!("{}/s", BinaryBytes(rate)));
    }
    if let Some(eta) = build["eta_s"].as_u64() {
        words.push(format!("{} left", HumanDuration(Duration::from_secs(eta))));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn build() -> Value {
        json!({"method": "basebackup", "method_number": 1, "methods": 1, "attempt": 1,
            "source": "n1", "phase": "copying", "bytes_done": 0, "bytes_total": 0,
            "bytes_per_second": 0, "eta_s": null, "next_attempt_s": null, "problem": ""})
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        assert_eq!(line(&build()), "basebackup from n1: copying");
        let mut custom = build();
        custom["bytes_done"] = (10 << 20).into();
        custom["source"] = "".into();
        custom["methods"] = 2.into();
        assert_eq!(line(&custom), "basebackup (1 of 2): copying, 10.00 MiB so far");
    }

    #[test]
    fn a_copy_tells_how_far_it_is_and_how_long_it_takes() {
        let mut copy = build();
        for (key, value) in [("bytes_done", 10 << 20), ("bytes_total", 40 << 20), ("eta_s", 6)] {
            copy[key] = value.into();
        }
        copy["bytes_per_second"] = (5 << 20).into();
        let wanted =
            "basebackup from n1: copying, 10.00 MiB of 40.00 MiB, 5.00 MiB/s, 6 seconds left";
        assert_eq!(line(&copy), wanted);
    }

    #[test]
    fn a_failure_is_shown_with_the_next_attempt() {
        let mut failed = build();
        failed["phase"] = "backing off".into();
        failed["attempt"] = 2.into();
        failed["next_attempt_s"] = 7.into();
        failed["problem"] = "basebackup from n1: disk full".into();
        let wanted = "basebackup from n1: backing off, attempt 2, again in 7 s, basebackup from n1: \
                      disk full";
        assert_eq!(line(&failed), wanted);
    }
}
