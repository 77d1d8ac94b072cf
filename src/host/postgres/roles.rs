//! The roles that replication and rewinding need: made or mended, their passwords never logged.
use postgres_protocol::password;

use super::Server;
use super::session::{Refusal, Session, identifier, literal};
use crate::pure::config::Secret;

/// A role as it shall be.
#[derive(Clone, Debug)]
pub struct Role {
    pub name: String,
    pub password: Option<Secret>,
    pub kind: RoleKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    Superuser,
    Replication,
    /// LOGIN, and the functions that pg_rewind calls.
    Rewind,
}

/// Nothing of this session shall reach a log or a statistics view, and no standby delays it.
const QUIET: &str = "SET log_statement TO none; SET log_min_duration_statement TO -1; \
    SET log_min_duration_sample TO -1; SET log_duration TO off; \
    SET log_min_error_statement TO panic; SET track_activities TO off; \
    SET pg_stat_statements.track_utility TO off; SET pgaudit.log TO none; \
    SET synchronous_commit TO local";

/// What pg_rewind calls on its source.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

impl Server {
    /// Creates or alters each role in order. The server only ever sees password verifiers.
    pub async fn create_roles(&self, roles: &[Role]) -> Result<(), String> {
        let session = Session::open_patient(&self.connection, "Surus roles").await;
        let session = session.map_err(Refusal::text)?;
        session.run(QUIET).await?;
        let md5 = session.value("SHOW password_encryption").await?.as_deref() == Some("md5");
        for role in roles {
            create_or_alter(&session, role, md5)
                .await
                .map_err(|error| format!("role `{}`: {error}", role.name))?;
        }
        Ok(())
    }
}

async fn create_or_alter(session: &Session, role: &Role, md5: bool) -> Result<(), String> {
    if role.name.is_empty() {
        return Err("it has no name: set its username".into());
    }
    let find = format!("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {}", literal(&role.name));
    let verb = if session.value(&find).await?.is_some() { "ALTER" } else { "CREATE" };
    session.run(&statement(verb, role, md5)).await?;
    if role.kind == RoleKind::Rewind {
        for function in REWIND_FUNCTIONS {
            let to = identifier(&role.name);
            session
                .run(&format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {to}"))
                .await?;
        }
    }
    Ok(())
}

fn statement(verb: &str, role: &Role, md5: bool) -> String {
    let attributes = match role.kind {
        RoleKind::Superuser => "SUPERUSER LOGIN",
        RoleKind::Replication => "REPLICATION LOGIN",
        RoleKind::Rewind => "LOGIN",
    };
    let secret = role.password.as_ref().map(|secret| {
        let bytes = secret.0.as_bytes();
        let verifier =
            if md5 { password::md5(bytes, &role.name) } else { password::scram_sha_256(bytes) };
        format!(" PASSWORD {}", literal(&verifier))
    });
    let name = identifier(&role.name);
    format!("{verb} ROLE {name} WITH {attributes}{}", secret.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: P-2.
    #[test]
    fn passwords_are_not_in_the_statement() {
        let role = Role {
            name: "rep\"l".into(),
            password: Some(Secret("hunter2".into())),
            kind: RoleKind::Replication,
        };
        let text = statement("CREATE", &role, false);
        assert!(text.starts_with("CREATE ROLE \"rep\"\"l\" WITH REPLICATION LOGIN PASSWORD"));
        assert!(text.contains("SCRAM-SHA-256$") && !text.contains("hunter2"));
        assert!(statement("ALTER", &role, true).contains("'md5"));
    }
}
