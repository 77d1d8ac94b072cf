//! Misfortunes: what can happen to hosts, processes, disks and the network, as values and in words.
use serde::{Deserialize, Serialize};

use super::disk::JournalFate;
use super::luck::Luck;
use super::settings::Settings;
use crate::pure::cluster::Millis;

/// Whom a misfortune hits; in a scenario file `leader`, `arbiter`, or a node, `n0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Whom {
    Node(usize),
    /// Whoever holds the lease when it strikes.
    Holder,
    /// Whoever arbitrates when it strikes.
    Arbiter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// kill -9 of the daemon, and a new one after a while.
    KillDaemon {
        whom: Whom,
        back_ms: Millis,
    },
    /// SIGSTOP, and SIGCONT after a while.
    Freeze {
        whom: Whom,
        ms: Millis,
    },
    Thaw {
        node: usize,
    },
    PowerCut {
        whom: Whom,
        ms: Millis,
    },
    PowerBack {
        node: usize,
    },
    /// PostgreSQL dies.
    KillPostgres {
        whom: Whom,
    },
    /// Nothing gets from the one to the other.
    CutOneWay {
        from: usize,
        to: usize,
        ms: Millis,
    },
    Isolate {
        whom: Whom,
        ms: Millis,
    },
    MendNode {
        node: usize,
    },
    StickDisk {
        whom: Whom,
        ms: Millis,
    },
    Unstick {
        node: usize,
    },
    /// The next record of the journal meets this.
    Journal {
        whom: Whom,
        fate: JournalFate,
    },
    /// The operator asks for a switchover.
    Switchover,
    /// The operator orders a switchover to this member so much later (0: at once), or a failover.
    Order {
        whom: Whom,
        failover: bool,
        in_ms: Millis,
    },
    /// The operator changes settings.
    Patch(Settings),
    /// The operator stops the daemon, and starts it again after a while.
    Stop {
        whom: Whom,
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
        whom: Whom,
    },
    /// The operator asks for a new copy.
    Reinitialize {
        whom: Whom,
    },
    /// The operator calls the running copy off.
    CancelBuild {
        whom: Whom,
    },
    /// The operator asks for a restart of PostgreSQL.
    Restart {
        whom: Whom,
    },
    /// Of what a node begins from now on, so much fails at once, whatever it is.
    FailDeeds {
        whom: Whom,
        count: u64,
    },
    /// So much of it hangs, for up to a minute and a half.
    HangDeeds {
        whom: Whom,
        count: u64,
    },
    /// Somebody removes the files under a server that runs: it goes on for a while, on nothing.
    RemoveData {
        whom: Whom,
    },
    /// The whole host is suspended.
    Sleep {
        whom: Whom,
        ms: Millis,
    },
    Wake {
        node: usize,
    },
    /// The state directory is lost: Raft log, promises, journal. The daemon is back after a while.
    WipeState {
        whom: Whom,
        ms: Millis,
    },
    /// Another machine takes its place, with neither state nor data.
    Replace {
        whom: Whom,
        ms: Millis,
    },
    /// Its host is lost for good, and the operator removes the member; much later there is another
    /// machine under its name, with neither state nor data. A scenario's, never drawn.
    RemoveMember {
        whom: Whom,
        ms: Millis,
    },
    /// What follows from it.
    OrderRemoval {
        by: usize,
        id: u64,
    },
    /// Another cluster's data lies in its directory, and may run there.
    Stranger {
        whom: Whom,
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

impl std::fmt::Display for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Whom::Node(node) => write!(f, "n{node}"),
            Whom::Holder => f.write_str("the leader"),
            Whom::Arbiter => f.write_str("the arbiter"),
        }
    }
}

