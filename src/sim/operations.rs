//! Operations in the made-up world: each begins at once, is looked at again until it is done, and does
//! to PostgreSQL, guard and log what the real one does.
use super::flows::Work;
use super::guard::Guard;
use super::observer::data_directory;
use super::plan::OPERATION_MS_MAX;
use super::postgres::Data;
use super::world::{Event, World};
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::consensus::core::Input;
use crate::pure::flow::replica_build::ReplicaBuild;
use crate::pure::guard::Grant;
use crate::pure::machine::Flow;
use crate::pure::machine::any::Answer;
use crate::pure::operation::{
    Inspection, Operation, Report, Source, StartAs, StopMode, WipePermission,
};

/// After so many looks a copy that starts, and gets no WAL, is given up; as in the real world.
const VAIN_LOOKS: u32 = 400;

/// What became of a look at an operation.
pub(super) enum Look {
    Done(Report),
    Failed(String),
    /// Look again after this many ms.
    Again(u64),
}

use Look::{Again, Done, Failed};

/// Between two looks whether what hangs goes on.
const HANG_LOOK_MS: u64 = 200;

pub(super) fn failed(problem: &str) -> Look {
    Failed(problem.to_string())
}

impl World {
    /// The operation begins: what it sets off at once, and when to look at it.
    pub fn begin_work(&mut self, at: usize, serial: u64, token: u64) {
        let life = self.nodes[at].life;
        let slow = if self.healed { OPERATION_MS_MAX } else { self.plan.operation_ms_max };
        let wait = self.rng.between(1, slow);
        self.after(wait, Event::Work { node: at, life, serial, token });
    }

    pub fn work_goes_on(&mut self, at: usize, serial: u64, token: u64) {
        let work = self.slot(at, serial).and_then(|slot| slot.work.clone());
        let Some(mut work) = work.filter(|work| work.token == token) else { return };
        let life = self.nodes[at].life;
        let look = if self.hangs(at, &mut work) {
            Again(HANG_LOOK_MS)
        } else {
            work.looks += 1;
            if self.fails_at_once(at, &work) {
                failed("it fails by chance")
            } else {
                self.look(at, &mut work)
            }
        };
        let visit = work.visit;
        if let Some(slot) = self.slot(at, serial) {
            slot.work = Some(work);
        }
        match look {
            Again(wait) => self.after(wait, Event::Work { node: at, life, serial, token }),
            Done(report) => {
                self.observe_soon(at);
                self.tell(at, serial, Answer::Done { visit, report });
            }
            Failed(problem) => {
                self.observe_soon(at);
                self.tell(at, serial, Answer::Failed { visit, problem });
            }
        }
    }

    /// A fault lets the next operations hang, as on a disk or a network share that does, for up to a minute and a
    /// half; the log answers a proposal all the same.
    fn hangs(&mut self, at: usize, work: &mut Work) -> bool {
        let first = work.looks == 0 && work.hangs_until == 0;
        let left = &mut self.nodes[at].operations_to_hang;
        if first && *left > 0 && !matches!(work.operation, Some(Operation::Propose { .. })) {
            *left -= 1;
            work.hangs_until = self.now + self.rng.between(1_000, 90_000);
        }
        !self.healed && self.now < work.hangs_until
    }

    /// A fault lets the next operations fail, whatever they are; only a proposal is answered by the log.
    fn fails_at_once(&mut self, at: usize, work: &Work) -> bool {
        let first = work.looks == 1 && !matches!(work.operation, Some(Operation::Propose { .. }));
        let left = &mut self.nodes[at].operations_to_fail;
        let fails = first && *left > 0;
        *left -= u64::from(fails);
        fails
    }

    fn observe_soon(&mut self, at: usize) {
        let (life, wait) = (self.nodes[at].life, self.rng.between(0, 60));
        self.after(wait, Event::Fresh { node: at, life, round: 0 });
    }

