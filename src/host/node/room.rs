//! Before a repair: is there room for it? A refusal changes nothing, and is asked again by itself.
use std::rc::Rc;

use super::NodeContext;
use super::copy::superuser_at;
use crate::host::postgres::Server;
use crate::host::postgres::room::size_of;
use crate::pure::cluster::facts::Phase;
use crate::pure::operation::Source;

/// For a copy of this source in the place of what lies here, as far as that is removed for it.
///
/// # Errors
/// There is no room: what may go.
pub async fn for_copy(
    context: &Rc<NodeContext>,
    server: &Server,
    source: Option<&Source>,
) -> Result<(), String> {
    let found = server.inspect().await?;
    let rewound = found.unfinished.as_deref() == Some("rewind");
    let failed_bootstrap = server
        .bootstrap_marker()
        .is_some_and(|bootstrap_marker| bootstrap_marker.is_worth_keeping());
    // Those two are moved aside, and keep their room.
    server.has_room(size(context, source).await, !rewound && !failed_bootstrap).await
}

/// For pg_rewind, while a node comes back: one that fails half-way costs the whole copy.
///
/// # Errors
/// There is no room: what may go.
pub async fn for_rewind(context: &NodeContext, server: &Server) -> Result<(), String> {
    let rejoins = context.seen.borrow().phase() == Phase::Rejoining;
    if !rejoins || context.settings().use_pg_rewind != Some(true) {
        return Ok(());
    }
    server.has_room(None, false).await
}

/// For a copy beside what is about to be moved aside.
///
/// # Errors
/// There is no room: what may go.
pub async fn beside(context: &NodeContext, server: &Server) -> Result<(), String> {
    let source = context.flows.borrow().upstream_in_use().flatten();
    server.has_room(size(context, source.as_ref()).await, false).await
}

/// What the source says of itself; a remote cluster may not know our superuser.
async fn size(context: &NodeContext, source: Option<&Source>) -> Option<u64> {
    let source = source.filter(|source| !source.is_remote())?;
    size_of(&superuser_at(&context.postgresql().ok()?, source)).await
}
