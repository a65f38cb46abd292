//! What is particular to Go programs: they are recognised by their sections, unwound and
//! symbolized by their own line table, and their goroutines have numbers.

use std::fs::File;

use leak_common::stack::{GOROUTINE_WINDOW, GOROUTINE_WINDOW_START};

use super::bytes::u64_at;
use super::elf::{Elf, Section, read_exact};
use super::goinline::{InlinedCalls, relocations};
use super::pclntab::{LineTable, Root};
use super::raw::RawStack;
use super::registers::Registers;
use super::symbolize::Symbol;
use super::unwind::{End, Step};

/// Sections that hold the line table; the second is that of position-independent executables.
const LINE_TABLES: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Goroutine numbers are counted up; one beyond this is not a number but noise.
const MAX_GOROUTINE: u64 = 1 << 48;
/// Longest version text that is read.
const MAX_VERSION: u64 = 256;

/// What is known of a binary that the Go toolchain built.
#[derive(Debug)]
pub(super) struct GoBinary {
    version: Option<(u32, u32)>,
    lines: Option<LineTable>,
    inlined: Option<InlinedCalls>,
}

impl GoBinary {
    /// Reads a binary's Go sections; `None` when it is not a Go binary.
    pub(super) fn read(elf: &Elf, file: &File) -> Option<Self> {
        let table = LINE_TABLES.iter().find_map(|name| elf.section(name));
        let build_info = elf.section(".go.buildinfo");
        if table.is_none() && build_info.is_none() && elf.section(".note.go.buildid").is_none() {
            return None;
        }
        let version = build_info.and_then(|section| read_version(elf, file, section));
        let lines = table.and_then(|section| {
            let data = elf.data(file, section).ok()?;
            LineTable::new(data, |declared| text_start(elf, file, section, declared))
        });
        let inlined = table
            .zip(lines.as_ref())
            .and_then(|(section, lines)| InlinedCalls::find(elf, file, section, lines));
        Some(Self { version, lines, inlined })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lines.as_ref().map_or(0, LineTable::bytes)
    }

    /// One step outward from the frame at `address` by the line table's frame sizes; `None` when
    /// the table does not cover the address, as in the C parts of a cgo program.
    ///
    /// This is exact where frame pointers are not: the functions that enter the kernel have no
    /// frame, so that a walk by frame pointer misses their caller.
    pub(super) fn step(
        &self,
        address: u64,
        registers: &mut Registers,
        raw: &RawStack,
    ) -> Option<Step> {
        let lines = self.lines.as_ref()?;
        let function = lines.function(address)?;
        match lines.root(&function) {
            Some(Root::First) => return Some(Step::End(End::Root)),
            // The caller's frames are on another stack, of which there is no copy.
            Some(Root::Switch) => return Some(Step::End(End::Lost)),
            None => {}
        }
        let depth = u64::from(lines.frame_size(&function, address)?);
        let return_at = registers.sp().checked_add(depth)?;
        let Some(caller) = raw.word(return_at) else {
            let end = if raw.cut_before(return_at) { End::CopyTooShort } else { End::Lost };
            return Some(Step::End(end));
        };
        // A function with a frame keeps its caller's frame pointer at the top of it.
        if depth >= 8
            && let Some(bp) = raw.word(return_at - 8)
        {
            registers.set_bp(bp);
        }
        registers.set_sp(return_at.checked_add(8)?);
        registers.set_ip(caller);
        Some(if caller == 0 { Step::End(End::Root) } else { Step::Caller(caller) })
    }

    /// The functions at `address` by the line table, innermost first. Where inlined calls cannot be
    /// told apart, the name is that of the outermost function and the line that of the innermost.
    pub(super) fn symbols(&self, file: &File, address: u64) -> Option<Vec<Symbol>> {
        let lines = self.lines.as_ref()?;
        let function = lines.function(address)?;
        let inlined = || self.inlined.as_ref()?.at(file, lines, &function, address);
        let alone = || {
            Some(vec![Symbol {
                function: Some(lines.name(&function)?),
                file: lines.file(&function, address),
                line: lines.line(&function, address),
            }])
        };
        inlined().or_else(alone)
    }