    fn look(&mut self, at: usize, work: &mut Work) -> Look {
        let Some(operation) = work.operation.clone() else { return Again(1000) };
        match operation {
            Operation::InspectNode => self.inspect(at),
            Operation::ClearDataDirectory { permission } => self.clear(at, &permission),
            Operation::MoveDataDirectoryAside { .. } => self.move_aside(at),
            Operation::CreateCluster { method } => self.create_cluster(at, work, &method),
            Operation::VerifyRestored { .. } => self.verify(at),
            Operation::AwaitRecovery => self.await_recovery(at, work),
            Operation::CheckTarget => Done(Report::Recovered(Default::default())),
            Operation::SealCluster => self.seal(at),
            Operation::StartPostgres { start_as } => self.start_postgres(at, work, &start_as),
            Operation::StopPostgres { mode } => self.stop_postgres(at, work, mode),
            Operation::Promote { timeline } => self.promote(at, work, timeline),
            Operation::Checkpoint => self.checkpoint(at, work),
            Operation::CreateRoles | Operation::CreateSuperuser => self.create_roles(at),
            Operation::RunPostBootstrap => self.run_script(at),
            Operation::RunPrePromote if self.fails() => {
                failed("pre_promote ended with exit code 1")
            }
            Operation::RunPrePromote => Done(Report::Done),
            Operation::CheckMethod { source, .. } => self.check_method(at, source.as_ref()),
            Operation::CopyCluster { source, .. } => self.copy(at, work, source.as_ref()),
            Operation::VerifyCopy { .. } => self.verify(at),
            Operation::WatchReplay => self.watch_replay(at),
            Operation::CheckDivergence { source } => self.check_divergence(at, &source),
            Operation::Rewind { source } => self.rewind(at, work, &source),
            Operation::PointUpstream { source } if self.nodes[at].postgres.server.is_none() => {
                self.start_postgres(at, work, &StartAs::Standby { source })
            }
            Operation::PointUpstream { source } => self.point_upstream(at, source.as_ref()),
            Operation::ArmGuard { epoch } => self.arm_guard(at, epoch),
            Operation::DisarmGuard if self.nodes[at].postgres.runs_as_primary() => {
                failed("PostgreSQL still runs: the guard stays armed")
            }
            Operation::DisarmGuard => {
                self.nodes[at].guard = None;
                self.nodes[at].right_until = None;
                Done(Report::Done)
            }
            Operation::Propose { command } => self.propose(at, work, command),
            Operation::AwaitReceived { member, timeline, lsn } => {
                self.await_received(at, &member, (timeline, lsn))
            }
            Operation::SetSynchronousStandbyNames { value } => {
                self.set_synchronous(at, work, value)
            }
            Operation::ShipWal { .. } => Done(Report::Done),
            Operation::GiveUpVote => self.give_up_vote(at, work),
            Operation::Run(_) => Again(1000),
        }
    }

    fn inspect(&mut self, at: usize) -> Look {
        let node = &mut self.nodes[at];
        node.postgres.unproven &= node.postgres.server.is_none();
        node.postgres.on_trial = false;
        if node.postgres.server.is_none() && node.guard.as_ref().is_some_and(|guard| guard.stray) {
            node.guard = None; // nothing is left to guard
        }
        Done(Report::Inspected(Inspection {
            data: data_directory(&node.postgres),
            postmaster_alive: node.postgres.server.is_some(),
            running_as_primary: node.postgres.runs_as_primary(),
            unmanaged: node.postgres.server.as_ref().is_some_and(|server| server.unmanaged),
            numbered: node.postgres.cluster().is_some_and(|cluster| cluster.copy != 0),
        }))
    }

    fn clear(&mut self, at: usize, permission: &WipePermission) -> Look {
        let postgres = &self.nodes[at].postgres;
        if postgres.server.is_some() {
            return failed("PostgreSQL runs in it");
        }
        let foreign =
            postgres.cluster().is_some_and(|cluster| cluster.sealed) && !postgres.is_its_builds();
        if postgres.cluster().is_some_and(|cluster| !cluster.sealed) {
            return self.move_aside(at);
        }
        if foreign && *permission == WipePermission::OwnLeftovers {
            return failed("a complete data directory lies there");
        }
        if foreign {
            self.check_removal(at, permission);
        }
        let postgres = &mut self.nodes[at].postgres;
        postgres.data = Data::Empty;
        (postgres.unproven, postgres.on_trial) = (false, false);
        Done(Report::Done)
    }

