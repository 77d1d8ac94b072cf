//! Any control data, lock, label or history is read or refused.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::texts::server_files(bytes));
