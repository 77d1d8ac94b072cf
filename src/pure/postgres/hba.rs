//! pg_hba.conf and pg_ident.conf: the whole file, never a patch.
use core::net::IpAddr;

const HEADER: &str = "# Written by Surus and overwritten at the next change: \
                      set postgresql.pg_hba or postgresql.pg_ident instead.\n";

/// The whole text of pg_hba.conf or pg_ident.conf.
pub fn file_text(lines: &[String]) -> String {
    let mut text = String::from(HEADER);
    for line in lines {
        text.push_str(line.trim_end_matches(['\n', '\r']));
        text.push('\n');
    }
    text
}

/// Whether a file is of our making.
pub fn is_ours(text: &str) -> bool {
    text.starts_with(HEADER)
}

/// A pg_hba.conf that lets this machine in without a password, and nobody else. `addresses` are its
/// own, besides the loopback ones.
pub fn trusting(superuser: &str, replication: &str, addresses: &[String]) -> String {
    let users: Vec<String> = [superuser, replication]
        .iter()
        .filter(|user| !user.is_empty())
        .map(|user| format!("\"{}\"", user.replace('"', "\"\"")))
        .collect();
    let users = if users.is_empty() { String::from("all") } else { users.join(",") };
    let mut places = vec![String::from("127.0.0.1/32"), String::from("::1/128")];
    for address in addresses {
        let bits = if address.contains(':') { 128 } else { 32 };
        places.push(format!("{address}/{bits}"));
    }
    let mut text = format!("local all {users} trust\nlocal replication {users} trust\n");
    for place in places {
        text.push_str(&format!("host all {users} {place} trust\n"));
        text.push_str(&format!("host replication {users} {place} trust\n"));
    }
    text
}

/// The first words of a rule.
const KINDS: [&str; 6] = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];

/// Every way to log in that a PostgreSQL of 13 to 18 knows.
const METHODS: [&str; 15] = [
    "trust",
    "reject",
    "scram-sha-256",
    "md5",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "pam",
    "bsd",
    "ldap",
    "radius",
    "cert",
    "oauth",
];

/// Entries of pg_hba that PostgreSQL cannot read: with one of them in its file a server goes on with
/// the rules it has, and does not start again.
pub fn unreadable(entries: &[String]) -> Vec<&str> {
    let mut bad = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (at, entry) in entries.iter().enumerate() {
        for line in entry.split(['\n', '\r']) {
            let (first, mut text) = pending.take().unwrap_or((at, String::new()));
            text.push_str(line.strip_suffix('\\').unwrap_or(line));
            if line.ends_with('\\') {
                pending = Some((first, text));
            } else if !is_readable(&text) && !bad.contains(&first) {
                bad.push(first);
            }
        }
    }
    if let Some((first, _)) = pending.filter(|(_, text)| !is_readable(text)) {
        bad.push(first);
    }
    bad.into_iter().map(|at| entries[at].as_str()).collect()
}

fn is_readable(line: &str) -> bool {
    let fields = fields(line);
    let Some(kind) = fields.first() else { return true };
    if kind.starts_with("include") {
        return fields.len() >= 2;
    }
    if !KINDS.contains(&kind.as_str()) {
        return false;
    }
    let method = match (kind.as_str(), fields.get(3)) {
        ("local", method) => method,
        // An address without the length of its prefix is followed by a mask.
        (_, Some(address)) if address.parse::<IpAddr>().is_ok() => {
            let mask = fields.get(4).filter(|mask| mask.parse::<IpAddr>().is_ok());
            mask.and_then(|_| fields.get(5))
        }
        _ => fields.get(4),
    };
    method.is_some_and(|method| METHODS.contains(&method.as_str()))
}

/// The fields of one line as PostgreSQL's `next_token` cuts them: blanks part them, commas join lists, between
/// double quotes both are letters, and `#` is one, too.
fn fields(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut rest = line;
    while let Some((mut field, mut more, mut after)) = token(rest) {
        while more {
            let Some((next, again, then)) = token(after) else { break };
            field = format!("{field},{next}");
            (more, after) = (again, then);
        }
        fields.push(field);
        rest = after;
    }
    fields
}

