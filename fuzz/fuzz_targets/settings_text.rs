//! Any text that people write is read or refused.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::texts::settings(bytes));
