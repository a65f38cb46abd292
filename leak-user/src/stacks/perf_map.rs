//! Symbols of just-in-time compiled code, as runtimes write them to `/tmp/perf-PID.map` when asked
//! to (`node --perf-basic-prof`, the JVM's perf-map agents).

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::Duration;

use super::modules::start_ticks;
use super::symbolize::shortened;
use crate::event::{ProcessKey, Timestamp};

/// Most bytes of a map that are read.
const MAX_MAP: u64 = 64 << 20;

/// How often a map is read again at most, when code is not in it.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A process's map, sorted by address.
#[derive(Debug, Default)]
pub(super) struct PerfMap {
    /// Start, length, name.
    symbols: Vec<(u64, u64, String)>,
    read_at: Option<Timestamp>,
}

impl PerfMap {
    /// The function that holds `address`. Reads the map, again when it does not hold the address:
    /// runtimes append what they compile.
    pub(super) fn at(&mut self, process: ProcessKey, address: u64, now: Timestamp) -> Option<&str> {
        let fresh = self.read_at.is_some_and(|at| now.since(at) < READ_AGAIN_AFTER);
        if !fresh && self.find(address).is_none() {
            self.read_at = Some(now);
            let ours = || start_ticks(process.pid).ok() == Some(process.start_ticks);
            if let Some(text) = Self::read(process.pid).filter(|_| ours()) {
                self.symbols = Self::parse(&text);
            }
        }
        self.find(address)
    }

    /// The map that the process itself has written.
    fn read(pid: u32) -> Option<String> {
        // Inside its container the process knows itself by another number, and names the file so.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let inner =
            status.lines().find_map(|l| l.strip_prefix("NSpid:"))?.split_whitespace().last()?;
        let owner = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        // Anybody may write to /tmp: follow no link there, do not block on a FIFO, and believe only
        // what the process's own user has written.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(format!("/proc/{pid}/root/tmp/perf-{inner}.map"))
            .ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || metadata.uid() != owner {
            return None;
        }
        let mut text = Vec::new();
        file.take(MAX_MAP).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    fn parse(text: &str) -> Vec<(u64, u64, String)> {
        let mut symbols: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut parts = line.splitn(3, ' ');
                let start = u64::from_str_radix(parts.next()?, 16).ok()?;
                let length = u64::from_str_radix(parts.next()?, 16).ok()?;
                Some((start, length, shortened(parts.next()?)))
            })
            .collect();
        // Stable: of two symbols at one address the later line is the younger one.
        symbols.sort_by_key(|(start, ..)| *start);
        symbols
    }

    fn find(&self, address: u64) -> Option<&str> {
        let after = self.symbols.partition_point(|(start, ..)| *start <= address);
        let (start, length, name) = self.symbols.get(after.checked_sub(1)?)?;
        (address - start < *length).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_address_and_survives_garbage() {
        let symbols =
            PerfMap::parse("20 10 late\n10 8 LazyCompile:~a b /x.js:1\n10 4 younger\nzz\n\n1\n");
        let map = PerfMap { symbols, read_at: None };
        assert_eq!(map.find(0x12), Some("younger"));
        assert_eq!(map.find(0x2f), Some("late"));
        assert_eq!((map.find(0x30), map.find(0x1f), map.find(0)), (None, None, None));
    }
}
