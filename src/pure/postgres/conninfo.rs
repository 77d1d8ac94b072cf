//! Connection strings and password files in libpq's own notation. A connection string never
//! holds a password: that is what the password file is for.
use super::version::Version;
use crate::pure::config::{HostPort, PgUser};

/// `key=value …`; white space, quotes and backslashes of values are escaped, pairs with an empty
/// value are left out.
pub fn conninfo<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let shown = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(key, value)| format!("{key}={}", escaped(value))).collect::<Vec<_>>().join(" ")
}

fn escaped(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        if c == '\'' || c == '\\' || is_space(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// White space as libpq counts it, in the C locale.
fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

/// Reads `key=value` pairs as libpq does, quotes and backslashes included.
pub fn parse_conninfo(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| "the connection string has a word without `=`".to_string())?;
        let key = key.trim_matches(is_space);
        if key.is_empty() || key.contains(is_space) {
            return Err("the connection string has a word without `=`".into());
        }
        let (value, remaining) = value(after.trim_start_matches(is_space))?;
        pairs.push((key.to_string(), value));
        rest = remaining.trim_start_matches(is_space);
    }
    Ok(pairs)
}

/// One value and what follows it.
fn value(text: &str) -> Result<(String, &str), String> {
    let quoted = text.starts_with('\'');
    let body = if quoted { &text[1..] } else { text };
    let (mut out, mut escaped) = (String::new(), false);
    for (index, c) in body.char_indices() {
        match c {
            _ if escaped => {
                out.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '\'' if quoted => return Ok((out, &body[index + 1..])),
            c if !quoted && is_space(c) => {
                return Ok((out, &body[index..]));
            }
            c => out.push(c),
        }
    }
    if quoted { Err("the connection string has an open quote".into()) } else { Ok((out, "")) }
}

/// The version in which libpq learnt a keyword; absent for those it always knew.
fn known_since(keyword: &str) -> Option<Version> {
    let major = match keyword {
        "gssencmode" => 12,
        "channel_binding" | "sslpassword" => 13,
        "sslcrldir" => 14,
        "sslnegotiation" => 17,
        _ => return None,
    };
    Some(Version::major_release(major))
}

/// A user's own keywords as far as `version` knows them.
fn options(user: &PgUser, version: Version) -> impl Iterator<Item = (&str, &str)> {
    let known = move |key: &str| known_since(key).is_none_or(|since| version >= since);
    user.options.iter().map(|(k, v)| (k.as_str(), v.as_str())).filter(move |(k, _)| known(k))
}

/// How to reach a server as `user`: `dbname user host port …`, without a password and without
/// `sslpassword`, so that it may stand in an argument. The host may be a list separated by commas,
/// or the directory of a socket.
pub fn user_conninfo(
    user: &PgUser,
    address: &HostPort,
    dbname: Option<&str>,
    version: Version,
) -> String {
    let port = address.port.to_string();
    let first = [
        ("dbname", dbname.unwrap_or("")),
        ("user", user.username.as_str()),
        ("host", address.host.as_str()),
        ("port", port.as_str()),
    ];
    let open = options(user, version).filter(|(keyword, _)| *keyword != "sslpassword");
    conninfo(first.into_iter().chain(open))
}

/// What a standby needs to stream from `upstream`.
#[derive(Clone, Debug)]
pub struct PrimaryConninfo<'a> {
    pub upstream: &'a HostPort,
    pub user: &'a PgUser,
    pub database: &'a str,
    /// The password file, if the user has a password.
    pub passfile: Option<&'a str>,
    /// The member's name, by which the primary knows this standby.
    pub application_name: &'a str,
    pub version: Version,
}

impl PrimaryConninfo<'_> {
    /// The value of primary_conninfo, always with the same order of keys.
    pub fn text(&self) -> String {
        let port = self.upstream.port.to_string();
        let own: Vec<(&str, &str)> = options(self.user, self.version).collect();
        let given = |key: &str| own.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let since = |key: &str| known_since(key).is_none_or(|since| self.version >= since);
        let preferred = |key| given(key).unwrap_or(if since(key) { "prefer" } else { "" });
        let placed = ["sslmode", "gssencmode", "channel_binding", "sslnegotiation"];
        let mut pairs = vec![
            ("dbname", self.database),
            ("user", &self.user.username),
            ("passfile", self.passfile.unwrap_or("")),
            ("host", &self.upstream.host),
            ("port", &port),
            ("sslmode", preferred("sslmode")),
        ];
        pairs.extend(own.iter().filter(|(key, _)| !placed.contains(key)));
        // Of several hosts the one that is to be followed is the primary; one host is taken as is.
        let several = self.upstream.host.contains(',');
        pairs.push(("target_session_attrs", if several { "read-write" } else { "" }));
        pairs.extend([
            ("application_name", self.application_name),
            ("gssencmode", preferred("gssencmode")),
            ("channel_binding", preferred("channel_binding")),
            ("sslnegotiation", given("sslnegotiation").unwrap_or("")),
        ]);
        conninfo(pairs)
    }
}

