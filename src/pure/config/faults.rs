//! What is wrong with a configuration, said so that the reader finds the place at once.
//!
//! Faults are collected, never thrown one by one: whoever mends a file wants the whole list.
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use super::redact::redacted_text;

/// Where a value was written: a file (or an environment variable) and, in files, the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's path, or `environment variable NAME`.
    pub source: Arc<str>,
    /// Counted from one; absent where lines mean nothing.
    pub line: Option<usize>,
}

impl Place {
    /// A place in a file.
    pub fn new(source: &Arc<str>, line: Option<usize>) -> Place {
        Place { source: source.clone(), line }
    }
}

/// One thing that is wrong (or, among warnings, odd).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file's path, or `environment variable NAME`.
    pub source: String,
    /// Dotted path of the key; empty when the whole text is meant.
    pub key: String,
    /// Counted from one; absent where lines mean nothing.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Fault {
    /// A fault of `key`, found at `place`.
    pub fn new(place: &Place, key: &str, message: impl Into<String>) -> Fault {
        Fault {
            source: place.source.to_string(),
            key: on_one_line(key),
            line: place.line,
            message: on_one_line(&message.into()),
        }
    }
}

/// Keys and values are the user's: line ends and other control characters must not break a line.
/// A quote that was never closed swallows the lines after it, passwords among them: of a text of
/// several lines only the first and the last are shown, without what looks like a secret.
fn on_one_line(text: &str) -> String {
    let mut lines = text.split(char::is_control).filter(|line| !line.trim().is_empty());
    match (lines.next(), lines.next_back()) {
        (Some(first), Some(last)) => {
            let between = if lines.next().is_some() { " … " } else { " " };
            redacted_text(&format!("{first}{between}{}", last.trim_start()))
        }
        (Some(only), None) => only.to_owned(),
        (None, _) => String::new(),
    }
}

impl fmt::Display for Fault {
    /// One sentence: `FILE:LINE: key: what is wrong; what to do`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Fault {}

/// Collects faults and warnings while a configuration is read.
#[derive(Debug, Default)]
pub struct Report {
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<Fault>>,
}

impl Report {
    /// Something that makes the configuration unusable.
    pub fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// Something worth a sentence, with which one can live.
    pub fn warn(&self, warning: Fault) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Faults and warnings, each in the order of their lines.
    pub fn finish(self) -> (Vec<Fault>, Vec<Fault>) {
        let mut faults = self.faults.into_inner();
        let mut warnings = self.warnings.into_inner();
        for list in [&mut faults, &mut warnings] {
            list.sort_by(|a, b| (&a.source, a.line, &a.key).cmp(&(&b.source, b.line, &b.key)));
            list.dedup();
        }
        (faults, warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_one_sentence_with_its_place() {
        let place = Place::new(&Arc::from("surus.yml"), Some(7));
        let fault = Fault::new(&place, "raft.self_addr", "is missing; add HOST:PORT");
        assert_eq!(fault.to_string(), "surus.yml:7: raft.self_addr: is missing; add HOST:PORT");
    }

    #[test]
    fn a_sentence_stays_on_its_line() {
        let place = Place::new(&Arc::from("f"), None);
        assert_eq!(Fault::new(&place, "a\nb", "x\r\ny").to_string(), "f: a b: x y");
    }

    #[test]
    fn what_an_open_quote_swallowed_is_not_shown() {
        let place = Place::new(&Arc::from("f"), None);
        let value = "\n  password: raft-geheim\n  other: 1\n  password: rest-geheim";
        let fault = Fault::new(&place, "k", format!("`{value}` is no address")).to_string();
        assert!(!fault.contains("geheim"), "{fault}");
        assert!(fault.starts_with("f: k: ` … password: <secret>"), "{fault}");
    }

    #[test]
    fn faults_come_in_the_order_of_the_lines() {
        let report = Report::default();
        let source: Arc<str> = Arc::from("f");
        for line in [3, 1, 2, 1] {
            report.fault(Fault::new(&Place::new(&source, Some(line)), "k", "wrong"));
        }
        let lines: Vec<_> = report.finish().0.iter().map(|f| f.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(3)]);
    }
}
