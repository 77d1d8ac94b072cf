//! One node's world: what its flows work with, and what they leave to be seen.
//!
//! Everything here lives on the flows' thread; the consensus has its own and is only sent to.
mod adopted;
pub mod bootstrap;
pub mod bootstrap_retry;
pub mod build;
pub mod callbacks;
pub mod copy;
pub mod cycle;
pub mod execute;
pub mod histories;
pub mod monitor;
pub mod promote;
pub mod recovery_target;
pub mod reload;
pub mod remote;
pub mod requests;
mod room;
pub mod slots;
pub mod start_stop;
pub mod sync;
pub mod unarchived;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use actix::Addr;
use tokio::sync::{Notify, oneshot, watch};

use crate::host::actor::consensus::{Consensus, SharedDeadline, Tell};
use crate::host::clock;
use crate::host::guard::Guard;
use crate::host::journal::Journal;
use crate::host::postgres::Server;
use crate::host::postgres::callback::Callbacks;
use crate::host::rest::Interface;
use crate::host::watchdog;
use crate::pure::chart::Name;
use crate::pure::cluster::RaftId;
use crate::pure::cluster::facts::{DataDirectory, Facts, Phase, SqlFacts, SqlFailure};
use crate::pure::cluster::poll_sequence::PollSequence;
use crate::pure::cluster::remote::RemoteFacts;
use crate::pure::cluster::slots::Orphans;
use crate::pure::cluster::state::{CopyId, Purpose};
use crate::pure::config::{Config, CreateMethod, Dynamic, PostgresSettings, Postgresql, effective};
use crate::pure::consensus::core::Input;
use crate::pure::flow::node::State;
use crate::pure::node::known::Flows;
use crate::pure::node::requests::{moved, restart_outcome};
use crate::pure::node::situation::OperatorRequests;
use crate::pure::node::status::{self, why_blocked};
use crate::pure::patroni::snapshot::Snapshot;
use crate::pure::postgres::history::Switch;
use crate::pure::postgres::state::{PgState, Role};
use crate::pure::postgres::target::RecoveryProgress;
use crate::pure::view::{LocalView, MachineView, View};

/// What the flows of one node share.
pub struct NodeContext {
    pub id: RaftId,
    pub config: Arc<std::sync::RwLock<Arc<Config>>>,
    pub server: RefCell<Option<Server>>,
    pub journal: RefCell<Journal>,
    pub consensus: Addr<Consensus>,
    pub rest: Rc<Interface>,
    pub deadline: SharedDeadline,
    pub guard: RefCell<Option<Rc<Guard>>>,
    pub guarding: promote::Guarding,
    pub view: watch::Receiver<Arc<View>>,
    pub local: watch::Sender<Arc<LocalView>>,
    pub dynamic: watch::Sender<Arc<Dynamic>>,
    /// Something that a situation is made of changed.
    pub changed: Notify,
    /// Somebody wants facts at once.
    pub look: Notify,
    /// A postmaster may have come up.
    pub started: Notify,
    pub seen: RefCell<LocalState>,
    pub requests: RefCell<OperatorRequests>,
    /// The copy that is being made, or was made last.
    pub copying: RefCell<build::Live>,
    pub restart_reply: RefCell<Option<oneshot::Sender<Result<(), String>>>>,
    pub scheduled_restart: RefCell<Option<serde_json::Value>>,
    /// What Surus wants synchronous_standby_names to be; nothing while it has no say.
    pub sync_names: RefCell<Option<String>>,
    pub machines: RefCell<BTreeMap<String, MachineView>>,
    /// What the running flows know.
    pub flows: RefCell<Flows>,
    pub callbacks: RefCell<Callbacks>,
    /// The node's machine came to its end: the daemon may exit.
    pub gone: Cell<bool>,
    /// The housekeeping of the pulse is due at once.
    pub pulse_now: Cell<bool>,
}

