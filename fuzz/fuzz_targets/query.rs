#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| queries::search::fuzzing::query(data));
