//! Any JSON can be stored, read and patched.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::config::dynamic(bytes));
