//! One SQL connection to the local server, with limits on everything that could hang.
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

use super::Connection;

/// How long a connection attempt may take, authentication included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
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
}

impl Refusal {
    pub fn text(self) -> String {
        match self {
            Refusal::NotThere(text) | Refusal::Denied(text) => text,
        }
    }
}

impl Session {
    /// Opens with `statement_timeout` 2 s. `pg_stat_statements` does not record what we ask.
    pub async fn open(to: &Connection, application_name: &str) -> Result<Session, Refusal> {
        let mut config = config(to, application_name);
        config.options("-c statement_timeout=2000 -c pg_stat_statements.track=none");
        Self::connect(to, &config, Some(ANSWER_TIMEOUT)).await
    }

    /// Opens without a limit on statements (a checkpoint takes as long as it takes).
    pub async fn open_patient(to: &Connection, name: &str) -> Result<Session, Refusal> {
        let mut config = config(to, name);
        config.options("-c statement_timeout=0 -c pg_stat_statements.track=none");
        Self::connect(to, &config, None).await
    }

    async fn connect(
        to: &Connection,
        config: &Config,
        limit: Option<Duration>,
    ) -> Result<Session, Refusal> {
        let place = format!("{}:{}", to.host, to.port);
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls));
        let (client, connection) = connecting
            .await
            .map_err(|_| Refusal::NotThere(format!("{place} did not answer in time")))?
            .map_err(|error| refusal(&place, &error))?;
        let driver = tokio::spawn(async move {
            // The client hears of the end by its own next call.
            let _ = connection.await;
        });
        Ok(Session { client, driver, limit })
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
        .host(&to.host)
        .port(to.port)
        .user(&to.user)
        .dbname(if to.database.is_empty() { "postgres" } else { &to.database })
        .application_name(application_name)
        .connect_timeout(CONNECT_TIMEOUT);
    if let Some(password) = &to.password {
        config.password(&password.0);
    }
    config
}

fn refusal(place: &str, error: &tokio_postgres::Error) -> Refusal {
    let text = format!("{place}: {}", told(error));
    let code = error.code().map(SqlState::code).unwrap_or_default();
    // Class 28 is a refused login, 3D000 an unknown database, 53300 a full server: all are up.
    // Without a password where one is asked for, the client itself gives up: up as well.
    let up = code.starts_with("28") || matches!(code, "3D000" | "53300");
    let asked = error.code().is_none() && text.contains("password missing");
    if up || asked { Refusal::Denied(text) } else { Refusal::NotThere(text) }
}

/// The server's own words, else the whole chain of causes.
fn told(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{}: {}", db.severity(), db.message());
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
