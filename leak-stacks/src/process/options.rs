//! What a process was started with.

use std::fs::File;
use std::io::Read;

/// Most bytes of a command line, and of an environment, that are read.
const MAX_OPTIONS: u64 = 1 << 20;

/// Whether `option` is in a process's command line or environment.
pub(crate) fn is_given(pid: u32, option: &str) -> bool {
    let is_in = |file: &str| {
        let mut text = Vec::new();
        let file = File::open(format!("/proc/{pid}/{file}"));
        let read = file.and_then(|file| file.take(MAX_OPTIONS).read_to_end(&mut text));
        read.is_ok() && text.windows(option.len()).any(|window| window == option.as_bytes())
    };
    is_in("cmdline") || is_in("environ")
}
