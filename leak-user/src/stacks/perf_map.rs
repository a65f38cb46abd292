//! Symbols of just-in-time compiled code, as runtimes write them to `/tmp/perf-PID.map` when asked
//! to (`node --perf-basic-prof`, the JVM's perf-map agents).

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::Duration;

use super::modules::start_ticks;
use super::symbolize::shortened;
use crate::event::{ProcessKey, Timestamp};

/// Most bytes of a map that are read.
const MAX_MAP: u64 = 64 << 20;

/// Most symbols of a map that are kept: of lines as short as can be, the text could hold millions.
const MAX_SYMBOLS: usize = 256 << 10;

/// How often a map is read again: what is compiled anew may lie where something else was.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The code from an address to `end`.
#[derive(Debug)]
struct Symbol {
    end: u64,
    name: Arc<str>,
}

/// A process's map.
#[derive(Debug, Default)]
pub(super) struct PerfMap {
    /// By start; none overlaps another.
    symbols: BTreeMap<u64, Symbol>,
    read_at: Option<Timestamp>,
}

impl PerfMap {
    /// The function that holds `address`. Reads the map, again when that was long ago: runtimes append
    /// what they compile.
    pub(super) fn at(&mut self, process: ProcessKey, address: u64, now: Timestamp) -> Option<&str> {
        let fresh = self.read_at.is_some_and(|at| now.since(at) < READ_AGAIN_AFTER);
        if !fresh {
            self.read_at = Some(now);
            let ours = || start_ticks(process.pid).ok() == Some(process.start_ticks);
            if let Some(text) = Self::read(process.pid).filter(|_| ours()) {
                self.symbols = Self::parse(&text);
            }
        }
        self.find(address)
    }

    /// How many symbols it holds.
    pub(super) fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Forgets them; the map is read again when it is needed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
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

    /// Reads a map's lines. Where two overlap the later one is the younger: the runtime has compiled
    /// something else into the memory of what it has thrown away.
    fn parse(text: &str) -> BTreeMap<u64, Symbol> {
        let mut symbols = BTreeMap::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ' ');
            let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
            let (Some(start), Some(length)) = (number(), number()) else { continue };
            let (Some(end), Some(name)) = (start.checked_add(length), parts.next()) else {
                continue;
            };
            if symbols.len() >= MAX_SYMBOLS {
                break;
            }
            make_room(&mut symbols, start, end);
            symbols.insert(start, Symbol { end, name: shortened(name).into() });
        }
        symbols
    }

    /// A map with these lines.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn parsed(text: &str) -> Self {
        Self { symbols: Self::parse(text), read_at: None }
    }

    pub(super) fn find(&self, address: u64) -> Option<&str> {
        let (_, symbol) = self.symbols.range(..=address).next_back()?;
        (address < symbol.end).then_some(&*symbol.name)
    }
}

/// Cuts everything between `start` and `end` out of what is there.
fn make_room(symbols: &mut BTreeMap<u64, Symbol>, start: u64, end: u64) {
    if let Some((_, before)) = symbols.range_mut(..start).next_back()
        && before.end > start
    {
        let rest = Symbol { end: before.end, name: Arc::clone(&before.name) };
        before.end = start;
        if rest.end > end {
            symbols.insert(end, rest);
        }
    }
    while let Some((&covered, _)) = symbols.range(start..end).next() {
        if let Some(symbol) = symbols.remove(&covered)
            && symbol.end > end
        {
            symbols.insert(end, symbol);
        }
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
        assert_eq!(
            map.find(0x14),
            Some("LazyCompile:~a b /x.js:1"),
            "what the younger one left of the older"
        );
    }

    #[test]
    fn the_younger_of_two_that_overlap_counts() {
        let symbols = PerfMap::parse("100 100 old\n180 10 inner\n1f0 100 next\n140 8 last\n");
        let map = PerfMap { symbols, read_at: None };
        let at = |address| map.find(address);
        assert_eq!(
            (at(0x100), at(0x13f), at(0x140), at(0x147)),
            (Some("old"), Some("old"), Some("last"), Some("last"))
        );
        assert_eq!(
            (at(0x148), at(0x180), at(0x190), at(0x1ef)),
            (Some("old"), Some("inner"), Some("old"), Some("old"))
        );
        assert_eq!((at(0x1f0), at(0x2ef), at(0x2f0)), (Some("next"), Some("next"), None));
    }
}
