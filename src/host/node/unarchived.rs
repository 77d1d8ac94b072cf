//! What a returning primary has not archived: handed over before its data becomes anything else.
use std::rc::Rc;
use std::time::Duration;

use super::NodeContext;
use crate::host::clock;
use crate::host::postgres::Server;
use crate::host::postgres::processes::blocking;
use crate::pure::cluster::Millis;
use crate::pure::postgres::settings::parameter_text;

/// For everything that waits; the rest is kept aside, so that no archive keeps a node out.
const HAND_OVER_MAX: Duration = Duration::from_secs(60);
/// Between two offers of what was kept aside.
const OFFER_PAUSE_MS: Millis = 30_000;

/// To be called before a stopped server is rewound, started as a standby, moved or removed.
///
/// # Errors
/// What the archive does not have could not be kept either.
pub async fn hand_over(context: &NodeContext, server: &Server) -> Result<(), String> {
    let looks = server.clone();
    let waiting = blocking(move || looks.waiting_for_archive()).await??;
    if waiting.is_empty() || server.hold_postmaster().await?.is_some() {
        return Ok(());
    }
    let Archive::On(command) = archive(context, server).await else { return Ok(()) };
    tracing::info!(files = waiting.len(), "archives what only this server has not archived yet");
    let handed = server.hand_to_archive(&command, waiting, HAND_OVER_MAX).await?;
    if handed.left.is_empty() {
        return Ok(());
    }
    let place = server.keep_unarchived(&handed.left).await?;
    tracing::warn!(
        files = ?handed.left,
        place = %place.display(),
        problem = handed.problem,
        "the archive did not take this WAL, which nobody else archives: it is kept there and offered \
         again"
    );
    context.seen.borrow_mut().offer_at = clock::now() + OFFER_PAUSE_MS;
    Ok(())
}

enum Archive {
    Off,
    /// With this command; an empty one takes nothing.
    On(String),
}

/// As configured by now; the files may be those of before it was mended.
async fn archive(context: &NodeContext, server: &Server) -> Archive {
    let given = |name: &str| {
        let settings = context.settings();
        settings.parameters.get(name).and_then(parameter_text)
    };
    if let Some(library) = given("archive_library")
        && !library.is_empty()
    {
        return Archive::On(String::from("echo archive_library takes no command >&2; false"));
    }
    match given("archive_command").filter(|_| given("archive_mode").is_some_and(is_on)) {
        Some(command) => Archive::On(command),
        None => match server.archive_command().await {
            Ok(command) => command.map_or(Archive::Off, Archive::On),
            // It cannot be asked: what waits is kept rather than lost.
            Err(problem) => {
                tracing::warn!(problem, "could not see how this server archives");
                Archive::On(String::from("false"))
            }
        },
    }
}

fn is_on(mode: String) -> bool {
    ["on", "always", "true", "yes", "1"].contains(&mode.to_lowercase().as_str())
}

/// At every pulse, without waiting: what was kept aside is offered to the archive.
pub fn keep_offering(context: &Rc<NodeContext>) {
    let Ok(server) = context.server() else { return };
    let now = clock::now();
    if now < context.seen.borrow().offer_at || !server.unarchived_dir().exists() {
        return;
    }
    context.seen.borrow_mut().offer_at = Millis::MAX;
    let context = context.clone();
    actix::spawn(async move {
        if let Err(problem) = offer(&context, &server).await {
            tracing::warn!(problem, "WAL that is kept for the archive could not be offered");
        }
        context.seen.borrow_mut().offer_at = clock::now() + OFFER_PAUSE_MS;
    });
}

async fn offer(context: &NodeContext, server: &Server) -> Result<(), String> {
    let Archive::On(command) = archive(context, server).await else { return Ok(()) };
    let handed = server.offer_kept(&command).await?;
    if !handed.archived.is_empty() {
        tracing::info!(files = ?handed.archived, "the archive took what had been kept for it");
    }
    match handed.left.len() {
        0 => Ok(()),
        left => Err(format!(
            "{left} files in {} are not in the archive: {}",
            server.unarchived_dir().display(),
            handed.problem
        )),
    }
}
