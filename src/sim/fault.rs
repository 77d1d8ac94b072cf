//! Faults: what can happen to hosts, processes, disks and the network, as values and in words.
use serde::{Deserialize, Serialize};

use super::disk::JournalFate;
use super::rng::Rng;
use super::settings::Settings;
use crate::pure::cluster::Millis;

/// Whom a fault hits; in a scenario file `leader`, `arbiter`, or a node, `n0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    Node(usize),
    /// Whoever holds the lease when it injects.
    Holder,
    /// Whoever arbitrates when it injects.
    Arbiter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// kill -9 of the daemon, and a new one after a while.
    KillDaemon {
        target: Target,
        back_ms: Millis,
    },
    /// SIGSTOP, and SIGCONT after a while.
    Freeze {
        target: Target,
        ms: Millis,
    },
    Thaw {
        node: usize,
    },
    PowerCut {
        target: Target,
        ms: Millis,
    },
    PowerBack {
        node: usize,
    },
    /// PostgreSQL dies.
    KillPostgres {
        target: Target,
    },
    /// Nothing gets from the one to the other.
    CutOneWay {
        from: usize,
        to: usize,
        ms: Millis,
    },
    Isolate {
        target: Target,
        ms: Millis,
    },
    MendNode {
        node: usize,
    },
    StickDisk {
        target: Target,
        ms: Millis,
    },
    Unstick {
        node: usize,
    },
    /// The next record of the journal meets this.
    Journal {
        target: Target,
        fate: JournalFate,
    },
    /// The operator asks for a switchover.
    Switchover,
    /// The operator orders a switchover to this member so much later (0: at once), or a failover.
    Order {
        target: Target,
        failover: bool,
        in_ms: Millis,
    },
    /// The operator changes settings.
    Patch(Settings),
    /// The operator stops the daemon, and starts it again after a while.
    Stop {
        target: Target,
        ms: Millis,
    },
    Start {
        node: usize,
    },
    /// The other site is away for a while.
    RemoteDown {
        ms: Millis,
    },
    /// Another cluster answers there for a while.
    RemoteReplaced {
        ms: Millis,
    },
    RemoteBack,
    /// Replicas receive nothing for a while; all else goes on.
    StallStreams {
        ms: Millis,
    },
    /// The section is taken out by a slip, and put back.
    SectionSlips {
        ms: Millis,
    },
    SectionBack,
    /// The two sites change places, and back after a while.
    SitesChange {
        ms: Millis,
    },
    /// The data directory is gone, and PostgreSQL with it; a scenario's, never drawn: it takes what
    /// was acknowledged with it, unless another copy has it.
    LoseData {
        target: Target,
    },
    /// The operator asks for a new copy.
    Reinitialize {
        target: Target,
    },
    /// The operator calls the running copy off.
    CancelBuild {
        target: Target,
    },
    /// The operator asks for a restart of PostgreSQL.
    Restart {
        target: Target,
    },
    /// Of what a node begins from now on, so much fails at once, whatever it is.
    FailOperations {
        target: Target,
        count: u64,
    },
    /// So much of it hangs, for up to a minute and a half.
    HangOperations {
        target: Target,
        count: u64,
    },
    /// Somebody removes the files under a server that runs: it goes on for a while, on nothing.
    RemoveData {
        target: Target,
    },
    /// The whole host is suspended.
    Sleep {
        target: Target,
        ms: Millis,
    },
    Wake {
        node: usize,
    },
    /// The state directory is lost: Raft log, promises, journal. The daemon is back after a while.
    WipeState {
        target: Target,
        ms: Millis,
    },
    /// Another machine takes its place, with neither state nor data.
    Replace {
        target: Target,
        ms: Millis,
    },
    /// Its host is lost for good, and the operator removes the member; much later there is another
    /// machine under its name, with neither state nor data. A scenario's, never drawn.
    RemoveMember {
        target: Target,
        ms: Millis,
    },
    /// What follows from it.
    OrderRemoval {
        by: usize,
        id: u64,
    },
    /// Another cluster's data lies in its directory, and may run there.
    Stranger {
        target: Target,
        runs: bool,
    },
    /// The other site is promoted by a mistake while this one leads.
    BothSitesWrite,
    /// It is switched on for the first time so late; at the beginning of a story.
    ComesLate {
        node: usize,
        ms: Millis,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Node(node) => write!(f, "n{node}"),
            Target::Holder => f.write_str("the leader"),
            Target::Arbiter => f.write_str("the arbiter"),
        }
    }
}

