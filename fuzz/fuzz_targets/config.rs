//! Any file and environment are a configuration or a list of faults.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::config::file(bytes));
