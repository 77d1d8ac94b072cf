//! Physical replication slots: there before a member needs them, gone when nobody does.
use super::Server;
use super::session::{Session, literal};
use crate::pure::cluster::facts::Slot;
use crate::pure::cluster::slots::{Step, step};
use crate::pure::postgres::lsn::Lsn;

/// What became of a request for slots.
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

const HERE: &str = "SELECT redo_lsn::text, pg_catalog.pg_last_wal_replay_lsn()::text \
    FROM pg_catalog.pg_control_checkpoint()";

/// A slot of a replica, and where the leader's of that name stands; `None`: it has none that holds WAL.
pub type Followed = (String, Option<Lsn>);

impl Server {
    /// Moves a replica's slots to where the leader's stand; missing ones are made. `present`: what the last
    /// look found.
    pub async fn follow_slots(
        &self,
        wanted: &[Followed],
        present: &[Slot],
    ) -> Result<SlotChanges, String> {
        let session = self.session("Surus slots").await?;
        let rows = session.rows(HERE).await?;
        let place = |column| rows.first()?.get(column)?.parse().ok();
        let (redo, replayed) = (place(0).unwrap_or_default(), place(1).unwrap_or_default());
        let mut changes = SlotChanges::default();
        for (name, leaders) in wanted {
            let own = present.iter().find(|slot| slot.name == *name);
            let Some(due) = step(own, *leaders, redo, replayed) else { continue };
            let outcome = take_step(&session, name, due).await;
            let made = !matches!(due, Step::Advance(_));
            let mut moved = Vec::new();
            let done = if made { &mut changes.created } else { &mut moved };
            note(name, outcome, done, &mut changes.problems);
        }
        Ok(changes)
    }
}

async fn take_step(session: &Session, name: &str, due: Step) -> Result<bool, String> {
    match due {
        Step::Make => change(session, &create_statement(name)).await,
        Step::Remake => {
            change(session, &drop_statement(name)).await?;
            change(session, &create_statement(name)).await
        }
        Step::Advance(to) => change(session, &advance_statement(name, to)).await,
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

/// Not where it is in use by now, or has gone further.
fn advance_statement(name: &str, to: Lsn) -> String {
    format!(
        "SELECT pg_catalog.pg_replication_slot_advance(slot_name, '{to}') \
         FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = {} AND slot_type = 'physical' AND NOT active AND restart_lsn < '{to}'",
        literal(name)
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
