//! A reload: the file is read again, and every part that made something of it follows.
use std::rc::Rc;
use std::sync::Arc;

use super::{World, conf, lead};
use crate::host::actor::consensus::SetMember;
use crate::host::postgres::{Connection, Server};
use crate::host::{config, log, run, secrets};
use crate::pure::config::change::{Change, change};
use crate::pure::config::{Config, Fault};

/// Reads the file again and puts into force what can be; answers what of it is not in force.
///
/// # Errors
/// The file has faults: all of them, and nothing has changed.
pub async fn reload(world: &Rc<World>) -> Result<Vec<String>, String> {
    let old = world.config();
    let reading = config::examine(&old.path);
    let Some(new) = reading.config else {
        let faults: Vec<String> = reading.faults.iter().map(Fault::to_string).collect();
        return Err(faults.join("; "));
    };
    let (mut new, mut changed) = change(&old, new);
    secrets::learn(&new);
    follow_first(world, &old, &mut new, &mut changed);
    for warning in &new.warnings {
        tracing::warn!(warning, "configuration");
    }
    put(world, new);
    follow(world, &old, &mut changed).await;
    tracing::info!("the configuration was reloaded: {changed}");
    for (key, effect) in &changed.0 {
        tracing::debug!(key, ?effect, "a key of the configuration changed");
    }
    let mut told = changed.pending();
    if let Err(problem) = apply(world).await {
        told.push(format!("PostgreSQL did not take it over: {problem}"));
    }
    world.look.notify_one();
    world.changed.notify_one();
    Ok(told)
}

/// The parts that may find a new value impossible; the old one then stays in force.
fn follow_first(world: &Rc<World>, old: &Config, new: &mut Config, changed: &mut Change) {
    if changed.touches("log")
        && let Err(why) = log::change(&new.log)
    {
        changed.refuse("log", &why);
        new.log = old.log.clone();
    }
    if changed.touches("restapi.listen")
        && let Err(why) = world.rest.move_to(&new.restapi.listen)
    {
        changed.refuse("restapi.listen", &why);
        new.restapi.listen = old.restapi.listen.clone();
    }
}

/// The parts that keep something of the old values until they are told.
async fn follow(world: &Rc<World>, old: &Config, changed: &mut Change) {
    if changed.touches("postgresql") {
        reconnect(world);
    }
    world.consensus.do_send(SetMember(run::member_of(&world.config())));
    if changed.touches("watchdog")
        && let Err(why) = lead::change_watchdog(world)
    {
        changed.refuse("watchdog", &why);
        let config = Config { watchdog: old.watchdog.clone(), ..(*world.config()).clone() };
        put(world, config);
        if let Err(problem) = lead::change_watchdog(world) {
            tracing::error!(problem, "the watchdog could not be opened again");
        }
    }
}

fn put(world: &World, config: Config) {
    let mut place = world.config.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    *place = Arc::new(config);
}

/// Users, passwords and the password file count from the next connection on; address and port are
/// those at which the running server listens, until it is started anew.
fn reconnect(world: &World) {
    let (Ok(server), Ok(own)) = (world.server(), world.postgresql()) else { return };
    let fresh = server.state_dir.parent().map(|state_dir| run::server_of(&own, state_dir));
    match fresh {
        Some(Ok(fresh)) => {
            let Connection { host, port, .. } = server.connection.clone();
            let connection = Connection { host, port, ..fresh.connection };
            let server = Server { connection, pgpass: fresh.pgpass, ..server };
            *world.server.borrow_mut() = Some(server);
        }
        Some(Err(problem)) => tracing::warn!(problem, "goes on with the old users"),
        None => {}
    }
}

async fn apply(world: &Rc<World>) -> Result<(), String> {
    if world.config().postgresql.is_none() {
        return Ok(());
    }
    let applied = conf::apply_configuration(world).await;
    if let Err(problem) = &applied {
        tracing::warn!(problem, "the configuration could not be applied");
    }
    applied
}
