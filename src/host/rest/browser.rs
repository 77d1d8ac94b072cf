//! A browser must not be another site's hand (SEC-27). What is no browser sends no `Origin`, and may call
//! this node by whatever name it likes.
use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_TYPE, HOST, ORIGIN};

use super::access::member_hosts;
use super::current;
use super::reply::Reply;
use crate::host::request::Handle;

/// Refuses a change that a page of another site asks for.
pub fn check(request: &HttpRequest, handle: &Handle) -> Result<(), Reply> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let site = header("sec-fetch-site").unwrap_or("none");
    let origin = header(ORIGIN.as_str());
    if origin.is_none() && !matches!(site, "cross-site" | "same-site") {
        return Ok(());
    }
    let host = header(HOST.as_str()).unwrap_or_default();
    let own = origin.and_then(|origin| origin.split_once("://")).is_some_and(|(_, at)| at == host);
    if !own {
        return Err(Reply::text(403, "a page of another site may not change anything here"));
    }
    if !is_known(host_name(host), handle) {
        let text = "this node is not known by that name; use the name of restapi.connect_address";
        return Err(Reply::text(421, text));
    }
    let json =
        header(CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("application/json"));
    if json { Ok(()) } else { Err(Reply::text(415, "send Content-Type: application/json")) }
}

/// `host` without its port and brackets.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Addresses cannot be pointed elsewhere, names can: only those that the configuration has.
fn is_known(name: &str, handle: &Handle) -> bool {
    let config = current(handle);
    let restapi = &config.restapi;
    let own = rustix::system::uname();
    name.parse::<IpAddr>().is_ok()
        || name == "localhost"
        || own.nodename().to_str().is_ok_and(|own| own == name)
        || [&restapi.listen.host, &restapi.connect_address.host].into_iter().any(|own| own == name)
        || member_hosts(handle).iter().any(|member| member == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_ports() {
        assert_eq!(host_name("db1.example:8008"), "db1.example");
        assert_eq!(host_name("db1.example"), "db1.example");
        assert_eq!(host_name("[::1]:8008"), "::1");
    }
}
