//! Physical replication slots: there before a member needs them, gone when nobody does.
use super::Server;
use super::session::{Session, literal};

/// What became of a wish for slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotChanges {
    pub created: Vec<String>,
    pub dropped: Vec<String>,
    /// What could not be done, one sentence each; asked again next time.
    pub problems: Vec<String>,
}

impl Server {
    /// Creates missing slots with WAL reserved, and drops those named in `drop` that are
    /// physical and inactive. Nothing else is touched.
    pub async fn ensure_slots(
        &self,
        wanted: &[String],
        drop: &[String],
    ) -> Result<SlotChanges, String> {
        let session = self.session("Surus slots").await?;
        let mut changes = SlotChanges::default();
        for name in drop.iter().filter(|name| !wanted.contains(name)) {
            let outcome = change(&session, &drop_statement(name)).await;
            note(name, outcome, &mut changes.dropped, &mut changes.problems);
        }
        for name in wanted {
            let outcome = change(&session, &create_statement(name)).await;
            note(name, outcome, &mut changes.created, &mut changes.problems);
        }
        Ok(changes)
    }
}

/// True where the statement did something.
async fn change(session: &Session, statement: &str) -> Result<bool, String> {
    Ok(!session.rows(statement).await?.is_empty())
}

fn note(
    name: &str,
    outcome: Result<bool, String>,
    done: &mut Vec<String>,
    problems: &mut Vec<String>,
) {
    match outcome {
        Ok(true) => done.push(name.to_owned()),
        Ok(false) => {}
        Err(error) => problems.push(format!("slot `{name}`: {error}")),
    }
}

fn create_statement(name: &str) -> String {
    let name = literal(name);
    format!(
        "SELECT pg_catalog.pg_create_physical_replication_slot({name}, true) WHERE NOT EXISTS \
         (SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name = {name})"
    )
}

fn drop_statement(name: &str) -> String {
    format!(
        "SELECT pg_catalog.pg_drop_replication_slot(slot_name) \
         FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = {} AND slot_type = 'physical' AND NOT active",
        literal(name)
    )
}
