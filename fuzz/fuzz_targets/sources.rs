#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leak_stacks::fuzzing::run("sources", data));
