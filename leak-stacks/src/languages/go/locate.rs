//! Finds what the Go toolchain puts into a binary: by section or, without section headers, by its
//! first bytes.

use std::fs::File;

use crate::binary::elf::{Elf, Section, Segment, read_exact};
use crate::languages::go::header::Header;
use crate::languages::go::module::Module;
use crate::languages::go::scan::{is_data, scan};

/// Sections that hold the line table; the second is that of position-independent executables, which
/// the C linker merges into another.
const LINE_TABLES: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
const BUILD_INFO: &str = ".go.buildinfo";
/// What the build information begins with, see `debug/buildinfo` of Go's library.
pub(crate) const BUILD_INFO_MAGIC: &[u8] = b"\xff Go buildinf:";
const BUILD_INFO_ALIGNMENT: usize = 16;
/// Most places that are taken for a line table until one is.
const MAX_CANDIDATES: usize = 4;

/// A stretch of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

impl From<&Section> for Place {
    fn from(section: &Section) -> Self {
        Self { address: section.address, offset: section.offset, size: section.size }
    }
}

/// Whether the sections say that the Go toolchain was at work, or nothing.
pub(crate) fn may_be_go(elf: &Elf) -> bool {
    let marks = [BUILD_INFO, ".note.go.buildid"];
    elf.sections.is_empty()
        || LINE_TABLES.iter().chain(&marks).any(|name| elf.section(name).is_some())
}

/// The line table with its header and, when it is found, the description of the program.
pub(crate) fn line_table(elf: &Elf, file: &File) -> Option<(Place, Header, Option<Module>)> {
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
pub(crate) fn build_info(elf: &Elf, file: &File) -> Option<u64> {
    if let Some(section) = elf.section(BUILD_INFO) {
        return Some(section.offset);
    }
    scan(elf, file, is_data, BUILD_INFO_ALIGNMENT, |address, data| {
        data.starts_with(BUILD_INFO_MAGIC).then(|| elf.offset_of_address(address)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An ELF file without sections, and one writable segment with these bytes at 0x10000.
    fn file(data: &[u8]) -> File {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut put = |at: usize, value: u64, size: usize| {
            bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        // x86-64; the program headers' place, size and number.
        for (at, value) in [(18, 62), (32, 64), (54, 56), (56, 1)] {
            put(at, value, 2);
        }
        // PT_LOAD, readable and writable, at 0x10000; the lengths in the file and in memory.
        for (at, value, size) in [(64, 1, 4), (68, 6, 4), (72, 120, 8), (80, 0x10000, 8)] {
            put(at, value, size);
        }
        put(96, data.len() as u64, 8);
        put(104, data.len() as u64, 8);
        bytes.extend(data);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    const HEADER: &[u8] = &[0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];

    #[test]
    fn what_only_begins_like_a_table_is_none() {
        for data in [&[][..], HEADER, &HEADER.repeat(10_000), &[0xff; 100]] {
            let file = file(data);
            let elf = Elf::read(&file).unwrap();
            assert!(may_be_go(&elf), "without sections it may be anything");
            assert!(line_table(&elf, &file).is_none());
            assert!(build_info(&elf, &file).is_none());
        }
    }

    #[test]
    fn a_table_that_is_described_is_found_where_it_lies() {
        // Behind some bytes: the header with the names at 72, a description of it and of the code.
        let mut data = vec![7; 40];
        let table = 0x10000 + data.len() as u64;
        data.extend(HEADER);
        data.extend([1u64, 1, 0, 72, 72, 72, 72, 72].iter().flat_map(|word| word.to_le_bytes()));
        let mut words = [0u64; 44];
        words[..2].copy_from_slice(&[table, table + 72]);
        words[13..15].copy_from_slice(&[table + 72, 8]);
        words[22..24].copy_from_slice(&[0x10000, 0x10008]);
        data.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let file = file(&data);
        let elf = Elf::read(&file).unwrap();
        let (place, _, module) = line_table(&elf, &file).unwrap();
        assert_eq!((place.address, place.offset, place.size), (table, 160, 80));
        assert_eq!(module.unwrap().text(), 0x10000);
    }

    #[test]
    fn build_information_is_found_where_it_is_aligned() {
        for (before, found) in [(32, Some(152)), (40, None)] {
            let data = [vec![0; before], BUILD_INFO_MAGIC.to_vec(), vec![0; 64]].concat();
            let file = file(&data);
            let elf = Elf::read(&file).unwrap();
            assert_eq!(build_info(&elf, &file), found);
        }
    }
}
