//! Passwords are taken out of what programs say before it is kept or shown.
use std::sync::{PoisonError, RwLock};

use crate::pure::config::{Config, PgUser, Secret};

/// What every secret is shown as.
const HIDDEN: &str = "<secret>";
/// A word this short would be found everywhere.
const SECRET_CHARS_MIN: usize = 4;

static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// These are secrets from now on; earlier ones stay secrets.
pub fn learn(config: &Config) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets_of(config) {
        if secret.chars().count() >= SECRET_CHARS_MIN && !known.contains(&secret) {
            known.push(secret);
        }
    }
    // A longer one may hold a shorter one.
    known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
}

fn secrets_of(config: &Config) -> Vec<String> {
    let rest = [&config.restapi.authentication, &config.ctl.authentication];
    let mut all: Vec<Option<&Secret>> = vec![config.raft.password.as_ref()];
    all.extend(rest.into_iter().flatten().map(|credentials| credentials.password.as_ref()));
    let mut options = Vec::new();
    if let Some(postgres) = &config.postgresql {
        let users =
            [Some(&postgres.superuser), Some(&postgres.replication), postgres.rewind.as_ref()];
        let users: Vec<&PgUser> = users.into_iter().flatten().collect();
        all.extend(users.iter().map(|user| user.password.as_ref()));
        let named = users.iter().flat_map(|user| &user.options);
        options.extend(named.filter(|(key, _)| key.contains("password")).map(|(_, v)| v.clone()));
    }
    all.into_iter().flatten().map(|secret| secret.0.clone()).chain(options).collect()
}

/// A program's line without secrets; nothing when it repeats a statement.
pub fn shown(line: &str) -> Option<String> {
    if repeats_a_statement(line) {
        return None;
    }
    let mut text = hide_literals(line);
    for secret in KNOWN.read().unwrap_or_else(PoisonError::into_inner).iter() {
        text = text.replace(secret, HIDDEN);
    }
    Some(text)
}

/// psql and the server print what they could not carry out, with whatever stands in it.
fn repeats_a_statement(line: &str) -> bool {
    let words = ["STATEMENT:", "QUERY:", "CONTEXT:"];
    let begins = line.trim_start().starts_with("LINE ");
    begins || words.iter().any(|word| line.contains(word))
}

/// The literal behind the word PASSWORD, up to the end of the line when it does not end there.
fn hide_literals(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let (mut out, mut at) = (String::new(), 0);
    while let Some(found) = lower[at..].find("password") {
        let end = at + found + "password".len();
        let literal = line[end..].trim_start();
        let prefix = ["E'", "e'", "U&'", "u&'", "'"].iter().find(|p| literal.starts_with(**p));
        let Some(prefix) = prefix else {
            out.push_str(&line[at..end]);
            at = end;
            continue;
        };
        let start = line.len() - literal.len();
        out.push_str(&line[at..start]);
        out.push_str(HIDDEN);
        at = start + prefix.len() + literal_length(&literal[prefix.len()..]);
    }
    out.push_str(&line[at..]);
    out
}

/// Bytes up to and including the quote that ends it; doubled and escaped ones do not.
fn literal_length(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
            }
            '\'' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_go_and_literals_are_hidden() {
        let gone = [
            "LINE 1: CREATE ROLE app LOGIN PASSWORD 'app-secret-1' CONECTION LIMIT 5",
            "2026-12-01 UTC [7] STATEMENT:  ALTER USER \"none\" WITH PASSWORD E'x';",
        ];
        assert!(gone.iter().all(|line| shown(line).is_none()));
        let cases = [
            ("ERROR:  syntax error at or near \"CONECTION\"", None),
            ("alter role a password 'it''s' valid", Some("alter role a password <secret> valid")),
            (
                "ALTER USER a PASSWORD  E'a\\'b' x PASSWORD 'q",
                Some("ALTER USER a PASSWORD  <secret> x PASSWORD <secret>"),
            ),
            ("password authentication failed for user \"a\"", None),
        ];
        for (line, wanted) in cases {
            assert_eq!(shown(line).as_deref(), Some(wanted.unwrap_or(line)));
        }
    }
}
