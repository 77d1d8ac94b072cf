//! `reinit`: rebuild replicas, and with `--wait` tell how it ended.
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::Reinit;
use super::client::{ACTION_WAIT, Client, Response, parse};
use super::members::{self, Member};
use super::output::line;
use super::restart::failed;
use super::{Outcome, Stop, progress, prompt};

const POLL: Duration = Duration::from_millis(500);
/// A build that was accepted begins within this time.
const BEGIN_WAIT: Duration = Duration::from_secs(30);

pub fn reinit(client: &Client, task: &Reinit) -> Outcome {
    let (scope, body) = members::cluster(client, task.cluster.as_deref())?;
    members::print(&scope, &body);
    let names = match task.members.is_empty() {
        false => task.members.clone(),
        true if task.force => return Err("Name the members to reinitialize".into()),
        true => {
            let all = members::names(&members::all(&body));
            vec![prompt::ask(
                &format!("Which member do you want to reinitialize [{all}]?"),
                Some(""),
            )?]
        }
    };
    let list = members::choose(&scope, &body, &names, None)?;
    if task.cancel {
        return list.iter().try_for_each(|member| cancel(client, member));
    }
    if !task.force {
        let names = members::names(&list);
        prompt::confirm(&format!("Are you sure you want to reinitialize members {names}?"))?;
    }
    let mut started = Vec::new();
    for member in &list {
        let before = build_of(client, member).ok();
        if start(client, member, task)? {
            started.push((member, before));
        }
    }
    if !task.wait {
        return Ok(());
    }
    let mut all_good = started.len() == list.len();
    for (member, before) in started {
        all_good &= wait(client, member, before)?;
    }
    if all_good { Ok(()) } else { Err("Not every member was reinitialized".into()) }
}

fn cancel(client: &Client, member: &Member) -> Outcome {
    match client.call("DELETE", &member.base, "/reinitialize", None, ACTION_WAIT) {
        Ok(Response { code: 200, .. }) => {
            line(&format!("Success: reinitialize cancelled for member {}", member.name));
            Ok(())
        }
        other => Err(failed("cancel reinitialize", &member.name, other).into()),
    }
}

/// What is asked for; what the operator did not say is left to the member's configuration.
fn request(task: &Reinit, force: bool) -> Value {
    let mut body = json!({"force": force, "from_leader": task.from_leader});
    if let Some(method) = &task.method {
        body["method"] = method.as_str().into();
    }
    if let Some(source) = &task.source {
        body["source"] = source.as_str().into();
    }
    if task.keep_data {
        body["keep_data"] = true.into();
    }
    body
}

fn start(client: &Client, member: &Member, task: &Reinit) -> Outcome<bool> {
    let mut force = task.force;
    loop {
        let body = request(task, force);
        let answer = client.call("POST", &member.base, "/reinitialize", Some(&body), ACTION_WAIT);
        match answer {
            Ok(Response { code: 200, .. }) => {
                line(&format!("Success: reinitialize for member {}", member.name));
                return Ok(true);
            }
            Ok(Response { code: 503, ref body, .. })
                if body.contains("already in progress") && !force =>
            {
                line(&failed("reinitialize", &member.name, answer.clone()));
                if !prompt::yes("Do you want to cancel it and reinitialize anyway?")? {
                    return Ok(false);
                }
                force = true;
            }
            other => {
                line(&failed("reinitialize", &member.name, other));
                return Ok(false);
            }
        }
    }
}

fn build_of(client: &Client, member: &Member) -> Result<Value, String> {
    client.get(&member.base, "/replica-build").and_then(parse)
}

/// Where a build is, judged by the machine that runs it and by PostgreSQL's state.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    NotBegun,
    Going,
    Done,
    Failed(String),
}

/// Number and time: another run counts from the beginning, but later.
fn last_transition(build: &Value) -> Option<(u64, u64)> {
    let last = build["machine"]["transitions"].as_array()?.last()?;
    Some((last["seq"].as_u64()?, last["at"].as_u64().unwrap_or_default()))
}

/// `begun` is whether any sign of this build was seen before.
fn stage(build: &Value, before: Option<&Value>, begun: bool) -> Stage {
    let state = build["state"].as_str().unwrap_or_default();
    let machine = build["machine"]["state"].as_str().unwrap_or_default();
    let moved = last_transition(build) != before.and_then(last_transition);
    let going = !build["build"].is_null() || state == "creating replica";
    if !(begun || moved || going) {
        return Stage::NotBegun;
    }
    if moved && machine == "cancelled" {
        return Stage::Failed("it was cancelled".to_owned());
    }
    if moved && build["build"]["phase"] == "backing off" {
        let problem = build["build"]["problem"].as_str().unwrap_or("no reason was given");
        let again = build["build"]["next_attempt_s"].as_u64().unwrap_or_default();
        return Stage::Failed(format!(
            "{problem}; the member tries again in {again} s, until `reinit --cancel`"
        ));
    }
    if !going && state == "running" {
        return Stage::Done;
    }
    Stage::Going
}