/// What was last seen of the own PostgreSQL.
#[derive(Default)]
pub struct LocalState {
    pub data: DataDirectory,
    pub postmaster_alive: bool,
    /// When it ended though nothing was being done with it.
    pub died_at: Option<tokio::time::Instant>,
    pub sql: Option<SqlFacts>,
    /// Of the timeline that this server wrote last: what it left, as its history file says.
    pub left: Option<(u32, Option<Switch>)>,
    /// Why the last look brought none from a server that accepts connections.
    pub sql_failure: Option<SqlFailure>,
    /// A operation that is under way says what the state is.
    pub doing: Option<PgState>,
    /// The state to show while nothing is done and PostgreSQL is down.
    pub rest: PgState,
    pub role: Role,
    /// The role that the callbacks were last told.
    pub told_role: Option<Role>,
    /// And of the stop that followed.
    pub told_stop: bool,
    /// A bootstrap method's restore lies here that nobody has published.
    pub restored: bool,
    /// How far a restored cluster's recovery is.
    pub recovery: Option<RecoveryProgress>,
    pub pending_restart: serde_json::Map<String, serde_json::Value>,
    /// What a standby runs with more of than configured: (name, configured, raised).
    pub raised: Vec<(String, String, String)>,
    /// Settings that PostgreSQL's binary was asked about last, without those it refused.
    pub vetted: Option<crate::pure::postgres::settings::Parameters>,
    /// The copy in the data directory was flushed by the tool that made it.
    pub flushed_copy: bool,
    /// How long the restart that was asked for may take.
    pub restart_timeout_ms: Option<u64>,
    pub serial: u64,
    pub looks: PollSequence,
    /// The control file is not where PostgreSQL, which runs, has it.
    pub data_is_gone: bool,
    /// Slots that nobody speaks for, since when.
    pub orphans: Orphans,
    /// How far the archive is with the histories below our own.
    pub histories: histories::Progress,
    /// When the archive is next offered what was kept for it.
    pub offer_at: u64,
    /// The last warning about the data directory.
    pub warned: String,
    /// `None` until the flow has begun.
    pub node_state: Option<State>,
    /// Which copy lies in the data directory.
    pub copy: CopyId,
    /// The last look at the remote, while we lead a standby cluster.
    pub remote: Option<RemoteFacts>,
    /// The configuration that `dynamic` holds, and the one that PostgreSQL's files hold.
    pub dynamic_version: Option<u64>,
    pub config_version: Option<u64>,
}

impl LocalState {
    /// What this node is doing.
    pub fn phase(&self) -> Phase {
        self.node_state.map(status::phase).unwrap_or_default()
    }
}

impl NodeContext {
    pub fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub fn dynamic(&self) -> Arc<Dynamic> {
        self.dynamic.borrow().clone()
    }

    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// The server of this node.
    ///
    /// # Errors
    /// On a witness, which has none.
    pub fn server(&self) -> Result<Server, String> {
        self.server.borrow().clone().ok_or_else(|| String::from("a witness has no PostgreSQL"))
    }

    /// The server, to be started: from now on it listens where the file says.
    ///
    /// # Errors
    /// On a witness, which has none.
    pub fn listening_as_configured(&self) -> Result<Server, String> {
        let (mut server, own) = (self.server()?, self.postgresql()?);
        server.connection.host = crate::host::run::local_host(&own);
        server.connection.port = own.port;
        *self.server.borrow_mut() = Some(server.clone());
        Ok(server)
    }

    /// The file's `postgresql` section.
    ///
    /// # Errors
    /// On a witness, which has none.
    pub fn postgresql(&self) -> Result<Postgresql, String> {
        self.config().postgresql.clone().ok_or_else(|| "a witness has no PostgreSQL".into())
    }

    /// The `postgresql` settings in force on this node.
    pub fn settings(&self) -> PostgresSettings {
        let (config, dynamic) = (self.config(), self.dynamic());
        config.postgresql.as_ref().map(|p| effective(p, &dynamic)).unwrap_or_default()
    }

