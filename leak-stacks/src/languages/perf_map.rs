//! Symbols of just-in-time compiled code, as runtimes write them to `/tmp/perf-PID.map` when asked
//! to: `node --perf-basic-prof --interpreted-frames-native-stack`, `jcmd PID Compiler.perfmap`,
//! `python -X perf`, `ruby --yjit-perf`, `php -d opcache.jit_debug=16`, `DOTNET_PerfMapEnabled=1`,
//! `erl +JPperf true`. (The JVM's `-XX:+DumpPerfMapAtExit` writes one when it is of no use any
//! more.)

mod name;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::Duration;

use crate::binary::symbols::Symbol;
use crate::languages::call::Named;
use crate::languages::language::{Code, Language, Process, Runtime};
use crate::languages::perf_map::name::split;
use crate::process::ProcessKey;
use crate::process::maps::locate_in_root;
use crate::process::stat::start_ticks;
use crate::stack;
use crate::time::Timestamp;

/// Most bytes of a map that are read, and most symbols that are kept of it.
const MAX_MAP: u64 = 32 << 20;
const MAX_SYMBOLS: usize = 256 << 10;
/// Most symbols of all processes together. A symbol takes about 200 bytes.
const MAX_ALL_SYMBOLS: usize = 512 << 10;

/// How often it is looked at most whether a map has changed: runtimes append what they compile, and
/// write the whole map anew when they are asked for it again.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The same for a map of more than so many bytes, which takes a while to read.
const LARGE: u64 = 4 << 20;
const LOOK_AGAIN_AT_LARGE_AFTER: Duration = Duration::from_secs(10);

/// The maps of all processes, which share a limit.
#[derive(Debug, Default)]
pub(crate) struct PerfMaps {
    maps: Rc<RefCell<Maps>>,
}

impl Language for PerfMaps {
    fn find(&mut self, process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        let id = (process.key, process.modules.image);
        let maps = Rc::clone(&self.maps);
        maps.borrow_mut().hold(id);
        Some(Box::new(OwnPerfMap { id, maps }))
    }

    fn value(&self) -> Option<stack::Language> {
        None
    }
}

/// One program of one process.
type ProgramId = (ProcessKey, u64);

/// The map of one program.
#[derive(Debug)]
struct OwnPerfMap {
    id: ProgramId,
    maps: Rc<RefCell<Maps>>,
}

impl Runtime for OwnPerfMap {
    fn name_code(&mut self, code: &Code<'_>, process: &Process<'_>) -> Option<Named<Symbol>> {
        if code.in_file.is_some() {
            return None;
        }
        let symbol = self.maps.borrow_mut().at(self.id, code.address, process.now)?;
        Some(Named { calls: vec![(*symbol).clone()], is_lasting: false })
    }
}

impl Drop for OwnPerfMap {
    fn drop(&mut self) {
        self.maps.borrow_mut().release(self.id);
    }
}

/// The maps, each with the number of its users: when a process's mappings are read anew, the
/// program stays the same.
#[derive(Debug, Default)]
struct Maps(HashMap<ProgramId, (PerfMap, usize)>);

impl Maps {
    fn hold(&mut self, id: ProgramId) {
        self.0.entry(id).or_default().1 += 1;
    }

    fn release(&mut self, id: ProgramId) {
        if let Some((_, users)) = self.0.get_mut(&id) {
            *users -= 1;
            if *users == 0 {
                self.0.remove(&id);
            }
        }
    }

    /// The function that holds `address`.
    fn at(&mut self, id: ProgramId, address: u64, now: Timestamp) -> Option<Rc<Symbol>> {
        let (map, _) = self.0.get_mut(&id)?;
        if map.refresh(id.0, now) {
            self.make_room(id);
        }
        self.0.get(&id)?.0.find(address).map(Rc::clone)
    }

    /// Lets go of the maps that were looked at least lately, except that of `kept`, until all take
    /// no more than they may. They are read again when they are needed.
    fn make_room(&mut self, kept: ProgramId) {
        let total = |maps: &Self| maps.0.values().map(|(map, _)| map.symbols.len()).sum::<usize>();
        while total(self) > MAX_ALL_SYMBOLS {
            let others =
                self.0.iter_mut().filter(|(id, (map, _))| **id != kept && !map.symbols.is_empty());
            let Some((_, (oldest, _))) = others.min_by_key(|(_, (map, _))| map.looked_at) else {
                break;
            };
            *oldest = PerfMap::default();
        }
    }
}

