//! Builds the node: stores, threads, actors, and who tells whom; stops it in order.
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{Notify, mpsc, watch};

use super::actor::consensus::{
    Consensus, Deadline, Disk, KEEP_NUMBERS, PeerHeard, SharedDeadline, Written, keep_ticking,
};
use super::actor::flow::FlowActor;
use super::journal::Journal;
use super::node::{LocalState, NodeContext, cycle, monitor, requests};
use super::peer::{Access, Hello, PeerEvent, Peers};
use super::postgres::account::Account;
use super::postgres::callback::Callbacks;
use super::postgres::connect::Socket;
use super::postgres::held::Held;
use super::postgres::{Connection, Server};
use super::request::{Handle, Request};
use super::restored::{founding_record_of, restored};
use super::rng::random_id;
use super::signals::Signals;
use super::store::{Identity, Loaded, LogWriter, SledLog};
use super::systemd::Notifier;
use super::ticker::Ticker;
use super::{clock, config, directories, log, lost_state, rest};
use crate::pure::cluster::state::Member;
use crate::pure::config::{Config, Dynamic, Postgresql};
use crate::pure::consensus::core::{Core, Options};
use crate::pure::node::situation::OperatorRequests;
use crate::pure::postgres::state::PgState;
use crate::pure::view::{LocalView, View};

/// Runs the daemon in the foreground; its exit code.
pub fn run(path: &Path) -> i32 {
    // Before anything else: a signal that comes early must not end the daemon.
    let system = System::new();
    let signals = match system.block_on(async { Signals::open() }) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("signals cannot be heeded: {error}");
            return 1;
        }
    };
    let config = match prepared(path) {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("{problem}");
            return 1;
        }
    };
    let code = system.block_on(async move {
        match serve(config, signals).await {
            Ok(()) => 0,
            Err(problem) => {
                tracing::error!(problem, "cannot run");
                eprintln!("{problem}");
                1
            }
        }
    });
    System::try_current().inspect(System::stop);
    code
}

/// The file, read and in force for the whole process.
fn prepared(path: &Path) -> Result<Config, String> {
    let config = config::load_file(path)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    log::begin(&config.log)?;
    config.warnings.iter().for_each(|warning| tracing::warn!(warning, "configuration"));
    super::descriptors::raise_limit();
    super::secrets::learn(&config);
    Ok(config)
}

/// What a member is, by its own file.
pub fn member_of(config: &Config) -> Member {
    let postgres = config.postgresql.as_ref();
    let database = postgres.map_or("postgres", |p| p.database.as_str());
    Member {
        name: config.name.clone(),
        raft_addr: config.raft.self_addr.to_string(),
        api_url: format!("http://{}/patroni", config.restapi.connect_address),
        conn_url: postgres
            .map(|p| format!("postgres://{}/{database}", p.connect_address))
            .unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        tags: config.tags.clone(),
        witness: postgres.is_none(),
        left: false,
    }
}

/// Nothing that must be stopped in order runs before the daemon is built.
async fn serve(config: Config, mut signals: Signals) -> Result<(), String> {
    let notifier = Rc::new(Notifier::from_environment());
    let built = tokio::select! {
        built = build(config) => built?,
        () = signals.told_to_stop() => {
            notifier.stopping();
            tracing::info!("was told to stop before it ran");
            return Ok(());
        }
    };
    let rest = built.context.rest.clone();
    signals.heed(&built.context, notifier);
    live(built).await;
    rest.close().await;
    Ok(())
}

/// What [`live`] lives on.
struct Built {
    context: Rc<NodeContext>,
    words: mpsc::UnboundedReceiver<super::actor::consensus::Word>,
    requests: mpsc::Receiver<Request>,
}

