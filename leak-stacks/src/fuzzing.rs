//! Every parser of untrusted bytes, as a function that takes any bytes.
//!
//! The programs in `fuzz/` run them for as long as one likes; a test runs them over their seeds and
//! over damaged ones, so that they cannot rot. None may panic, run for long, or take much memory,
//! whatever the bytes.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use crate::binary::modules::{Mapping, Modules};
use crate::binary::references::References;
use crate::binary::store::BinaryStore;
use crate::binary::symbols::Symbols;
use crate::culprit::application;
use crate::culprit::glob::Glob;
use crate::languages::language::{Code, LazyMemory, Process};
use crate::languages::perf_map::PerfMap;
use crate::languages::runtimes::{Languages, Runtimes};
use crate::languages::{go, jvm as java, php as zend, python, ruby as cruby, v8 as javascript};
use crate::process::ProcessKey;
use crate::process::file_id::FileId;
use crate::process::maps::MapsEntry;
use crate::process::stat::Stat;
use crate::raw::RawStack;
use crate::sources::fuzz as any_source;
use crate::stack::{Frame, Language};
use crate::time::Timestamp;
use crate::unwind::walk::walk;

/// A function that parses any bytes.
pub type Target = fn(&[u8]);

/// All targets of this crate, by the names of their programs in `fuzz/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("culprit_rules", culprit_rules),
    ("elf", elf),
    ("jvm", jvm),
    ("maps", maps),
    ("pclntab", pclntab),
    ("perf_map", perf_map),
    ("php", php),
    ("python", python),
    ("ruby", ruby),
    ("sources", sources),
    ("stack", stack),
    ("v8", v8),
];

/// How long each target is tried in tests.
const SPAN: Duration = Duration::from_secs(1);
/// How long one input may take, on a machine that is busy with other tests.
const MOST: Duration = Duration::from_secs(5);

/// Runs the target of this name.
///
/// # Panics
/// When there is none.
pub fn run(name: &str, data: &[u8]) {
    run_of(TARGETS, name, data);
}

/// Runs the one of `targets` that has this name.
///
/// # Panics
/// When there is none.
pub fn run_of(targets: &[(&str, Target)], name: &str, data: &[u8]) {
    let found = targets.iter().find(|(target, _)| *target == name);
    let (_, target) = found.unwrap_or_else(|| panic!("there is no target {name}"));
    target(data);
}

/// Runs targets over their seeds, which are below `seeds`, and over damaged ones.
///
/// # Panics
/// When a target has no seeds, panics, or takes long.
pub fn try_out(targets: &[(&str, Target)], seeds: &Path) {
    for (name, target) in targets {
        let try_one = |data: &[u8]| {
            let began = Instant::now();
            target(data);
            let took = began.elapsed();
            assert!(took < MOST, "{name}: {} bytes took {took:?}", data.len());
        };
        let Ok(directory) = std::fs::read_dir(seeds.join(name)) else {
            panic!("{name} has no directory of seeds")
        };
        let mut paths: Vec<_> = directory.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let seeds: Vec<_> = paths.iter().filter_map(|path| std::fs::read(path).ok()).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds.iter().for_each(|seed| try_one(seed));
        let mut random = Random(1);
        let until = Instant::now() + SPAN;
        while Instant::now() < until {
            let mut data = seeds[random.below(seeds.len())].clone();
            for _ in 0..=random.below(8) {
                random.damage(&mut data);
            }
            try_one(&data);
        }
    }
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        const FACTOR: u64 = 6_364_136_223_846_793_005;
        self.0 = self.0.wrapping_mul(FACTOR).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }

    fn damage(&mut self, data: &mut Vec<u8>) {
        let at = self.below(data.len());
        match self.below(4) {
            0 => data.truncate(at),
            1 => {
                let word = [0, u64::MAX, 1 << 63, 1 << 31][self.below(4)].to_le_bytes();
                let length = [1, 2, 4, 8][self.below(4)].min(data.len() - at);
                data[at..at + length].copy_from_slice(&word[..length]);
            }
            2 => {
                let from = self.below(data.len());
                let part = data[from..].iter().take(64).copied().collect::<Vec<_>>();
                data.splice(at..at, part);
            }
            _ => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = self.below(256) as u8;
                }
            }
        }
    }
}

/// Where mapped files begin in the stacks that are made up here.
const BASE: u64 = 0x1000;

/// The patterns of the rules for culprits, and the names that are held against them.
pub fn culprit_rules(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (glob, text) = text.split_once('\n').unwrap_or_default();
    if let Ok(glob) = glob.parse::<Glob>() {
        let _ = glob.matches(text);
    }
    let names = text.lines().map(|name| Frame {
        function: Some(name.to_owned()),
        module: text.lines().next().map(str::to_owned),
        file: Some(name.to_owned()),
        line: None,
        address: 0,
    });
    application(&names.take(64).collect::<Vec<_>>(), Language::Native, &[]);
}

