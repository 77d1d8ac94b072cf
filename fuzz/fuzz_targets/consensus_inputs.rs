//! Whatever peers that know the password send is safe to step.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::host::fuzz::consensus_inputs(bytes));
