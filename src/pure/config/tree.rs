//! A configuration as a tree in which every value knows where it was written.
//!
//! Files come from `yaml`; a dynamic configuration, which is JSON, becomes the same tree.
use std::sync::Arc;

use serde_json::{Map, Value};

use super::faults::Place;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub place: Place,
    pub kind: Kind,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Null, boolean, number or text.
    Scalar(Value),
    List(Vec<Node>),
    /// In file order; keys occur once.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A tree without lines, from JSON.
    pub fn from_value(value: &Value, source: &Arc<str>) -> Node {
        let kind = match value {
            Value::Array(items) => {
                Kind::List(items.iter().map(|v| Node::from_value(v, source)).collect())
            }
            Value::Object(map) => Kind::Map(
                map.iter().map(|(k, v)| (k.clone(), Node::from_value(v, source))).collect(),
            ),
            scalar => Kind::Scalar(scalar.clone()),
        };
        Node { place: Place::new(source, None), kind }
    }

    /// The value without its places.
    pub fn value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => Value::Array(items.iter().map(Node::value).collect()),
            Kind::Map(entries) => {
                let pairs = entries.iter().map(|(k, node)| (k.clone(), node.value()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }

    /// Null, which Patroni treats like an absent key.
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Scalar(Value::Null)
    }

    /// The entry `key` of a map; absent when null or when this is no map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Kind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|(k, _)| k == key).map(|(_, node)| node).filter(|n| !n.is_null())
    }

    /// Puts `node` at a path of keys, making maps on the way.
    pub fn set(&mut self, path: &[&str], node: Node) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.kind, Kind::Map(_)) {
            self.kind = Kind::Map(Vec::new());
        }
        let Kind::Map(entries) = &mut self.kind else { return };
        let index = entries.iter().position(|(k, _)| k == first).unwrap_or_else(|| {
            let empty = Node { place: node.place.clone(), kind: Kind::Map(Vec::new()) };
            entries.push((first.to_string(), empty));
            entries.len() - 1
        });
        entries[index].1.set(rest, node);
    }

    /// Lays `other` over this tree: maps merge, anything else is replaced.
    pub fn merge(&mut self, other: Node) {
        match (&mut self.kind, other.kind) {
            (Kind::Map(mine), Kind::Map(theirs)) => {
                for (key, node) in theirs {
                    match mine.iter_mut().find(|(k, _)| *k == key) {
                        Some((_, old)) => old.merge(node),
                        None => mine.push((key, node)),
                    }
                }
            }
            (kind, other_kind) => {
                *kind = other_kind;
                self.place = other.place;
            }
        }
    }
}

/// `a.b` from `a` and `b`.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(value: Value) -> Node {
        Node::from_value(&value, &Arc::from("f"))
    }

    #[test]
    fn a_merge_replaces_scalars_and_joins_maps() {
        let mut node = tree(json!({"a": {"b": 1, "c": 2}, "d": [1]}));
        node.merge(tree(json!({"a": {"c": 3}, "d": [2]})));
        assert_eq!(node.value(), json!({"a": {"b": 1, "c": 3}, "d": [2]}));
    }

    #[test]
    fn setting_a_path_makes_the_maps_on_the_way() {
        let mut node = tree(json!({"a": 1}));
        node.set(&["a", "b"], tree(json!(2)));
        assert_eq!(node.value(), json!({"a": {"b": 2}}));
    }
}
