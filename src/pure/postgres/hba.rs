//! pg_hba.conf and pg_ident.conf: the whole file, never a patch.

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

/// The first words of a rule, each with the fewest fields it may have.
const KINDS: [(&str, usize); 6] = [
    ("local", 4),
    ("host", 5),
    ("hostssl", 5),
    ("hostnossl", 5),
    ("hostgssenc", 5),
    ("hostnogssenc", 5),
];

/// Lines of pg_hba that no PostgreSQL can read: with one of them in its file a server goes on,
/// and does not start again.
pub fn unreadable(lines: &[String]) -> Vec<&str> {
    let goes_on = |at: usize| at > 0 && lines[at - 1].ends_with('\\');
    let bad = lines.iter().enumerate().filter(|(at, line)| !goes_on(*at) && !is_readable(line));
    bad.map(|(_, line)| line.as_str()).collect()
}

fn is_readable(line: &str) -> bool {
    let fields: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
    let Some(kind) = fields.first() else { return true };
    let fewest = KINDS.iter().find(|(name, _)| name == kind).map(|(_, fewest)| *fewest);
    kind.starts_with("include") || line.ends_with('\\') || fewest.is_some_and(|n| fields.len() >= n)
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

    #[test]
    fn trust_is_for_our_own_users_at_our_own_addresses() {
        let lines = trust_lines("postgres", "rep", &["127.0.0.1".into(), "::1".into()]);
        assert_eq!(lines[2], "host all \"postgres\" 127.0.0.1/32 trust");
        assert_eq!(lines[5], "host replication \"rep\" ::1/128 trust");
        assert_eq!(trust_lines("", "rep", &[])[0], "local all all trust");
    }
}
