//! What befalls whole hosts: they sleep, lose their state directory, are replaced, or are switched on
//! later than the others.
use super::disk::Disk;
use super::guard::KILL_MS_MAX;
use super::node::Node;
use super::postgres::Data;
use super::world::{Event, World};
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Command;
use crate::pure::cluster::state::FailoverRequest;
use crate::pure::consensus::core::Input;
use crate::pure::consensus::group::Group;
use crate::pure::flow::node::Node as NodeFlow;
use crate::pure::machine::Flow;

/// So long after a host was lost its member is removed.
const REMOVED_AFTER_MS: Millis = 3000;
/// From one state directory of a node to its next.
const IDS_APART: u64 = 1000;
/// A guard that has slept past its deadline is scheduled, and kills, within this time.
const WAKING_MS: Millis = KILL_MS_MAX + 50;

impl World {
    /// Nothing runs there, and nobody hears of it; CLOCK_BOOTTIME goes on.
    pub(super) fn sleep(&mut self, at: usize, ms: Millis) {
        if !self.nodes[at].powered || self.network.is_asleep(at) {
            return;
        }
        self.network.sleeps(at);
        self.after(ms, Event::Fault(super::fault::Fault::Wake { node: at }));
    }

    /// Everything goes on at once. Whatever its guard should have stopped meanwhile lives until the
    /// guard is scheduled: for that moment P1 rests on a watchdog device, and P2 on synchronous mode.
    pub(super) fn wake_host(&mut self, at: usize) {
        if !self.network.is_asleep(at) {
            return;
        }
        let (local, now) = (self.local(at), self.now);
        let node = &mut self.nodes[at];
        if node.guard.as_ref().is_some_and(|guard| guard.fires || guard.page.is_over(local)) {
            node.waking_until = now + WAKING_MS;
        }
        let sleeping = std::mem::take(&mut node.sleeping);
        self.network.wakes(at);
        for event in sleeping {
            self.after(0, event);
        }
        self.deliver_stalled(at);
    }

    /// What runs there is this cluster's; what ran before Surus is, when it has been adopted.
    pub(super) fn runs_ours(&self, node: &Node) -> bool {
        let unmanaged = node.postgres.server.as_ref().is_some_and(|server| server.unmanaged);
        self.is_of_this_cluster(node) && (self.checks.identity.is_some() || !unmanaged)
    }

    /// Its PostgreSQL can commit now, and no suspended machine is just going on.
    pub fn may_commit(&self, node: &Node) -> bool {
        let writes = node.postgres.is_writable() && self.runs_ours(node);
        writes && !self.network.is_asleep(node.at) && self.now >= node.waking_until
    }

    /// The state directory is lost; the daemon comes back as somebody nobody knows.
    pub(super) fn wipe_state(&mut self, at: usize, ms: Millis) -> bool {
        if !self.may_lose_state(at) {
            return false;
        }
        self.kill_daemon(at, "its state directory is lost");
        let node = &mut self.nodes[at];
        let recorded = node.disk.recorded.take();
        node.disk = Disk { recorded, stuck: node.disk.stuck, ..Disk::new() };
        node.raft_id += IDS_APART;
        node.guard.iter_mut().for_each(|guard| guard.stray = true);
        self.after(ms, Event::StartDaemon { node: at });
        true
    }

    /// Whoever loses its state has forgotten a vote and a promise. That is survived one node at a time,
    /// once all belong to the cluster; of more than one, or of two voters, `surus recover` takes care.
    fn may_lose_state(&self, at: usize) -> bool {
        let daemons = self.nodes.iter().filter_map(|n| n.daemon.as_ref());
        let Some(newest) = daemons.max_by_key(|d| d.core.cluster().applied) else { return false };
        let Some(group) = newest.core.group() else { return false };
        let members = &newest.core.cluster().members;
        let all = self.nodes.iter().all(|n| members.contains_key(&n.raft_id));
        let steady = all && members.len() == self.nodes.len() && !group.has_pending_conf();
        let awake = self.nodes[at].powered && !self.network.is_asleep(at);
        // A vote that is being given up is one that the others will lack.
        let stays = |n: &Node| !n.is_away && n.daemon.as_ref().is_none_or(|d| !d.requests.stop);
        let steady = steady && awake && self.nodes.iter().all(stays);
        self.checks.identity.is_some() && steady && enough_votes(self, group, at)
    }

    /// Somebody else has a copy that nobody wants to remove, and no disk was lost before.
    pub(super) fn may_lose_data(&self, at: usize) -> bool {
        let keeps = |n: &Node| {
            let wanted = n.daemon.as_ref().is_some_and(|daemon| !daemon.requests.reinitialize);
            let stays = ["following", "leading"].contains(&self.node_state(n.at));
            n.at != at && wanted && stays && n.postgres.answers() && !n.postgres.is_its_builds()
        };
        self.checks.disks_lost == 0 && self.nodes.iter().any(keeps)
    }

    /// Another machine in its place: neither state nor data. What only this one had is gone with it.
    pub(super) fn replace_host(&mut self, at: usize, ms: Millis) {
        if self.may_lose_data(at) && self.wipe_state(at, ms) {
            self.lose_all_data(at);
            self.nodes[at].guard = None;
        }
    }

