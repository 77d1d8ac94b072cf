//! A new cluster: initdb or what a custom method restores, its recovery, its first roles.
use std::rc::Rc;
use std::time::Duration;

use super::{NodeContext, copy, promote, start_stop};
use crate::host::postgres::Server;
use crate::host::postgres::bootstrap_marker::{BootstrapMarker, Phase};
use crate::host::postgres::conf_files::{ConfFiles, Signal};
use crate::host::postgres::program::Output;
use crate::host::postgres::removal::make_data_dir;
use crate::host::postgres::roles::{Role as NewRole, RoleKind};
use crate::host::postgres::start::Ready;
use crate::pure::config::{Bootstrap, CustomMethod, PgUser, Postgresql};
use crate::pure::flow::bootstrap::INITDB;
use crate::pure::operation::{Ran, Report, WipePermission};
use crate::pure::postgres::hba::trusting;
use crate::pure::postgres::recovery::{self, Restored};
use crate::pure::postgres::settings::{conf_settings, raised_arguments};
use crate::pure::postgres::state::{PgState, Role};

/// The postmaster has its lock file within this, however long recovery takes.
const STANDING_MAX: Duration = Duration::from_secs(120);

fn bootstrap(context: &NodeContext) -> Bootstrap {
    context.config().bootstrap.clone().unwrap_or_default()
}

fn custom(context: &NodeContext, name: &str) -> Result<CustomMethod, String> {
    let missing = || format!("bootstrap.{name} is no longer in the file; put it back");
    bootstrap(context).custom(name).cloned().ok_or_else(missing)
}

fn ran(program: &str, output: Output) -> Report {
    Report::Ran(Ran { program: program.to_string(), code: output.code, tail: output.tail })
}

/// initdb or the custom method of this name, on an empty directory; leftovers go first. What the
/// same method had restored before the daemon died is taken up again.
pub async fn create_cluster(context: &Rc<NodeContext>, method: &str) -> Result<Report, String> {
    let server = context.server()?;
    let config = context.config();
    if method == INITDB {
        return initdb(context, &server).await;
    }
    let method = custom(context, method)?;
    let known =
        server.bootstrap_marker().filter(|known| known.is_of(&BootstrapMarker::of_method(&method)));
    if let Some(known) = known.filter(BootstrapMarker::is_worth_keeping) {
        tracing::info!(mark = known.text(), "goes on with what was restored before");
        return Ok(Report::Done);
    }
    empty(context, &server).await?;
    let _doing = context.doing(PgState::CustomBootstrap);
    context.seen.borrow_mut().role = Role::Uninitialized;
    let output = server.custom_bootstrap(&method, &config.scope).await?;
    Ok(ran(&method.name, output))
}

/// What another method had restored is kept for a look.
async fn empty(context: &Rc<NodeContext>, server: &Server) -> Result<(), String> {
    let done = match server.bootstrap_marker() {
        Some(bootstrap_marker) if bootstrap_marker.is_worth_keeping() => {
            copy::move_aside(context, "failed").await
        }
        _ => copy::clear(context, WipePermission::OwnLeftovers).await,
    };
    done.map(|_| ())
}

async fn initdb(context: &Rc<NodeContext>, server: &Server) -> Result<Report, String> {
    let (own, bootstrap) = (context.postgresql()?, bootstrap(context));
    empty(context, server).await?;
    context.seen.borrow_mut().role = Role::Uninitialized;
    let _doing = context.doing(PgState::Initializing);
    port_is_free(&own)?;
    let options: Vec<String> = bootstrap.initdb.iter().map(|option| option.argument()).collect();
    let user = &own.superuser;
    let output = server.begin_initdb(&options, &user.username, user.password.as_ref()).await?;
    append_hba(context, &bootstrap.pg_hba).await?;
    Ok(ran(INITDB, output))
}

