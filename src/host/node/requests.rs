//! The desk where REST's requests are answered.
use std::rc::Rc;
use std::time::Duration;

use actix::Addr;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{NodeContext, start_stop};
use crate::host::actor::consensus::{Consensus, Propose};
use crate::host::clock;
use crate::host::request::Request;
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::cluster::state::FailoverRequest;
use crate::pure::dump;
use crate::pure::operation::ReinitOptions;
use crate::pure::postgres::state::PgState;

/// How long a change may take to be agreed on.
const PROPOSE_MAX: Duration = Duration::from_secs(5);
/// How long a task that is called off may take to end.
const CALL_OFF_MAX: Duration = Duration::from_secs(10);
const CALL_OFF_LOOK: Duration = Duration::from_millis(10);
const PROPOSE_AGAIN: Duration = Duration::from_millis(50);

pub async fn keep_answering(context: Rc<NodeContext>, mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        answer(&context, request).await;
    }
}

async fn answer(context: &Rc<NodeContext>, request: Request) {
    match request {
        Request::Propose { command, reply } => propose(context, command, reply),
        Request::Vet { change, reply } => {
            let context = context.clone();
            actix::spawn(async move {
                reply.send(vet(&context, &change).await).ok();
            });
        }
        Request::Restart { timeout_ms, reply } => restart(context, timeout_ms, reply),
        Request::Reinitialize { force, reinit, reply } => {
            let asked = reinitialize(context, force, reinit);
            let context = context.clone();
            actix::spawn(async move {
                if force && asked.is_ok() {
                    until_called_off(&context).await;
                }
                reply.send(asked).ok();
            });
        }
        Request::CancelReinitialize { reply } => {
            reply.send(cancel_reinitialize(context)).ok();
        }
        Request::Reload { reply } => {
            reply.send(super::reload::reload(context).await).ok();
        }
        Request::ScheduleRestart { schedule, reply } => {
            reply.send(Ok(schedule_restart(context, schedule))).ok();
        }
        Request::Dump { reply } => {
            reply.send(dump(context)).ok();
        }
    }
}

async fn vet(context: &Rc<NodeContext>, change: &Value) -> Result<(), String> {
    start_stop::vet(context, change).await?;
    super::remote::vet(context, change).await
}

/// Stores a schedule where there is none, or takes the one away: whether that was so.
fn schedule_restart(context: &Rc<NodeContext>, schedule: Option<Value>) -> bool {
    let mut place = context.scheduled_restart.borrow_mut();
    let fits = place.is_none() == schedule.is_some();
    if fits {
        *place = schedule;
        context.look.notify_one();
    }
    fits
}

fn propose(
    context: &Rc<NodeContext>,
    command: Command,
    reply: oneshot::Sender<Result<Outcome, String>>,
) {
    let consensus = context.consensus.clone();
    let tidy = tidied(command);
    actix::spawn(async move {
        let agreed = agree(&consensus, tidy);
        let outcome = match tokio::time::timeout(PROPOSE_MAX, agreed).await {
            Ok(outcome) => outcome,
            Err(_) => Err(String::from("no quorum: the change was not agreed on in time")),
        };
        reply.send(outcome).ok();
    });
}

/// A receipt that is an error says that nothing was proposed: the arbiter is changing, and the
/// next one is there in a moment.
async fn agree(consensus: &Addr<Consensus>, command: Command) -> Result<Outcome, String> {
    loop {
        let (sender, answer) = oneshot::channel();
        consensus.do_send(Propose(command.clone(), sender));
        match answer.await {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(why)) => tracing::debug!(why, "proposes again"),
            Err(_) => return Err(String::from("the consensus is gone")),
        }
        tokio::time::sleep(PROPOSE_AGAIN).await;
    }
}

/// An empty name is no name.
fn tidied(command: Command) -> Command {
    let Command::SetFailover { request } = command else { return command };
    let some = |text: Option<String>| text.filter(|t| !t.is_empty());
    Command::SetFailover {
        request: FailoverRequest {
            leader: some(request.leader),
            candidate: some(request.candidate),
            scheduled_at: some(request.scheduled_at),
        },
    }
}

fn busy(context: &NodeContext) -> Option<String> {
    context.local.borrow().busy.clone()
}

fn restart(
    context: &Rc<NodeContext>,
    timeout_ms: Option<u64>,
    reply: oneshot::Sender<Result<(), String>>,
) {
    if let Some(task) = busy(context) {
        reply.send(Err(format!("{task} already in progress"))).ok();
        return;
    }
    *context.restart_reply.borrow_mut() = Some(reply);
    context.seen.borrow_mut().restart_timeout_ms = timeout_ms;
    context.requests.borrow_mut().restart = true;
    context.changed.notify_one();
}

fn reinitialize(
    context: &Rc<NodeContext>,
    force: bool,
    reinit: ReinitOptions,
) -> Result<(), String> {
    let view = context.view();
    let Some(leader) = view.cluster.leader() else {
        return Err(String::from("Cluster has no leader, can not reinitialize"));
    };
    if leader == view.own_name {
        return Err(String::from("I am the leader, can not reinitialize"));
    }
    if let Some(task) = busy(context).filter(|_| !force) {
        return Err(format!("{task} already in progress"));
    }
    if let Some(why) = context.holds_foreign_data() {
        return Err(why);
    }
    let mut requests = context.requests.borrow_mut();
    (requests.reinitialize, requests.build) = (true, reinit);
    drop(requests);
    context.changed.notify_one();
    Ok(())
}

/// Whoever forces is answered when what was under way has ended.
async fn until_called_off(context: &Rc<NodeContext>) {
    let under_way = || {
        let copies = context.seen.borrow().doing == Some(PgState::CreatingReplica);
        context.requests.borrow().reinitialize || copies
    };
    let ended = async {
        while under_way() {
            tokio::time::sleep(CALL_OFF_LOOK).await;
        }
    };
    tokio::time::timeout(CALL_OFF_MAX, ended).await.ok();
}

/// Calls off a reinitialize that is asked for or under way: whether there was one.
fn cancel_reinitialize(context: &Rc<NodeContext>) -> Result<bool, String> {
    let asked = std::mem::take(&mut context.requests.borrow_mut().reinitialize);
    let builds = context.flows.borrow().reinitializes();
    context.requests.borrow_mut().cancel_build = builds;
    context.changed.notify_one();
    Ok(asked || builds)
}

fn dump(context: &Rc<NodeContext>) -> Value {
    let own = context.facts(0);
    let postgres = serde_json::to_value(&own).unwrap_or_default();
    let mut value = dump::assemble(
        &context.view(),
        &context.local.borrow(),
        &context.dynamic(),
        &context.config(),
        postgres,
    );
    value["wall"] = clock::wall().into();
    value
}
