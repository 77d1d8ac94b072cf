//! What Surus's own SQL sessions and tools depend on, set by themselves: defaults that users set for
//! their sessions (in postgresql.conf, `ALTER SYSTEM`, `ALTER ROLE`, `ALTER DATABASE`) never reach them.
//!
//! Options of the start-up packet go before each of those defaults, from the first statement on.
//! Source: PostgreSQL's manual, "Setting Parameters" and the start-up message's `options`.

/// Every release that Surus manages knows these, and any role may set them.
const COMMON: &[(&str, &str)] = &[
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("search_path", "pg_catalog, pg_temp"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("role", "none"),
];

/// What answers are read by; a superuser may set the last ones.
const OWN: &[(&str, &str)] = &[
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("standard_conforming_strings", "on"),
    ("row_security", "off"),
    ("default_tablespace", ""),
    ("default_text_search_config", "pg_catalog.simple"),
    ("local_preload_libraries", ""),
    ("session_preload_libraries", ""),
    ("pg_stat_statements.track", "none"),
];

/// Timeouts that only later releases know: set by a statement, where the server has them.
pub const LATER_TIMEOUTS: &str = "SELECT pg_catalog.set_config(name, '0', false) \
    FROM pg_catalog.pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

/// The `options` of a session of the daemon's own; `statement_timeout_ms` 0: none.
pub fn session_options(statement_timeout_ms: u32) -> String {
    let timeout = statement_timeout_ms.to_string();
    text(COMMON.iter().chain(OWN).copied().chain([("statement_timeout", timeout.as_str())]))
}

/// PGOPTIONS of PostgreSQL's tools (pg_basebackup, pg_rewind, psql), which log in as any role.
pub fn tool_options() -> String {
    text(COMMON.iter().copied().chain([("statement_timeout", "0")]))
}

fn text<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let one = |(name, value): (&str, &str)| format!("-c {name}={}", escaped(value));
    settings.map(one).collect::<Vec<_>>().join(" ")
}

/// White space and backslashes end or change a word of `options` unless a backslash precedes them.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(' ', "\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: ubicloud/ubicloud#5433, CVE-2026-55769.
    #[test]
    fn nothing_is_left_to_the_defaults_of_users() {
        let own = session_options(2000);
        for expected in [
            "-c default_transaction_isolation=read\\ committed",
            "-c default_transaction_read_only=off",
            "-c search_path=pg_catalog,\\ pg_temp",
            "-c session_preload_libraries= ",
            "-c role=none",
            "-c statement_timeout=2000",
        ] {
            assert!(format!("{own} ").contains(expected), "{expected}: {own}");
        }
    }

    /// The role that replicates or rewinds is no superuser: it may not be given what only one may set.
    #[test]
    fn tools_set_what_any_role_may_set() {
        let tool = tool_options();
        assert!(tool.contains("search_path") && !tool.contains("session_preload_libraries"));
    }
}
