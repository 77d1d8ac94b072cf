//! Any text is a chart that can be drawn and walked, or a list of faults.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::chart::source(bytes));