/// Stores, consensus and the REST interface.
async fn build(config: Config) -> Result<Built, String> {
    let state_dir = make_state_dir(&config.raft.data_dir)?;
    let server = config.postgresql.as_ref().map(|p| server_of(p, &state_dir)).transpose()?;
    let first = directories::make(server.as_ref(), &config).await?;
    let (log, loaded) = open_log(&state_dir, &config)?;
    let (journal, aside) = Journal::open_or_begin_anew(&state_dir.join("journal"))
        .map_err(|e| format!("{}: {e}", state_dir.join("journal").display()))?;
    if let Some(sentence) = aside {
        tracing::error!(sentence, "the journal");
    }
    let id = loaded.identity.as_ref().map_or_else(random_id, |i| i.raft_id);
    let config_value = Arc::new(config);
    let config = Arc::new(RwLock::new(config_value.clone()));
    let (view_in, view) = watch::channel(Arc::new(View::default()));
    let (words_in, words) = mpsc::unbounded_channel();
    let deadline: SharedDeadline = Arc::new(Mutex::new(Deadline::default()));
    let consensus = start_consensus(Parts {
        id,
        config: config_value.clone(),
        log,
        loaded,
        view: view_in,
        words: words_in,
        deadline: deadline.clone(),
    })
    .await?;
    let (local, local_out) = watch::channel(Arc::new(LocalView::default()));
    let (dynamic, dynamic_out) = watch::channel(Arc::new(first));
    let (requests_in, requests) = mpsc::channel::<Request>(64);
    let handle = Handle {
        config: config.clone(),
        view: view.clone(),
        local: local_out,
        dynamic: dynamic_out,
        requests: requests_in,
    };
    let listen = &config_value.restapi.listen;
    let rest = rest::Interface::open(handle, listen).map_err(|error| error.to_string())?;
    let run_as = server.as_ref().and_then(|s| s.run_as.clone());
    let context = Rc::new(NodeContext {
        id,
        config,
        server: RefCell::new(server),
        journal: RefCell::new(journal),
        consensus,
        rest,
        deadline,
        guard: RefCell::new(None),
        guarding: Default::default(),
        view,
        local,
        dynamic,
        changed: Notify::new(),
        look: Notify::new(),
        started: Notify::new(),
        seen: RefCell::new(LocalState { rest: PgState::Stopped, ..LocalState::default() }),
        requests: RefCell::new(OperatorRequests::default()),
        copying: RefCell::default(),
        restart_reply: RefCell::new(None),
        scheduled_restart: RefCell::new(None),
        sync_names: RefCell::new(None),
        machines: RefCell::default(),
        flows: RefCell::default(),
        callbacks: RefCell::new(Callbacks::new(state_dir, run_as)),
        gone: Cell::new(false),
        pulse_now: Cell::new(false),
    });
    Ok(Built { context, words, requests })
}

/// From the first inspection to the shutdown.
async fn live(built: Built) {
    let Built { context, words, requests } = built;
    let (ended, end) = tokio::sync::oneshot::channel();
    actix::spawn(monitor::keep_polling(context.clone(), words));
    actix::spawn(requests::keep_answering(context.clone(), requests));
    context.look.notify_one();
    if context.config().postgresql.is_none() {
        tracing::info!("is a witness: a voter without PostgreSQL");
        witness(&context).await;
    } else {
        // A machine that rests where it was must not take a first glance for the truth.
        if let Err(problem) = super::node::start_stop::look_around(&context).await {
            tracing::warn!(problem, "the first look failed");
        }
        monitor::look(&context, 0).await;
        let on_end = Box::new(move |_| {
            ended.send(()).ok();
        });
        let node = FlowActor::node(context.clone(), on_end).start();
        actix::spawn(monitor::watch_postmaster(context.clone(), node.clone()));
        actix::spawn(super::node::promote::watch_guard(context.clone()));
        actix::spawn(super::node::remote::keep_watch(context.clone()));
        actix::spawn(cycle::run_cycles(context.clone(), node));
        end.await.ok();
    }
    context.gone.set(true);
    send_leaving(&context).await;
    tracing::info!("stopped");
}

/// A witness has no flows: it votes until it is told to stop.
async fn witness(context: &Rc<NodeContext>) {
    while !context.requests.borrow().stop {
        context.changed.notified().await;
    }
    let vote = super::node::promote::give_up_vote(context);
    tokio::time::timeout(Duration::from_secs(3), vote).await.ok();
}

