//! What happens to a PostgreSQL by itself, and the clients that write and remember.
use super::guard::KILL_MS_MAX;
use super::postgres::Sender;
use super::remote::REMOTE;
use super::world::{Event, World};
use crate::pure::cluster::Millis;
use crate::pure::cluster::command::Outcome;
use crate::pure::postgres::sync_names;

/// A commit that a client was told of.
#[derive(Clone, Debug)]
pub struct Promised {
    pub id: u64,
    pub place: usize,
    pub at: Millis,
    pub node: usize,
    pub epoch: u64,
    /// Synchronous mode was on and in force: this one may never be lost.
    pub protected: bool,
}

#[derive(Debug, Default)]
pub struct Client {
    pub promised: Vec<Promised>,
    pub writes: u64,
    /// Receipts of proposals that no flow waits for: an operator's, or a test's.
    pub told: Vec<(u64, Result<Outcome, String>)>,
}

impl World {
    // ---- the guard

    /// The deadline moved: the daemon writes it into the page, as the real one does. A lease that is gone
    /// moves nothing.
    pub fn deadline_moved(&mut self, at: usize, epoch: u64, deadline: Option<Millis>) {
        let (local, known) = (self.local(at), self.now >= self.nodes[at].guard_found_at);
        let guard = self.nodes[at].guard.as_mut().filter(|_| known);
        let (Some(guard), Some(deadline)) = (guard, deadline) else { return };
        let Some(page) = guard.page.moved(epoch, deadline).filter(|_| !guard.stray) else { return };
        let earlier = page.deadline() < guard.deadline();
        guard.page = page;
        if guard.spent && !page.is_over(local) {
            (guard.fires, guard.spent) = (false, false);
            return self.guard_sleeps(at);
        }
        self.note_right(at);
        if earlier {
            self.guard_sleeps(at);
        }
    }

    /// From now on the earlier life's guard is told of every deadline; at once of the one in force.
    pub fn guard_is_found(&mut self, at: usize) {
        let local = self.local(at);
        let Some(daemon) = &self.nodes[at].daemon else { return };
        if let Some((epoch, deadline)) = daemon.core.write_deadline(local) {
            self.deadline_moved(at, epoch, Some(deadline));
        }
    }

    /// The consensus hears that the guard is bound: none of an earlier life is left that nobody knows of.
    pub fn tell_bound(&mut self, at: usize, epoch: u64, deadline: Option<Millis>) {
        let node = &mut self.nodes[at];
        let stray = node.guard.as_ref().is_some_and(|guard| guard.stray);
        let known = self.now >= node.guard_found_at && !stray;
        if let (Some(daemon), Some(deadline), true) = (&mut node.daemon, deadline, known) {
            daemon.core.guard_is_bound(epoch, deadline);
        }
    }

    /// Until when this guard may let its PostgreSQL write, in real time, its kill included.
    pub fn note_right(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let runs = node.postgres.server.is_some();
        let Some(guard) = node.guard.as_ref().filter(|g| !g.fires && runs) else { return };
        // Of a host that has just gone on nothing is expected any more.
        let now = if self.now < node.waking_until { 0 } else { self.now };
        let until = node.clock.when(guard.deadline()).max(now) + KILL_MS_MAX;
        node.right_until = Some((guard.epoch, until));
    }

    /// The guard sleeps until its deadline.
    pub fn guard_sleeps(&mut self, at: usize) {
        self.note_right(at);
        let Some(guard) = &self.nodes[at].guard else { return };
        let (deadline, life) = (guard.deadline(), guard.life);
        let wait = deadline.saturating_sub(self.local(at));
        self.after_local(at, wait, Event::GuardWake { node: at, guard: life });
    }

    pub fn guard_wakes(&mut self, at: usize, life: u64) {
        let local = self.local(at);
        let Some(guard) = self.nodes[at].guard.as_mut().filter(|g| g.life == life) else { return };
        if guard.fires {
            return;
        }
        if !guard.page.is_over(local) {
            return self.guard_sleeps(at);
        }
        guard.fires = true;
        self.say(at, "the guard's deadline has passed");
        let took = self.rng.between(KILL_MS_MAX / 2, KILL_MS_MAX);
        self.after(took, Event::GuardKill { node: at, guard: life });
    }

    pub fn guard_kills(&mut self, at: usize, life: u64) {
        let guard = self.nodes[at].guard.as_mut().filter(|g| g.life == life && g.fires);
        let Some(guard) = guard else { return };
        guard.spent = true;
        self.say(at, "the guard has stopped PostgreSQL");
        let right = self.nodes[at].right_until;
        self.postgres_ends(at, false);
        self.nodes[at].right_until = right; // rng let it end sooner than it might have
    }

    // ---- PostgreSQL by itself