/// The code from an address to `end`.
#[derive(Debug)]
struct Compiled {
    end: u64,
    symbol: Rc<Symbol>,
}

/// Device, inode, length and time of change of a file: as long as they stay, it has not changed.
type Version = (u64, u64, u64, i64, i64);

/// A process's map.
#[derive(Debug, Default)]
pub(crate) struct PerfMap {
    /// By start; none overlaps another.
    symbols: BTreeMap<u64, Compiled>,
    version: Option<Version>,
    looked_at: Option<Timestamp>,
}

impl PerfMap {
    /// Reads the map if it has changed; says whether it did. A process that is gone keeps what it
    /// had.
    fn refresh(&mut self, process: ProcessKey, now: Timestamp) -> bool {
        let is_large = self.version.is_some_and(|version| version.2 > LARGE);
        let pause = if is_large { LOOK_AGAIN_AT_LARGE_AFTER } else { LOOK_AGAIN_AFTER };
        if self.looked_at.is_some_and(|at| now.since(at) < pause) {
            return false;
        }
        self.looked_at = Some(now);
        let Some((file, metadata)) = Self::open(process.pid) else { return false };
        let version = version(&metadata);
        if self.version == Some(version) {
            return false;
        }
        let mut text = Vec::new();
        let read = file.take(MAX_MAP).read_to_end(&mut text);
        // Only what its own PID led to is the process's.
        if read.is_err() || start_ticks(process.pid).ok() != Some(process.start_ticks) {
            return false;
        }
        self.symbols = Self::parse(&String::from_utf8_lossy(&text));
        self.version = Some(version);
        true
    }

    /// The map that the process itself has written.
    ///
    /// Inside its container the process knows itself by another number, and names the file so.
    /// Anybody may write to `/tmp`: no link there leads out of the container, a FIFO is not opened,
    /// and only what the process's own user has written is believed.
    fn open(pid: u32) -> Option<(File, Metadata)> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace())
        };
        let inner = field("NSpid:")?.last()?;
        // Real, effective, saved, and that of the files it makes.
        let owner: u32 = field("Uid:")?.nth(3)?.parse().ok()?;
        let (place, metadata) = locate_in_root(pid, &format!("/tmp/perf-{inner}.map"))?;
        if metadata.uid() != owner {
            return None;
        }
        Some((File::open(format!("/proc/self/fd/{}", place.as_raw_fd())).ok()?, metadata))
    }

    /// Reads a map's lines. Where two overlap the later one is the younger: the runtime has
    /// compiled something else into the memory of what it has thrown away.
    fn parse(text: &str) -> BTreeMap<u64, Compiled> {
        let mut symbols = BTreeMap::new();
        for line in text.lines() {
            if symbols.len() >= MAX_SYMBOLS {
                break;
            }
            let mut parts = line.splitn(3, ' ');
            let mut number = || {
                let digits = parts.next()?;
                u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
            };
            let (Some(start), Some(length)) = (number(), number()) else { continue };
            let (Some(end), Some(name)) = (start.checked_add(length), parts.next()) else {
                continue;
            };
            cut_out(&mut symbols, start, end);
            symbols.insert(start, Compiled { end, symbol: Rc::new(split(name)) });
        }
        symbols
    }

    /// A map with these lines.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn parsed(text: &str) -> Self {
        Self { symbols: Self::parse(text), ..Self::default() }
    }

    /// The function that holds `address`.
    pub(crate) fn find(&self, address: u64) -> Option<&Rc<Symbol>> {
        let (_, code) = self.symbols.range(..=address).next_back()?;
        (address < code.end).then_some(&code.symbol)
    }
}

fn version(metadata: &Metadata) -> Version {
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), metadata.len(), changed.0, changed.1)
}

