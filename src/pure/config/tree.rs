//! YAML as a tree in which every value knows where it was written.
//!
//! Patroni's reader takes YAML 1.1 (`on` is true, `0755` is octal, the last of two equal keys
//! wins), so this one does too. A dynamic configuration, which is JSON, becomes the same tree.
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::faults::{Fault, Place, Report};

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

/// Reads one YAML text. `Err` when it is not YAML; doubled keys are warnings.
pub fn parse(source: &Arc<str>, text: &str, report: &Report) -> Result<Node, Fault> {
    let whole = Place::new(source, None);
    if text.trim().is_empty() {
        return Err(Fault::new(
            &whole,
            "",
            "the configuration is empty; write at least scope, name, restapi and raft",
        ));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 64 },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(place(raw, "", source, report)),
        Err(error) => {
            let line = error.location().and_then(|at| usize::try_from(at.line()).ok());
            let first = error.to_string().lines().next().unwrap_or_default().to_string();
            Err(Fault::new(
                &Place::new(source, line.filter(|n| *n > 0)),
                "",
                format!("this is not YAML: {first}; mend it there or just above"),
            ))
        }
    }
}

/// Turns the parser's spans into places and keeps the last of equal keys.
fn place(raw: Spanned<Raw>, path: &str, source: &Arc<str>, report: &Report) -> Node {
    let line = usize::try_from(raw.referenced.line()).ok().filter(|n| *n > 0);
    let kind = match raw.value {
        Raw::Scalar(value) => Kind::Scalar(value),
        Raw::List(items) => {
            Kind::List(items.into_iter().map(|item| place(item, path, source, report)).collect())
        }
        Raw::Map(pairs) => Kind::Map(entries(pairs, path, source, report)),
    };
    Node { place: Place::new(source, line), kind }
}

type RawPair = (Spanned<String>, Spanned<Raw>);

fn entries(
    pairs: Vec<RawPair>,
    path: &str,
    source: &Arc<str>,
    report: &Report,
) -> Vec<(String, Node)> {
    let mut entries: Vec<(String, Node)> = Vec::new();
    for (key, value) in pairs {
        let here = join(path, &key.value);
        let mut node = place(value, &here, source, report);
        node.place.line = usize::try_from(key.referenced.line()).ok().filter(|n| *n > 0);
        match entries.iter_mut().find(|(k, _)| *k == key.value) {
            Some((_, old)) => {
                let message = "this key stands here a second time and the last one counts; \
                               remove one of the two";
                report.warn(Fault::new(&node.place, &here, message));
                *old = node;
            }
            None => entries.push((key.value, node)),
        }
    }
    entries
}

/// `a.b` from `a` and `b`.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// What the parser hands over, before places are worked out.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<RawPair>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Raw, E> {
        let number = serde_json::Number::from_f64(value)
            .ok_or_else(|| E::custom("infinity and NaN mean nothing here"))?;
        Ok(Raw::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
            if pairs.len() > 100_000 {
                return Err(A::Error::custom("a map of more than 100000 keys"));
            }
        }
        Ok(Raw::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> (Node, Vec<Fault>) {
        let report = Report::default();
        let node = parse(&Arc::from("f.yml"), text, &report).expect("valid YAML");
        (node, report.finish().1)
    }

    #[test]
    fn every_value_knows_its_line() {
        let (node, _) = read("a: 1\nb:\n  c:\n    - x\n    - y\n  d: {e: 2}\n");
        let b = node.get("b").expect("b");
        assert_eq!(b.place.line, Some(2));
        assert_eq!(b.get("c").expect("c").place.line, Some(3));
        let Kind::List(items) = &b.get("c").expect("c").kind else { panic!("c is a list") };
        assert_eq!(items[1].place.line, Some(5));
        assert_eq!(b.get("d").and_then(|d| d.get("e")).expect("e").place.line, Some(6));
    }

    #[test]
    fn scalars_mean_what_yaml_1_1_says() {
        let (node, _) = read("a: on\nb: 'on'\nc: 0755\nd: 1.5\ne: ~\nf: 10.0.0.1:5432\n1: x\n");
        let expected = json!({"a": true, "b": "on", "c": 493, "d": 1.5, "e": null,
            "f": "10.0.0.1:5432", "1": "x"});
        assert_eq!(node.value(), expected);
    }

    #[test]
    fn the_last_of_two_equal_keys_counts_and_is_reported() {
        let (node, warnings) = read("a:\n  b: 1\n  b: 2\n");
        assert_eq!(node.value(), json!({"a": {"b": 2}}));
        assert_eq!((warnings[0].key.as_str(), warnings[0].line), ("a.b", Some(3)));
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        let (node, _) = read("x: &a {k: 1}\ny:\n  <<: *a\n  l: 2\nz: *a\n");
        assert_eq!(node.value()["y"], json!({"l": 2, "k": 1}));
        assert_eq!(node.value()["z"], json!({"k": 1}));
    }

    #[test]
    fn broken_yaml_names_its_line() {
        let report = Report::default();
        let fault = parse(&Arc::from("f.yml"), "a: 1\nb: [1\nc: 2\n", &report).unwrap_err();
        assert!(fault.line.is_some_and(|l| l >= 2), "{fault}");
    }

    #[test]
    fn a_merge_replaces_scalars_and_joins_maps() {
        let (mut node, _) = read("a: {b: 1, c: 2}\nd: [1]\n");
        node.merge(read("a: {c: 3}\nd: [2]\n").0);
        assert_eq!(node.value(), json!({"a": {"b": 1, "c": 3}, "d": [2]}));
    }
}
