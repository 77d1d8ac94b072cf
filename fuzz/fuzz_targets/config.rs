//! Any text is a configuration or a list of faults, never a panic.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| drop(surus::pure::config::load("f".as_ref(), text, &Default::default())));
