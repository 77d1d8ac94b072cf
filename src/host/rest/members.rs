//! `DELETE /members/NAME`: a member that is lost for good goes, or stays with the reason why.
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout_at};

use super::change::propose;
use super::reply::Reply;
use super::snapshot;
use crate::host::request::Handle;
use crate::pure::cluster::RaftId;
use crate::pure::cluster::command::{Command, Outcome};
use crate::pure::patroni::members;

/// The arbiter looks at an order every few hundred milliseconds; another change may be under way.
const CARRIED_OUT_MAX: Duration = Duration::from_secs(10);

/// With `?dry_run` it is only said whether it may go.
pub async fn remove(handle: &Handle, path: &str, query: &str) -> Reply {
    let name = path.trim_start_matches('/').strip_prefix("members").unwrap_or_default();
    let name = percent_decode_str(name.trim_matches('/')).decode_utf8_lossy().into_owned();
    if name.is_empty() {
        return Reply::text(400, "whom to remove is missing: DELETE /members/NAME");
    }
    let since = snapshot(handle, |snapshot| snapshot.view.cluster.applied);
    let id = match snapshot(handle, |snapshot| members::may_be_removed(snapshot, &name)) {
        Ok(id) => id,
        Err(answer) => return answer.into(),
    };
    if query == "dry_run" {
        return Reply::text(200, format!("{name} may be removed"));
    }
    match propose(handle, Command::RemoveMember { id }).await {
        Ok(Outcome::Done) => carried_out(handle, id, &name, since).await,
        Ok(Outcome::Refused(why)) => Reply::text(409, why),
        Err(why) => Reply::text(503, why),
    }
}

/// Waits for what the arbiter makes of it.
async fn carried_out(handle: &Handle, id: RaftId, name: &str, since: u64) -> Reply {
    let deadline = Instant::now() + CARRIED_OUT_MAX;
    let mut views = handle.view.clone();
    loop {
        let view = views.borrow_and_update().clone();
        if let Some(answer) = members::outcome(&view, id, name, since) {
            return answer.into();
        }
        let woken = timeout_at(deadline, views.changed()).await;
        if !matches!(woken, Ok(Ok(()))) {
            let text =
                "the removal is ordered and not carried out yet: `surus ctl members` shows it";
            return Reply::text(202, text);
        }
    }
}
