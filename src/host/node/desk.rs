//! The desk where REST's requests are answered.
use std::rc::Rc;
use std::time::Duration;

use actix::Addr;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{World, conf};
use crate::host::actor::consensus::{Consensus, Propose};
use crate::host::clock;
use crate::host::request::Request;
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::cluster::state::FailoverRequest;
use crate::pure::deed::BuildWish;
use crate::pure::dump;
use crate::pure::postgres::state::PgState;

/// How long a change may take to be agreed on.
const PROPOSE_MAX: Duration = Duration::from_secs(5);
/// How long a task that is called off may take to end.
const CALL_OFF_MAX: Duration = Duration::from_secs(10);
const CALL_OFF_LOOK: Duration = Duration::from_millis(10);
const PROPOSE_AGAIN: Duration = Duration::from_millis(50);

pub async fn keep_answering(world: Rc<World>, mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        answer(&world, request).await;
    }
}

async fn answer(world: &Rc<World>, request: Request) {
    match request {
        Request::Propose { command, reply } => propose(world, command, reply),
        Request::Vet { change, reply } => {
            let world = world.clone();
            actix::spawn(async move {
                reply.send(vet(&world, &change).await).ok();
            });
        }
        Request::Restart { timeout_ms, reply } => restart(world, timeout_ms, reply),
        Request::Reinitialize { force, wish, reply } => {
            let asked = reinitialize(world, force, wish);
            let world = world.clone();
            actix::spawn(async move {
                if force && asked.is_ok() {
                    until_called_off(&world).await;
                }
                reply.send(asked).ok();
            });
        }
        Request::CancelReinitialize { reply } => {
            reply.send(cancel_reinitialize(world)).ok();
        }
        Request::Reload { reply } => {
            reply.send(super::reload::reload(world).await).ok();
        }
        Request::ScheduleRestart { schedule, reply } => {
            reply.send(Ok(schedule_restart(world, schedule))).ok();
        }
        Request::Dump { reply } => {
            reply.send(dump(world)).ok();
        }
    }
}

async fn vet(world: &Rc<World>, change: &Value) -> Result<(), String> {
    conf::vet(world, change).await?;
    super::remote::vet(world, change).await
}

/// Stores a schedule where there is none, or takes the one away: whether that was so.
fn schedule_restart(world: &Rc<World>, schedule: Option<Value>) -> bool {
    let mut place = world.scheduled_restart.borrow_mut();
    let fits = place.is_none() == schedule.is_some();
    if fits {
        *place = schedule;
        world.look.notify_one();
    }
    fits
}

fn propose(world: &Rc<World>, command: Command, reply: oneshot::Sender<Result<Outcome, String>>) {
    let consensus = world.consensus.clone();
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

fn busy(world: &World) -> Option<String> {
    world.local.borrow().busy.clone()
}

fn restart(world: &Rc<World>, timeout_ms: Option<u64>, reply: oneshot::Sender<Result<(), String>>) {
    if let Some(task) = busy(world) {
        reply.send(Err(format!("{task} already in progress"))).ok();
        return;
    }
    *world.restart_reply.borrow_mut() = Some(reply);
    world.seen.borrow_mut().restart_timeout_ms = timeout_ms;
    world.wishes.borrow_mut().restart = true;
    world.changed.notify_one();
}

fn reinitialize(world: &Rc<World>, force: bool, wish: BuildWish) -> Result<(), String> {
    let view = world.view();
    let Some(leader) = view.cluster.leader() else {
        return Err(String::from("Cluster has no leader, can not reinitialize"));
    };
    if leader == view.own_name {
        return Err(String::from("I am the leader, can not reinitialize"));
    }
    if let Some(task) = busy(world).filter(|_| !force) {
        return Err(format!("{task} already in progress"));
    }
    if let Some(why) = world.holds_anothers_data() {
        return Err(why);
    }
    let mut wishes = world.wishes.borrow_mut();
    (wishes.reinitialize, wishes.build) = (true, wish);
    drop(wishes);
    world.changed.notify_one();
    Ok(())
}

/// Whoever forces is answered when what was under way has ended.
async fn until_called_off(world: &Rc<World>) {
    let under_way = || {
        let copies = world.seen.borrow().doing == Some(PgState::CreatingReplica);
        world.wishes.borrow().reinitialize || copies
    };
    let ended = async {
        while under_way() {
            tokio::time::sleep(CALL_OFF_LOOK).await;
        }
    };
    tokio::time::timeout(CALL_OFF_MAX, ended).await.ok();
}

/// Calls off a reinitialize that is asked for or under way: whether there was one.
fn cancel_reinitialize(world: &Rc<World>) -> Result<bool, String> {
    let asked = std::mem::take(&mut world.wishes.borrow_mut().reinitialize);
    let machines = world.machines.borrow();
    let node = machines.get("node");
    let wished = node.is_some_and(|node| !node.knowledge["wish"].is_null());
    let builds = node.is_some_and(|node| node.state == "building") && wished;
    drop(machines);
    world.wishes.borrow_mut().cancel_build = builds;
    world.changed.notify_one();
    Ok(asked || builds)
}

fn dump(world: &Rc<World>) -> Value {
    let own = world.facts(0);
    let postgres = serde_json::to_value(&own).unwrap_or_default();
    let mut value = dump::assemble(
        &world.view(),
        &world.local.borrow(),
        &world.dynamic(),
        &world.config(),
        postgres,
    );
    value["wall"] = clock::wall().into();
    value
}