impl Fault {
    /// What an operator does; `None` for what happens by itself.
    fn request(&self) -> Option<String> {
        Some(match self {
            Fault::Switchover => "asks for a switchover".into(),
            Fault::Order { whom, failover, in_ms } => {
                let what = if *failover { "failover" } else { "switchover" };
                format!("orders a {what} to {whom}, in {in_ms} ms")
            }
            Fault::Patch(settings) => {
                format!("changes {}", serde_json::to_string(settings).unwrap_or_default())
            }
            Fault::Stop { whom, ms } => format!("stops {whom}, and starts it again {ms} ms later"),
            Fault::Reinitialize { whom } => format!("reinitializes {whom}"),
            Fault::CancelBuild { whom } => format!("calls off the copy on {whom}"),
            Fault::Restart { whom } => format!("restarts PostgreSQL of {whom}"),
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
            Fault::KillDaemon { whom, back_ms } => {
                write!(f, "the daemon of {whom} is killed, and started again {back_ms} ms later")
            }
            Fault::Freeze { whom, ms } => {
                write!(f, "the daemon of {whom} is frozen for {ms} ms")
            }
            Fault::PowerCut { whom, ms } => write!(f, "{whom} has no power for {ms} ms"),
            Fault::KillPostgres { whom } => write!(f, "PostgreSQL of {whom} is killed"),
            Fault::CutOneWay { from, to, ms } => {
                write!(f, "nothing gets from n{from} to n{to} for {ms} ms")
            }
            Fault::Isolate { whom, ms } => write!(f, "{whom} is cut off for {ms} ms"),
            Fault::StickDisk { whom, ms } => write!(f, "the disk of {whom} is stuck for {ms} ms"),
            Fault::Journal { whom, fate } => {
                write!(f, "the next record of {whom}'s journal: {fate:?}")
            }
            Fault::FailDeeds { whom, count } => {
                write!(f, "whatever {whom} begins next fails, {count} times")
            }
            Fault::HangDeeds { whom, count } => {
                write!(f, "whatever {whom} begins next hangs, {count} times")
            }
            Fault::RemoveData { whom } => {
                write!(f, "somebody removes the data under the server of {whom}")
            }
            Fault::Sleep { whom, ms } => write!(f, "the host of {whom} is suspended for {ms} ms"),
            Fault::WipeState { whom, ms } => {
                write!(f, "{whom} loses its state directory, and its daemon is back {ms} ms later")
            }
            Fault::Replace { whom, ms } => {
                write!(f, "another machine takes the place of {whom} {ms} ms later")
            }
            Fault::RemoveMember { whom, .. } => write!(f, "{whom} is lost for good and removed"),
            Fault::Stranger { whom, runs: true } => {
                write!(f, "another cluster runs on the data directory of {whom}")
            }
            Fault::Stranger { whom, .. } => {
                write!(f, "another cluster's data lies in the data directory of {whom}")
            }
            Fault::BothSitesWrite => f.write_str("the other site is promoted by a mistake"),
            Fault::ComesLate { node, ms } => {
                write!(f, "n{node} is switched on only {ms} ms after the others")
            }
            Fault::LoseData { whom } => write!(f, "the data directory of {whom} is gone"),
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

impl TryFrom<String> for Whom {
    type Error = String;

    fn try_from(text: String) -> Result<Whom, String> {
        let number = |digits: &str| digits.parse().ok();
        match text.as_str() {
            "leader" => Ok(Whom::Holder),
            "arbiter" => Ok(Whom::Arbiter),
            node => node.strip_prefix('n').and_then(number).map(Whom::Node).ok_or_else(|| {
                format!("`{text}` is nobody: write leader, arbiter, or a node as n0, n1, …")
            }),
        }
    }
}

impl From<Whom> for String {
    fn from(whom: Whom) -> String {
        match whom {
            Whom::Node(node) => format!("n{node}"),
            Whom::Holder => String::from("leader"),
            Whom::Arbiter => String::from("arbiter"),
        }
    }
}

pub fn whom(luck: &mut Luck, nodes: usize) -> Whom {
    match luck.below(5) {
        0 | 1 => Whom::Holder,
        2 => Whom::Arbiter,
        _ => Whom::Node(luck.below(nodes)),
    }
}

/// One misfortune of these kinds, of any kind where none is named.
pub fn draw_of(kinds: &[String], luck: &mut Luck, nodes: usize, ttl_ms: Millis) -> Fault {
    loop {
        let fault = draw(luck, nodes, ttl_ms);
        if fault.is_one_of(kinds) || !kinds.iter().any(|kind| DRAWN.contains(&kind.as_str())) {
            return fault;
        }
    }
}

/// What [`draw`] can give; the other site's misfortunes are drawn elsewhere.
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

/// What a plan adds by itself: the misfortunes of a standby cluster's other site, lag, and an operator.
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
    "fail_deeds",
    "hang_deeds",
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
            serde_json::Value::String(whom) => whom.strip_prefix('n')?.parse().ok(),
            value => value.as_u64().map(|node| node as usize),
        };
        let of = |key: &str| fields?.get(key).and_then(number);
        ["whom", "node", "from", "to"].into_iter().filter_map(of).collect()
    }
}

/// One misfortune; long ones outlast the lease.
pub fn draw(luck: &mut Luck, nodes: usize, ttl_ms: Millis) -> Fault {
    let ms = match luck.below(4) {
        3 => luck.between(ttl_ms * 95 / 100, ttl_ms * 120 / 100), // it ends when the lease does
        0 => luck.between(20, ttl_ms / 2),
        1 => luck.between(ttl_ms / 2, 2 * ttl_ms),
        _ => luck.between(ttl_ms, 5 * ttl_ms),
    };
    let whom = whom(luck, nodes);
    let (from, to) = (luck.below(nodes), luck.below(nodes));
    match luck.below(18) {
        0..=2 => Fault::KillDaemon { whom, back_ms: ms },
        3..=4 => Fault::Freeze { whom, ms },
        5..=6 => Fault::PowerCut { whom, ms },
        7..=8 => Fault::KillPostgres { whom },
        9 => Fault::CutOneWay { from, to: if to == from { (from + 1) % nodes } else { to }, ms },
        10..=12 => Fault::Isolate { whom, ms },
        13 => Fault::StickDisk { whom, ms },
        14 => Fault::Journal { whom, fate: fate(luck) },
        15 => Fault::Switchover,
        16 => Fault::Stop { whom, ms },
        _ => Fault::Reinitialize { whom },
    }
}

fn fate(luck: &mut Luck) -> JournalFate {
    match luck.below(5) {
        0 | 1 => JournalFate::DiesBefore,
        2 | 3 => JournalFate::DiesAfter,
        _ => JournalFate::Refuses,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a person may ask for is what luck can give.
    #[test]
    fn every_kind_that_is_drawn_is_listed_and_the_other_way_round() {
        let mut luck = Luck::new(1);
        let drawn: BTreeSet<String> = (0..2000).map(|_| draw(&mut luck, 3, 3000).kind()).collect();
        assert_eq!(drawn, DRAWN.iter().map(|kind| kind.to_string()).collect());
    }
}
