//! A creation outlives its PostgreSQL: what the guard stopped meanwhile is started again.
//!
//! A daemon that comes back around its guard's deadline finds a server that is about to be stopped,
//! or was. That says nothing about the cluster that is being created: a step waits until the lease
//! is live again, and goes on where it was. Where the lease is lost instead, the node leaves.
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::perform::until_view_changes;
use super::{World, birth, conf, lead, recover};
use crate::host::actor::consensus::lock;
use crate::host::clock;
use crate::pure::deed::{Report, StartAs};

const STEP: Duration = Duration::from_millis(50);
/// The guard needs so long to end a server and to count it.
const FENCE_MAX: Duration = Duration::from_millis(700);

/// The server that a step needs.
#[derive(Clone, Copy, Debug)]
pub enum Needs {
    /// It starts one itself, or needs none.
    Nothing,
    /// What was restored, on its way through recovery.
    Restored,
    /// The same at recovery's end.
    Recovered,
    /// With the usual ones.
    Primary,
}

/// Does a step of the creation; one that failed because the guard stopped PostgreSQL is begun again.
pub async fn upheld<F>(
    world: &Rc<World>,
    needs: Needs,
    step: impl Fn() -> F,
) -> Result<Report, String>
where
    F: Future<Output = Result<Report, String>>,
{
    loop {
        let fences = fences(world);
        let done = match revive(world, needs).await {
            Ok(_) => step().await,
            Err(problem) => Err(problem),
        };
        let Err(problem) = done else { return done };
        tokio::time::sleep(FENCE_MAX).await;
        if fences == self::fences(world) && is_live(world) {
            return Err(problem);
        }
        tracing::info!(problem, "the guard stopped PostgreSQL; goes on when the lease is live");
    }
}

/// Under a live lease, with the guard armed, and the server there.
async fn revive(world: &Rc<World>, needs: Needs) -> Result<Report, String> {
    let epoch = live_epoch(world).await;
    lead::arm_guard(world, epoch).await?;
    let server = world.server()?;
    if server.hold_postmaster().await?.is_some() {
        return Ok(Report::Done);
    }
    let restart = async || {
        let method = server.birth().ok_or("nothing was restored here")?.method;
        birth::start_restored(world, epoch, &method).await
    };
    match needs {
        Needs::Nothing => Ok(Report::Done),
        Needs::Restored => restart().await,
        Needs::Recovered => {
            restart().await?;
            recover::await_recovery(world).await
        }
        Needs::Primary => conf::start(world, StartAs::Primary { epoch }).await,
    }
}

/// The epoch of our lease, as soon as its deadline is ahead.
async fn live_epoch(world: &Rc<World>) -> u64 {
    loop {
        if is_live(world) {
            return lock(&world.deadline).epoch;
        }
        until_view_changes(world, STEP).await;
    }
}

/// How often the guard has stopped PostgreSQL.
fn fences(world: &World) -> u64 {
    world.guard.borrow().as_ref().map_or(0, |guard| guard.view().fenced_count)
}

fn is_live(world: &World) -> bool {
    lock(&world.deadline).deadline.is_some_and(|at| at > clock::now())
}
