//! The sections of the file that are about Surus itself: log, REST interface, Raft, watchdog.
use std::path::PathBuf;

use super::network::Network;
use super::peer_access;
use super::reader::Section;
use super::scalar::parse_bool;
use super::{Credentials, Ctl, HostPort, Log, Raft, RestApi, Secret, Watchdog};

/// The REST interface's port where none is given.
pub const REST_PORT: u16 = 8008;
/// Raft's port where none is given.
pub const RAFT_PORT: u16 = 2380;
const VOTERS_MAX: i64 = 5;
/// Patroni's bounds of a log directory.
const LOG_FILE_SIZE_BYTES: i64 = 25_000_000;
const LOG_FILE_NUM: i64 = 4;

pub(super) fn log(section: &Section) -> Log {
    Log {
        level: level(section).unwrap_or_else(|| "INFO".into()),
        kind: section.word("type", &["plain", "json"]).unwrap_or_else(|| "plain".into()),
        dir: section.text("dir").map(PathBuf::from),
        file_size_bytes: section.integer("file_size", None, 1).unwrap_or(LOG_FILE_SIZE_BYTES)
            as usize,
        file_num: section.integer("file_num", None, 0).unwrap_or(LOG_FILE_NUM) as usize,
        mode: section.integer("mode", None, 0).map(|bits| bits as u32 & 0o777),
    }
}

/// Python's level names, the short ones included.
fn level(section: &Section) -> Option<String> {
    let words = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "NOTSET", "WARN", "FATAL"];
    let word = section.word("level", &words)?;
    Some(match word.as_str() {
        "NOTSET" => "DEBUG".into(),
        "WARN" => "WARNING".into(),
        "FATAL" => "CRITICAL".into(),
        _ => word,
    })
}

pub(super) fn restapi(section: &Section) -> RestApi {
    let example = "10.0.0.1:8008";
    section.required_text("listen", example);
    let listen = section.listening_address("listen", REST_PORT).unwrap_or_default();
    let connect = section.address("connect_address", REST_PORT);
    refuse_client_certificates(section);
    if section.get("certfile").is_some() {
        let message = "has no effect: the REST interface speaks plain HTTP; put a TLS proxy in \
                       front of it, or keep its port to networks you trust";
        section.warn("certfile", message);
    }
    RestApi {
        connect_address: reachable(section, connect, &listen, example),
        listen,
        authentication: credentials(&section.child("authentication")),
        http_extra_headers: section.map("http_extra_headers").unwrap_or_default(),
        allowlist: allowlist(section),
        allowlist_include_members: section.flag("allowlist_include_members").unwrap_or(false),
        server_tokens: section
            .word("server_tokens", &["original", "minimal", "productonly"])
            .unwrap_or_else(|| "original".into()),
    }
}

/// Addresses, networks and names of hosts; an entry that is none of them would let nobody in.
fn allowlist(section: &Section) -> Vec<String> {
    let entries = section.texts("allowlist").unwrap_or_default();
    for entry in entries.iter().filter(|entry| entry.contains('/')) {
        if Network::parse(entry).is_none() {
            let message = format!(
                "`{entry}` is no network; write 10.0.0.0/8, 10.0.0.0/255.0.0.0 or fd00::/8"
            );
            section.fault("allowlist", message);
        }
    }
    entries
}

/// A setting that protects must work or be refused: this version speaks no TLS.
fn refuse_client_certificates(section: &Section) {
    let word = section.word("verify_client", &["none", "optional", "required"]);
    if word.is_some_and(|word| word != "none") {
        section.fault(
            "verify_client",
            "client certificates cannot be checked, because the REST interface speaks plain \
             HTTP; remove the key and protect the interface by authentication and allowlist",
        );
    }
}

/// The address others use: `connect`, else `listen`; a wildcard reaches nobody.
pub(super) fn reachable(
    section: &Section,
    connect: Option<HostPort>,
    listen: &HostPort,
    example: &str,
) -> HostPort {
    let address = connect.unwrap_or_else(|| HostPort {
        host: listen.host.split(',').next().unwrap_or_default().trim().to_string(),
        port: listen.port,
    });
    if is_wildcard(&address.host) {
        section.fault(
            "connect_address",
            format!(
                "others cannot connect to `{}`; give this host's own address, for example \
                     `connect_address: {example}`",
                address.host
            ),
        );
    }
    address
}

fn is_wildcard(host: &str) -> bool {
    matches!(host, "*" | "0.0.0.0" | "::" | "0")
}

/// Whether only this very host can use the address.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host == "::1" || host.starts_with("127.")
}

fn credentials(section: &Section) -> Option<Credentials> {
    if !section.present() {
        return None;
    }
    let username = section.required_text("username", "admin");
    let password = Some(Secret(section.required_text("password", "secret")));
    Some(Credentials { username, password })
}

pub(super) fn ctl(section: &Section, restapi: &RestApi) -> Ctl {
    let own = credentials(&section.child("authentication"));
    Ctl {
        authentication: own.or_else(|| restapi.authentication.clone()),
        insecure: section.flag("insecure").unwrap_or(false),
    }
}

pub(super) fn raft(section: &Section) -> Raft {
    let data_dir = section.required_text("data_dir", "/var/lib/surus");
    section.required_text("self_addr", "10.0.0.1:2380");
    let self_addr = section.address("self_addr", RAFT_PORT).unwrap_or_default();
    if is_wildcard(&self_addr.host) {
        let message = "others cannot connect to a wildcard; give this host's own address here \
                       and the wildcard as bind_addr";
        section.fault("self_addr", message);
    }
    let voters_max = section.integer("voters_max", None, 1).unwrap_or(VOTERS_MAX);
    let raft = Raft {
        data_dir: PathBuf::from(data_dir),
        bind_addr: section
            .listening_address("bind_addr", RAFT_PORT)
            .unwrap_or_else(|| self_addr.clone()),
        partner_addrs: partners(section, &self_addr),
        self_addr,
        password: section.text("password").filter(|text| !text.is_empty()).map(Secret),
        insecure: section.flag("insecure").unwrap_or(false),
        voters_max: usize::try_from(voters_max).unwrap_or(VOTERS_MAX as usize),
    };
    peer_access::check(section, &raft);
    raft
}

