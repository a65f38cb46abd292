//! This room's part of [`crate::fuzzing`].

use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Once};

use super::binary::{BinaryStore, FileId};
use super::culprit::{culprit, matches};
use super::identity::Identity;
use super::locate::Line;
use super::modules::{Mapping, Modules};
use super::perf_map::PerfMap;
use super::raw::RawStack;
use super::unwind::walk;
use super::{Frame, Language, golang, guarded, python};
use crate::event::ProcessKey;

/// Where mapped files begin in the stacks that are made up here.
const BASE: u64 = 0x1000;

/// The patterns of the rules for culprits, and the names that are held against them.
pub(crate) fn culprit_rules(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (glob, text) = text.split_once('\n').unwrap_or_default();
    matches(glob, text);
    let names = text.lines().map(|name| Frame {
        function: Some(name.to_owned()),
        module: text.lines().next().map(str::to_owned),
        file: Some(name.to_owned()),
        line: None,
        address: 0,
    });
    culprit(&names.take(64).collect::<Vec<_>>(), Language::Native, &[]);
}

/// A binary: headers, unwind rules, Go's tables and symbols, through the same door as real ones.
pub(crate) fn elf(data: &[u8]) {
    tolerate_others();
    let Some(file) = in_memory(data) else { return };
    let mut store = BinaryStore::new(Arc::default());
    let Ok(metadata) = file.metadata() else { return };
    let Some(binary) = store.pin(FileId::of(&metadata), || Some(file)) else { return };
    let addresses = binary.loaded().map_or_else(Vec::new, |loaded| {
        loaded.elf.sections.iter().map(|section| section.address).take(16).collect()
    });
    for address in addresses {
        for step in [0, 1, 16] {
            // What other crates' parsers cannot bear is caught there, too.
            guarded(|| binary.symbols_at(address.wrapping_add(step)));
        }
    }
}

/// Lets other crates' parsers panic, as the resolver does, but not ours: the fuzzer would take any panic for
/// a finding, even one that is caught.
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
pub(crate) fn stack(data: &[u8]) {
    tolerate_others();
    let (bytes, code) = data.split_at(data.len().min(512));
    let Some(file) = in_memory(code) else { return };
    let mut store = BinaryStore::new(Arc::default());
    let Ok(metadata) = file.metadata() else { return };
    let binary = store.pin(FileId::of(&metadata), || Some(file));
    let modules = Modules::made_up(vec![Mapping {
        start: BASE,
        end: BASE + (1 << 20),
        offset: 0,
        path: Some("/fuzz".into()),
        binary,
    }]);
    let word = |at: usize| super::bytes::u64_at(bytes, at).unwrap_or(0);
    let sp = 0x7fff_0000;
    let raw = RawStack {
        process: ProcessKey { pid: 0, start_ticks: 0 },
        tid: 0,
        image: 0,
        ip: BASE + word(0) % (1 << 20),
        sp,
        bp: sp + word(8) % 512,
        preserved: [0; leak_common::stack::PRESERVED],
        wanted: 512,
        goroutine_window: [0; 64],
        interpreter_frames: Vec::new(),
        interpreter_whole: false,
        interpreter_tag: 0,
        bytes: bytes.to_vec(),
    };
    walk(&raw, &modules);
}

fn in_memory(data: &[u8]) -> Option<File> {
    let mut file = super::symbolize::memory_file()?;
    file.write_all(data).ok()?;
    Some(file)
}

/// `/proc/PID/maps` and `/proc/PID/stat`.
pub(crate) fn maps(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    text.lines().filter_map(Line::parse).for_each(drop);
    Identity::parse(&text);
}

/// Go's line table.
pub(crate) fn pclntab(data: &[u8]) {
    golang::fuzz(data);
}

/// A runtime's list of what it has compiled.
pub(crate) fn perf_map(data: &[u8]) {
    let map = PerfMap::parsed(&String::from_utf8_lossy(data));
    for address in [0, 0x10, 0x1000, u64::MAX] {
        map.find(address);
    }
}

/// What CPython keeps in its memory.
pub(crate) fn python(data: &[u8]) {
    python::fuzz(data);
}