impl Fault {
    /// What an operator does; `None` for what happens by itself.
    fn request(&self) -> Option<String> {
        Some(match self {
            Fault::Switchover => "asks for a switchover".into(),
            Fault::Order { target, failover, in_ms } => {
                let what = if *failover { "failover" } else { "switchover" };
                format!("orders a {what} to {target}, in {in_ms} ms")
            }
            Fault::Patch(settings) => {
                format!("changes {}", serde_json::to_string(settings).unwrap_or_default())
            }
            Fault::Stop { target, ms } => {
                format!("stops {target}, and starts it again {ms} ms later")
            }
            Fault::Reinitialize { target } => format!("reinitializes {target}"),
            Fault::CancelBuild { target } => format!("calls off the copy on {target}"),
            Fault::Restart { target } => format!("restarts PostgreSQL of {target}"),
            _ => return None,
        })
    }
}

/// In plain words.
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(request) = self.request() {
            return write!(f, "the operator {request}");
        }
        match self {
            Fault::KillDaemon { target, back_ms } => {
                write!(f, "the daemon of {target} is killed, and started again {back_ms} ms later")
            }
            Fault::Freeze { target, ms } => {
                write!(f, "the daemon of {target} is frozen for {ms} ms")
            }
            Fault::PowerCut { target, ms } => write!(f, "{target} has no power for {ms} ms"),
            Fault::KillPostgres { target } => write!(f, "PostgreSQL of {target} is killed"),
            Fault::CutOneWay { from, to, ms } => {
                write!(f, "nothing gets from n{from} to n{to} for {ms} ms")
            }
            Fault::Isolate { target, ms } => write!(f, "{target} is cut off for {ms} ms"),
            Fault::StickDisk { target, ms } => {
                write!(f, "the disk of {target} is stuck for {ms} ms")
            }
            Fault::Journal { target, fate } => {
                write!(f, "the next record of {target}'s journal: {fate:?}")
            }
            Fault::FailOperations { target, count } => {
                write!(f, "whatever {target} begins next fails, {count} times")
            }
            Fault::HangOperations { target, count } => {
                write!(f, "whatever {target} begins next hangs, {count} times")
            }
            Fault::RemoveData { target } => {
                write!(f, "somebody removes the data under the server of {target}")
            }
            Fault::Sleep { target, ms } => {
                write!(f, "the host of {target} is suspended for {ms} ms")
            }
            Fault::WipeState { target, ms } => {
                write!(f, "{target} loses its state directory and its daemon, back in {ms} ms")
            }
            Fault::Replace { target, ms } => {
                write!(f, "another machine takes the place of {target} {ms} ms later")
            }
            Fault::RemoveMember { target, .. } => {
                write!(f, "{target} is lost for good and removed")
            }
            Fault::Stranger { target, runs: true } => {
                write!(f, "another cluster runs on the data directory of {target}")
            }
            Fault::Stranger { target, .. } => {
                write!(f, "another cluster's data lies in the data directory of {target}")
            }
            Fault::BothSitesWrite => f.write_str("the other site is promoted by a mistake"),
            Fault::ComesLate { node, ms } => {
                write!(f, "n{node} is switched on only {ms} ms after the others")
            }
            Fault::LoseData { target } => write!(f, "the data directory of {target} is gone"),
            Fault::RemoteDown { ms } => write!(f, "the other site is away for {ms} ms"),
            Fault::RemoteReplaced { ms } => {
                write!(f, "another cluster answers for the other site for {ms} ms")
            }
            Fault::SectionSlips { ms } => {
                write!(f, "the section standby_cluster is taken out by a slip for {ms} ms")
            }
            Fault::SitesChange { ms } => {
                write!(f, "the two sites change places, and back {ms} ms later")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Target, String> {
        let number = |digits: &str| digits.parse().ok();
        match text.as_str() {
            "leader" => Ok(Target::Holder),
            "arbiter" => Ok(Target::Arbiter),
            node => node.strip_prefix('n').and_then(number).map(Target::Node).ok_or_else(|| {
                format!("`{text}` is nobody: write leader, arbiter, or a node as n0, n1, …")
            }),
        }
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        match target {
            Target::Node(node) => format!("n{node}"),
            Target::Holder => String::from("leader"),
            Target::Arbiter => String::from("arbiter"),
        }
    }
}

pub fn target(rng: &mut Rng, nodes: usize) -> Target {
    match rng.below(5) {
        0 | 1 => Target::Holder,
        2 => Target::Arbiter,
        _ => Target::Node(rng.below(nodes)),
    }
}

/// One fault of these kinds, of any kind where none is named.
pub fn draw_of(kinds: &[String], rng: &mut Rng, nodes: usize, ttl_ms: Millis) -> Fault {
    loop {
        let fault = draw(rng, nodes, ttl_ms);
        if fault.is_one_of(kinds) || !kinds.iter().any(|kind| DRAWN.contains(&kind.as_str())) {
            return fault;
        }
    }
}

/// What [`draw`] can give; the other site's faults are drawn elsewhere.
pub const DRAWN: [&str; 11] = [
    "kill_daemon",
    "freeze",
    "power_cut",
    "kill_postgres",
    "cut_one_way",
    "isolate",
    "stick_disk",
    "journal",
    "switchover",
    "stop",
    "reinitialize",
];

/// What a plan adds by itself: the faults of a standby cluster's other site, lag, and an operator.
pub const ADDED: [&str; 18] = [
    "order",
    "patch",
    "sites_change",
    "remote_down",
    "remote_replaced",
    "section_slips",
    "stall_streams",
    "restart",
    "cancel_build",
    "fail_operations",
    "hang_operations",
    "remove_data",
    "sleep",
    "wipe_state",
    "replace",
    "comes_late",
    "stranger",
    "both_sites_write",
];

impl Fault {
    /// As scenario files name it.
    pub fn kind(&self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(fields)) => fields.keys().cloned().collect(),
            Ok(serde_json::Value::String(name)) => name,
            other => unreachable!("a fault is a name with or without fields: {other:?}"),
        }
    }

    /// Is it wanted? Where no kind is named, every kind is.
    pub fn is_one_of(&self, kinds: &[String]) -> bool {
        kinds.is_empty() || kinds.contains(&self.kind())
    }

    /// Whom it happens to by number.
    pub fn numbers(&self) -> Vec<usize> {
        let fields = serde_json::to_value(self).unwrap_or_default();
        let fields = fields.as_object().and_then(|kinds| kinds.values().next()?.as_object());
        let number = |value: &serde_json::Value| match value {
            serde_json::Value::String(target) => target.strip_prefix('n')?.parse().ok(),
            value => value.as_u64().map(|node| node as usize),
        };
        let of = |key: &str| fields?.get(key).and_then(number);
        ["target", "node", "from", "to"].into_iter().filter_map(of).collect()
    }
}