    pub fn feed_consensus(&self, input: Input) {
        self.consensus.do_send(Tell(input));
    }

    /// A machine moved.
    pub fn moved(&self, flow: &str, from: &str, to: &str, cause: &str) {
        if flow == "node" {
            self.node_moved(from, to, cause);
        }
        if flow == "cluster_init" && to == "initialised" {
            callbacks::created(self);
        }
        if flow == "cluster_init" && to == "failed" {
            let config = self.config();
            let last = config.bootstrap.as_ref().and_then(|b| b.methods.last());
            let failed = match last {
                Some(CreateMethod::Custom(_)) => PgState::CustomBootstrapFailed,
                Some(CreateMethod::Initdb) | None => PgState::InitdbFailed,
            };
            self.seen.borrow_mut().rest = failed;
            self.look.notify_one();
        }
    }

    fn node_moved(&self, from: &str, to: &str, cause: &str) {
        let Some(to) = State::from_text(to) else { return };
        self.seen.borrow_mut().node_state = Some(to);
        if let Some(from) = State::from_text(from) {
            moved(&mut self.requests.borrow_mut(), from, to);
            if let Some(outcome) = restart_outcome(from, to, cause)
                && let Some(reply) = self.restart_reply.borrow_mut().take()
            {
                reply.send(outcome).ok();
            }
        }
        if status::phase(to).serves() {
            self.pulse_now.set(true);
        }
        if to == State::WaitingToRetry {
            tracing::warn!(cause, "something needs a look");
        }
        if to == State::Blocked {
            let cluster = self.view();
            self.warn_once(&why_blocked(&self.seen_data(), cluster.cluster.system_identifier()));
        }
        self.look.notify_one();
    }

    /// The same sentence again and again helps nobody.
    pub(super) fn warn_once(&self, sentence: &str) {
        let mut seen = self.seen.borrow_mut();
        if seen.warned != sentence {
            tracing::warn!("{sentence}");
            seen.warned = sentence.to_owned();
        }
    }

    pub fn show(&self, view: MachineView) {
        if view.flow == "node" {
            self.seen.borrow_mut().node_state = State::from_text(&view.state);
        }
        self.machines.borrow_mut().insert(view.flow.clone(), view);
        self.publish();
    }

    pub fn hide(&self, flow: &str) {
        self.machines.borrow_mut().remove(flow);
        self.flows.borrow_mut().forget(flow);
        self.publish();
    }

    /// Tells REST what the machines are doing.
    pub fn publish(&self) {
        let machines = self.machines.borrow();
        let guard = self.guard.borrow().as_ref().map(|g| g.view()).unwrap_or_default();
        let seen = self.seen.borrow();
        let local = LocalView {
            machines: machines.values().cloned().collect(),
            sentence: self.sentence(&seen),
            guard,
            busy: seen.phase().task().map(str::to_string),
        };
        self.local.send_replace(Arc::new(local));
    }

    /// Judges what is known now, as REST does.
    pub fn with_snapshot<T>(&self, judge: impl FnOnce(&Snapshot) -> T) -> T {
        let (view, dynamic, config) = (self.view(), self.dynamic(), self.config());
        let local = self.local.borrow().clone();
        judge(&Snapshot {
            view: &view,
            local: &local,
            dynamic: &dynamic,
            config: &config,
            now: clock::now(),
        })
    }

    fn sentence(&self, seen: &LocalState) -> String {
        let view = self.view.borrow();
        let remote = seen.remote.as_ref().and_then(|facts| facts.problems.first());
        let shown = status::Seen {
            state: seen.node_state,
            own_name: &view.own_name,
            cluster: &view.cluster,
            has_quorum: view.raft.quorum_at + self.dynamic.borrow().ttl_ms > clock::now(),
            had_quorum: view.raft.quorum_at > 0,
            data: &seen.data,
            postmaster_alive: seen.postmaster_alive,
            recovery: seen.recovery.as_ref(),
            remote_problem: remote.map(String::as_str),
            start_is_overdue: self.flows.borrow().start_is_overdue(),
        };
        shown.sentence()
    }