/// Cuts everything between `start` and `end` out of what is there.
fn cut_out(symbols: &mut BTreeMap<u64, Compiled>, start: u64, end: u64) {
    if let Some((_, before)) = symbols.range_mut(..start).next_back()
        && before.end > start
    {
        let rest = Compiled { end: before.end, symbol: Rc::clone(&before.symbol) };
        before.end = start;
        if rest.end > end {
            symbols.insert(end, rest);
        }
    }
    while let Some((&covered, _)) = symbols.range(start..end).next() {
        if let Some(code) = symbols.remove(&covered)
            && code.end > end
        {
            symbols.insert(end, code);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn name_at(map: &PerfMap, address: u64) -> Option<&str> {
        map.find(address)?.function.as_deref()
    }

    #[test]
    fn finds_by_address_and_survives_garbage() {
        let map = PerfMap::parsed(
            "20 0x10 late\n0x10 8 LazyCompile:~a b /x.js:1\n10 4 younger\nzz\n\n1\n\
                       ffffffffffffffff 2 too far\n",
        );
        assert_eq!((name_at(&map, 0x12), name_at(&map, 0x2f)), (Some("younger"), Some("late")));
        assert_eq!(
            (name_at(&map, 0x30), name_at(&map, 0x1f), name_at(&map, 0)),
            (None, None, None)
        );
        assert_eq!(name_at(&map, 0x14), Some("a b"), "what the younger one left of the older");
    }

    #[test]
    fn the_younger_of_two_that_overlap_counts() {
        let map = PerfMap::parsed("100 100 old\n180 10 inner\n1f0 100 next\n140 8 last\n");
        let expected = [
            (0x100, "old"),
            (0x13f, "old"),
            (0x140, "last"),
            (0x147, "last"),
            (0x148, "old"),
            (0x180, "inner"),
            (0x190, "old"),
            (0x1ef, "old"),
            (0x1f0, "next"),
            (0x2ef, "next"),
        ];
        for (address, name) in expected {
            assert_eq!(name_at(&map, address), Some(name), "{address:x}");
        }
        assert_eq!(name_at(&map, 0x2f0), None);
    }

    /// This process's own map, for as long as the value lives.
    struct Own(String);

    impl Own {
        fn new() -> Self {
            Self(format!("/tmp/perf-{}.map", std::process::id()))
        }
    }

    impl Drop for Own {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn reads_what_the_process_wrote_and_nothing_else() {
        let pid = std::process::id();
        let process = ProcessKey { pid, start_ticks: start_ticks(pid).unwrap() };
        let own = Own::new();
        let mut maps = Maps::default();
        maps.hold((process, 0));
        let mut seconds = 0;
        let mut look = |address| {
            seconds += 11;
            let now = Timestamp(0).after(Duration::from_secs(seconds));
            maps.at((process, 0), address, now).and_then(|symbol| symbol.function.clone())
        };
        assert_eq!(look(0x10), None);
        fs::write(&own.0, "10 10 first\n").unwrap();
        assert_eq!(look(0x10).as_deref(), Some("first"));
        fs::write(&own.0, "10 10 first\n20 10 second\n").unwrap();
        assert_eq!(look(0x20).as_deref(), Some("second"), "the file has grown");

        // What lies in its place from now on changes nothing, and blocks nobody.
        fs::remove_file(&own.0).unwrap();
        let name = std::ffi::CString::new(own.0.clone()).unwrap();
        // SAFETY: the name is zero-terminated and outlives the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert_eq!(look(0x10).as_deref(), Some("first"));
        fs::remove_file(&own.0).unwrap();
        symlink("/dev/zero", &own.0).unwrap();
        assert_eq!(look(0x10).as_deref(), Some("first"));
        fs::remove_file(&own.0).unwrap();
        fs::write(&own.0, "10 10 of another\n").unwrap();
        std::os::unix::fs::chown(&own.0, Some(12_345), None).unwrap();
        assert_eq!(look(0x10).as_deref(), Some("first"), "another user's");
    }

    #[test]
    fn endless_maps_are_cut() {
        let line = |at: usize| format!("{at:x}0 10 f{}\n", at % 7);
        let text: String = (0..MAX_SYMBOLS + 10).map(line).collect();
        assert_eq!(PerfMap::parse(&text).len(), MAX_SYMBOLS);
    }

    #[test]
    fn many_large_maps_make_room_for_one_another() {
        let key = |pid| (ProcessKey { pid, start_ticks: 0 }, 0);
        let mut maps = Maps::default();
        for pid in 1..=3 {
            let symbols = (0..MAX_ALL_SYMBOLS as u64 / 2)
                .map(|at| (at, Compiled { end: at + 1, symbol: Rc::default() }))
                .collect();
            let looked_at = Some(Timestamp(pid.into()));
            maps.0.insert(key(pid), (PerfMap { symbols, version: None, looked_at }, 1));
            maps.make_room(key(pid));
        }
        let held = |pid| maps.0[&key(pid)].0.symbols.len();
        assert_eq!([held(1) > 0, held(2) > 0, held(3) > 0], [false, true, true]);
        maps.release(key(1));
        assert_eq!(maps.0.len(), 2);
    }
}