    pub(super) fn move_aside(&mut self, at: usize) -> Look {
        let postgres = &mut self.nodes[at].postgres;
        if postgres.server.is_some() {
            return failed("PostgreSQL runs in it");
        }
        (postgres.unproven, postgres.on_trial) = (false, false);
        if let Data::Present(cluster) = std::mem::replace(&mut postgres.data, Data::Empty) {
            postgres.aside.push(cluster);
        }
        Done(Report::Done)
    }

    /// Operations fail by themselves now and then, while the plan says so.
    pub(super) fn fails(&mut self) -> bool {
        let rate = if self.healed { 0 } else { self.plan.operations_fail };
        self.rng.in_thousand(rate)
    }

    fn start_postgres(&mut self, at: usize, work: &mut Work, start_as: &StartAs) -> Look {
        let recovers = self.nodes[at].postgres.cluster().is_some_and(|cluster| cluster.recovers);
        let restored = matches!(start_as, StartAs::Restored { .. });
        let standby = matches!(start_as, StartAs::Standby { .. }) || restored && recovers;
        let source = match start_as {
            StartAs::Standby { source } => source.as_ref(),
            StartAs::Primary { .. } | StartAs::Restored { .. } => None,
        };
        let upstream = source.and_then(|s| self.node_at(s));
        let armed = self.is_armed(at);
        if !self.take_as_ours(at) {
            return failed("it holds data of another cluster");
        }
        let node = &mut self.nodes[at];
        let Some(server) = &mut node.postgres.server else {
            if work.generation.is_some() {
                return failed("PostgreSQL did not start");
            }
            if let StartAs::Primary { epoch } | StartAs::Restored { epoch, .. } = start_as
                && armed != Some(*epoch)
            {
                return failed("the guard is not armed for this epoch");
            }
            let Some(generation) = node.postgres.start(standby, upstream) else {
                return failed("there is no complete data directory");
            };
            work.generation = Some(generation);
            self.server_appeared(at, generation);
            self.guard_sees_a_server(at);
            let ready = self.rng.between(100, self.plan.start_ms_max);
            self.after(ready, Event::PgReady { node: at, generation });
            return Again(ready + 1);
        };
        if server.stopping {
            return Again(100);
        }
        if restored {
            return Done(Report::Done);
        }
        if server.in_recovery != standby {
            return failed("PostgreSQL runs already, and not like that");
        }
        if standby && source.is_some() {
            server.upstream = upstream;
        }
        if server.accepts {
            let postgres = &mut self.nodes[at].postgres;
            postgres.on_trial |= std::mem::take(&mut postgres.unproven);
            return Done(self.position(at));
        }
        if work.looks > VAIN_LOOKS && self.builds(at) && self.needs_more_wal(at) {
            return failed("PostgreSQL waits in vain for WAL that nobody sends");
        }
        Again(50)
    }

    /// What lies there is the cluster that this node knows of; nothing where one of the two is not known.
    pub(super) fn is_known_cluster(&self, at: usize) -> Option<bool> {
        let ours = self.nodes[at].postgres.cluster()?.system_identifier.to_string();
        let known = self.nodes[at].daemon.as_ref()?.core.cluster().system_identifier()?;
        Some(ours == known)
    }

    pub(super) fn builds(&self, at: usize) -> bool {
        let flows = self.nodes[at].daemon.as_ref().map(|daemon| &daemon.flows.slots);
        flows.is_some_and(|slots| {
            slots.iter().any(|slot| slot.frame.machine().flow() == ReplicaBuild::ID)
        })
    }