    /// Number of the goroutine whose descriptor `window` was copied from.
    pub(super) fn goroutine(&self, window: &[u8; GOROUTINE_WINDOW]) -> Option<u64> {
        let offset = goroutine_offset(self.version?)?.checked_sub(GOROUTINE_WINDOW_START)?;
        // The scheduler's own goroutines have number 0.
        u64_at(window, offset).filter(|id| (1..MAX_GOROUTINE).contains(id))
    }
}

/// Where `goid` lies in `runtime.g` (src/runtime/runtime2.go) on amd64: 1.23 added `syscallbp`
/// before it, 1.25 took `ret` out of `gobuf`. Releases not looked at yet are `None`.
fn goroutine_offset(version: (u32, u32)) -> Option<usize> {
    match version {
        (1, 17..=22 | 25..=26) => Some(152),
        (1, 23..=24) => Some(160),
        _ => None,
    }
}

/// The release from `.go.buildinfo`, see `debug/buildinfo` of Go's library.
fn read_version(elf: &Elf, file: &File, section: &Section) -> Option<(u32, u32)> {
    const MAGIC: &[u8] = b"\xff Go buildinf:";
    const INLINE: u8 = 2;
    let size = usize::try_from(section.size.min(4096)).ok()?;
    let data = read_exact(file, section.offset, size).ok()?;
    if !data.starts_with(MAGIC) {
        return None;
    }
    if data.get(15)? & INLINE != 0 {
        // Since Go 1.18 the text itself follows, after its length as a varint.
        let length = usize::from(*data.get(32)?);
        return parse_version(data.get(33..33usize.checked_add(length)?)?);
    }
    // Before, a pointer to a string's pointer and length.
    let read = |address, size| read_exact(file, elf.offset_of_address(address)?, size).ok();
    let header = read(u64_at(&data, 16)?, 16)?;
    let length = u64_at(&header, 8).filter(|l| *l <= MAX_VERSION)?;
    parse_version(&read(u64_at(&header, 0)?, usize::try_from(length).ok()?)?)
}

/// `go1.22.3` and the like; development builds (`devel go1.27-…`) too.
fn parse_version(text: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, version) = text.split_once("go")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Address of the Go code's beginning, from which the line table counts.
///
/// The table's header declares it, but in a position-independent executable a relocation may hold
/// the value instead; without either it is the beginning of `.text`.
fn text_start(elf: &Elf, file: &File, table: &Section, declared: u64) -> Option<u64> {
    const DECLARED_AT: u64 = 24;
    if declared != 0 {
        return Some(declared);
    }
    let place = table.address.checked_add(DECLARED_AT)?;
    let relocated = relocations(elf, file).and_then(|r| r.get(&place).copied());
    relocated.or_else(|| elf.section(".text").map(|text| text.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(parse_version(b"go1.19.8"), Some((1, 19)));
        assert_eq!(parse_version(b"go1.25rc1"), Some((1, 25)));
        assert_eq!(parse_version(b"devel go1.27-abcdef Mon"), Some((1, 27)));
        for garbage in [&b""[..], b"go", b"go1", b"1.2", b"go.1", b"\xff\xfe"] {
            assert_eq!(parse_version(garbage), None);
        }
    }

    #[test]
    fn goroutine_numbers_only_of_known_releases() {
        let mut window = [0; GOROUTINE_WINDOW];
        window[24..32].copy_from_slice(&7u64.to_le_bytes());
        window[32..40].copy_from_slice(&9u64.to_le_bytes());
        let of = |minor, window| {
            GoBinary { version: Some((1, minor)), lines: None, inlined: None }.goroutine(window)
        };
        for (minor, expected) in [
            (16, None),
            (17, Some(7)),
            (22, Some(7)),
            (23, Some(9)),
            (24, Some(9)),
            (25, Some(7)),
            (26, Some(7)),
            (27, None),
        ] {
            assert_eq!(of(minor, &window), expected, "go1.{minor}");
        }
        assert_eq!(of(22, &[0xff; GOROUTINE_WINDOW]), None, "noise");
        assert_eq!(of(22, &[0; GOROUTINE_WINDOW]), None, "the scheduler's own");
    }
}
