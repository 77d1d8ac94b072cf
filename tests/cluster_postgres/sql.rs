//! One connection to one server, from an ordinary thread, with a bound on every step.
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

pub const PASSWORD: &str = "super-geheim";

pub struct Sql {
    runtime: Runtime,
    client: Client,
    limit: Duration,
}

/// Why a statement was not done.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// SQLSTATE, if the server answered.
    pub code: Option<String>,
    pub text: String,
}

impl Sql {
    pub fn connect(host: &str, port: u16, limit: Duration) -> Result<Sql, Refusal> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port).user("postgres").password(PASSWORD).dbname("postgres");
        let client = runtime.block_on(async {
            let (client, connection) = timeout(limit, config.connect(NoTls))
                .await
                .map_err(|_| late())?
                .map_err(refusal)?;
            tokio::spawn(connection);
            Ok(client)
        })?;
        Ok(Sql { runtime, client, limit })
    }

    /// The first column of the first row.
    pub fn value(&self, statement: &str) -> Result<Option<String>, Refusal> {
        Ok(self.column(statement)?.into_iter().next().flatten())
    }

    /// The first column of every row.
    pub fn column(&self, statement: &str) -> Result<Vec<Option<String>>, Refusal> {
        let asking = self.client.simple_query(statement);
        let rows = self
            .runtime
            .block_on(async { timeout(self.limit, asking).await })
            .map_err(|_| late())?
            .map_err(refusal)?;
        let first = |row: SimpleQueryMessage| match row {
            SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        };
        Ok(rows.into_iter().filter_map(first).collect())
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

fn late() -> Refusal {
    Refusal { code: None, text: "no answer in time".into() }
}

fn refusal(error: tokio_postgres::Error) -> Refusal {
    let code = error.code().map(|code| code.code().to_owned());
    let text = error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned());
    Refusal { code, text }
}
