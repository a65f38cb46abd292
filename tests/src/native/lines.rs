//! The source line that debug information has for an instruction, as binutils' `addr2line` reads
//! it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

/// A file and a line; the compiler gives some instructions no line.
type Line = (String, Option<u32>);

/// Cached lines, by module and address.
type Known = BTreeMap<(String, u64), Arc<[Line]>>;

/// The source lines of the functions at `address` of `module`, inlined functions first. Reads the
/// debug file beside the module if there is one.
pub(super) fn at(module: &str, address: u64) -> Arc<[Line]> {
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let read = || {
        let debug = format!("{module}.debug");
        let file = if Path::new(&debug).exists() { &debug } else { module };
        let address = format!("{address:#x}");
        let output = Command::new("addr2line").args(["-i", "-e", file, &address]).output();
        let text =
            output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).into());
        let line = |line: &str| {
            let (file, number) = line.split(" (").next().unwrap_or(line).rsplit_once(':')?;
            Some((file.to_owned(), number.parse().ok().filter(|number| *number > 0)))
        };
        text.lines().filter_map(line).collect()
    };
    Arc::clone(known.entry((module.to_owned(), address)).or_insert_with(read))
}
