//! Any commands on any snapshot are applied alike on every node.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::replicated::state(bytes));
