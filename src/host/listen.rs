//! Listening addresses as people write them, opened in one way for every listener.
use std::io;
use std::net::{TcpListener, ToSocketAddrs};

use crate::pure::config::HostPort;

/// Opens `address`. `*` and an empty host are every address of this machine, IPv4 and IPv6 alike;
/// where the kernel has no IPv6, IPv4 alone. A name is opened at each of its addresses.
///
/// # Errors
/// None of them can be opened, or one is in use.
pub fn open(address: &HostPort) -> io::Result<Vec<TcpListener>> {
    if matches!(address.host.as_str(), "" | "*") {
        let both = TcpListener::bind(("::", address.port));
        return both
            .or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                _ => TcpListener::bind(("0.0.0.0", address.port)),
            })
            .map(|listener| vec![listener]);
    }
    let found = (address.host.as_str(), address.port).to_socket_addrs()?;
    let mut opened = Vec::new();
    let mut missing = None;
    for at in found {
        match TcpListener::bind(at) {
            Ok(listener) => opened.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if opened.is_empty() => Err(error),
        _ => Ok(opened),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn reached(listener: &TcpListener, host: &str) -> bool {
        let port = listener.local_addr().expect("it listens").port();
        TcpStream::connect((host, port)).is_ok()
    }

    #[test]
    fn everything_is_both_families() {
        let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
        for host in ["", "*"] {
            let opened = open(&HostPort { host: host.into(), port: 0 }).expect("a free port");
            assert!(reached(&opened[0], "127.0.0.1"), "{host}");
            assert!(!has_ipv6 || reached(&opened[0], "::1"), "{host}");
        }
        let opened = open(&HostPort { host: "0.0.0.0".into(), port: 0 }).expect("a free port");
        assert!(reached(&opened[0], "127.0.0.1") && !reached(&opened[0], "::1"));
    }
}
