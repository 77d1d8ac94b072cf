//! Patroni's HTTP interface.
//!
//! Reads answer from the node's latest published view and never wait for Raft. Changes go through
//! [`Handle::requests`]; a call that takes long holds only its own connection.
pub(super) mod access;
mod body;
mod browser;
mod change;
mod guesses;
mod interface;
mod limit;
mod members;
pub(super) mod read;
mod reply;
mod switch;

use std::any::Any;
use std::io;

use actix_web::dev::{Extensions, Server};
use actix_web::http::{KeepAlive, Method};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use self::body::Body;
use self::guesses::Guesses;
pub use self::interface::Interface;
use self::limit::Places;
use self::reply::{Reply, render};
use crate::host::request::Handle;
use crate::host::{clock, descriptors, listen};
use crate::pure::config::HostPort;
use crate::pure::patroni::snapshot::Snapshot;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Starts listening on `restapi.listen`. The server runs when the result is awaited or spawned.
///
/// # Errors
/// The address cannot be bound; the sentence names it.
pub async fn serve(handle: Handle) -> io::Result<Server> {
    let listen = current(&handle).restapi.listen.clone();
    serve_at(handle, &listen)
}

/// As [`serve`], on an address of its own.
fn serve_at(handle: Handle, listen: &HostPort) -> io::Result<Server> {
    let told = |error: io::Error| {
        let text = format!(
            "cannot listen on {listen} (restapi.listen): {error}; free the port or change the key"
        );
        io::Error::new(error.kind(), text)
    };
    let opened = listen::open(listen).map_err(told)?;
    for listener in &opened {
        rustix::net::listen(listener, BACKLOG)?;
    }
    let places = Places::new(descriptors::for_strangers(limit::CONNECTIONS_MAX));
    let (guesses, at_door) = (web::Data::new(Guesses::default()), handle.clone());
    let server = HttpServer::new(move || {
        let app = App::new().app_data(web::Data::new(handle.clone())).app_data(guesses.clone());
        app.default_service(web::to(dispatch))
    })
    .on_connect(move |io, held| admit(io, held, &places, &at_door))
    .workers(1)
    .client_disconnect_timeout(std::time::Duration::from_secs(1))
    .keep_alive(KeepAlive::Timeout(std::time::Duration::from_secs(5)))
    .shutdown_timeout(1)
    .disable_signals();
    let all = opened.into_iter().try_fold(server, |server, listener| server.listen(listener));
    Ok(all.map_err(told)?.run())
}

/// A connection without a place ends at once: its descriptor is for others.
fn admit(io: &dyn Any, held: &mut Extensions, places: &Places, handle: &Handle) {
    let Some(stream) = io.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
    let address = stream.peer_addr().map(|address| address.ip());
    let place = address.ok().and_then(|ip| places.take(ip, access::is_favoured(ip, handle)));
    match place {
        Some(place) => drop(held.insert(place)),
        None => drop(rustix::net::shutdown(stream, rustix::net::Shutdown::Both)),
    }
}

fn current(handle: &Handle) -> std::sync::Arc<crate::pure::config::Config> {
    let guard = handle.config.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    guard.clone()
}

/// Calls `read` with what this node knows now.
fn snapshot<T>(handle: &Handle, read: impl FnOnce(&Snapshot) -> T) -> T {
    let (view, local) = (handle.view.borrow().clone(), handle.local.borrow().clone());
    let (dynamic, config) = (handle.dynamic.borrow().clone(), current(handle));
    read(&Snapshot {
        view: &view,
        local: &local,
        dynamic: &dynamic,
        config: &config,
        now: clock::now(),
    })
}

/// One request. The first segment of the path names the handler, as in Patroni.
async fn dispatch(
    request: HttpRequest,
    payload: web::Payload,
    handle: web::Data<Handle>,
) -> HttpResponse {
    let config = current(&handle);
    let reply = route(&request, payload, &handle).await;
    render(reply, &config.restapi)
}

async fn route(request: &HttpRequest, payload: web::Payload, handle: &Handle) -> Reply {
    let path = request.path();
    let segment = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match *request.method() {
        Method::GET => read::get(handle, segment, path, request.query_string()).await,
        Method::HEAD | Method::OPTIONS => read::bare(handle, path, request.query_string()),
        ref method if is_change(method, segment) => match access::check(request, handle).await {
            Err(refusal) => refusal,
            Ok(()) => changed(request, payload, handle, segment).await,
        },
        ref method => Reply::error(501, &format!("Unsupported method ('{method}')")),
    }
}

fn is_change(method: &Method, segment: &str) -> bool {
    matches!(
        (method.as_str(), segment),
        ("PATCH" | "PUT", "config")
            | ("POST", "reload" | "failover" | "failsafe" | "sigterm" | "promote-cluster")
            | ("POST" | "DELETE", "reinitialize" | "restart" | "switchover")
            | ("DELETE", "members")
    )
}

async fn changed(
    request: &HttpRequest,
    payload: web::Payload,
    handle: &Handle,
    segment: &str,
) -> Reply {
    use crate::pure::patroni::switchover::Action;
    let body = Body { request, payload };
    match (request.method().as_str(), segment) {
        ("PATCH", "config") => change::patch_config(handle, body).await,
        ("PUT", "config") => change::put_config(handle, body).await,
        ("POST", "reload") => change::reload(handle).await,
        ("POST", "restart") => change::restart(handle, body).await,
        ("DELETE", "restart") => change::delete_restart(handle).await,
        ("POST", "reinitialize") => change::reinitialize(handle, body).await,
        ("DELETE", "reinitialize") => change::delete_reinitialize(handle).await,
        ("POST", "switchover") => switch::post(handle, body, Action::Switchover).await,
        ("POST", "failover") => switch::post(handle, body, Action::Failover).await,
        ("DELETE", "switchover") => switch::delete(handle).await,
        ("DELETE", "members") => {
            members::remove(handle, request.path(), request.query_string()).await
        }
        ("POST", "promote-cluster") => change::promote_cluster(handle, body).await,
        ("POST", "failsafe") => Reply::error(502, "failsafe_mode is not built yet"),
        _ => Reply::text(202, "shutdown scheduled"),
    }
}
