#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| datasets::fuzzing::manifest(data));
