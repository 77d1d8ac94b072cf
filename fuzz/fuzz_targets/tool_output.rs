//! Any output of a program is read or refused.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::texts::tool_output(bytes));
