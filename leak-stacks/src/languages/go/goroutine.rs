//! Where a goroutine's descriptor, `runtime.g`, keeps its number.

use std::fs::File;

use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugInfo, EndianSlice, LittleEndian, UnitHeader,
    constants,
};

use crate::binary::elf::{Elf, read_exact};
use crate::bytes::u64_at;
use crate::languages::go::locate::{BUILD_INFO_MAGIC, build_info};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Largest debug information that is looked through for it.
const MAX_DEBUG: u64 = 96 << 20;
/// Longest version text that is read.
const MAX_VERSION: u64 = 256;

/// Offset of the number in the descriptor: as the debug information tells, or as the release has
/// it; `None` when that is not known either.
pub(crate) fn offset(elf: &Elf, file: &File) -> Option<usize> {
    told(elf, file).or_else(|| of_release(release(elf, file)?))
}

/// On amd64 (src/runtime/runtime2.go): 1.23 added `syscallbp` before it, 1.25 took `ret` out of
/// `gobuf`.
fn of_release(release: (u32, u32)) -> Option<usize> {
    match release {
        (1, 17..=22 | 25..=27) => Some(152),
        (1, 23..=24) => Some(160),
        _ => None,
    }
}

/// The release from the build information, see `debug/buildinfo` of Go's library.
fn release(elf: &Elf, file: &File) -> Option<(u32, u32)> {
    const HEADER: usize = 32;
    const INLINE: u8 = 2;
    let offset = build_info(elf, file)?;
    let read = |offset, size| read_exact(file, offset, size).ok();
    let header = read(offset, HEADER)?;
    if !header.starts_with(BUILD_INFO_MAGIC) {
        return None;
    }
    if header.get(15)? & INLINE != 0 {
        // Since Go 1.18 the text itself follows, after its length as a varint.
        let text = offset.checked_add(HEADER as u64)?;
        let [length] = read(text, 1)?[..] else { return None };
        return parse(&read(text + 1, usize::from(length))?);
    }
    // Before, a pointer to a string's pointer and length.
    let string = read(elf.offset_of_address(u64_at(&header, 16)?)?, 16)?;
    let length = u64_at(&string, 8).filter(|l| *l <= MAX_VERSION)?;
    parse(&read(elf.offset_of_address(u64_at(&string, 0)?)?, usize::try_from(length).ok()?)?)
}

/// `go1.22.3` and the like; development builds (`devel go1.27-…`) too.
fn parse(text: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, version) = text.split_once("go")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What the debug information tells.
fn told(elf: &Elf, file: &File) -> Option<usize> {
    let section = |name| {
        let section = elf.section(name)?;
        let size = elf.uncompressed_size(file, section).filter(|size| *size <= MAX_DEBUG);
        size.and_then(|_| elf.data(file, section).ok())
    };
    let (info, abbreviations) = (section(".debug_info")?, section(".debug_abbrev")?);
    let abbreviations = DebugAbbrev::new(&abbreviations, LittleEndian);
    let info = DebugInfo::new(&info, LittleEndian);
    let mut units = info.units();
    while let Some(unit) = units.next().ok()? {
        let known = unit.abbreviations(&abbreviations).ok()?;
        if let Some(offset) = in_unit(&unit, &known) {
            return usize::try_from(offset).ok();
        }
    }
    None
}

/// The same of one unit; only that of the runtime is looked at.
fn in_unit(unit: &UnitHeader<Slice<'_>>, abbreviations: &Abbreviations) -> Option<u64> {
    let mut entries = unit.entries(abbreviations);
    let is = |value: Option<AttributeValue<Slice<'_>>>, name: &str| matches!(value, Some(AttributeValue::String(text)) if text.slice() == name.as_bytes());
    if !is(entries.next_dfs().ok()??.attr_value(constants::DW_AT_name), "runtime") {
        return None;
    }
    let mut is_in_descriptor = false;
    while let Some(entry) = entries.next_dfs().ok()? {
        let name = || entry.attr_value(constants::DW_AT_name);
        match entry.tag() {
            constants::DW_TAG_structure_type => is_in_descriptor = is(name(), "runtime.g"),
            constants::DW_TAG_member if is_in_descriptor && is(name(), "goid") => {
                return entry.attr_value(constants::DW_AT_data_member_location)?.udata_value();
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse(b"go1.19.8"), Some((1, 19)));
        assert_eq!(parse(b"go1.25rc1"), Some((1, 25)));
        assert_eq!(parse(b"devel go1.27-abcdef Mon"), Some((1, 27)));
        for garbage in [&b""[..], b"go", b"go1", b"1.2", b"go.1", b"\xff\xfe"] {
            assert_eq!(parse(garbage), None);
        }
    }

    #[test]
    fn only_of_known_releases() {
        let of = |minor| of_release((1, minor));
        assert_eq!((of(16), of(17), of(22)), (None, Some(152), Some(152)));
        assert_eq!((of(23), of(24)), (Some(160), Some(160)));
        assert_eq!((of(25), of(27), of(28)), (Some(152), Some(152), None));
    }

    #[test]
    fn debug_information_and_release_agree() {
        let directory = tempfile::tempdir().unwrap();
        let (source, binary) = (directory.path().join("main.go"), directory.path().join("main"));
        std::fs::write(&source, "package main\n\nfunc main() {}\n").unwrap();
        let go = std::process::Command::new("go")
            .args(["build", "-o"])
            .args([&binary, &source])
            .env("GOCACHE", directory.path().join("cache"))
            .status()
            .expect("this needs the Go toolchain; `cargo xtask setup` installs it");
        assert!(go.success());
        let file = File::open(&binary).unwrap();
        let elf = Elf::read(&file).unwrap();
        let of_release = of_release(release(&elf, &file).unwrap());
        assert!(of_release.is_some());
        assert_eq!(told(&elf, &file), of_release);
    }
}
