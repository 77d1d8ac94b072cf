//! What the operator asks about, in words: `kill n2`, `cut n1 n3`, `wait 10s`.
use crate::pure::cluster::Millis;
use crate::sim::fault::{Fault, Target};

use super::start::Dumped;

/// Far beyond the end of any question.
const FOR_EVER: Millis = 1 << 40;

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// These happen at once.
    Inject(Vec<Fault>),
    Wait(Millis),
}

pub const GRAMMAR: &str = "write `kill NAME` (its machine), `kill daemon NAME`, \
     `kill postgres NAME`, `freeze NAME`, `cut NAME` (from all), `cut NAME NAME`, `mend NAME`, \
     `start NAME`, `stop NAME`, `stick disk NAME`, `switchover`, or `wait 10s`";

/// # Errors
/// One sentence: what of it is not understood, and what can be written.
pub fn parse(text: &str, dumped: &Dumped) -> Result<Action, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let node = |name: &str| {
        let known = || {
            let mut names = dumped.names();
            names.sort();
            format!("`{text}`: there is no {name}, only {}", names.join(", "))
        };
        dumped.number_of(name).ok_or_else(known)
    };
    let target = |name: &str| node(name).map(Target::Node);
    let one = |fault: Fault| Ok(Action::Inject(vec![fault]));
    let ms = FOR_EVER;
    match words[..] {
        ["kill", name] => one(Fault::PowerCut { target: target(name)?, ms }),
        ["kill", "daemon", name] => one(Fault::KillDaemon { target: target(name)?, back_ms: ms }),
        ["kill", "postgres", name] => one(Fault::KillPostgres { target: target(name)? }),
        ["freeze", name] => one(Fault::Freeze { target: target(name)?, ms }),
        ["cut", name] => one(Fault::Isolate { target: target(name)?, ms }),
        ["cut", from, to] => {
            let (from, to) = (node(from)?, node(to)?);
            let way = |from, to| Fault::CutOneWay { from, to, ms };
            Ok(Action::Inject(vec![way(from, to), way(to, from)]))
        }
        ["mend", name] => one(Fault::MendNode { node: node(name)? }),
        ["start", name] => {
            let node = node(name)?;
            let thaw = [Fault::Thaw { node }, Fault::Unstick { node }];
            let start = [Fault::PowerBack { node }, Fault::Start { node }];
            Ok(Action::Inject(thaw.into_iter().chain(start).collect()))
        }
        ["stop", name] => one(Fault::Stop { target: target(name)?, ms }),
        ["stick", "disk", name] => one(Fault::StickDisk { target: target(name)?, ms }),
        ["switchover"] => one(Fault::Switchover),
        ["wait", time] => crate::sim::cli::duration(time)
            .map(|time| Action::Wait(time.as_millis() as Millis))
            .map_err(|error| format!("`{text}`: {error}")),
        _ => Err(format!("`{text}` is not understood: {GRAMMAR}")),
    }
}
