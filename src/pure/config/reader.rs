//! Reads typed values out of the tree and reports, with key and line, what has the wrong type.
//!
//! A reader never stops: a fault yields a default, so that one reading finds all faults.
use serde_json::{Map, Value};

use super::HostPort;
use super::faults::{Fault, Place, Report};
use super::scalar::{parse_bool, parse_int, python_truth};
use super::tree::{Kind, Node, join};

/// Of a wrong word at most so many bytes are said.
const WORD_SHOWN: usize = 40;

/// One map of the configuration; an absent map reads as an empty one.
#[derive(Clone)]
pub struct Section<'a> {
    /// Dotted path; empty at the top.
    pub path: String,
    node: Option<&'a Node>,
    place: Place,
    report: &'a Report,
}

impl<'a> Section<'a> {
    /// The whole tree.
    pub fn top(node: &'a Node, report: &'a Report) -> Section<'a> {
        Section::at(node, "", report)
    }

    /// A part of a tree that stands at `path` of the whole.
    pub fn at(node: &'a Node, path: &str, report: &'a Report) -> Section<'a> {
        Section { path: path.to_string(), node: Some(node), place: node.place.clone(), report }
    }

    /// Whether the section stands in the file at all.
    pub fn present(&self) -> bool {
        self.node.is_some()
    }

    /// The entry `key`; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.node?.get(key)
    }

    /// Whether `key` is written, even with nothing behind it.
    pub fn mentions(&self, key: &str) -> bool {
        self.entries().iter().any(|(k, _)| k == key)
    }

    /// All entries in file order.
    pub fn entries(&self) -> &'a [(String, Node)] {
        match self.node.map(|n| &n.kind) {
            Some(Kind::Map(entries)) => entries,
            _ => &[],
        }
    }

    /// The map below `key`.
    pub fn child(&self, key: &str) -> Section<'a> {
        let found = self.get(key);
        let node = found.filter(|n| matches!(n.kind, Kind::Map(_)));
        if found.is_some() && node.is_none() {
            self.fault(key, "must be a map of keys; indent its keys below it");
        }
        let place = found.map_or_else(|| self.place.clone(), |n| n.place.clone());
        Section { path: join(&self.path, key), node, place, report: self.report }
    }

    /// Reports a fault of `key` at its line, or at this section's line when it is absent.
    pub fn fault(&self, key: &str, message: impl Into<String>) {
        self.report.fault(self.sentence(key, message.into()));
    }

    /// Reports something odd about `key`.
    pub fn warn(&self, key: &str, message: impl Into<String>) {
        self.report.warn(self.sentence(key, message.into()));
    }

    /// Reports, as a warning, what another reader found.
    pub fn pass_on(&self, warning: Fault) {
        self.report.warn(warning);
    }

    fn sentence(&self, key: &str, message: String) -> Fault {
        let named = self.entries().iter().find(|(k, _)| k == key).map(|(_, n)| &n.place);
        let path = if key.is_empty() { self.path.clone() } else { join(&self.path, key) };
        Fault::new(named.unwrap_or(&self.place), &path, message)
    }

    fn wrong<T>(&self, key: &str, node: &Node, wanted: &str) -> Option<T> {
        self.fault(key, format!("must be {wanted}, but is {}", describe(node)));
        None
    }

    /// Text; numbers count as the text they are written with.
    pub fn text(&self, key: &str) -> Option<String> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::Scalar(Value::String(text)) => Some(text.clone()),
            Kind::Scalar(Value::Number(number)) => Some(number.to_string()),
            Kind::Scalar(Value::Bool(_)) => {
                self.wrong(key, node, "text (put it between quotes if it is meant as a word)")
            }
            _ => self.wrong(key, node, "text"),
        }
    }

    /// Text without which nothing works; `example` shows how to write it.
    pub fn required_text(&self, key: &str, example: &str) -> String {
        let text = self.text(key);
        if self.get(key).is_none() || text.as_deref() == Some("") {
            self.fault(key, format!("is missing; add, for example, `{key}: {example}`"));
        }
        text.unwrap_or_default()
    }

    /// A boolean in any of Patroni's spellings.
    pub fn flag(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        parse_bool(&node.value()).or_else(|| self.wrong(key, node, "true or false"))
    }

    /// Truth as Python sees it, which is what Patroni asks of flags that scripts may get too.
    pub fn truthy(&self, key: &str) -> bool {
        self.get(key).is_some_and(|node| python_truth(&node.value()))
    }

    /// A whole number of at least `min`, in `base` units if a unit may follow.
    pub fn integer(&self, key: &str, base: Option<&str>, min: i64) -> Option<i64> {
        let node = self.get(key)?;
        match parse_int(&node.value(), base) {
            Some(number) if number >= min => Some(number),
            Some(number) => {
                self.fault(key, format!("must be at least {min}, but is {number}"));
                None
            }
            None => self.wrong(key, node, &format!("a whole number{}", unit_hint(base))),
        }
    }

    /// One word of a few; any case.
    pub fn word(&self, key: &str, allowed: &[&str]) -> Option<String> {
        let text = self.text(key)?;
        let found = allowed.iter().find(|word| word.eq_ignore_ascii_case(&text));
        if found.is_none() {
            // An open quote swallows whatever follows it, secrets included.
            let is = if text.len() > WORD_SHOWN { "a long text" } else { &format!("`{text}`") };
            self.fault(key, format!("must be one of {}, but is {is}", allowed.join(", ")));
        }
        found.map(|word| word.to_string())
    }

    /// A list of texts, also written `a,b`.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let node = self.get(key)?;
        if let Kind::Scalar(Value::String(text)) = &node.kind {
            let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
            return Some(parts.map(str::to_string).collect());
        }
        self.lines(key)
    }

    /// A list of texts, each taken whole.
    pub fn lines(&self, key: &str) -> Option<Vec<String>> {
        let node = self.get(key)?;
        let Kind::List(items) = &node.kind else {
            return self.wrong(key, node, "a list (one `- …` line for each entry)");
        };
        let mut lines = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match &item.kind {
                Kind::Scalar(Value::String(text)) => lines.push(text.clone()),
                Kind::Scalar(Value::Number(number)) => lines.push(number.to_string()),
                _ => self.report.fault(Fault::new(
                    &item.place,
                    &format!("{}[{index}]", join(&self.path, key)),
                    format!("must be text, but is {}", describe(item)),
                )),
            }
        }
        Some(lines)
    }

    /// A map as plain values.
    pub fn map(&self, key: &str) -> Option<Map<String, Value>> {
        let node = self.get(key)?;
        match node.value() {
            Value::Object(map) => Some(map),
            _ => self.wrong(key, node, "a map of keys"),
        }
    }

    /// `HOST:PORT`, `[IPv6]:PORT` or `HOST` with the default port.
    pub fn address(&self, key: &str, port_default: u16) -> Option<HostPort> {
        let text = self.text(key)?;
        self.parsed_address(key, &text, port_default)
    }

    /// As `address`, of a place to listen on: without a host it is every address of this machine, `*`.
    pub fn listening_address(&self, key: &str, port_default: u16) -> Option<HostPort> {
        let text = self.text(key)?;
        let everywhere = text.trim().starts_with(':') && !text.trim().starts_with("::");
        let text = if everywhere { format!("*{}", text.trim()) } else { text };
        self.parsed_address(key, &text, port_default)
    }

    /// As `address`, of a text that came from `key`.
    pub fn parsed_address(&self, key: &str, text: &str, port_default: u16) -> Option<HostPort> {
        let parsed = HostPort::parse(text, port_default).ok();
        if parsed.is_none() {
            let example = format!("write HOST:PORT, for example 10.0.0.1:{port_default}");
            self.fault(key, format!("`{text}` is not an address; {example}"));
        }
        parsed
    }
}

