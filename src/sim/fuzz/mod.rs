//! What the fuzzers call, and a property test on the stable toolchain too (`tests/fuzz.rs`).
//!
//! Each target takes any bytes and returns, or panics with what does not hold. A line in
//! `fuzz/fuzz_targets/` calls it under libFuzzer; `scripts/fuzz` runs all of them. What only the
//! host parses is in `host::fuzz`. Inputs that once broke something stay in `fuzz/corpus/`.
use std::io;

use crate::pure::machine::{Flow, Input, Journal, Record};

pub mod arbitrary;
pub mod bytes;
pub mod chart;
pub mod config;
pub mod flows;
pub mod journal;
pub mod replicated;
pub mod rest;
pub mod texts;

/// A function that takes any bytes.
pub type Target = fn(&[u8]);

/// Every target of what is decided: its name (also its file's, and its corpus's) and its function.
pub static TARGETS: &[(&str, Target)] = &[
    ("chart_source", chart::source),
    ("config", config::file),
    ("dynamic_config", config::dynamic),
    ("flow_inputs", flows::inputs),
    ("journal_record", journal::record),
    ("replicated_state", replicated::state),
    ("rest_request", rest::request),
    ("server_files", texts::server_files),
    ("settings_text", texts::settings),
    ("tool_output", texts::tool_output),
];

/// Records in memory, as text, so that each takes the way of a real one.
pub struct Memory(pub String);

impl<F: Flow> Journal<F> for Memory {
    fn append(&mut self, record: &Record<F>, input: &Input<F>) -> io::Result<()> {
        self.0 = serde_json::to_string(record)?;
        let read: Record<F> = serde_json::from_str(&self.0)?;
        assert_eq!(&read, record, "a record comes back as it was written");
        let heard = serde_json::to_value(input)?;
        let read: Input<F> = serde_json::from_value(heard.clone())?;
        assert_eq!(serde_json::to_value(read)?, heard, "and so does what led to it");
        Ok(())
    }
}

/// The bytes as a person's text: what is no UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