/// A server that could not listen would fail only after all of initdb.
fn port_is_free(own: &Postgresql) -> Result<(), String> {
    let host = own.listen_addresses.split(',').next().map(str::trim).unwrap_or_default();
    let host = if matches!(host, "" | "*") { "0.0.0.0" } else { host };
    match std::net::TcpListener::bind((host, own.port)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(format!(
            "postgresql.listen: {host}:{} is in use by another process; stop it, or change the key",
            own.port
        )),
        _ => Ok(()),
    }
}

/// `bootstrap.pg_hba` goes behind initdb's own lines, unless postgresql.pg_hba replaces all.
async fn append_hba(context: &Rc<NodeContext>, lines: &[String]) -> Result<(), String> {
    let given = context.settings().parameters;
    if lines.is_empty() || context.settings().pg_hba.is_some() || given.contains_key("hba_file") {
        return Ok(());
    }
    let server = context.server()?;
    let path = server.config_dir().join("pg_hba.conf");
    // initdb puts its own into the data directory, also where the configuration is elsewhere.
    let present = match server.files().read(&path)? {
        Some(text) => text,
        None => server.files().read(&server.data_dir.join("pg_hba.conf"))?.unwrap_or_default(),
    };
    server.files().write(&path, &format!("{present}\n{}\n", lines.join("\n")))
}

/// Exit code 0 is not believed.
pub async fn verify_restored(context: &Rc<NodeContext>, method: &str) -> Result<Report, String> {
    let server = context.server()?;
    let method = custom(context, method)?;
    let dir = server.data_dir.display().to_string();
    if !server.files().exists(&server.data_dir.join("PG_VERSION")) {
        return Err(format!("{} ended well, but left no cluster in {dir}", method.name));
    }
    // A tool may have given it the mode that its backup had.
    make_data_dir(&server.data_dir, server.run_as.as_ref())?;
    server.verify_copy(None).await?;
    context.seen.borrow_mut().copy = server.name_copy().await?; // the backup brought another's along
    server.complete_restored(triggers(&method)).await?;
    if !has_rules(context, &server)? {
        return Err(format!(
            "{dir} was restored without a pg_hba.conf: set postgresql.pg_hba or bootstrap.pg_hba"
        ));
    }
    if restored(&server, &method)?.action == Some("shutdown".into()) {
        return Err("what was restored has recovery_target_action = shutdown: use promote".into());
    }
    if server.files().exists(&server.data_dir.join("patroni.dynamic.json")) {
        tracing::info!("patroni.dynamic.json was restored and is not read: bootstrap.dcs counts");
    }
    Ok(Report::Done)
}

/// Whether there is something to write pg_hba.conf from, where it is not there already.
fn has_rules(context: &NodeContext, server: &Server) -> Result<bool, String> {
    let given = context.settings();
    if given.pg_hba.is_some() || given.parameters.contains_key("hba_file") {
        return Ok(true);
    }
    if server.files().is_there(&server.config_dir().join("pg_hba.conf"))? {
        return Ok(true);
    }
    Ok(server.hba_at_hand(&start_stop::bootstrap_hba(context))?.is_some())
}

fn triggers(method: &CustomMethod) -> Vec<String> {
    let conf = method.recovery_conf.iter().flatten();
    let named =
        conf.filter(|(k, _)| ["promote_trigger_file", "trigger_file"].contains(&k.as_str()));
    named.filter_map(|(_, value)| value.as_str().map(str::to_string)).collect()
}

/// How this method's recovery runs.
fn restored(server: &Server, method: &CustomMethod) -> Result<Restored, String> {
    let path = server.data_dir.join("postgresql.auto.conf");
    let auto = server.files().read(&path)?.unwrap_or_default();
    Ok(recovery::restored(method, &auto))
}

