//! Searches the memory that a process has allocated.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::model::ProcessKey;

/// Structures that are allocated begin at multiples of this.
const ALIGNED: usize = 16;
const CHUNK: usize = 1 << 20;
/// Most bytes that one search looks at, and how long it takes at most.
const MAX_BYTES: u64 = 256 << 20;
const LONGEST: Duration = Duration::from_millis(200);
/// Longest list of mappings that is read.
const MAX_MAPS: u64 = 16 << 20;

/// Memory that can be searched.
pub(super) trait Readable {
    /// Fills `into` with the bytes at `address`.
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()>;
}

impl Readable for leak_stacks::ProcessMemory {
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        Self::read(self, address, into)
    }
}

/// Up to `size` bytes at `address`, fewer where memory ends before that.
pub(super) fn object(memory: &dyn Readable, address: u64, size: usize) -> Option<Vec<u8>> {
    const PAGE: u64 = 4096;
    let mut bytes = vec![0; size];
    if memory.read(address, &mut bytes).is_some() {
        return Some(bytes);
    }
    bytes.truncate(usize::try_from(PAGE - address % PAGE).ok()?);
    memory.read(address, &mut bytes)?;
    Some(bytes)
}

/// Gives `take` each place in `areas` where something may begin, with up to `size` bytes from
/// there, until there are no more, it wants no more, or the search has taken long enough. Returns
/// where it may go on then.
pub(super) fn search(
    memory: &dyn Readable,
    areas: &[Range<u64>],
    size: usize,
    mut take: impl FnMut(u64, &[u8]) -> bool,
) -> Option<u64> {
    let until = Instant::now() + LONGEST;
    let mut left = MAX_BYTES;
    let mut buffer = vec![0; CHUNK + size];
    for area in areas {
        let mut at = area.start;
        while at < area.end {
            if left == 0 || Instant::now() >= until {
                return Some(at);
            }
            let held = usize::try_from(area.end - at).unwrap_or(usize::MAX);
            let bytes = buffer.get_mut(..held.min(CHUNK + size))?;
            if memory.read(at, bytes).is_none() {
                break;
            }
            for start in (0..bytes.len().min(CHUNK)).step_by(ALIGNED) {
                let end = bytes.len().min(start + size);
                let Some(object) = bytes.get(start..end) else { break };
                if !take(at + start as u64, object) {
                    return None;
                }
            }
            at += CHUNK as u64;
            left = left.saturating_sub(CHUNK as u64);
        }
    }
    None
}

/// Where a process has memory of its own that it writes to from `start` on, but for the main
/// thread's stack. What the C library allocates from first comes first.
pub(super) fn allocated(process: ProcessKey, start: u64) -> Vec<Range<u64>> {
    let mut text = Vec::new();
    let maps = File::open(format!("/proc/{}/maps", process.pid));
    if maps.and_then(|maps| maps.take(MAX_MAPS).read_to_end(&mut text)).is_err() {
        return Vec::new();
    }
    let areas = String::from_utf8_lossy(&text).lines().filter_map(area).collect::<Vec<_>>();
    let from_start = |area: Range<u64>| area.start.max(start)..area.end;
    areas.into_iter().map(from_start).filter(|area| !area.is_empty()).collect()
}

/// The area of such a line of `/proc/PID/maps`.
fn area(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (permissions, inode) = (words.next()?, words.nth(2)?);
    let name = words.next();
    let is_allocated = name.is_none_or(|name| name == "[heap]" || name.starts_with("[anon"));
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let is_own = permissions.starts_with("rw-p") && inode == "0" && is_allocated;
    is_own.then_some(hex(start)?..hex(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_memory_that_was_allocated() {
        let heap = "55d0c000-55d2d000 rw-p 00000000 00:00 0                  [heap]";
        assert_eq!(area(heap), Some(0x55d0_c000..0x55d2_d000));
        assert_eq!(area("7f00-7f10 rw-p 00000000 00:00 0 "), Some(0x7f00..0x7f10));
        let named = "7f00-7f10 rw-p 00000000 00:00 0 [anon:malloc]";
        assert_eq!(area(named), Some(0x7f00..0x7f10));
        for other in [
            "7ffc-7ffd rw-p 00000000 00:00 0 [stack]",
            "7f00-7f10 r--p 00000000 00:00 0 ",
            "7f00-7f10 rw-s 00000000 00:00 0 ",
            "7f00-7f10 rw-p 00001000 fd:01 42 /usr/lib/x.so",
            "7f00-7f10 rw-p 00000000 00:00",
            "x-7f10 rw-p 00000000 00:00 0",
            "",
        ] {
            assert_eq!(area(other), None, "{other}");
        }
    }

    struct Bytes(Vec<u8>);

    impl Readable for Bytes {
        fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
            let start = usize::try_from(address).ok()?;
            into.copy_from_slice(self.0.get(start..start.checked_add(into.len())?)?);
            Some(())
        }
    }

    #[test]
    fn every_place_is_seen_once_and_whole_across_chunks() {
        let memory = Bytes(vec![7; 2 * CHUNK + 64]);
        let end = memory.0.len() as u64;
        let mut places = Vec::new();
        let areas = [0..end, end..end + 4096, 0..32];
        let goes_on = search(&memory, &areas, 48, |at, bytes| {
            assert!(bytes.len() == 48 || at + 48 > end || places.len() >= memory.0.len() / ALIGNED);
            places.push(at);
            true
        });
        assert_eq!(goes_on, None);
        let expected: Vec<u64> = (0..end).step_by(ALIGNED).chain([0, 16]).collect();
        assert!(places == expected, "{} places", places.len());
    }

    #[test]
    fn an_object_at_the_end_of_memory_is_shorter() {
        let memory = Bytes(vec![7; 8192]);
        assert_eq!(object(&memory, 100, 2048).map(|bytes| bytes.len()), Some(2048));
        assert_eq!(object(&memory, 8000, 2048).map(|bytes| bytes.len()), Some(192));
        assert_eq!(object(&memory, 9000, 2048), None);
        assert_eq!(object(&memory, u64::MAX - 8, 2048), None);
    }
}
