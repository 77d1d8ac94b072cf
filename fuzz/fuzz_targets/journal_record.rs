//! Any record that parses is resumed in a legal state.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::journal::record(bytes));