/// A binary: headers, unwind rules, Go's tables and symbols, through the same door as real ones.
pub fn elf(data: &[u8]) {
    tolerate_others();
    let Some(file) = in_memory(data) else { return };
    let mut store = BinaryStore::new(Arc::default());
    let Ok(metadata) = file.metadata() else { return };
    let Some(binary) = store.pin(FileId::of(&metadata), None, || Some(file)) else { return };
    let addresses: Vec<_> = binary.elf().map_or_else(Vec::new, |elf| {
        elf.sections.iter().map(|section| section.address).take(16).collect()
    });
    if let Some(references) = binary.facts::<References>() {
        assert!(references.iter().count() <= data.len());
    }
    let Some(symbols) = binary.facts::<Symbols>() else { return };
    with_runtimes(&Modules::made_up(Vec::new()), |runtimes, process| {
        for &address in &addresses {
            runtimes.name_code(&Code { address, in_file: Some((&binary, address)) }, process);
        }
    });
    for address in addresses {
        for step in [0, 1, 16] {
            symbols.at(address.wrapping_add(step));
        }
    }
}

/// Source text of each language.
fn sources(data: &[u8]) {
    any_source(data);
}

/// Lets other crates' parsers panic, as the resolver does, but not ours: the fuzzer would take any
/// panic for a finding, even one that is caught.
fn tolerate_others() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if cfg!(test) {
            return;
        }
        std::panic::set_hook(Box::new(|panic| {
            if panic.location().is_none_or(|at| at.file().contains(env!("CARGO_PKG_NAME"))) {
                eprintln!("{panic}");
                std::process::abort();
            }
        }));
    });
}

/// A stack whose bytes and code, a binary, are the process's own.
pub fn stack(data: &[u8]) {
    tolerate_others();
    let (bytes, code) = data.split_at(data.len().min(512));
    let Some(file) = in_memory(code) else { return };
    let mut store = BinaryStore::new(Arc::default());
    let Ok(metadata) = file.metadata() else { return };
    let binary = store.pin(FileId::of(&metadata), None, || Some(file));
    let modules = Modules::made_up(vec![Mapping {
        start: BASE,
        end: BASE + (1 << 20),
        offset: 0,
        path: Some("/fuzz".into()),
        binary,
    }]);
    let word = |at: usize| crate::bytes::u64_at(bytes, at).unwrap_or(0);
    let sp = 0x7fff_0000;
    let raw = RawStack {
        process: ProcessKey { pid: 0, start_ticks: 0 },
        tid: 0,
        image: 0,
        ip: BASE + word(0) % (1 << 20),
        sp,
        bp: sp + word(8) % 512,
        preserved: [0; 5],
        registers_known: true,
        entry: None,
        wanted: 512,
        wanted_most: false,
        goroutine_window: vec![0; 64],
        interpreter_frames: Vec::new(),
        interpreter_whole: false,
        interpreter_tag: 0,
        bytes: bytes.to_vec(),
    };
    with_runtimes(&modules, |runtimes, process| {
        walk(&raw, &modules, &mut runtimes.unwinder(process));
    });
}

/// The runtimes of a process that does not exist.
fn with_runtimes(modules: &Modules, look: impl FnOnce(&mut Runtimes, &Process<'_>)) {
    let (mut runtimes, memory) = (Runtimes::default(), LazyMemory::default());
    let key = ProcessKey { pid: 0, start_ticks: 0 };
    let process = Process { key, modules, memory: &memory, now: Timestamp(0) };
    runtimes.look(&mut Languages::default(), &process);
    look(&mut runtimes, &process);
}

fn in_memory(data: &[u8]) -> Option<File> {
    let mut file = crate::process::memory_file::memory_file()?;
    file.write_all(data).ok()?;
    Some(file)
}

/// `/proc/PID/maps` and `/proc/PID/stat`.
pub fn maps(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    text.lines().filter_map(MapsEntry::parse).for_each(drop);
    let _ = Stat::parse(data);
}

/// Go's line table.
pub fn pclntab(data: &[u8]) {
    go::fuzz(data);
}

/// A runtime's list of what it has compiled.
pub fn perf_map(data: &[u8]) {
    let map = PerfMap::parsed(&String::from_utf8_lossy(data));
    for address in [0, 0x10, 0x1000, u64::MAX] {
        map.find(address);
    }
}

/// What CPython keeps in its memory.
pub fn python(data: &[u8]) {
    python::fuzz(data);
}

/// The memory of a Ruby VM.
pub fn ruby(data: &[u8]) {
    cruby::fuzz(data);
}

/// The memory of PHP's engine.
pub fn php(data: &[u8]) {
    zend::fuzz(data);
}

/// The memory of a Java VM.
pub fn jvm(data: &[u8]) {
    java::fuzz(data);
}

/// The memory of V8.
pub fn v8(data: &[u8]) {
    javascript::fuzz(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_survives_its_seeds_and_damaged_ones() {
        try_out(TARGETS, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds"));
    }
}
