//! A creation outlives its PostgreSQL: what the guard stopped meanwhile is started again.
//!
//! A daemon that comes back around its guard's deadline finds a server that is about to be stopped,
//! or was. That says nothing about the cluster that is being created: a step waits until the lease
//! is live again, and goes on where it was. Where the lease is lost instead, the node leaves.
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::execute::until_view_changes;
use super::{NodeContext, bootstrap, promote, recovery_target, start_stop};
use crate::host::actor::consensus::lock;
use crate::host::clock;
use crate::pure::operation::{Report, StartAs};

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
    context: &Rc<NodeContext>,
    needs: Needs,
    step: impl Fn() -> F,
) -> Result<Report, String>
where
    F: Future<Output = Result<Report, String>>,
{
    loop {
        let fences = fences(context);
        let done = match revive(context, needs).await {
            Ok(_) => step().await,
            Err(problem) => Err(problem),
        };
        let Err(problem) = done else { return done };
        tokio::time::sleep(FENCE_MAX).await;
        if fences == self::fences(context) && is_live(context) {
            return Err(problem);
        }
        tracing::info!(problem, "the guard stopped PostgreSQL; goes on when the lease is live");
    }
}

/// Under a live lease, with the guard armed, and the server there.
async fn revive(context: &Rc<NodeContext>, needs: Needs) -> Result<Report, String> {
    let epoch = live_epoch(context).await;
    promote::arm_guard(context, epoch).await?;
    let server = context.server()?;
    if server.hold_postmaster().await?.is_some() {
        return Ok(Report::Done);
    }
    let restart = async || {
        let method = server.bootstrap_marker().ok_or("nothing was restored here")?.method;
        bootstrap::start_restored(context, epoch, &method).await
    };
    match needs {
        Needs::Nothing => Ok(Report::Done),
        Needs::Restored => restart().await,
        Needs::Recovered => {
            restart().await?;
            recovery_target::await_recovery(context).await
        }
        Needs::Primary => start_stop::start(context, StartAs::Primary { epoch }).await,
    }
}

/// The epoch of our lease, as soon as its deadline is ahead.
async fn live_epoch(context: &Rc<NodeContext>) -> u64 {
    loop {
        if is_live(context) {
            return lock(&context.deadline).epoch;
        }
        until_view_changes(context, STEP).await;
    }
}

/// How often the guard has stopped PostgreSQL.
fn fences(context: &NodeContext) -> u64 {
    context.guard.borrow().as_ref().map_or(0, |guard| guard.view().fenced_count)
}

fn is_live(context: &NodeContext) -> bool {
    lock(&context.deadline).deadline.is_some_and(|at| at > clock::now())
}
