#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| leak_user::fuzzing::run("drivers", data));
