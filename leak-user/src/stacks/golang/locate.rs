//! Finds what the Go toolchain puts into a binary: by section, or without section headers by what it
//! begins with.

use std::fs::File;

use super::super::elf::{Elf, Section, Segment, read_exact};
use super::header::Header;
use super::module::Module;

/// Sections that hold the line table; the second is that of position-independent executables, which the
/// C linker merges into another.
const LINE_TABLES: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
const BUILD_INFO: &str = ".go.buildinfo";
/// What the build information begins with, see `debug/buildinfo` of Go's library.
pub(super) const BUILD_INFO_MAGIC: &[u8] = b"\xff Go buildinf:";
const BUILD_INFO_ALIGNMENT: usize = 16;
/// Most bytes of a file that are looked through.
const MAX_SCAN: u64 = 128 << 20;
const CHUNK: usize = 1 << 20;
/// Most places that are taken for a line table until one is.
const MAX_CANDIDATES: usize = 4;

/// A stretch of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl From<&Section> for Place {
    fn from(section: &Section) -> Self {
        Self { address: section.address, offset: section.offset, size: section.size }
    }
}

/// Whether the sections say that the Go toolchain was at work, or nothing.
pub(super) fn may_be_go(elf: &Elf) -> bool {
    let marks = [BUILD_INFO, ".note.go.buildid"];
    elf.sections.is_empty()
        || LINE_TABLES.iter().chain(&marks).any(|name| elf.section(name).is_some())
}

/// The line table with its header and, when it is found, the description of the program.
pub(super) fn line_table(elf: &Elf, file: &File) -> Option<(Place, Header, Option<Module>)> {
    if let Some(section) = LINE_TABLES.iter().find_map(|name| elf.section(name)) {
        let place = Place::from(section);
        let header = Header::read(&read_exact(file, place.offset, Header::SIZE).ok()?)?;
        let module = Module::find(elf, file, place.address, &header);
        return Some((place, header, module));
    }
    let mut tries = 0..MAX_CANDIDATES;
    let is_readable = |segment: &Segment| !segment.executable;
    scan(elf, file, is_readable, 8, |address, data| {
        if !Header::is_here(data) || tries.next().is_none() {
            return None;
        }
        let offset = elf.offset_of_address(address)?;
        let header = Header::read(&read_exact(file, offset, Header::SIZE).ok()?)?;
        // The same bytes may be elsewhere; only the table is described.
        let module = Module::find(elf, file, address, &header)?;
        let size = module.table_end()?.checked_sub(address)?;
        Some((Place { address, offset, size }, header, Some(module)))
    })
}

/// The build information's place in the file.
pub(super) fn build_info(elf: &Elf, file: &File) -> Option<u64> {
    if let Some(section) = elf.section(BUILD_INFO) {
        return Some(section.offset);
    }
    scan(elf, file, is_data, BUILD_INFO_ALIGNMENT, |address, data| {
        data.starts_with(BUILD_INFO_MAGIC).then(|| elf.offset_of_address(address)).flatten()
    })
}

/// Whether a segment holds data that a program may write to, if only until it is relocated.
pub(super) fn is_data(segment: &Segment) -> bool {
    segment.writable
}

/// Shows `look` what segments hold at every address that is a multiple of `step`: at least `step` bytes.
pub(super) fn scan<T>(
    elf: &Elf,
    file: &File,
    wanted: impl Fn(&Segment) -> bool,
    step: usize,
    mut look: impl FnMut(u64, &[u8]) -> Option<T>,
) -> Option<T> {
    let mut left = MAX_SCAN;
    for segment in elf.segments.iter().filter(|segment| wanted(segment)) {
        let skipped = segment.address.wrapping_neg() % step as u64;
        let mut at = skipped;
        while at < segment.file_size && left > 0 {
            let length = (segment.file_size - at).min(CHUNK as u64).min(left);
            let offset = segment.offset.checked_add(at)?;
            let Ok(data) = read_exact(file, offset, usize::try_from(length).ok()?) else { break };
            for (index, bytes) in data.chunks_exact(step).enumerate() {
                let within = index * step;
                let address = segment.address.checked_add(at)?.checked_add(within as u64)?;
                if let Some(found) = look(address, bytes) {
                    return Some(found);
                }
            }
            at += length;
            left -= length;
        }
    }
    None
}