fn unit_hint(base: Option<&str>) -> String {
    base.map(|unit| format!(" (of {unit}, or with its unit)")).unwrap_or_default()
}

/// A value in a few words that never show a secret.
fn describe(node: &Node) -> &'static str {
    match &node.kind {
        Kind::Scalar(Value::Null) => "empty",
        Kind::Scalar(Value::Bool(_)) => "a boolean",
        Kind::Scalar(Value::Number(_)) => "a number",
        Kind::Scalar(_) => "text",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn faults_of(text: &str, read: impl Fn(&Section)) -> Vec<String> {
        let report = Report::default();
        let node = super::super::yaml::parse(&Arc::from("f"), text, &report).expect("YAML");
        read(&Section::top(&node, &report));
        report.finish().0.iter().map(Fault::to_string).collect()
    }

    #[test]
    fn wrong_types_are_reported_with_their_line_and_never_stop_the_reading() {
        let text = "a: [1]\nb: maybe\nc: many\nd: x\ne: {}\nf: -3\n";
        let faults = faults_of(text, |top| {
            top.text("a");
            top.flag("b");
            top.integer("c", Some("s"), 0);
            top.lines("d");
            top.address("e", 1);
            top.integer("f", None, 0);
        });
        let expected = [
            "f:1: a: must be text, but is a list",
            "f:2: b: must be true or false, but is text",
            "f:3: c: must be a whole number (of s, or with its unit), but is text",
            "f:4: d: must be a list (one `- …` line for each entry), but is text",
            "f:5: e: must be text, but is a map",
            "f:6: f: must be at least 0, but is -3",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn a_missing_key_is_reported_at_its_section() {
        let faults = faults_of("x: 1\ns:\n  a: 1\n", |top| {
            top.child("s").required_text("b", "word");
        });
        assert_eq!(faults, ["f:2: s.b: is missing; add, for example, `b: word`"]);
    }
}