    /// It is lost, and the operator has it removed; until `ms` later nobody takes its place.
    pub(super) fn remove_member(&mut self, at: usize, ms: Millis) {
        let id = self.nodes[at].raft_id;
        let before = self.checks.disks_lost;
        self.replace_host(at, ms);
        let lost = self.checks.disks_lost > before;
        let others = self.nodes.iter().filter(|n| n.at != at && n.daemon.is_some() && !n.frozen);
        let Some(by) = others.map(|n| n.at).next().filter(|_| lost) else { return };
        self.say(by, &format!("the operator removes {}", self.nodes[at].name));
        self.after(REMOVED_AFTER_MS, Event::Fault(super::fault::Fault::OrderRemoval { by, id }));
    }

    /// Ordered again until it is so: without an arbiter nothing is.
    pub(super) fn order_removal(&mut self, by: usize, id: u64) {
        let daemon = self.nodes[by].daemon.as_ref();
        if daemon.is_some_and(|d| d.core.cluster().removed.contains(&id)) {
            return;
        }
        self.after(REMOVED_AFTER_MS, Event::Fault(super::fault::Fault::OrderRemoval { by, id }));
        let ticket = self.fresh();
        self.feed(by, Input::Propose { ticket, command: Command::RemoveMember { id } });
    }

    /// Its disk is lost, and with it what nobody else had.
    pub(super) fn lose_all_data(&mut self, at: usize) {
        self.checks.disks_lost += 1;
        self.postgres_ends(at, false);
        let postgres = &mut self.nodes[at].postgres;
        (postgres.data, postgres.unproven, postgres.on_trial) = (Data::Empty, false, false);
        postgres.aside.clear();
        self.only_kept_counts();
    }

    /// Somebody removes the files while a server runs on them: sooner or later it dies of it.
    pub(super) fn remove_data(&mut self, at: usize) {
        let server = self.nodes[at].postgres.server.as_ref();
        let Some(generation) = server.map(|server| server.generation) else { return };
        let exists = self.checks.identity.is_some() && !self.network.is_asleep(at);
        if !exists || !self.may_lose_data(at) {
            return;
        }
        self.checks.disks_lost += 1;
        let postgres = &mut self.nodes[at].postgres;
        postgres.removed = true;
        postgres.aside.clear();
        self.only_kept_counts();
        let dies = self.rng.between(300, 30_000);
        self.after(dies, Event::PgStopped { node: at, generation, clean: false });
    }

    /// What was acknowledged and is on no disk any more is not asked for.
    fn only_kept_counts(&mut self) {
        let kept: Vec<_> = self
            .nodes
            .iter()
            .filter(|n| !n.postgres.removed)
            .flat_map(|n| n.postgres.cluster().into_iter().chain(&n.postgres.aside))
            .map(|cluster| &cluster.wal)
            .collect();
        for promised in &mut self.client.promised {
            promised.protected &= kept.iter().any(|wal| wal.has(promised.place, promised.id));
        }
    }

    /// It is not there when the others begin.
    pub(super) fn comes_late(&mut self, at: usize, ms: Millis) {
        let begins = self.nodes[at].daemon.is_none() && !self.nodes[at].is_away;
        if begins && !self.nodes[at].disk.journal.contains_key(NodeFlow::ID) {
            self.nodes[at].is_away = true;
            self.after(ms, Event::Fault(super::fault::Fault::Start { node: at }));
        }
    }
}

/// So long after the faults ended a person decides.
const PERSON_MS: Millis = 20_000;

impl World {
    /// There may be something that only a person can decide.
    pub(super) fn call_a_person(&mut self) {
        self.after(PERSON_MS, Event::PersonLooks);
    }

    /// A person does what nothing else may do: what lies there and is not this cluster's is moved away.
    pub(super) fn person_looks(&mut self) {
        self.after(PERSON_MS / 2, Event::PersonLooks);
        for at in 0..self.nodes.len() {
            if self.node_state(at) == "blocked" {
                self.say(at, "the operator moves the data away");
                self.postgres_ends(at, false);
                self.move_aside(at);
            }
        }
        if self.checks.disks_lost > 0 || self.checks.mistakes > 0 {
            self.fail_over_by_hand();
        }
        if self.checks.mistakes > 0 {
            self.promote_by_hand();
        }
    }

    /// Nobody may lead, because whoever holds what was acknowledged lost its data: the operator names
    /// whoever holds most, and gives up the rest.
    fn fail_over_by_hand(&mut self) {
        let leads = self.holder().is_some() || self.nodes.iter().any(|n| n.postgres.takes_writes());
        let (Some(arbiter), false) = (self.arbiter(), leads) else { return };
        let running = self.nodes.iter().filter(|n| n.postgres.answers());
        let length = |n: &&Node| n.postgres.cluster().map(|c| (c.wal.timeline(), c.wal.len()));
        let Some(best) = running.max_by_key(length) else { return };
        let Some(wal) = best.postgres.cluster().map(|c| c.wal.clone()) else { return };
        let candidate = Some(best.name.clone());
        self.say(arbiter, &format!("the operator fails over to {candidate:?}"));
        for promised in &mut self.client.promised {
            promised.protected &= wal.has(promised.place, promised.id);
        }
        let request = FailoverRequest { leader: None, candidate, scheduled_at: None };
        let ticket = self.fresh();
        self.feed(arbiter, Input::Propose { ticket, command: Command::SetFailover { request } });
    }
}

fn enough_votes(world: &World, group: &Group, at: usize) -> bool {
    let voters = group.voters();
    let ids: Vec<u64> = world.nodes.iter().map(|n| n.raft_id).collect();
    let known = voters.iter().all(|voter| ids.contains(voter));
    known && (voters.len() > 2 || !voters.contains(&world.nodes[at].raft_id))
}