/// The other members' addresses; oneself among them is dropped, a doubled one counts once.
fn partners(section: &Section, self_addr: &HostPort) -> Vec<HostPort> {
    let mut partners: Vec<HostPort> = Vec::new();
    for text in section.texts("partner_addrs").unwrap_or_default() {
        match section.parsed_address("partner_addrs", &text, RAFT_PORT) {
            Some(address) if address == *self_addr => section.warn(
                "partner_addrs",
                format!("`{text}` is this node itself (self_addr) and is left out; remove it"),
            ),
            Some(address) if !partners.contains(&address) => partners.push(address),
            _ => {}
        }
    }
    partners
}

pub(super) fn watchdog(section: &Section) -> Watchdog {
    Watchdog {
        mode: watchdog_mode(section),
        device: section.text("device").unwrap_or_else(|| "/dev/watchdog".into()).into(),
        safety_margin_s: section.integer("safety_margin", Some("s"), -1),
    }
}

/// `off` without quotes is YAML's false.
fn watchdog_mode(section: &Section) -> String {
    let Some(node) = section.get("mode") else { return "automatic".into() };
    let value = node.value();
    if parse_bool(&value) == Some(false) {
        return "off".into();
    }
    let mode = match value.as_str().unwrap_or_default().to_lowercase().as_str() {
        "disable" | "disabled" => "off",
        "auto" | "automatic" => "automatic",
        "require" | "required" => "required",
        _ => {
            section.fault("mode", "must be one of off, automatic, required");
            "off"
        }
    };
    mode.to_string()
}

/// Warns when this node is only reachable from its own host though others are named.
pub(super) fn check_loopback(section: &Section, key: &str, host: &str, raft: &Raft) {
    let others = raft.partner_addrs.iter().find(|partner| !is_loopback(&partner.host));
    if let Some(other) = others.filter(|_| is_loopback(host)) {
        section.warn(
            key,
            format!(
                "`{host}` is reachable from this host only, but raft.partner_addrs names \
                     {other}; give the address by which it can reach this node"
            ),
        );
    }
}

/// Addresses for PostgreSQL's listen_addresses and its port, from `h1,h2:port`.
pub(super) fn listen(section: &Section, key: &str) -> (String, u16) {
    let Some(text) = section.text(key) else { return (String::new(), 5432) };
    let several: Vec<&str> =
        text.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
    let several = (several.len() > 1).then(|| several.join(",").replace(['[', ']'], ""));
    let listed = several.and_then(|list| HostPort::parse(&list, 5432).ok());
    let address = listed.or_else(|| section.parsed_address(key, &text, 5432));
    address.map_or((String::new(), 5432), |address| (address.host, address.port))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::pure::config::faults::Report;
    use crate::pure::config::tree::Node;

    fn listening(text: &str) -> (String, u16, usize) {
        let report = Report::default();
        let node = Node::from_value(&json!({ "listen": text }), &Arc::from("f"));
        let (addresses, port) = listen(&Section::top(&node, &report), "listen");
        (addresses, port, report.finish().0.len())
    }

    #[test]
    fn postgresql_may_listen_on_several_addresses() {
        let cases = [
            ("*:5433", "*", 5433),
            ("10.0.0.1, 127.0.0.1:5433", "10.0.0.1,127.0.0.1", 5433),
            ("10.0.0.1,[::1]:5433", "10.0.0.1,::1", 5433),
            ("[::1],10.0.0.1:5433", "::1,10.0.0.1", 5433),
            ("[::1]:5433", "::1", 5433),
            ("10.0.0.1", "10.0.0.1", 5432),
        ];
        for (text, addresses, port) in cases {
            assert_eq!(listening(text), (addresses.into(), port, 0), "{text}");
        }
        assert_eq!(listening("a:b").2, 1);
    }

    #[test]
    fn watchdog_modes_have_many_names() {
        let mode = |value: serde_json::Value| {
            let report = Report::default();
            let node = Node::from_value(&json!({ "mode": value }), &Arc::from("f"));
            let mode = watchdog(&Section::top(&node, &report)).mode;
            (mode, report.finish().0.len())
        };
        assert_eq!(mode(json!(null)), ("automatic".into(), 0));
        assert_eq!(mode(json!(false)), ("off".into(), 0));
        assert_eq!(mode(json!("Require")), ("required".into(), 0));
        assert_eq!(mode(json!("never")), ("off".into(), 1));
    }

    #[test]
    fn a_loopback_address_among_others_is_spoken_of() {
        let warned = |host: &str, partner: &str| {
            let report = Report::default();
            let node = Node::from_value(&json!({}), &Arc::from("f"));
            let partner = HostPort { host: partner.into(), port: 1 };
            let raft = Raft { partner_addrs: vec![partner], ..Raft::default() };
            check_loopback(&Section::top(&node, &report), "connect_address", host, &raft);
            report.finish().1.len()
        };
        assert_eq!(warned("127.0.0.1", "10.0.0.1"), 1);
        assert_eq!(warned("127.0.0.1", "127.0.0.2"), 0);
        assert_eq!(warned("10.0.0.2", "10.0.0.1"), 0);
    }
}