/// Starts what was restored; done when the postmaster stands.
pub async fn start_restored(
    context: &Rc<NodeContext>,
    epoch: u64,
    method: &str,
) -> Result<Report, String> {
    let server = context.server()?;
    promote::must_be_armed(context, epoch)?;
    let _doing = context.doing(PgState::StartingAfterBootstrap);
    if server.hold_postmaster().await?.is_none() {
        let method = custom(context, method)?;
        let mut files = recovery_files(context, &server, &method).await?;
        let bootstrap_marker = BootstrapMarker::of_method(&method);
        if server.bootstrap_marker().is_some_and(|known| known.phase >= Phase::Recovering) {
            // PostgreSQL removes the signal when recovery ends; put there again it would begin anew.
            files.signal = Signal::Keep;
        }
        let (writer, written) = (server.clone(), files.clone());
        let write = move || writer.write_conf_files(&written);
        crate::host::postgres::processes::blocking(write).await??;
        server.mark_bootstrap(&bootstrap_marker.at(Phase::Recovering)).await?;
        files.signal = Signal::Keep;
        server.put_log_away().await?;
        server.start(&files, STANDING_MAX, Ready::LeaseStatus).await?;
    }
    {
        let mut seen = context.seen.borrow_mut();
        (seen.postmaster_alive, seen.role) = (true, Role::Replica);
        seen.rest = PgState::CustomBootstrapFailed;
    }
    context.started.notify_one();
    Ok(Report::Done)
}

/// The usual files; below them the method's recovery, and on the command line what must win.
async fn recovery_files(
    context: &NodeContext,
    server: &Server,
    method: &CustomMethod,
) -> Result<ConfFiles, String> {
    let own = context.postgresql()?;
    let how = restored(server, method)?;
    let mut files = start_stop::files(context, server, None).await?;
    if let Some(text) = &mut files.postgresql_conf {
        text.push_str(&format!("\n# recovery\n{}", conf_settings(&how.parameters)));
    }
    let addresses = addresses(&server.connection.host, own.port).await;
    let hba = trusting(&own.superuser.username, &own.replication.username, &addresses);
    let control = server.control().await?;
    files.arguments.extend(raised_arguments(&files.arguments, &control.settings));
    files.arguments.extend(how.arguments);
    files.arguments.push(format!("--hba_file={}", server.write_trusting_hba(hba).await?));
    // A collector would keep from us why a recovery failed.
    files.arguments.extend(["--logging_collector=off", "--log_destination=stderr"].map(Into::into));
    files.keep_auto_conf = method.keep_existing_recovery_conf;
    files.signal = if how.keeps_signals {
        Signal::Keep
    } else if !how.recovers {
        Signal::None
    } else if how.follows {
        Signal::Standby
    } else {
        Signal::Recovery
    };
    Ok(files)
}

async fn addresses(host: &str, port: u16) -> Vec<String> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.map(|address| address.ip().to_string()).collect(),
        Err(_) => Vec::new(),
    }
}

fn role(user: &PgUser, kind: RoleKind) -> NewRole {
    NewRole { name: user.username.clone(), password: user.password.clone(), kind }
}

/// The superuser of a restored cluster gets the file's password.
pub async fn create_superuser(context: &Rc<NodeContext>) -> Result<Report, String> {
    let own = context.postgresql()?;
    if own.superuser.username.is_empty() || own.superuser.password.is_none() {
        return Ok(Report::Done);
    }
    let roles = [role(&own.superuser, RoleKind::Superuser)];
    context.server()?.create_roles(&roles).await.map(|()| Report::Done)
}

pub async fn create_roles(context: &Rc<NodeContext>) -> Result<Report, String> {
    let Some(own) = &context.config().postgresql else { return Ok(Report::Done) };
    let mut roles = Vec::new();
    if own.replication.username != own.superuser.username {
        roles.push(role(&own.replication, RoleKind::Replication));
    }
    if let Some(rewind) = own.rewind.as_ref().filter(|r| r.username != own.superuser.username) {
        roles.push(role(rewind, RoleKind::Rewind));
    }
    context.server()?.create_roles(&roles).await?;
    Ok(Report::Done)
}

/// Nothing is missing any more: the mark of an unfinished creation goes.
pub async fn seal_cluster(context: &Rc<NodeContext>) -> Result<Report, String> {
    let server = context.server()?;
    server.seal().await?;
    context.seen.borrow_mut().data = server.inspect().await?.data;
    Ok(Report::Done)
}
