//! Any bytes from a peer are a message that is safe to step, or refused.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(surus::host::frame::check_raft_message(bytes, 2, 1)));
