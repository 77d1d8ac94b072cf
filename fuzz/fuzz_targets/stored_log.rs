//! Any stored log that passed its checksums is restored and goes on.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::host::fuzz::stored_log(bytes));