/// The last facts leave, and the guard, if it has nothing to guard, ends.
async fn send_leaving(context: &Rc<NodeContext>) {
    monitor::look(context, 0).await;
    let guard = context.guard.borrow().clone();
    if let Some(guard) = guard.filter(|g| g.armed().is_none()) {
        guard.end();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
}

struct Parts {
    id: u64,
    config: Arc<Config>,
    log: SledLog,
    loaded: Loaded,
    view: watch::Sender<Arc<View>>,
    words: mpsc::UnboundedSender<super::actor::consensus::Word>,
    deadline: SharedDeadline,
}

/// On a thread of its own; answers when it listens.
async fn start_consensus(parts: Parts) -> Result<Addr<Consensus>, String> {
    let arbiter = Arbiter::new();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    arbiter.spawn(async move {
        sender.send(consensus(parts).await).ok();
    });
    receiver.await.map_err(|_| String::from("the consensus thread ended"))?
}

async fn consensus(parts: Parts) -> Result<Addr<Consensus>, String> {
    let Parts { id, config, mut log, loaded, view, words, deadline } = parts;
    let member = member_of(&config);
    let lost = |error: String| format!("{error}; {}", lost_state::advice(&config));
    let founding_record = founding_record_of(&loaded).map_err(lost)?;
    let founded = founding_record.cluster_id.as_ref();
    let restored = founded.map(|_| restored(&loaded).map_err(lost)).transpose()?;
    let cluster_epoch = founding_record.cluster_epoch;
    if loaded.identity.is_none() {
        let identity = Identity { raft_id: id, cluster_id: None, cluster_epoch };
        log.write_identity(&identity).map_err(|e| format!("raft.data_dir: {e}"))?;
    }
    let scope = format!("{}/{}", config.namespace.trim_matches('/'), config.scope);
    let mut hello = Hello::new(&scope, id, &config.name, &member.raft_addr);
    hello.cluster_id = founding_record.cluster_id.clone();
    hello.cluster_epoch = cluster_epoch;
    hello.state = serde_json::json!({
        "cluster_id": founding_record.cluster_id, "cluster_epoch": cluster_epoch,
        "voted_for": founding_record.voted_for, "heard_of": founding_record.heard_of,
    });
    let core = Core::new(Options {
        id,
        member,
        partners: config.raft.partner_addrs.iter().map(ToString::to_string).collect(),
        voters_max: config.raft.voters_max.max(1),
        ttl_ms: Dynamic::from_value(config.bootstrap.as_ref().map(|b| &b.dcs)).ttl_ms,
        seed: random_id(),
        log: restored,
        founding_record,
        now: clock::now(),
    });
    let access = Access::of(&config.raft, &scope)?;
    let (peers, events) = Peers::spawn(&config.raft.bind_addr, hello.clone(), access)
        .await
        .map_err(|error| error.to_string())?;
    let (written_in, written) = mpsc::unbounded_channel();
    let (kept_in, kept) = std::sync::mpsc::channel();
    let writer = LogWriter::start(log, move |number, result| {
        if number > KEEP_NUMBERS {
            kept_in.send(result).ok();
        } else {
            written_in.send((number, result)).ok();
        }
    })
    .map_err(|error| format!("the log's thread could not be started: {error}"))?;
    let actor = Consensus {
        core,
        peers,
        writer,
        kept,
        hello,
        view,
        deadline,
        words,
        receipts: Default::default(),
        next_ticket: 0,
        keeps: 0,
        connected: Default::default(),
        disk: Disk::default(),
        wall_due: 0,
    };
    let ticker = Ticker::new(Duration::from_millis(actor.core.tick_every()))
        .map_err(|error| format!("no timer for the consensus: {error}"))?;
    let address = actor.start();
    actix::spawn(keep_ticking(address.clone(), ticker));
    pass_on(address.clone(), events, written);
    Ok(address)
}

/// What the peers and the log's thread say, to the consensus.
fn pass_on(
    to: Addr<Consensus>,
    mut events: mpsc::Receiver<PeerEvent>,
    mut written: mpsc::UnboundedReceiver<(u64, std::io::Result<Duration>)>,
) {
    let heard = to.clone();
    actix::spawn(async move {
        while let Some(event) = events.recv().await {
            heard.do_send(PeerHeard(event));
        }
    });
    actix::spawn(async move {
        while let Some((number, result)) = written.recv().await {
            to.do_send(Written(number, result));
        }
    });
}

fn open_log(state_dir: &Path, config: &Config) -> Result<(SledLog, Loaded), String> {
    let path = state_dir.join("log");
    SledLog::open(&path).map_err(|error| {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull, WouldBlock};
        if matches!(error.kind(), StorageFull | ReadOnlyFilesystem | PermissionDenied) {
            return format!(
                "raft.data_dir: {}: {error}; make room or access there, then start again",
                path.display()
            );
        }
        if error.kind() == WouldBlock {
            return format!("{}: {error}; stop it, or wait until it has ended", path.display());
        }
        format!("{}: {error}; {}", path.display(), lost_state::advice(config))
    })
}

fn make_state_dir(dir: &Path) -> Result<PathBuf, String> {
    let wrong = |e: std::io::Error| format!("raft.data_dir: {}: {e}", dir.display());
    std::fs::create_dir_all(dir).map_err(wrong)?;
    dir.canonicalize().map_err(wrong)
}

/// Under which address this node's own PostgreSQL is reached from here.
pub fn local_host(config: &Postgresql) -> String {
    match config.listen_addresses.split(',').next().map(str::trim) {
        None | Some("" | "*" | "0.0.0.0") => String::from("127.0.0.1"),
        Some(address) => address.to_string(),
    }
}

/// The server that this file describes.
///
/// # Errors
/// No binaries, or no account that they may run as.
pub fn server_of(config: &Postgresql, state_dir: &Path) -> Result<Server, String> {
    let run_as = Account::for_data_dir(&config.data_dir)?;
    let own = state_dir.join("postgresql");
    directories::make_own(&own, run_as.as_ref()).map_err(|e| format!("{}: {e}", own.display()))?;
    Ok(Server {
        data_dir: config.data_dir.clone(),
        bin_dir: config::find_bin_dir(config)?,
        config_dir: config.config_dir.clone(),
        pgpass: config.pgpass.clone(),
        connection: Connection {
            host: local_host(config),
            port: config.port,
            user: config.superuser.username.clone(),
            password: config.superuser.password.clone(),
            database: config.database.clone(),
            options: config.superuser.options.clone(),
            socket: config.use_unix_socket.then(|| Socket {
                pid_file: config.data_dir.join("postmaster.pid"),
                account: run_as.clone(),
            }),
        },
        run_as,
        state_dir: own,
        held: Held::noted_in(state_dir),
    })
}
