//! Any text is a chart or a list of faults, never a panic.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| drop(surus::pure::chart::Chart::parse(text)));
