//! YAML as a tree in which every value knows where it was written.
//!
//! Patroni's reader takes YAML 1.1 (`on` is true, `0755` is octal for whoever wants a number, the last of two equal keys
//! wins), so this one does too.
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use super::faults::{Fault, Place, Report};
use super::tree::{Kind, Node, join};

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
        Ok(raw) => Ok(Placer { source, text, report }.node(raw, "")),
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

/// One YAML text as a value, read as the file is: numbers that begin with a zero stay as written.
///
/// # Errors
/// It is not YAML, or empty.
pub fn value(text: &str) -> Result<Value, String> {
    let report = Report::default();
    let node = parse(&Arc::from("YAML"), text, &report).map_err(|fault| fault.to_string())?;
    Ok(node.value())
}

type RawPair = (Spanned<String>, Spanned<Raw>);

/// Turns the parser's spans into places, and scalars into what Patroni's reader makes of them.
struct Placer<'a> {
    source: &'a Arc<str>,
    text: &'a str,
    report: &'a Report,
}

impl Placer<'_> {
    fn node(&self, raw: Spanned<Raw>, path: &str) -> Node {
        let kind = match raw.value {
            Raw::Scalar(value) => Kind::Scalar(as_yaml_1_1(value, self.spelling(&raw.defined))),
            Raw::List(items) => {
                Kind::List(items.into_iter().map(|item| self.node(item, path)).collect())
            }
            Raw::Map(pairs) => Kind::Map(self.entries(pairs, path)),
        };
        Node { place: Place::new(self.source, line_of(&raw.referenced)), kind }
    }

    /// The entries of a map, each at the line of its key; the last of equal keys counts.
    fn entries(&self, pairs: Vec<RawPair>, path: &str) -> Vec<(String, Node)> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        for (key, value) in pairs {
            let here = join(path, &key.value);
            let mut node = self.node(value, &here);
            node.place.line = line_of(&key.referenced);
            match entries.iter_mut().find(|(k, _)| *k == key.value) {
                Some((_, old)) => {
                    let message = "this key stands here a second time and the last one counts; \
                                   remove one of the two";
                    self.report.warn(Fault::new(&node.place, &here, message));
                    *old = node;
                }
                None => entries.push((key.value, node)),
            }
        }
        entries
    }

    /// How a scalar is written in the text.
    fn spelling(&self, at: &Location) -> Option<&str> {
        let start = usize::try_from(at.span().byte_offset()?).ok()?;
        let length = usize::try_from(at.span().byte_len()?).ok()?;
        self.text.get(start..start.checked_add(length)?)
    }
}

fn line_of(at: &Location) -> Option<usize> {
    usize::try_from(at.line()).ok().filter(|line| *line > 0)
}

/// Takes back what the parser reads as more than Patroni's does: `y` and `n`, `0o17`, `1e3` and
/// `1.5e3` are words there. Digits behind a zero stay as written, so that a password keeps its zeros;
/// whoever wants a number of them reads it as octal.
fn as_yaml_1_1(value: Value, spelling: Option<&str>) -> Value {
    let Some(word) = spelling.map(str::trim).filter(|word| !word.is_empty()) else { return value };
    let exponent = word.to_lowercase().split_once('e').map(|(_, power)| power.to_string());
    let signed = exponent.is_none_or(|power| power.starts_with(['+', '-']));
    let is_word = match &value {
        Value::Bool(_) => word.len() == 1,
        Value::Number(number) if number.is_f64() => !word.contains('.') || !signed,
        Value::Number(_) => {
            let digits = word.trim_start_matches(['+', '-']);
            let leading_zero = digits.starts_with('0') && digits.len() > 1 && !digits.contains('x');
            leading_zero && !digits.contains('b')
        }
        _ => false,
    };
    if is_word { Value::from(word) } else { value }
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
        let expected = json!({"a": true, "b": "on", "c": "0755", "d": 1.5, "e": null,
            "f": "10.0.0.1:5432", "1": "x"});
        assert_eq!(node.value(), expected);
    }

    #[test]
    fn words_that_only_look_like_values_stay_words() {
        let (node, _) =
            read("é: x\na: n\nb: 1e3\nc: 1.5e3\nd: 1.5e+3\ne: 0o17\nf: {g: Y, h: off}\n");
        let expected = json!({"é": "x", "a": "n", "b": "1e3", "c": "1.5e3", "d": 1500.0, "e": "0o17",
            "f": {"g": "Y", "h": false}});
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
}