    /// The epoch for which the guard is armed, if its deadline is ahead: the operations that lead to
    /// writes refuse to begin without, whatever a resumed flow believes.
    pub(super) fn is_armed(&self, at: usize) -> Option<u64> {
        let local = self.local(at);
        let guard = self.nodes[at].guard.as_ref();
        guard.filter(|g| !g.fires && !g.page.is_over(local)).map(|g| g.epoch)
    }

    /// A guard whose deadline has passed kills what appears.
    fn guard_sees_a_server(&mut self, at: usize) {
        let spent = self.nodes[at].guard.as_ref().filter(|guard| guard.spent);
        if let Some(life) = spent.map(|guard| guard.life) {
            let takes = self.rng.between(5, 60);
            self.after(takes, Event::GuardKill { node: at, guard: life });
        }
    }

    fn server_appeared(&mut self, at: usize, generation: u64) {
        if let Some(daemon) = &mut self.nodes[at].daemon {
            daemon.knows_generation = Some(generation);
        }
    }

    fn position(&self, at: usize) -> Report {
        match self.nodes[at].postgres.cluster() {
            Some(cluster) => {
                Report::At { timeline: cluster.wal.timeline(), lsn: cluster.wal.lsn() }
            }
            None => Report::Done,
        }
    }

    fn stop_postgres(&mut self, at: usize, work: &mut Work, mode: StopMode) -> Look {
        let slow = self.fails();
        let Some(server) = &mut self.nodes[at].postgres.server else {
            return Done(self.position(at));
        };
        let generation = server.generation;
        if work.generation == Some(generation) {
            return Again(50);
        }
        work.generation = Some(generation);
        let took = match mode {
            StopMode::Immediate => self.rng.between(10, 300),
            StopMode::Fast if slow => 70_000,
            StopMode::Fast => self.rng.between(30, 1200),
        };
        server.stopping = true;
        let clean = mode == StopMode::Fast;
        self.after(took, Event::PgStopped { node: at, generation, clean });
        Again(took.min(500) + 1)
    }

    fn promote(&mut self, at: usize, work: &mut Work, wanted: u32) -> Look {
        let fails = self.fails();
        let Some(server) = &self.nodes[at].postgres.server else {
            return failed("PostgreSQL does not run");
        };
        if server.accepts && !server.in_recovery {
            let cluster = self.nodes[at].postgres.cluster();
            return cluster.map_or_else(
                || failed("the data directory is gone"),
                |c| {
                    let (timeline, way) = (c.wal.timeline(), c.wal.history());
                    Done(Report::Promoted { timeline, way })
                },
            );
        }
        if work.generation.is_none() {
            let generation = server.generation;
            work.generation = Some(generation);
            if self.is_armed(at).is_none() {
                return failed("the guard is not armed");
            }
            if !self.take_as_ours(at) {
                return failed("it holds data of another cluster");
            }
            if fails {
                return failed("pg_ctl promote failed");
            }
            let node = &mut self.nodes[at];
            if wanted != 0 && node.postgres.cluster().is_some_and(|c| c.wal.timeline() >= wanted) {
                return failed("the timeline that was set aside is behind us");
            }
            if let Some(server) = &mut node.postgres.server {
                server.next_timeline = wanted;
            }
            let took = self.rng.between(50, 900);
            self.after(took, Event::PgPromoted { node: at, generation });
        }
        Again(50)
    }

    fn checkpoint(&mut self, at: usize, work: &Work) -> Look {
        if self.nodes[at].postgres.server.is_none() {
            return failed("PostgreSQL does not run");
        }
        if self.nodes[at].disk.stuck {
            return Again(200);
        }
        if work.looks == 1 { Again(self.rng.between(20, 400)) } else { Done(Report::Done) }
    }

    fn point_upstream(&mut self, at: usize, source: Option<&Source>) -> Look {
        let upstream = source.and_then(|s| self.node_at(s));
        let ours = self.take_as_ours(at);
        let Some(server) = &mut self.nodes[at].postgres.server else {
            return failed("PostgreSQL does not run");
        };
        if !server.in_recovery {
            return failed("PostgreSQL runs as a primary");
        }
        if !ours {
            return failed("it holds data of another cluster");
        }
        server.upstream = upstream;
        server.streamed_at = None;
        Done(Report::Done)
    }

