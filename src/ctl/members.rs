//! Whom a command is for: names and roles against what `/cluster` lists.
use serde_json::Value;

use super::Outcome;
use super::args::RoleChoice;
use super::client::{self, Client};
use super::list::{self, Look};
use super::output::line;

/// One member of the listing.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    /// `http://host:port`
    pub base: String,
    pub row: Value,
}

/// The cluster's name and `/cluster`, after checking that it is the one that was named.
pub fn cluster(client: &Client, named: Option<&str>) -> Outcome<(String, Value)> {
    let body = client.cluster()?;
    let scope = client.scope(&body);
    match named {
        Some(named) if named != scope => {
            Err(format!("{named} cluster doesn't have any members").into())
        }
        _ => Ok((scope, body)),
    }
}

pub fn print(scope: &str, body: &Value) {
    line(&list::text(scope, body, Look::default()));
}

/// All members, in the order of the listing.
pub fn all(body: &Value) -> Vec<Member> {
    let rows = body["members"].as_array().into_iter().flatten();
    rows.map(|row| Member {
        name: row["name"].as_str().unwrap_or_default().to_owned(),
        base: client::base(row["api_url"].as_str().unwrap_or_default()),
        row: row.clone(),
    })
    .collect()
}

pub fn leads(member: &Member) -> bool {
    has_role(member, RoleChoice::Leader)
}

pub fn has_role(member: &Member, wanted: RoleChoice) -> bool {
    let role = member.row["role"].as_str().unwrap_or_default();
    match wanted {
        RoleChoice::Any => true,
        RoleChoice::Leader => matches!(role, "leader" | "standby_leader"),
        RoleChoice::Primary => role == "leader",
        RoleChoice::StandbyLeader => role == "standby_leader",
        RoleChoice::Replica | RoleChoice::Standby => !matches!(role, "leader" | "standby_leader"),
    }
}

fn word(role: RoleChoice) -> &'static str {
    match role {
        RoleChoice::Leader => "leader",
        RoleChoice::Primary => "primary",
        RoleChoice::StandbyLeader => "standby-leader",
        RoleChoice::Replica => "replica",
        RoleChoice::Standby => "standby",
        RoleChoice::Any => "any",
    }
}

/// The named members, or all, that have the role.
pub fn choose(
    scope: &str,
    body: &Value,
    names: &[String],
    role: Option<RoleChoice>,
) -> Outcome<Vec<Member>> {
    let all = all(body);
    if all.is_empty() {
        return Err(format!("{scope} cluster doesn't have any members").into());
    }
    if let Some(stranger) = names.iter().find(|name| !all.iter().any(|m| m.name == **name)) {
        return Err(format!("{stranger} is not a member of cluster {scope}").into());
    }
    let role = role.unwrap_or(RoleChoice::Any);
    let named = |member: &Member| names.is_empty() || names.contains(&member.name);
    let chosen: Vec<_> = all.into_iter().filter(|m| named(m) && has_role(m, role)).collect();
    if chosen.is_empty() {
        return Err(format!("No {} among provided members", word(role)).into());
    }
    Ok(chosen)
}

pub fn names(members: &[Member]) -> String {
    members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::Stop;
    use serde_json::json;

    fn body() -> Value {
        json!({"members": [
            {"name": "a", "role": "leader", "api_url": "http://h:1/patroni"},
            {"name": "b", "role": "sync_standby", "api_url": "http://h:2/patroni"},
            {"name": "c", "role": "replica", "api_url": "http://h:3/patroni"}]})
    }

    fn chosen(names: &[&str], role: Option<RoleChoice>) -> Outcome<String> {
        let given: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        choose("x", &body(), &given, role).map(|members| super::names(&members))
    }

    #[test]
    fn names_and_roles_narrow_the_choice() {
        assert_eq!(chosen(&[], None), Ok("a, b, c".into()));
        assert_eq!(chosen(&["c", "b"], None), Ok("b, c".into()));
        assert_eq!(chosen(&[], Some(RoleChoice::Replica)), Ok("b, c".into()));
        assert_eq!(chosen(&[], Some(RoleChoice::Primary)), Ok("a".into()));
    }

    #[test]
    fn nobody_left_is_an_error_that_says_why() {
        let error = |text: &str| Err(Stop::Error(text.into()));
        let none = chosen(&["a"], Some(RoleChoice::Replica));
        assert_eq!(none, error("No replica among provided members"));
        assert_eq!(chosen(&["z"], None), error("z is not a member of cluster x"));
        let empty = choose("x", &json!({}), &[], None).map(|_| ());
        assert_eq!(empty, Err(Stop::Error("x cluster doesn't have any members".into())));
    }
}
