//! Before a repair: is there room for it? A refusal changes nothing, and is asked again by itself.
use std::rc::Rc;

use super::World;
use super::copy::superuser_at;
use crate::host::postgres::Server;
use crate::host::postgres::room::size_of;
use crate::pure::deed::Source;

/// For a copy of this source in the place of what lies here, as far as that is removed for it.
///
/// # Errors
/// There is no room: what may go.
pub async fn for_copy(
    world: &Rc<World>,
    server: &Server,
    source: Option<&Source>,
) -> Result<(), String> {
    let found = server.inspect().await?;
    let rewound = found.unfinished.as_deref() == Some("rewind");
    let stillborn = server.birth().is_some_and(|birth| birth.is_worth_keeping());
    // Those two are moved aside, and keep their room.
    server.has_room(size(world, source).await, !rewound && !stillborn).await
}

/// For pg_rewind, while a node comes back: one that fails half-way costs the whole copy.
///
/// # Errors
/// There is no room: what may go.
pub async fn for_rewind(world: &World, server: &Server) -> Result<(), String> {
    let rejoins = world.seen.borrow().node_state == "rejoining";
    if !rejoins || world.settings().use_pg_rewind != Some(true) {
        return Ok(());
    }
    server.has_room(None, false).await
}

/// For a copy beside what is about to be moved aside.
///
/// # Errors
/// There is no room: what may go.
pub async fn beside(world: &World, server: &Server) -> Result<(), String> {
    let source = super::conf::upstream_in_use(world).flatten();
    server.has_room(size(world, source.as_ref()).await, false).await
}

/// What the source says of itself; a remote cluster may not know our superuser.
async fn size(world: &World, source: Option<&Source>) -> Option<u64> {
    let source = source.filter(|source| !source.is_remote())?;
    size_of(&superuser_at(&world.postgresql().ok()?, source)).await
}
