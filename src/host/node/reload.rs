//! A reload: the file is read again, and every part that made something of it follows.
use std::rc::Rc;
use std::sync::Arc;

use super::{NodeContext, promote, start_stop};
use crate::host::actor::consensus::SetMember;
use crate::host::postgres::{Connection, Server};
use crate::host::{config, log, run, secrets};
use crate::pure::config::change::{Change, change};
use crate::pure::config::{Config, Fault};

/// Reads the file again and puts into force what can be; answers what of it is not in force.
///
/// # Errors
/// The file has faults: all of them, and nothing has changed.
pub async fn reload(context: &Rc<NodeContext>) -> Result<Vec<String>, String> {
    let old = context.config();
    let reading = config::examine(&old.path);
    let Some(new) = reading.config else {
        let faults: Vec<String> = reading.faults.iter().map(Fault::to_string).collect();
        return Err(faults.join("; "));
    };
    let (mut new, mut changed) = change(&old, new);
    secrets::learn(&new);
    follow_first(context, &old, &mut new, &mut changed);
    for warning in &new.warnings {
        tracing::warn!(warning, "configuration");
    }
    put(context, new);
    follow(context, &old, &mut changed).await;
    tracing::info!("the configuration was reloaded: {changed}");
    for (key, effect) in &changed.0 {
        tracing::debug!(key, ?effect, "a key of the configuration changed");
    }
    let mut told = changed.pending();
    if let Err(problem) = apply(context).await {
        told.push(format!("PostgreSQL did not take it over: {problem}"));
    }
    context.look.notify_one();
    context.changed.notify_one();
    Ok(told)
}

/// The parts that may find a new value impossible; the old one then stays in force.
fn follow_first(context: &Rc<NodeContext>, old: &Config, new: &mut Config, changed: &mut Change) {
    if changed.touches("log")
        && let Err(why) = log::change(&new.log)
    {
        changed.refuse("log", &why);
        new.log = old.log.clone();
    }
    if changed.touches("restapi.listen")
        && let Err(why) = context.rest.move_to(&new.restapi.listen)
    {
        changed.refuse("restapi.listen", &why);
        new.restapi.listen = old.restapi.listen.clone();
    }
}

/// The parts that keep something of the old values until they are told.
async fn follow(context: &Rc<NodeContext>, old: &Config, changed: &mut Change) {
    if changed.touches("postgresql") {
        reconnect(context);
    }
    context.consensus.do_send(SetMember(run::member_of(&context.config())));
    if changed.touches("watchdog")
        && let Err(why) = promote::change_watchdog(context)
    {
        changed.refuse("watchdog", &why);
        let config = Config { watchdog: old.watchdog.clone(), ..(*context.config()).clone() };
        put(context, config);
        if let Err(problem) = promote::change_watchdog(context) {
            tracing::error!(problem, "the watchdog could not be opened again");
        }
    }
}

fn put(context: &NodeContext, config: Config) {
    let mut place = context.config.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    *place = Arc::new(config);
}

/// Users, passwords and the password file count from the next connection on; address and port are
/// those at which the running server listens, until it is started anew.
fn reconnect(context: &NodeContext) {
    let (Ok(server), Ok(own)) = (context.server(), context.postgresql()) else { return };
    let fresh = server.state_dir.parent().map(|state_dir| run::server_of(&own, state_dir));
    match fresh {
        Some(Ok(fresh)) => {
            let Connection { host, port, .. } = server.connection.clone();
            let connection = Connection { host, port, ..fresh.connection };
            let server = Server { connection, pgpass: fresh.pgpass, ..server };
            *context.server.borrow_mut() = Some(server);
        }
        Some(Err(problem)) => tracing::warn!(problem, "goes on with the old users"),
        None => {}
    }
}

async fn apply(context: &Rc<NodeContext>) -> Result<(), String> {
    if context.config().postgresql.is_none() {
        return Ok(());
    }
    let applied = start_stop::apply_configuration(context).await;
    if let Err(problem) = &applied {
        tracing::warn!(problem, "the configuration could not be applied");
    }
    applied
}
