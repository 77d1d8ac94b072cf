//! `POST /reinitialize`: may this node be rebuilt at all, and how is it to be done.
use serde_json::{Map, Value};

use super::Answer;
use super::look::Look;

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reinit {
    /// Cancel what is running instead of being refused by it.
    pub force: bool,
    /// Copy from the leader, not from a clonefrom member or a backup.
    pub from_leader: bool,
}

/// The checks that need nothing but the view.
pub fn check(look: &Look, body: &Map<String, Value>) -> Result<Reinit, Answer> {
    if look.facts().is_some_and(|facts| !facts.has_postgres) {
        let text = "this node is a witness: it has no PostgreSQL to reinitialize";
        return Err(Answer::new(503, text));
    }
    let Some(leader) = look.view.cluster.leader() else {
        return Err(Answer::new(503, "Cluster has no leader, can not reinitialize"));
    };
    if leader == look.config.name {
        return Err(Answer::new(503, "I am the leader, can not reinitialize"));
    }
    let from_leader = body.get("from_leader").or(body.get("from-leader"));
    Ok(Reinit {
        force: flag(body.get("force"), "force")?,
        from_leader: flag(from_leader, "from_leader")?,
    })
}

/// A boolean; anything else is refused, because this request deletes data.
fn flag(value: Option<&Value>, key: &str) -> Result<bool, Answer> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => {
            let text = format!("{key} must be true or false, not {other}");
            Err(Answer::new(400, text))
        }
    }
}