    /// What PostgreSQL here is to the cluster while it is in recovery.
    pub fn standby_role(&self) -> Role {
        let view = self.view.borrow();
        let leads = view.cluster.lease.as_ref().is_some_and(|l| l.purpose == Purpose::Lead);
        let follows = self.dynamic.borrow().standby_cluster.is_some();
        if leads && view.lease.held && follows { Role::StandbyLeader } else { Role::Replica }
    }

    /// Why nobody may have this data directory replaced from afar: it is another cluster's.
    pub fn holds_foreign_data(&self) -> Option<String> {
        let (data, view) = (self.seen_data(), self.view());
        let cluster = view.cluster.system_identifier();
        let foreign = matches!(&data, DataDirectory::Present { system_identifier, .. }
            if cluster.is_some_and(|ours| ours != system_identifier));
        foreign.then(|| why_blocked(&data, cluster))
    }

    fn seen_data(&self) -> DataDirectory {
        self.seen.borrow().data.clone()
    }

    /// The state as Patroni words it.
    pub fn pg_state(&self) -> PgState {
        let seen = self.seen.borrow();
        match (&seen.doing, seen.postmaster_alive, &seen.sql) {
            (Some(doing), _, _) => *doing,
            (None, true, Some(_)) => PgState::Running,
            // It accepts connections, though not ours.
            (None, true, None) if seen.sql_failure.is_some() => PgState::Running,
            (None, true, None) => PgState::Starting,
            (None, false, _) if seen.phase() == Phase::Building => PgState::CreatingReplica,
            (None, false, _) => seen.rest,
        }
    }

    /// This node creates the cluster.
    pub fn is_creating(&self) -> bool {
        self.seen.borrow().phase() == Phase::Initialising
    }

    /// All that this node says of itself, to be gossiped.
    pub fn facts(&self, round: u64) -> Facts {
        let config = self.config();
        let state = self.pg_state();
        let first = config.bootstrap.as_ref().map(|b| Dynamic::from_value(Some(&b.dcs)));
        let build = build::progress(self);
        let mut seen = self.seen.borrow_mut();
        seen.serial += 1;
        Facts {
            raft_id: self.id,
            name: config.name.clone(),
            serial: seen.serial,
            round,
            has_postgres: config.postgresql.is_some(),
            state,
            role: seen.role,
            postmaster_alive: seen.postmaster_alive,
            data: seen.data.clone(),
            copy: seen.copy,
            sql: seen.sql.clone(),
            sql_failure: seen.sql_failure.clone(),
            tags: config.tags.clone(),
            pending_restart: seen.pending_restart.clone(),
            watchdog_failed: watchdog::trouble(&config.watchdog, self.dynamic().ttl_ms).is_some(),
            bootstrap_ttl_ms: first.as_ref().map(|dynamic| dynamic.ttl_ms),
            begins_as_standby: first.is_some_and(|dynamic| dynamic.standby_cluster.is_some()),
            sentence: self.sentence(&seen),
            recovery: seen.recovery.clone(),
            restored: seen.restored,
            node_state: seen.node_state.map_or("", State::name).to_owned(),
            phase: seen.phase(),
            build,
            remote: seen.remote.clone(),
            scheduled_restart: self.scheduled_restart.borrow().clone(),
            leaving: self.requests.borrow().stop,
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    /// While the result lives, the node shows this state.
    pub fn doing(self: &Rc<Self>, state: PgState) -> StateOverride {
        self.seen.borrow_mut().doing = Some(state);
        self.look.notify_one();
        StateOverride(self.clone())
    }
}

/// Ends when the operation does, also when it is cancelled.
pub struct StateOverride(Rc<NodeContext>);

impl Drop for StateOverride {
    fn drop(&mut self) {
        self.0.seen.borrow_mut().doing = None;
        self.0.look.notify_one();
    }
}
