//! A host and a port, as people and URLs write them: `db1:5432`, `10.0.0.1:5432`, `[::1]:5432`.
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Where a server listens, or is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostPort {
    /// A name, an IPv4 address or an IPv6 address without brackets; where PostgreSQL listens on
    /// several, all of them with commas.
    pub host: String,
    pub port: u16,
}

/// The text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAddress;

impl fmt::Display for NotAnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an address: write HOST:PORT, or [IPv6]:PORT")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<HostPort, NotAnAddress> {
        let (host, port) = parts(text.trim()).ok_or(NotAnAddress)?;
        HostPort::checked(host, Some(port.ok_or(NotAnAddress)?))
    }
}

impl HostPort {
    /// The same where a port may be left out. A bare IPv6 address has none.
    ///
    /// # Errors
    /// It is no address.
    pub fn parse(text: &str, port_default: u16) -> Result<HostPort, NotAnAddress> {
        let (host, port) = parts(text.trim()).ok_or(NotAnAddress)?;
        match port {
            Some(port) => HostPort::checked(host, Some(port)),
            None => HostPort::checked(host, None).map(|at| HostPort { port: port_default, ..at }),
        }
    }

    /// The host and the port of a URL; `port_default` where it names none.
    pub fn of_url(url: &str, port_default: u16) -> Option<HostPort> {
        let (_, rest) = url.split_once("://")?;
        HostPort::parse(rest.split('/').next()?, port_default).ok()
    }

    fn checked(host: &str, port: Option<&str>) -> Result<HostPort, NotAnAddress> {
        let port = match port {
            Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or(NotAnAddress)?,
            None => 0,
        };
        let unfit = host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/');
        if unfit { Err(NotAnAddress) } else { Ok(HostPort { host: host.to_owned(), port }) }
    }
}

/// The host without brackets, and the port if there is one.
fn parts(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        return Some((host, port));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.contains(',') => Some((host, Some(port))),
        _ => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_four_shapes() {
        let cases = [
            ("a:1", "a", 1),
            ("a", "a", 5432),
            ("[::1]:7", "::1", 7),
            ("[::1]", "::1", 5432),
            ("::1", "::1", 5432),
            ("a,b:9", "a,b", 9),
            ("::1,10.0.0.1:9", "::1,10.0.0.1", 9),
            ("*:5", "*", 5),
        ];
        for (text, host, port) in cases {
            let expected = HostPort { host: host.into(), port };
            assert_eq!(HostPort::parse(text, 5432), Ok(expected), "{text}");
        }
        for wrong in ["", ":5", "a:", "a:x", "a:0", "a:70000", "[::1", "[::1]x", "a b:1"] {
            assert_eq!(HostPort::parse(wrong, 1), Err(NotAnAddress), "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back_and_a_port_is_needed() {
        for (host, port) in [("a", 1), ("10.0.0.1", 5432), ("::1", 7)] {
            let at = HostPort { host: host.into(), port };
            assert_eq!(at.to_string().parse(), Ok(at));
        }
        for wrong in ["a", "::1", "[::1]", ""] {
            assert_eq!(wrong.parse::<HostPort>(), Err(NotAnAddress), "{wrong}");
        }
    }

    #[test]
    fn hosts_come_out_of_urls() {
        let host = |url: &str| HostPort::of_url(url, 80).map(|at| at.to_string());
        assert_eq!(host("http://10.0.0.1:8008/patroni").as_deref(), Some("10.0.0.1:8008"));
        assert_eq!(host("http://[::1]:8008/patroni").as_deref(), Some("[::1]:8008"));
        assert_eq!(host("http://db1/patroni").as_deref(), Some("db1:80"));
        assert_eq!((host("nonsense"), host("http:///x"), host("")), (None, None, None));
    }
}
