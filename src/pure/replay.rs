//! Recorded transitions, walked again by today's code.
//!
//! A record says where a machine stood and what it knew; the next one says what it heard and where
//! it went. So one pair is enough to ask today's charts and flows what they would do, and to say
//! why: no clock, no disk, and no other machine is needed. Records of a dump, of a stopped node's
//! journal and of a simulated run are the same.
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::flow::any;
use super::machine::{Flow, FollowsSituation, Input, Machine, Record};

pub mod history;

/// What today's code makes of a recorded transition.
#[derive(Clone, Debug, PartialEq)]
pub struct Again {
    pub outcome: Outcome,
    /// The guards that were asked, in order, and what they answered.
    pub guards: Vec<(&'static str, bool)>,
    /// The chart has changed since.
    pub other_chart: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Same,
    /// The first record of its machine: it was told what to know by whoever began it.
    Began,
    /// It cannot be walked again, for this reason.
    Unknown(String),
    /// It would go elsewhere, or know something else.
    Otherwise(String),
}

/// Walks the transition from `before` to `after` (records of one machine) again. `before` is not
/// needed for a machine's first record.
pub fn again(flow: &str, before: Option<&Value>, after: &Value) -> Again {
    any::visit(flow, Walk { before, after })
        .unwrap_or_else(|| unknown(format!("there is no flow `{flow}`")))
}

struct Walk<'a> {
    before: Option<&'a Value>,
    after: &'a Value,
}

impl any::Visitor for Walk<'_> {
    type Output = Again;
    fn visit<F: FollowsSituation>(self) -> Again {
        walked::<F>(self.before, self.after).unwrap_or_else(|unknown| unknown)
    }
}

fn unknown(why: String) -> Again {
    Again { outcome: Outcome::Unknown(why), guards: vec![], other_chart: false }
}

fn read<T: DeserializeOwned>(what: &str, value: &Value) -> Result<T, Again> {
    T::deserialize(value).map_err(|error| unknown(format!("{what} is of another version: {error}")))
}

fn walked<F: Flow>(before: Option<&Value>, after: &Value) -> Result<Again, Again> {
    let recorded: Record<F> = read("the record", after)?;
    if recorded.from.is_none() {
        return Ok(Again { outcome: Outcome::Began, guards: vec![], other_chart: false });
    }
    let input = after.get("input").filter(|input| !input.is_null());
    let input = input.ok_or_else(|| unknown("the record was written without its input".into()))?;
    let input: Input<F> = read("the input", input)?;
    let before = before.ok_or_else(|| unknown("the record before it is not kept".into()))?;
    let before: Record<F> = read("the record before it", before)?;
    if before.seq + 1 != recorded.seq || recorded.from.as_ref() != Some(&before.to) {
        return Err(unknown(format!("record {} is missing before it", recorded.seq - 1)));
    }
    let other_chart = before.chart != recorded.chart;
    let (mut machine, _) = Machine::resume(before);
    let input = input.answering(machine.visit());
    let guards = machine.explain(&input);
    let step = machine.handle(input);
    let other_chart =
        other_chart || step.as_ref().is_some_and(|s| s.record.chart != recorded.chart);
    let outcome = compared(&recorded, step.as_ref().map(|step| &step.record));
    Ok(Again { outcome, guards, other_chart })
}

fn compared<F: Flow>(recorded: &Record<F>, today: Option<&Record<F>>) -> Outcome {
    let Some(today) = today else {
        let from = recorded.from.as_deref().unwrap_or_default();
        return Outcome::Otherwise(format!("it would stay in {from} and write nothing"));
    };
    if today.to != recorded.to {
        return Outcome::Otherwise(format!("it would go to {}", today.to));
    }
    if today.knowledge != recorded.knowledge {
        return Outcome::Otherwise(String::from("it would go there and know something else"));
    }
    Outcome::Same
}
