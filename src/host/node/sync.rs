//! The operation that puts synchronous_standby_names into force, and what the files say of it.
use std::rc::Rc;
use std::time::Duration;

use super::NodeContext;
use super::start_stop::files;
use crate::host::postgres::Server;
use crate::pure::cluster::sync::STRICT_PLACEHOLDER;
use crate::pure::config::SynchronousMode;
use crate::pure::operation::Report;
use crate::pure::postgres::recovery::setting_in;

const SETTING: &str = "synchronous_standby_names";
/// The step is tried again at the next cycle.
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(5);

/// Puts synchronous_standby_names into force; who waits for nobody yet waits for a name that nobody has
/// until it is seen to wait.
pub async fn set_names(context: &Rc<NodeContext>, value: String) -> Result<Report, String> {
    let done = put(context, value).await;
    // What is decided next knows what stands there now, also where that is half of what was wanted.
    super::monitor::look(context, 0).await;
    done.map(|()| Report::Done)
}

async fn put(context: &Rc<NodeContext>, value: String) -> Result<(), String> {
    let server = context.server()?;
    if value.is_empty() && lets_go(context) {
        *context.sync_names.borrow_mut() = None;
        return server.reload_with(&files(context, &server, None).await?).await;
    }
    if !value.is_empty() && server.may_wait_for_nobody().await? {
        put_names(context, &server, STRICT_PLACEHOLDER).await?;
        server.await_commits_wait(IN_FORCE_TIMEOUT).await?;
    }
    put_names(context, &server, &value).await
}

async fn put_names(context: &Rc<NodeContext>, server: &Server, value: &str) -> Result<(), String> {
    *context.sync_names.borrow_mut() = Some(value.to_owned());
    server.reload_with(&files(context, server, None).await?).await?;
    server.await_setting(SETTING, value, IN_FORCE_TIMEOUT).await
}

/// What Surus wants synchronous_standby_names to be. A daemon that has just come back has said nothing
/// yet: then what stands in the files stays, for the log may count on it.
pub(super) fn names(context: &NodeContext, server: &Server) -> Option<String> {
    let mut said = context.sync_names.borrow_mut();
    if said.is_none() && !lets_go(context) {
        let text = server.files().read(&server.config_dir().join("postgresql.conf")).ok().flatten();
        *said = text.and_then(|text| setting_in(&text, SETTING)).filter(|names| !names.is_empty());
    }
    said.clone()
}

/// The operator's own synchronous_standby_names are in force: nothing in the log counts on ours. That is
/// so before there is a cluster as well: what a backup brought along names another cluster's standbys.
fn lets_go(context: &NodeContext) -> bool {
    let cluster = &context.view().cluster;
    let off = context.dynamic().synchronous_mode == SynchronousMode::Off;
    cluster.config.is_none() || off && cluster.sync.is_none()
}
