//! Who replicates from whom, as an indented list.
use serde_json::Value;

use crate::pure::config::Tags;

/// Parents before children; a parent is the `replicatefrom` tag's member, else the leader.
pub fn tree(members: Vec<Value>) -> Vec<Value> {
    let leads =
        |member: &Value| matches!(member["role"].as_str(), Some("leader" | "standby_leader"));
    let leader = members.iter().find(|m| leads(m)).map(|m| m["name"].clone());
    let parent = |member: &Value| {
        let wanted = Value::from(Tags::from(&member["tags"]).replicatefrom());
        let other = members.iter().any(|m| {
            m["name"] == wanted
                && m["name"] != member["name"]
                && Some(&m["name"]) != leader.as_ref()
        });
        if other { Some(wanted) } else { leader.clone() }
    };
    let mut ordered: Vec<Value> = Vec::new();
    for member in members.iter().filter(|m| leads(m)) {
        ordered.push(member.clone());
    }
    let mut waiting: Vec<(Value, &Value)> =
        members.iter().filter(|m| !leads(m)).map(|m| (parent(m).unwrap_or_default(), m)).collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        for (parent, member) in std::mem::take(&mut waiting) {
            match ordered.iter().position(|m| m["name"] == parent) {
                Some(at) => insert_below(&mut ordered, at, member),
                None => waiting.push((parent, member)),
            }
        }
        if waiting.len() == before {
            let left = waiting.drain(..).map(|(_, member)| indented(member, 1));
            ordered.extend(left.collect::<Vec<_>>());
        }
    }
    ordered
}

fn depth(member: &Value) -> usize {
    member["depth"].as_u64().unwrap_or_default() as usize
}

fn insert_below(ordered: &mut Vec<Value>, parent: usize, member: &Value) {
    let level = depth(&ordered[parent]);
    let below = ordered[parent + 1..].iter().take_while(|other| depth(other) > level).count();
    ordered.insert(parent + 1 + below, indented(member, level + 1));
}

fn indented(member: &Value, depth: usize) -> Value {
    let mut member = member.clone();
    member["depth"] = depth.into();
    member["indent"] = format!("{}+ ", "  ".repeat(depth.saturating_sub(1))).into();
    member
}