    /// Every process of it is gone, wanted or not.
    pub fn postgres_ends(&mut self, at: usize, clean: bool) {
        if self.nodes[at].postgres.server.is_none() {
            return;
        }
        self.nodes[at].postgres.gone(clean);
        self.nodes[at].right_until = None;
        let life = self.nodes[at].life;
        let wait = self.rng.between(1, 20);
        self.after(wait, Event::Died { node: at, life });
    }

    pub fn postgres_ready(&mut self, at: usize, generation: u64) {
        if !self.nodes[at].postgres.is_generation(generation) {
            return;
        }
        let rate = if self.healed { 0 } else { self.plan.operations_fail };
        if self.rng.in_thousand(rate) {
            self.say(at, "PostgreSQL fails to start");
            return self.postgres_ends(at, false);
        }
        if self.needs_more_wal(at) {
            return self.after(200, Event::PgReady { node: at, generation });
        }
        if let Some(server) = &mut self.nodes[at].postgres.server {
            server.accepts = true;
        }
        self.note_right(at);
        if self.nodes[at].postgres.is_writable() {
            self.flush_all(at);
            self.say(at, "PostgreSQL accepts writes");
            self.check_nothing_lost(at);
        }
    }

    /// A copy that was interrupted before it was consistent waits for an upstream, and accepts
    /// nobody until then.
    pub(super) fn needs_more_wal(&mut self, at: usize) -> bool {
        let postgres = &self.nodes[at].postgres;
        let (Some(server), Some(cluster)) = (&postgres.server, postgres.cluster()) else {
            return false;
        };
        let upstream = server.upstream.filter(|from| *from != at);
        let theirs = upstream.and_then(|from| self.data_of(from));
        let reached = upstream.is_some_and(|from| {
            let runs = || self.nodes[from].postgres.answers() && self.network.reaches(at, from);
            from == REMOTE || runs()
        });
        let agrees = theirs.is_some_and(|theirs| cluster.wal.is_prefix_of(&theirs.wal));
        if server.in_recovery && cluster.unripe && !(reached && agrees) {
            return true;
        }
        if let Some(cluster) = self.nodes[at].postgres.cluster_mut() {
            cluster.unripe = false;
        }
        false
    }

    pub fn postgres_promoted(&mut self, at: usize, generation: u64) {
        let node = &mut self.nodes[at];
        if !node.postgres.is_generation(generation) {
            return;
        }
        let id = self.fresh();
        let node = &mut self.nodes[at];
        let mut wanted = 0;
        if let Some(server) = &mut node.postgres.server {
            if server.stopping || !server.in_recovery {
                return;
            }
            wanted = server.next_timeline;
            server.in_recovery = false;
            server.upstream = None;
        }
        if let Some(cluster) = node.postgres.cluster_mut() {
            (cluster.standby, cluster.recovers) = (false, false);
            let timeline = wanted.max(cluster.wal.timeline() + 1);
            self.check_nothing_lost(at);
            if let Some(cluster) = self.nodes[at].postgres.cluster_mut() {
                cluster.wal.push(timeline, id);
            }
            self.flush_all(at);
            self.say(at, &format!("PostgreSQL was promoted to timeline {timeline}"));
        }
    }

    pub fn postgres_stopped(&mut self, at: usize, generation: u64, clean: bool) {
        if self.nodes[at].postgres.is_generation(generation) {
            if clean {
                self.flush_all(at);
                self.send_the_rest(at);
            }
            self.postgres_ends(at, clean);
        }
    }

    /// A server that shuts down ends only when whoever streams from it has all of its WAL
    /// (walsender.c: WalSndDone).
    fn send_the_rest(&mut self, from: usize) {
        let Some(theirs) = self.nodes[from].postgres.cluster().cloned() else { return };
        for at in 0..self.nodes.len() {
            let server = self.nodes[at].postgres.server.as_ref();
            let follows =
                server.is_some_and(|s| s.in_recovery && s.accepts && s.upstream == Some(from));
            if !follows || !self.network.reaches(at, from) {
                continue;
            }
            let Some(ours) = self.nodes[at].postgres.cluster_mut() else { continue };
            if ours.system_identifier == theirs.system_identifier
                && ours.wal.is_prefix_of(&theirs.wal)
            {
                ours.wal.receive(theirs.wal.after(ours.wal.len(), theirs.wal.len()));
                let flushed = ours.wal.len();
                if let Some(server) = &mut self.nodes[at].postgres.server {
                    server.replayed = flushed;
                }
            }
        }
    }