/// Follows one build to its end; true when PostgreSQL runs again.
fn wait(client: &Client, member: &Member, before: Option<Value>) -> Outcome<bool> {
    let bar = ProgressBar::new(0);
    bar.set_prefix(member.name.clone());
    let asked = Instant::now();
    let mut begun = false;
    let mut silent_since: Option<Instant> = None;
    loop {
        match build_of(client, member) {
            Err(error) => {
                // The daemon may be away for a moment; only a long silence is an answer.
                let since = *silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() > BEGIN_WAIT {
                    bar.finish_and_clear();
                    return Err(Stop::Error(error));
                }
            }
            Ok(build) => {
                silent_since = None;
                show(&bar, &build["build"]);
                let stage = stage(&build, before.as_ref(), begun);
                begun |= stage == Stage::Going;
                if let Some(good) = ended(member, &stage, asked) {
                    bar.finish_and_clear();
                    return Ok(good);
                }
            }
        }
        thread::sleep(POLL);
    }
}

fn ended(member: &Member, stage: &Stage, asked: Instant) -> Option<bool> {
    let name = &member.name;
    let (text, good) = match stage {
        Stage::Going => return None,
        Stage::NotBegun if asked.elapsed() < BEGIN_WAIT => return None,
        Stage::NotBegun => (format!("Failed: reinitialize for member {name} did not begin"), false),
        Stage::Done => (format!("Reinitialize is completed on: {name}"), true),
        Stage::Failed(cause) => (format!("Failed: reinitialize for member {name}: {cause}"), false),
    };
    line(&text);
    Some(good)
}

/// A bar as soon as there is something to measure, words before.
fn show(bar: &ProgressBar, build: &Value) {
    let number = |key: &str| build[key].as_u64().unwrap_or_default();
    let known = number("bytes_total") > 0;
    let template = if known { "{prefix}: [{bar:30}] {msg}" } else { "{prefix}: {spinner} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_length(number("bytes_total"));
    bar.set_position(number("bytes_done"));
    let waiting = build.is_null();
    bar.set_message(if waiting { "waiting".to_owned() } else { progress::line(build) });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(state: &str, machine: &str, seq: u64, build: Value) -> Value {
        json!({"state": state, "build": build,
            "machine": {"state": machine, "transitions": [{"seq": seq, "cause": "disk full"}]}})
    }

    #[test]
    fn running_before_the_build_began_is_not_its_end() {
        let before = build("running", "streaming", 7, Value::Null);
        assert_eq!(stage(&before, Some(&before), false), Stage::NotBegun);
        let copying = build("creating replica", "copying", 9, json!({"phase": "copying"}));
        assert_eq!(stage(&copying, Some(&before), false), Stage::Going);
        let starting = build("starting", "watching", 12, Value::Null);
        assert_eq!(stage(&starting, Some(&before), true), Stage::Going);
        let done = build("running", "streaming", 14, Value::Null);
        assert_eq!(stage(&done, Some(&before), true), Stage::Done);
    }

    /// Spec: RI-5.
    #[test]
    fn a_failed_build_says_why() {
        let before = build("running", "streaming", 7, Value::Null);
        let phase = json!({"phase": "backing off", "problem": "disk full", "next_attempt_s": 5});
        let failed = build("creating replica", "backing_off", 9, phase);
        let Stage::Failed(why) = stage(&failed, Some(&before), true) else { panic!("it failed") };
        assert!(why.starts_with("disk full; the member tries again in 5 s"), "{why}");
        let cancelled = build("stopped", "cancelled", 9, Value::Null);
        let why = Stage::Failed("it was cancelled".into());
        assert_eq!(stage(&cancelled, Some(&before), true), why);
        // What failed before is not this one's failure.
        assert_eq!(stage(&failed, Some(&failed), false), Stage::Going);
    }

    #[test]
    fn another_run_that_ends_at_the_same_number_is_another() {
        let at = |at: u64| {
            let mut one = build("running", "streaming", 8, Value::Null);
            one["machine"]["transitions"][0]["at"] = at.into();
            one
        };
        assert_eq!(stage(&at(2000), Some(&at(1000)), false), Stage::Done);
    }
}