/// The lines of a password file for `user` at `address`: one for each host of a list; the directory of
/// a socket gets one for `localhost` too. Empty without a password.
pub fn pgpass(user: &PgUser, address: &HostPort) -> String {
    let Some(password) = &user.password else { return String::new() };
    let mut text = String::new();
    for host in address.host.split(',').map(str::trim) {
        let local = host.starts_with('/').then_some("localhost");
        for host in [Some(host), local].into_iter().flatten() {
            let fields = [host, &address.port.to_string(), "*", &user.username, &password.0];
            let line: Vec<_> = fields.iter().enumerate().map(|(i, f)| field(i, f)).collect();
            text.push_str(&line.join(":"));
            text.push('\n');
        }
    }
    text
}

/// A field of the password file; the database (the third) is the wildcard itself.
fn field(index: usize, text: &str) -> String {
    if index == 2 { text.to_string() } else { text.replace('\\', "\\\\").replace(':', "\\:") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::config::Secret;
    use proptest::prelude::*;

    fn user(name: &str, password: &str, options: &[(&str, &str)]) -> PgUser {
        PgUser {
            username: name.into(),
            password: Some(Secret(password.into())),
            options: options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        }
    }

    fn address(host: &str) -> HostPort {
        HostPort { host: host.into(), port: 5432 }
    }

    #[test]
    fn primary_conninfo_has_patronis_order_and_no_password() {
        let user = user("replicator", "geheim", &[("sslcert", "/a b")]);
        let mut conninfo = PrimaryConninfo {
            upstream: &address("10.0.0.1"),
            user: &user,
            database: "postgres",
            passfile: Some("/tmp/pgpass"),
            application_name: "pg 1",
            version: Version(150_018),
        };
        let expected = "dbname=postgres user=replicator passfile=/tmp/pgpass host=10.0.0.1 \
                        port=5432 sslmode=prefer sslcert=/a\\ b application_name=pg\\ 1 \
                        gssencmode=prefer channel_binding=prefer";
        assert_eq!(conninfo.text(), expected);
        conninfo.version = Version(120_000);
        assert!(!conninfo.text().contains("channel_binding"));
        assert!(!conninfo.text().contains("target_session_attrs"));
    }

    /// Spec: SC-4, EX-98.
    #[test]
    fn of_several_hosts_the_primary_is_followed() {
        let upstream = address("a,b");
        let conninfo = PrimaryConninfo {
            upstream: &upstream,
            user: &user("r", "p", &[]),
            database: "postgres",
            passfile: None,
            application_name: "n1",
            version: Version(150_018),
        };
        let text = conninfo.text();
        assert!(text.contains("host=a,b ") && text.contains("target_session_attrs=read-write"));
        assert!(text.contains("application_name=n1"), "{text}");
    }

    /// Spec: M-13, M-14.
    #[test]
    fn a_users_keywords_follow_the_servers_version() {
        let user = user(
            "u",
            "p",
            &[("sslmode", "require"), ("channel_binding", "require"), ("sslpassword", "x")],
        );
        let text = user_conninfo(&user, &address("h"), None, Version(120_000));
        assert_eq!(text, "user=u host=h port=5432 sslmode=require");
    }

    /// Spec: M-15, EX-77.
    #[test]
    fn the_password_file_has_a_line_for_each_host() {
        let user = user("u", "a:b\\c", &[]);
        assert_eq!(
            pgpass(&user, &address("a,b")),
            "a:5432:*:u:a\\:b\\\\c\nb:5432:*:u:a\\:b\\\\c\n"
        );
        let socket = pgpass(&user, &address("/run"));
        assert_eq!(socket, "/run:5432:*:u:a\\:b\\\\c\nlocalhost:5432:*:u:a\\:b\\\\c\n");
    }

    #[test]
    fn quotes_of_libpq_are_understood() {
        let pairs = parse_conninfo("a = 'x y\\'z'  b=c\\ d").expect("valid");
        assert_eq!(pairs, [("a".into(), "x y'z".into()), ("b".into(), "c d".into())]);
        for wrong in ["a", "a='x", "a b=c", "=x"] {
            assert!(parse_conninfo(wrong).is_err(), "{wrong}");
        }
    }

    /// Splits a line of the password file as libpq does.
    fn fields(line: &str) -> Vec<String> {
        let (mut fields, mut escaped) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                c if escaped => {
                    fields.last_mut().expect("one").push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                ':' => fields.push(String::new()),
                c => fields.last_mut().expect("one").push(c),
            }
        }
        fields
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::vec("\\PC{1,12}|[ '\\\\\t]{1,4}", 1..5)) {
            let keys = ["host", "user", "dbname", "port", "passfile"];
            let pairs: Vec<_> = keys.into_iter().zip(values.iter().map(String::as_str)).collect();
            let read = parse_conninfo(&conninfo(pairs.clone())).expect("our own text");
            let read: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn password_lines_are_read_back(name in "[^\\n\\r]{1,10}", password in "[^\\n\\r]{0,10}") {
            let text = pgpass(&user(&name, &password, &[]), &address("h"));
            let line = text.strip_suffix('\n').expect("a line");
            prop_assert_eq!(fields(line), ["h", "5432", "*", &name, &password]);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = parse_conninfo(&text);
        }
    }
}
