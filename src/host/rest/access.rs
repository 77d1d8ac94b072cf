//! Who may change things: the allowlist first, then basic authentication. Reads are open.
use std::net::IpAddr;
use std::time::Instant;

use actix_web::http::header::AUTHORIZATION;
use actix_web::{HttpRequest, web};
use tokio::net::lookup_host;

use super::guesses::{self, Guesses};
use super::reply::Reply;
use super::{browser, current, snapshot};
use crate::host::request::Handle;
use crate::pure::config::network::Network;
use crate::pure::config::{Credentials, HostPort};
use crate::pure::patroni::basic_auth::{self, Refusal};

/// Both checks, in Patroni's order.
pub async fn check(request: &HttpRequest, handle: &Handle) -> Result<(), Reply> {
    browser::check(request, handle)?;
    let config = current(handle);
    let restapi = &config.restapi;
    if !restapi.allowlist.is_empty() || restapi.allowlist_include_members {
        let client = request.peer_addr().map(|address| address.ip());
        let mut hosts = restapi.allowlist.clone();
        if restapi.allowlist_include_members {
            hosts.extend(member_hosts(handle));
        }
        if !allowed(client, &hosts).await {
            return Err(Reply::text(403, "Access is denied"));
        }
    }
    let Some(credentials) = &restapi.authentication else {
        return Ok(());
    };
    prove(request, credentials).await
}

/// The password, with a price on guessing.
async fn prove(request: &HttpRequest, credentials: &Credentials) -> Result<(), Reply> {
    let guesses = request.app_data::<web::Data<Guesses>>();
    let client = request.peer_addr().map(|address| address.ip().to_canonical());
    let counted = guesses.zip(client);
    if counted.is_some_and(|(guesses, client)| guesses.is_closed(client, Instant::now())) {
        return Err(Reply::text(429, "too many wrong passwords from this address; wait a minute"));
    }
    let received = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let Err(refusal) = basic_auth::check(received, credentials) else { return Ok(()) };
    if refusal == Refusal::Wrong
        && let Some((guesses, client)) = counted
    {
        if let Some(count) = guesses.note(client, Instant::now()) {
            tracing::warn!(%client, count, "wrong passwords for the REST interface");
        }
        tokio::time::sleep(guesses::DELAY).await;
    }
    Err(Reply::challenge(refusal.text()))
}

/// Whether a connection of this address may take the places that are kept: a balancer of the allowlist, a
/// member, this host. Names are not resolved for it.
pub(super) fn is_favoured(client: IpAddr, handle: &Handle) -> bool {
    let client = client.to_canonical();
    let listed = &current(handle).restapi.allowlist;
    let members = member_hosts(handle);
    let mut entries = listed.iter().chain(&members);
    client.is_loopback() || entries.any(|entry| network_contains(entry, client) == Some(true))
}

/// Hosts of the members' REST addresses.
pub(super) fn member_hosts(handle: &Handle) -> Vec<String> {
    snapshot(handle, |snapshot| {
        let members = snapshot.view.cluster.members.values();
        members.filter_map(|member| Some(HostPort::of_url(&member.api_url, 80)?.host)).collect()
    })
}

async fn allowed(client: Option<IpAddr>, entries: &[String]) -> bool {
    let Some(client) = client.map(|ip| ip.to_canonical()) else {
        return false;
    };
    if entries.iter().any(|entry| network_contains(entry, client) == Some(true)) {
        return true;
    }
    for host in entries.iter().filter(|entry| network_contains(entry, client).is_none()) {
        let found = lookup_host((host.as_str(), 0)).await;
        if found.is_ok_and(|mut found| found.any(|at| at.ip().to_canonical() == client)) {
            return true;
        }
    }
    false
}

/// Whether an address or network contains the client; `None` when the entry is a host name.
pub(in crate::host) fn network_contains(entry: &str, client: IpAddr) -> Option<bool> {
    Network::parse(entry).map(|network| network.contains(client))
}
