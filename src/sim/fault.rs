//! Misfortunes: what can happen to hosts, processes, disks and the network, and when it ends.
use serde::{Deserialize, Serialize};

use super::disk::JournalFate;
use super::luck::Luck;
use super::world::{Event, World};
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::state::FailoverRequest;
use crate::pure::consensus::core::Input;

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
    /// The data directory is gone, and PostgreSQL with it; a scenario's, never drawn: it takes what
    /// was acknowledged with it, unless another copy has it.
    LoseData {
        whom: Whom,
    },
    /// The operator asks for a new copy.
    Reinitialize {
        whom: Whom,
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

/// In plain words.
impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
            Fault::Switchover => f.write_str("the operator asks for a switchover"),
            Fault::Stop { whom, ms } => {
                write!(f, "the operator stops {whom}, and starts it again {ms} ms later")
            }
            Fault::Reinitialize { whom } => write!(f, "the operator reinitializes {whom}"),
            Fault::LoseData { whom } => write!(f, "the data directory of {whom} is gone"),
            Fault::RemoteDown { ms } => write!(f, "the other site is away for {ms} ms"),
            Fault::RemoteReplaced { ms } => {
                write!(f, "another cluster answers for the other site for {ms} ms")
            }
            Fault::SectionSlips { ms } => {
                write!(f, "the section standby_cluster is taken out by a slip for {ms} ms")
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

fn whom(luck: &mut Luck, nodes: usize) -> Whom {
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

/// What befalls a standby cluster's other site.
pub const THERE: [&str; 3] = ["remote_down", "remote_replaced", "section_slips"];

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

    /// Does it happen to this node by its number?
    pub fn names(&self, node: usize) -> bool {
        let fields = serde_json::to_value(self).unwrap_or_default();
        let fields = fields.as_object().and_then(|kinds| kinds.values().next());
        let of = |key: &str| fields.and_then(|fields| fields.get(key));
        of("whom").is_some_and(|whom| whom == &format!("n{node}"))
            || ["node", "from", "to"].iter().any(|key| of(key).is_some_and(|v| *v == node))
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

impl World {
    fn hit(&self, whom: Whom) -> usize {
        match whom {
            Whom::Node(node) => node,
            Whom::Holder => self.holder().unwrap_or(0),
            Whom::Arbiter => self.arbiter().unwrap_or(0),
        }
    }

    /// Who leads the Raft group, or believes so.
    pub fn arbiter(&self) -> Option<usize> {
        let leads = |d: &super::node::Daemon| d.core.group().is_some_and(|g| g.is_leader());
        self.nodes.iter().position(|n| n.daemon.as_ref().is_some_and(leads))
    }

    /// Who holds the lease, as the node that has applied most knows it.
    pub fn holder(&self) -> Option<usize> {
        let states = self.nodes.iter().filter_map(|n| n.daemon.as_ref()).map(|d| d.core.cluster());
        let newest = states.max_by_key(|state| state.applied)?;
        let lease = newest.lease.as_ref()?;
        self.nodes.iter().position(|n| super::node::raft_id(n.at) == lease.holder)
    }

    pub fn strike(&mut self, fault: Fault) {
        self.say(0, &format!("MISFORTUNE {fault:?}"));
        match fault {
            Fault::KillDaemon { whom, back_ms } => {
                let node = self.hit(whom);
                self.kill_daemon(node, "kill -9");
                self.after(back_ms, Event::StartDaemon { node });
            }
            Fault::Freeze { whom, ms } => {
                let node = self.hit(whom);
                self.nodes[node].frozen = self.nodes[node].daemon.is_some();
                self.after(ms, Event::Misfortune(Fault::Thaw { node }));
            }
            Fault::Thaw { node } => self.thaw(node),
            Fault::PowerCut { whom, ms } => {
                let node = self.hit(whom);
                self.cut_power(node);
                self.after(ms, Event::Misfortune(Fault::PowerBack { node }));
            }
            Fault::PowerBack { node } => {
                if !self.nodes[node].powered {
                    self.give_power(node);
                }
            }
            Fault::KillPostgres { whom } => {
                let node = self.hit(whom);
                self.postgres_ends(node, false);
            }
            Fault::CutOneWay { from, to, ms } => {
                self.network.cut(from, to);
                self.after(ms, Event::Misfortune(Fault::MendNode { node: from }));
            }
            Fault::Isolate { whom, ms } => {
                let node = self.hit(whom);
                self.isolate(node);
                self.after(ms, Event::Misfortune(Fault::MendNode { node }));
            }
            Fault::MendNode { node } => self.mend(node),
            Fault::StickDisk { whom, ms } => {
                let node = self.hit(whom);
                self.nodes[node].disk.stuck = true;
                self.after(ms, Event::Misfortune(Fault::Unstick { node }));
            }
            Fault::Unstick { node } => self.unstick(node),
            Fault::Journal { whom, fate } => {
                let node = self.hit(whom);
                self.nodes[node].disk.fate = fate;
            }
            Fault::Switchover => self.ask_switchover(),
            Fault::Stop { whom, ms } => self.ask_to_stop(whom, ms),
            Fault::Start { node } => {
                self.nodes[node].is_away = false;
                self.after(0, Event::StartDaemon { node });
            }
            Fault::LoseData { whom } => self.lose_data(whom),
            Fault::StallStreams { ms } => self.streams_stall_until = self.now + ms,
            Fault::RemoteDown { .. }
            | Fault::RemoteReplaced { .. }
            | Fault::RemoteBack
            | Fault::SectionSlips { .. }
            | Fault::SectionBack => self.strike_there(fault),
            Fault::Reinitialize { whom } => {
                let node = self.hit(whom);
                self.checks.reinitialized.insert(node);
                if let Some(daemon) = &mut self.nodes[node].daemon {
                    daemon.wishes.reinitialize = true;
                }
            }
        }
    }

    /// What befalls the other site, and the section that names it.
    fn strike_there(&mut self, fault: Fault) {
        match fault {
            Fault::RemoteDown { ms } => {
                self.remote.up = false;
                self.after(ms, Event::Misfortune(Fault::RemoteBack));
            }
            Fault::RemoteReplaced { ms } => {
                self.remote.replaced = true;
                self.after(ms, Event::Misfortune(Fault::RemoteBack));
            }
            Fault::RemoteBack => (self.remote.up, self.remote.replaced) = (true, false),
            Fault::SectionSlips { ms } => {
                self.edit_section(serde_json::Value::Null);
                self.after(ms, Event::Misfortune(Fault::SectionBack));
            }
            Fault::SectionBack if !self.healed => self.edit_section(super::remote::section()),
            _ => {}
        }
    }

    fn lose_data(&mut self, whom: Whom) {
        let node = self.hit(whom);
        self.postgres_ends(node, false);
        self.nodes[node].postgres.data = super::postgres::Data::Empty;
    }

    fn thaw(&mut self, node: usize) {
        if self.nodes[node].frozen {
            self.nodes[node].frozen = false;
            self.deliver_stalled(node);
        }
    }

    fn isolate(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            self.network.cut(node, other);
            self.network.cut(other, node);
        }
    }

    fn mend(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            self.network.mend(node, other);
            self.network.mend(other, node);
        }
    }

    fn ask_switchover(&mut self) {
        let Some(holder) = self.holder() else { return };
        let leader = Some(self.nodes[holder].name.clone());
        let request = FailoverRequest { leader, candidate: None, scheduled_at: None };
        let ticket = self.fresh();
        self.feed(holder, Input::Propose { ticket, command: Command::SetFailover { request } });
    }

    fn ask_to_stop(&mut self, whom: Whom, ms: Millis) {
        let node = self.hit(whom);
        // Whoever stops a node that is creating the cluster has to look at its data afterwards.
        let away = self.nodes.iter().any(|n| n.is_away) || self.checks.identity.is_none();
        let Some(daemon) = self.nodes[node].daemon.as_mut().filter(|_| !away) else { return };
        daemon.wishes.stop = true;
        self.nodes[node].is_away = true;
        self.pump_soon(node);
        self.after(ms + 1000, Event::Misfortune(Fault::Start { node }));
    }

    /// All faults end: everybody is started, connected, and has a working disk.
    pub fn heal(&mut self) {
        self.say(0, "ALL FAULTS END");
        self.healed = true;
        self.network.mend_all();
        self.streams_stall_until = 0;
        self.network.weather = super::network::FAIR;
        self.hand_over_here();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.fate = JournalFate::Well;
            self.nodes[node].is_away = false;
            self.unstick(node);
            self.thaw(node);
            if !self.nodes[node].powered {
                self.give_power(node);
            } else if self.nodes[node].daemon.is_none() {
                self.after(100, Event::StartDaemon { node });
            }
        }
    }
}
