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

    #[test]
    fn trust_is_for_our_own_users_at_our_own_addresses() {
        let lines = trust_lines("postgres", "rep", &["127.0.0.1".into(), "::1".into()]);
        assert_eq!(lines[2], "host all \"postgres\" 127.0.0.1/32 trust");
        assert_eq!(lines[5], "host replication \"rep\" ::1/128 trust");
        assert_eq!(trust_lines("", "rep", &[])[0], "local all all trust");
    }
}