    /// A replica receives what its upstream has, if both run and their histories agree.
    pub fn stream(&mut self, at: usize) {
        let wait = self.rng.between(10, self.plan.stream_ms_max);
        self.after(wait, Event::Stream { node: at });
        let Some(server) = &self.nodes[at].postgres.server else { return };
        if !server.in_recovery || !server.accepts || self.now < self.streams_stall_until {
            return;
        }
        let Some(from) = server.upstream.filter(|from| *from != at) else { return };
        if from == REMOTE {
            return self.stream_from_remote(at);
        }
        let above = &self.nodes[from].postgres;
        if !above.answers() || !self.network.reaches(at, from) {
            return;
        }
        let Some(theirs) = above.cluster() else { return };
        let Some(generation) = above.server.as_ref().map(|s| s.generation) else { return };
        let Some(ours) = self.nodes[at].postgres.cluster() else { return };
        if ours.system_identifier != theirs.system_identifier || !ours.wal.is_prefix_of(&theirs.wal)
        {
            return;
        }
        let there = self.flushed(from);
        let free = there.saturating_sub(ours.wal.len() + self.nodes[at].held_back);
        let count = (1 + self.rng.below(30)).min(free);
        let news = theirs.wal.after(ours.wal.len(), count);
        let ours = self.nodes[at].postgres.cluster_mut().expect("it was just looked at");
        ours.wal.receive(news);
        let flushed = ours.wal.len();
        if let Some(server) = &mut self.nodes[at].postgres.server {
            server.streamed_at = Some(self.now);
            server.replayed = flushed;
        }
        for delay in self.network.arrivals(at, from, &mut self.rng) {
            self.after(delay, Event::Ack { primary: from, generation, from: at, flushed });
        }
    }

    /// A replica's word that it has flushed so much reaches the primary.
    pub fn acknowledge(&mut self, at: usize, generation: u64, from: usize, flushed: usize) {
        let now = self.now;
        if !self.nodes[at].postgres.is_generation(generation) {
            return;
        }
        if let Some(server) = &mut self.nodes[at].postgres.server {
            server.senders.insert(from, Sender { flushed, seen_at: now });
        }
        self.release_commits(at);
    }

    // ---- clients

    pub fn client_writes(&mut self) {
        let wait = self.rng.between(5, self.plan.write_ms_max);
        self.after(wait, Event::Client);
        let Some(identity) = self.checks.identity.clone() else { return };
        for at in 0..self.nodes.len() {
            let postgres = &self.nodes[at].postgres;
            let ours = postgres.cluster().map(|c| c.system_identifier.to_string());
            let writes = postgres.takes_writes() && !self.network.is_asleep(at);
            if !writes || ours.as_ref() != Some(&identity) {
                continue;
            }
            let id = self.fresh();
            self.client.writes += 1;
            let postgres = &mut self.nodes[at].postgres;
            let Some(cluster) = postgres.cluster_mut() else { continue };
            cluster.wal.push(cluster.wal.timeline(), id);
            let place = cluster.wal.len() - 1;
            if let Some(server) = &mut postgres.server {
                server.waiting.push_back((place, id));
            }
            self.flush_wal_soon(at);
        }
    }

    /// Tells clients of every commit that waits for nobody any more.
    pub fn release_commits(&mut self, at: usize) {
        if !self.nodes[at].postgres.takes_writes() {
            return;
        }
        let own = self.flushed(at);
        let flushed = self.flushed_by_synchronous(at).map_or(own, |theirs| theirs.min(own));
        let protected = self.is_protected(at);
        let epoch = self.nodes[at].guard.as_ref().map_or(0, |g| g.epoch);
        let now = self.now;
        let mut acknowledged = false;
        let Some(server) = &mut self.nodes[at].postgres.server else { return };
        while let Some((place, id)) = server.waiting.front().copied() {
            if place >= flushed {
                break;
            }
            server.waiting.pop_front();
            acknowledged = true;
            let promised = Promised { id, place, at: now, node: at, epoch, protected };
            self.client.promised.push(promised);
        }
        if acknowledged && protected {
            self.check_acknowledged_by_the_leader(at);
        }
    }

    /// How much of the WAL all synchronous standbys have; `None`: commits wait for nobody.
    fn flushed_by_synchronous(&self, at: usize) -> Option<usize> {
        let postgres = &self.nodes[at].postgres;
        let server = postgres.server.as_ref().filter(|server| server.waits)?;
        let named = sync_names::read(&postgres.cluster()?.synchronous_standby_names);
        // Nobody is named any more, and whoever waits has not been told so yet.
        let Some((number, names)) = named else { return Some(0) };
        let of = |name: &String| {
            let (_, sender) =
                server.senders.iter().find(|(other, _)| self.nodes[**other].name == *name)?;
            Some(sender.flushed)
        };
        let flushed: Vec<usize> = names.iter().filter_map(of).take(number).collect();
        Some(if flushed.len() < number { 0 } else { flushed.into_iter().min().unwrap_or(0) })
    }

    /// The log knows who is synchronous to this leader: from then on nothing may be lost.
    fn is_protected(&self, at: usize) -> bool {
        let epoch = self.nodes[at].guard.as_ref().map(|guard| guard.epoch);
        epoch.is_some_and(|epoch| self.checks.synchronous_epochs.contains(&epoch))
    }
}
