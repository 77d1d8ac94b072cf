//! After a promotion: the archive gets the histories of the timelines below the leader's own.
use std::rc::Rc;

use super::NodeContext;
use crate::host::clock;
use crate::host::postgres::Server;
use crate::host::postgres::timelines::Passage;
use crate::pure::cluster::Millis;

/// What the archive would not take is offered so often, this far apart.
const ATTEMPTS: u32 = 3;
const PAUSE_MS: Millis = 10_000;

/// How far this is for the timeline that is led here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The timeline, and when its server started: with another archive_mode, perhaps.
    of: (u32, String),
    attempts: u32,
    not_before: Millis,
    /// Nothing is left to do, or an attempt is under way.
    rests: bool,
}

/// At every pulse, without waiting for any command.
pub fn keep_histories(context: &Rc<NodeContext>) {
    let Ok(server) = context.server() else { return };
    let leads = context.view().lease.held;
    let mut seen = context.seen.borrow_mut();
    let Some(sql) = seen.sql.as_ref().filter(|sql| leads && !sql.in_recovery) else { return };
    let of = (sql.timeline, sql.postmaster_start_time.clone());
    if seen.histories.of != of {
        seen.histories = Progress { of: of.clone(), ..Progress::default() };
    }
    let now = clock::now();
    if of.0 < 2 || seen.histories.rests || now < seen.histories.not_before {
        return;
    }
    seen.histories.rests = true;
    let context = context.clone();
    actix::spawn(async move {
        let outcome = complete(&server, of.0).await;
        note(&context, &of, outcome);
    });
}

async fn complete(server: &Server, timeline: u32) -> Result<Passage, String> {
    let archiving = server.archiving().await?;
    server.archive_way_to(timeline, &archiving).await
}

fn note(context: &NodeContext, of: &(u32, String), outcome: Result<Passage, String>) {
    let mut seen = context.seen.borrow_mut();
    let progress = &mut seen.histories;
    if progress.of != *of {
        return;
    }
    match outcome {
        Ok(Passage::Whole) => return,
        Ok(Passage::NotYet) => {}
        Ok(Passage::Lacks(numbers, problem)) => {
            progress.attempts += 1;
            if progress.attempts >= ATTEMPTS {
                tracing::warn!(
                    ?numbers,
                    problem,
                    "the archive took no history of these skipped timelines; unless it has one of \
                     each, a restore to `latest` stops before them: see docs/operations.md"
                );
                return;
            }
            progress.not_before = clock::now() + PAUSE_MS;
        }
        Err(problem) => {
            tracing::warn!(problem, "the histories of skipped timelines were not archived");
            progress.not_before = clock::now() + PAUSE_MS;
        }
    }
    progress.rests = false;
}
