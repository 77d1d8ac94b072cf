//! Any text that only the host reads is read or refused.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::host::fuzz::host_texts(bytes));
