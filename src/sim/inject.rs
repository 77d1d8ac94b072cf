//! Faults happen: what each does to the made-up world, and when it ends.
use super::disk::JournalFate;
use super::fault::{Fault, Target};
use super::world::{Event, World};
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::state::FailoverRequest;
use crate::pure::consensus::core::Input;
use crate::pure::node::situation::OperatorRequests;

impl World {
    fn hit(&self, target: Target) -> usize {
        match target {
            Target::Node(node) => node,
            Target::Holder => self.holder().unwrap_or(0),
            Target::Arbiter => self.arbiter().unwrap_or(0),
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
        self.nodes.iter().position(|n| n.raft_id == lease.holder)
    }

    pub fn inject(&mut self, fault: Fault) {
        self.say(0, &format!("FAULT {fault:?}"));
        if self.is_slept_through(fault) {
            return;
        }
        match fault {
            Fault::KillDaemon { target, back_ms } => {
                let node = self.hit(target);
                self.kill_daemon(node, "kill -9");
                self.after(back_ms, Event::StartDaemon { node });
            }
            Fault::Freeze { target, ms } => {
                let node = self.hit(target);
                self.nodes[node].frozen = self.nodes[node].daemon.is_some();
                self.after(ms, Event::Fault(Fault::Thaw { node }));
            }
            Fault::Thaw { node } => self.thaw(node),
            Fault::PowerCut { target, ms } => {
                let node = self.hit(target);
                self.cut_power(node);
                self.after(ms, Event::Fault(Fault::PowerBack { node }));
            }
            Fault::PowerBack { node } => {
                if !self.nodes[node].powered {
                    self.give_power(node);
                }
            }
            Fault::KillPostgres { target } => self.postgres_ends(self.hit(target), false),
            Fault::CutOneWay { .. } | Fault::Isolate { .. } | Fault::MendNode { .. } => {
                self.inject_network(fault);
            }
            Fault::StickDisk { target, ms } => {
                let node = self.hit(target);
                self.nodes[node].disk.stuck = true;
                self.after(ms, Event::Fault(Fault::Unstick { node }));
            }
            Fault::Unstick { node } => self.unstick(node),
            Fault::Journal { target, fate } => {
                let node = self.hit(target);
                self.nodes[node].disk.fate = fate;
            }
            Fault::Start { node } => {
                self.nodes[node].is_away = false;
                self.after(0, Event::StartDaemon { node });
            }
            Fault::LoseData { target } => self.lose_data(target),
            Fault::StallStreams { ms } => self.streams_stall_until = self.now + ms,
            Fault::RemoveData { target } => self.remove_data(self.hit(target)),
            Fault::HangOperations { target, count } => {
                let node = self.hit(target);
                self.nodes[node].operations_to_hang = count;
            }
            Fault::FailOperations { target, count } => {
                let node = self.hit(target);
                self.nodes[node].operations_to_fail = count;
            }
            other => self.inject_elsewhere(other),
        }
    }

    /// What befalls no single process: the other site, whole hosts, and what people ask for.
    fn inject_elsewhere(&mut self, fault: Fault) {
        match fault {
            Fault::RemoteDown { .. }
            | Fault::RemoteReplaced { .. }
            | Fault::RemoteBack
            | Fault::SectionSlips { .. }
            | Fault::SitesChange { .. }
            | Fault::BothSitesWrite
            | Fault::SectionBack => self.inject_there(fault),
            Fault::Sleep { .. }
            | Fault::Wake { .. }
            | Fault::WipeState { .. }
            | Fault::Replace { .. }
            | Fault::RemoveMember { .. }
            | Fault::OrderRemoval { .. }
            | Fault::Stranger { .. }
            | Fault::ComesLate { .. } => self.inject_host(fault),
            _ => self.operate(fault),
        }
    }

    /// A process of a suspended host cannot be killed.
    fn is_slept_through(&self, fault: Fault) -> bool {
        match fault {
            Fault::KillDaemon { target, .. }
            | Fault::Freeze { target, .. }
            | Fault::KillPostgres { target }
            | Fault::LoseData { target } => self.network.is_asleep(self.hit(target)),
            _ => false,
        }
    }

    fn inject_network(&mut self, fault: Fault) {
        match fault {
            Fault::CutOneWay { from, to, ms } => {
                self.network.cut(from, to);
                self.after(ms, Event::Fault(Fault::MendNode { node: from }));
            }
            Fault::Isolate { target, ms } => {
                let node = self.hit(target);
                self.isolate(node);
                self.after(ms, Event::Fault(Fault::MendNode { node }));
            }
            Fault::MendNode { node } => self.mend(node),
            _ => {}
        }
    }

    fn inject_host(&mut self, fault: Fault) {
        match fault {
            Fault::Sleep { target, ms } => self.sleep(self.hit(target), ms),
            Fault::Wake { node } => self.wake_host(node),
            Fault::WipeState { target, ms } => {
                self.wipe_state(self.hit(target), ms);
            }
            Fault::Replace { target, ms } => self.replace_host(self.hit(target), ms),
            Fault::OrderRemoval { by, id } => self.order_removal(by, id),
            Fault::RemoveMember { target, ms } => self.remove_member(self.hit(target), ms),
            Fault::Stranger { target, runs } => self.stranger(self.hit(target), runs),
            Fault::ComesLate { node, ms } => self.comes_late(node, ms),
            _ => {}
        }
    }

    /// What the operator asks for.
    fn operate(&mut self, fault: Fault) {
        match fault {
            Fault::Switchover => self.ask_switchover(),
            Fault::Order { target, failover, in_ms } => {
                self.order(self.hit(target), failover, in_ms);
            }
            Fault::Patch(settings) => self.change_settings(settings),
            Fault::Stop { target, ms } => self.ask_to_stop(target, ms),
            Fault::Reinitialize { target } => {
                let node = self.hit(target);
                self.checks.reinitialized.insert(node);
                self.reinit(node, |requests| requests.reinitialize = true);
            }
            Fault::Restart { target } => {
                self.reinit(self.hit(target), |requests| requests.restart = true)
            }
            Fault::CancelBuild { target } => {
                let node = self.hit(target);
                let builds = self.builds(node);
                self.reinit(node, |requests| requests.cancel_build = builds);
            }
            _ => {}
        }
    }

    fn reinit(&mut self, node: usize, reinit: impl FnOnce(&mut OperatorRequests)) {
        if let Some(daemon) = &mut self.nodes[node].daemon {
            reinit(&mut daemon.requests);
            self.notify_soon(node);
        }
    }

    /// What befalls the other site, and the section that names it.
    fn inject_there(&mut self, fault: Fault) {
        match fault {
            Fault::RemoteDown { ms } => {
                self.remote.up = false;
                self.after(ms, Event::Fault(Fault::RemoteBack));
            }
            Fault::RemoteReplaced { ms } => {
                self.remote.replaced = true;
                self.after(ms, Event::Fault(Fault::RemoteBack));
            }
            Fault::RemoteBack => (self.remote.up, self.remote.replaced) = (true, false),
            Fault::SectionSlips { ms } => {
                self.edit_section(serde_json::Value::Null);
                self.after(ms, Event::Fault(Fault::SectionBack));
            }
            Fault::SitesChange { ms } => self.sites_change(ms),
            Fault::BothSitesWrite => self.both_sites_write(),
            Fault::SectionBack if !self.healed => self.edit_section(super::remote::section()),
            _ => {}
        }
    }

    fn lose_data(&mut self, target: Target) {
        self.lose_all_data(self.hit(target));
    }

    fn thaw(&mut self, node: usize) {
        if self.nodes[node].frozen {
            self.nodes[node].frozen = false;
            self.deliver_stalled(node);
        }
    }

    pub(super) fn isolate(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            self.network.cut(node, other);
            self.network.cut(other, node);
        }
    }

    pub(super) fn mend(&mut self, node: usize) {
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

    fn ask_to_stop(&mut self, target: Target, ms: Millis) {
        let node = self.hit(target);
        let away = self.nodes.iter().any(|n| n.is_away);
        let Some(daemon) = self.nodes[node].daemon.as_mut().filter(|_| !away) else { return };
        daemon.requests.stop = true;
        self.nodes[node].is_away = true;
        self.notify_soon(node);
        self.after(ms + 1000, Event::Fault(Fault::Start { node }));
    }

    /// All faults end: everybody is started, connected, and has a working disk.
    pub fn heal(&mut self) {
        self.say(0, "ALL FAULTS END");
        self.healed = true;
        self.network.mend_all();
        self.streams_stall_until = 0;
        self.network.link_profile = super::network::FAIR;
        self.hand_over_here();
        self.call_a_person();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.fate = JournalFate::Well;
            self.nodes[node].is_away = false;
            (self.nodes[node].operations_to_fail, self.nodes[node].operations_to_hang) = (0, 0);
            self.wake_host(node);
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