    /// It is no other cluster's, as far as is known. A copy that somebody else made or runs has no number
    /// until it is one of ours.
    fn take_as_ours(&mut self, at: usize) -> bool {
        let (number, ours) = (self.fresh(), self.is_known_cluster(at));
        let known = self.nodes[at].postgres.cluster_mut().filter(|_| ours == Some(true));
        if let Some(cluster) = known.filter(|cluster| cluster.copy == 0) {
            cluster.copy = number;
        }
        ours != Some(false)
    }

    fn arm_guard(&mut self, at: usize, epoch: u64) -> Look {
        let local = self.local(at);
        let life = self.fresh();
        let node = &mut self.nodes[at];
        let Some(daemon) = &node.daemon else { return failed("the daemon is gone") };
        let Some((_, deadline)) = daemon.core.live_lease(local).filter(|(e, _)| *e == epoch) else {
            return Again(50);
        };
        if node.guard.as_ref().is_some_and(|g| g.fires && !g.spent) {
            return Again(50);
        }
        let (armed, of) = node.guard.as_ref().map_or((Grant::NONE, 0), |g| (g.page, g.epoch));
        let page = match armed.armed_for(of, epoch, deadline, local) {
            Ok(page) => page,
            Err(problem) => return failed(&problem),
        };
        match node.guard.as_mut().filter(|g| g.epoch == epoch && !g.spent) {
            Some(guard) => guard.page = page,
            None => node.guard = Some(Guard::new(epoch, deadline, life)),
        }
        self.nodes[at].guard_found_at = 0;
        self.guard_sleeps(at);
        self.tell_bound(at, epoch, Some(deadline));
        Done(Report::Done)
    }

    fn propose(&mut self, at: usize, work: &mut Work, command: Command) -> Look {
        let ticket = work.ticket.unwrap_or(work.token);
        work.ticket = Some(ticket);
        if matches!(command, Command::Initialised { .. }) {
            self.check_bootstrap_is_complete(at);
        }
        let life = self.nodes[at].life;
        let input = Box::new(Input::Propose { ticket, command });
        self.after(0, Event::Told { node: at, life, input });
        Again(1500)
    }

    fn give_up_vote(&mut self, at: usize, work: &mut Work) -> Look {
        if work.ticket.is_none() {
            work.ticket = Some(work.token);
            let life = self.nodes[at].life;
            let input = Box::new(Input::GiveUpVote { ticket: work.token });
            self.after(0, Event::Told { node: at, life, input });
        }
        Again(60_000)
    }

    /// The log answers a proposal. "No quorum" is no answer: it is proposed again.
    pub fn receipt(&mut self, at: usize, ticket: u64, outcome: Result<Outcome, String>) {
        let Some(daemon) = &self.nodes[at].daemon else { return };
        let waiting = daemon.flows.slots.iter().find_map(|slot| {
            let work = slot.work.as_ref().filter(|w| w.ticket == Some(ticket))?;
            Some((slot.serial, work.visit))
        });
        let Some((serial, visit)) = waiting else {
            return self.client.told.push((ticket, outcome));
        };
        match outcome {
            Ok(Outcome::Done) => {
                self.tell(at, serial, Answer::Done { visit, report: Report::Applied });
            }
            Ok(Outcome::Refused(problem)) => {
                self.tell(at, serial, Answer::Failed { visit, problem });
            }
            Err(_) => {}
        }
    }

    fn await_received(
        &mut self,
        at: usize,
        member: &str,
        (timeline, lsn): (u32, crate::pure::postgres::lsn::Lsn),
    ) -> Look {
        let Some(daemon) = &self.nodes[at].daemon else { return failed("the daemon is gone") };
        let there = daemon.core.heard().values().any(|heard| {
            heard.facts.name == member
                && heard.facts.sql.as_ref().is_some_and(|sql| sql.has_received(timeline, lsn))
        });
        if there { Done(Report::Done) } else { Again(100) }
    }
}
