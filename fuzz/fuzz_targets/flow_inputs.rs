//! Any order of events and answers keeps each flow's machine in order.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| surus::sim::fuzz::flows::inputs(bytes));