/// The first token, whether a comma ended it, and what follows. Nothing before the end or a comment.
fn token(line: &str) -> Option<(String, bool, &str)> {
    let start = line.trim_start_matches([' ', '\t', '\r', ',']);
    let (mut text, mut in_quote, mut was_quote, mut any) = (String::new(), false, false, false);
    for (at, c) in start.char_indices() {
        match c {
            ' ' | '\t' | '\r' if !in_quote => return Some((text, false, &start[at..])),
            ',' if !in_quote => return Some((text, true, &start[at + 1..])),
            '#' if !in_quote => return any.then_some((text, false, "")),
            _ => {}
        }
        any = true;
        if c != '"' || was_quote {
            text.push(c);
        }
        was_quote = in_quote && c == '"' && !was_quote;
        if c == '"' {
            in_quote = !in_quote;
        }
    }
    any.then_some((text, false, ""))
}

/// Lines that let Surus in while a restored cluster still has passwords nobody knows: the local
/// socket and the host's own addresses, for the users that Surus itself uses, without password.
pub fn trust_lines(superuser: &str, replication: &str, addresses: &[String]) -> Vec<String> {
    let superuser = if superuser.is_empty() { "all".to_string() } else { quoted(superuser) };
    let mut lines = vec![
        format!("local all {superuser} trust"),
        format!("local replication {} trust", quoted(replication)),
    ];
    for address in addresses {
        let mask = if address.contains(':') { 128 } else { 32 };
        lines.push(format!("host all {superuser} {address}/{mask} trust"));
        lines.push(format!("host replication {} {address}/{mask} trust", quoted(replication)));
    }
    lines
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_lines_below_a_header() {
        let text = file_text(&["local all all trust".into(), "host all all all md5\n".into()]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("# Written by Surus"));
        assert_eq!(lines[1..], ["local all all trust", "host all all all md5"]);
    }

    /// Spec: B-20.
    #[test]
    fn only_this_machine_gets_in_without_a_password() {
        let text = trusting("boss", "re\"pl", &["10.0.0.1".into(), "fe80::1".into()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "local all \"boss\",\"re\"\"pl\" trust");
        assert!(lines.contains(&"host all \"boss\",\"re\"\"pl\" 10.0.0.1/32 trust"), "{text}");
        assert!(lines.contains(&"host replication \"boss\",\"re\"\"pl\" fe80::1/128 trust"));
        assert!(lines.iter().all(|line| line.starts_with("local") || line.contains('/')));
        assert!(trusting("", "", &[]).starts_with("local all all trust"));
    }

    #[test]
    fn what_no_server_can_read_is_found() {
        let good = "# x| |local all all trust|host all all 127.0.0.1/32 md5 # y|include_dir d\
            |hostssl all all \\|  all cert|host replication rep 10.0.0.0 255.0.0.0 scram-sha-256";
        let lines = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(unreadable(&lines(good)), Vec::<&str>::new());
        let bad =
            lines("1|hosts all all all md5|host all all md5|local all trust|local all all trust");
        assert_eq!(unreadable(&bad), bad[..4].iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// A rule that closes a database was left out because of the `#` in its name.
    #[test]
    fn quotes_commas_and_comments_are_cut_as_postgresql_does() {
        let cut = |line: &str| fields(line).join("|");
        assert_eq!(
            cut("host \"orders#2\" all 127.0.0.1/32 reject"),
            "host|orders#2|all|127.0.0.1/32|reject"
        );
        assert_eq!(cut("host a, b ,\"c d\" all x md5 # no"), "host|a,b|c d|all|x|md5");
        assert_eq!(cut("local \"a\"\"b\" x#y"), "local|a\"b|x");
        assert_eq!(cut("  # nothing"), "");
        let good = [
            "host \"orders#2\" all 127.0.0.1/32 reject",
            "host a, b \"x y\",z samehost scram-sha-256 map=\"m n\"",
            "local all,\\",
            "postgres all peer",
            "local all all trust\nhost all all all md5\n",
        ];
        let lines = good.map(str::to_owned);
        assert_eq!(unreadable(&lines), Vec::<&str>::new());
        for bad in [
            "host all all 10.0.0.1 md5",
            "host all all 10.0.0.1 255.0.0.0",
            "local all all secret",
            "host all \"all 127.0.0.1/32 md5",
            "local all \\",
        ] {
            assert_eq!(unreadable(&[bad.to_owned()]), [bad]);
        }
    }

    #[test]
    fn trust_is_for_our_own_users_at_our_own_addresses() {
        let lines = trust_lines("postgres", "rep", &["127.0.0.1".into(), "::1".into()]);
        assert_eq!(lines[2], "host all \"postgres\" 127.0.0.1/32 trust");
        assert_eq!(lines[5], "host replication \"rep\" ::1/128 trust");
        assert_eq!(trust_lines("", "rep", &[])[0], "local all all trust");
    }
}
