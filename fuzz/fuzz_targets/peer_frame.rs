//! Any frame is read or refused.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::host::fuzz::peer_frame(bytes));
