//! One SQL connection to the local server, with limits on everything that could hang.
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage, SimpleQueryRow};

use super::{Connection, connect};
use crate::pure::postgres::session_options::{LATER_TIMEOUTS, session_options};

/// How long a connection attempt may take, authentication included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const STATEMENT_TIMEOUT_MS: u32 = 2000;
/// What our side grants a statement beyond `statement_timeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// An open connection; closed when dropped.
pub struct Session {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
    /// `None`: as long as it takes.
    limit: Option<Duration>,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody listens, or the server is starting or stopping.
    NotThere(String),
    /// The server is up, but not for us: role, password or pg_hba.conf.
    Denied(String),
    /// It let us in, and then answered with an error.
    Failed(String),
}

impl Refusal {
    /// The server is up, and does not let us in as we came.
    pub fn is_denied(&self) -> bool {
        matches!(self, Refusal::Denied(_))
    }

    pub fn text(self) -> String {
        match self {
            Refusal::NotThere(text) | Refusal::Denied(text) | Refusal::Failed(text) => text,
        }
    }
}

impl Session {
    /// Opens with `statement_timeout` 2 s. `pg_stat_statements` does not record what we ask.
    ///
    /// # Errors
    /// [`Refusal`]: nobody is there, or it is and does not let us in.
    pub async fn open(to: &Connection, application_name: &str) -> Result<Session, Refusal> {
        Self::connect(to, application_name, STATEMENT_TIMEOUT_MS, Some(ANSWER_TIMEOUT)).await
    }

    /// Opens without a limit on statements (a checkpoint takes as long as it takes).
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn open_patient(to: &Connection, name: &str) -> Result<Session, Refusal> {
        Self::connect(to, name, 0, None).await
    }

    async fn connect(
        to: &Connection,
        application_name: &str,
        statement_timeout_ms: u32,
        limit: Option<Duration>,
    ) -> Result<Session, Refusal> {
        let mut config = config(to, application_name);
        config.options(session_options(statement_timeout_ms));
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect::connect(to, config));
        let (client, driver) = connecting.await.map_err(|_| {
            Refusal::NotThere(format!("{}:{} did not answer in time", to.host, to.port))
        })??;
        let session = Session { client, driver, limit };
        session.run(LATER_TIMEOUTS).await.map_err(Refusal::Failed)?;
        Ok(session)
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Rows of one or more statements, every value as text.
    pub async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>, String> {
        let asking = self.client.simple_query(sql);
        let messages = match self.limit {
            None => asking.await,
            Some(limit) => tokio::time::timeout(limit, asking)
                .await
                .map_err(|_| format!("PostgreSQL did not answer within {limit:?}"))?,
        };
        let messages = messages.map_err(|error| told(&error))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// The first column of the first row.
    pub async fn value(&self, sql: &str) -> Result<Option<String>, String> {
        let rows = self.rows(sql).await?;
        Ok(rows.first().and_then(|row| row.get(0)).map(str::to_owned))
    }

    pub async fn run(&self, sql: &str) -> Result<(), String> {
        self.rows(sql).await.map(|_| ())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn config(to: &Connection, application_name: &str) -> Config {
    let mut config = Config::new();
    config
        .user(&to.user)
        .dbname(if to.database.is_empty() { "postgres" } else { &to.database })
        .application_name(application_name);
    if let Some(password) = &to.password {
        config.password(&password.0);
    }
    config
}

pub(super) fn refusal(place: &str, error: &tokio_postgres::Error) -> Refusal {
    let text = format!("{place}: {}", told(error));
    let code = error.code().map(SqlState::code).unwrap_or_default();
    // Class 28 is a refused login, 3D000 an unknown database, 53300 a full server: all are up.
    // Without a password where one is asked for, the client itself gives up: up as well.
    let up = code.starts_with("28") || matches!(code, "3D000" | "53300");
    let asked = error.code().is_none() && text.contains("password missing");
    // So is a server with which TLS cannot be agreed on.
    let encrypted = error.code().is_none() && text.contains("TLS");
    if up || asked || encrypted { Refusal::Denied(text) } else { Refusal::NotThere(text) }
}

/// The server's own words, else the whole chain of causes.
fn told(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{}: {} (SQLSTATE {})", db.severity(), db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// `text` as an SQL identifier.
pub fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// `text` as an SQL literal, whatever standard_conforming_strings says.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_would_end_a_quote() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'"), " E'a\\\\'''");
    }
}