/// One fault; long ones outlast the lease.
pub fn draw(rng: &mut Rng, nodes: usize, ttl_ms: Millis) -> Fault {
    let ms = match rng.below(4) {
        3 => rng.between(ttl_ms * 95 / 100, ttl_ms * 120 / 100), // it ends when the lease does
        0 => rng.between(20, ttl_ms / 2),
        1 => rng.between(ttl_ms / 2, 2 * ttl_ms),
        _ => rng.between(ttl_ms, 5 * ttl_ms),
    };
    let target = target(rng, nodes);
    let (from, to) = (rng.below(nodes), rng.below(nodes));
    match rng.below(18) {
        0..=2 => Fault::KillDaemon { target, back_ms: ms },
        3..=4 => Fault::Freeze { target, ms },
        5..=6 => Fault::PowerCut { target, ms },
        7..=8 => Fault::KillPostgres { target },
        9 => Fault::CutOneWay { from, to: if to == from { (from + 1) % nodes } else { to }, ms },
        10..=12 => Fault::Isolate { target, ms },
        13 => Fault::StickDisk { target, ms },
        14 => Fault::Journal { target, fate: fate(rng) },
        15 => Fault::Switchover,
        16 => Fault::Stop { target, ms },
        _ => Fault::Reinitialize { target },
    }
}

fn fate(rng: &mut Rng) -> JournalFate {
    match rng.below(5) {
        0 | 1 => JournalFate::DiesBefore,
        2 | 3 => JournalFate::DiesAfter,
        _ => JournalFate::Refuses,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a person may ask for is what randomness can give.
    #[test]
    fn every_kind_that_is_drawn_is_listed_and_the_other_way_round() {
        let mut rng = Rng::new(1);
        let drawn: BTreeSet<String> = (0..2000).map(|_| draw(&mut rng, 3, 3000).kind()).collect();
        assert_eq!(drawn, DRAWN.iter().map(|kind| kind.to_string()).collect());
    }
}
