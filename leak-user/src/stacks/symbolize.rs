//! From addresses to functions, files and lines, for everything that has ELF symbols or DWARF.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use blazesym::symbolize::source::{Elf as ElfSource, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolizer};

use super::bytes::u32_at;
use super::elf::{Elf, read_exact};

/// Most bytes of symbols and of compressed debug information that are copied of one file.
const MAX_COPY: u64 = 256 << 20;
/// Most bytes that a file's debug information may decompress to.
const MAX_DEBUG: u64 = 512 << 20;
/// Largest line program of one compilation unit: each of its bytes may unfold to a line of 24.
const MAX_LINES: u64 = 8 << 20;
/// Largest file that is looked at: the copy is as long, though mostly hollow.
const MAX_FILE: u64 = 16 << 30;
/// Addresses of one file whose symbols are remembered.
const MAX_REMEMBERED: usize = 16 * 1024;
/// Longest names that are kept; C++ templates write novels.
const MAX_NAME: usize = 1024;
const CHUNK: usize = 1 << 20;

/// A function at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// A binary's symbols and debug information.
///
/// blazesym maps the files it reads into memory. So it is given a copy that nobody else can
/// truncate: a hollow one, which holds only the sections that it looks at.
pub(super) struct Symbols {
    source: Option<(Symbolizer, Source<'static>, File)>,
    remembered: HashMap<u64, Rc<[Symbol]>>,
    /// Whether the file has line numbers.
    pub(super) has_debug: bool,
    bytes: u64,
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Symbols {
    /// Copies what symbolizing needs. A file that cannot be read has no symbols.
    pub(super) fn read(elf: &Elf, file: &File) -> Self {
        let mut symbols =
            Self { source: None, remembered: HashMap::new(), has_debug: false, bytes: 0 };
        if let Some((copy, bytes, has_debug)) = hollow_copy(elf, file) {
            let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
            let mut source = ElfSource::new(path);
            // Also without debug sections: a debug link may lead to them.
            source.debug_syms = has_debug || !has_debug_sections(elf);
            let symbolizer = Symbolizer::builder().enable_auto_reload(false).build();
            symbols.source = Some((symbolizer, source.into(), copy));
            symbols.has_debug = has_debug;
            symbols.bytes = bytes;
        }
        symbols
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.remembered.len() as u64 * 256
    }

    /// The functions at `address` of the file, innermost first: inlined ones, then the one that
    /// they were inlined into. Empty when there is no symbol.
    pub(super) fn at(&mut self, address: u64) -> Rc<[Symbol]> {
        if let Some(known) = self.remembered.get(&address) {
            return Rc::clone(known);
        }
        let found: Rc<[Symbol]> = self.look_up(address).unwrap_or_default().into();
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(address, Rc::clone(&found));
        found
    }

    fn look_up(&self, address: u64) -> Option<Vec<Symbol>> {
        let (symbolizer, source, _copy) = self.source.as_ref()?;
        let found = symbolizer.symbolize_single(source, Input::VirtOffset(address)).ok()?;
        let found = found.into_sym()?;
        let outer = symbol(&found.name, found.code_info.as_deref());
        let inlined = found.inlined.iter().rev().map(|i| symbol(&i.name, i.code_info.as_ref()));
        Some(inlined.chain([outer]).collect())
    }
}

fn symbol(name: &str, code: Option<&CodeInfo<'_>>) -> Symbol {
    Symbol {
        function: Some(shortened(name)).filter(|name| !name.is_empty()),
        file: code.map(|c| shortened(&c.to_path().to_string_lossy())),
        line: code.and_then(|c| c.line),
    }
}

/// `name`, cut to a length that a report can bear.
pub(super) fn shortened(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

fn is_debug(name: &str) -> bool {
    name.starts_with(".debug_") || name.starts_with(".zdebug_")
}

fn has_debug_sections(elf: &Elf) -> bool {
    elf.sections.iter().any(|s| is_debug(&s.name))
}

/// Copies headers, symbols and, when they are not too large, debug sections to the same places of
/// an otherwise empty file in memory; gives its size in memory and whether it has debug sections.
///
/// What is compressed is decompressed on the way, to behind the end: blazesym would do it without a
/// limit, whatever size a section claims.
fn hollow_copy(elf: &Elf, file: &File) -> Option<(File, u64, bool)> {
    const SYMBOLS: [&str; 8] = [
        ".symtab",
        ".symtab_shndx",
        ".strtab",
        ".dynsym",
        ".dynstr",
        ".shstrtab",
        ".gnu_debuglink",
        ".note.gnu.build-id",
    ];
    let length = file.metadata().ok()?.len();
    if length > MAX_FILE {
        return None;
    }
    let kept = |s: &&super::elf::Section| !s.no_bits && SYMBOLS.contains(&s.name.as_str());
    let debug = |s: &&super::elf::Section| !s.no_bits && is_debug(&s.name);
    let stored: u64 = elf.sections.iter().filter(kept).map(|s| s.size).fold(0, u64::saturating_add);
    if stored > MAX_COPY {
        return None;
    }
    let debug_stored =
        elf.sections.iter().filter(debug).map(|s| s.size).fold(stored, u64::saturating_add);
    let debug_claimed = elf
        .sections
        .iter()
        .filter(debug)
        .map(|s| elf.uncompressed_size(file, s).unwrap_or(u64::MAX))
        .fold(0, u64::saturating_add);
    let with_debug = debug_claimed > 0
        && debug_stored <= MAX_COPY
        && debug_claimed <= MAX_DEBUG
        && has_usual_lines(elf, file);

    let copy = memory_file()?;
    copy.set_len(length).ok()?;
    let mut total = copy_range(file, &copy, 0, 64)?;
    for (offset, size) in [elf.program_headers, elf.section_headers] {
        total += copy_range(file, &copy, offset, size as u64)?;
    }
    let mut end = length;
    for section in elf.sections.iter().filter(|s| kept(s) || (with_debug && debug(s))) {
        total += if section.compressed {
            let data = elf.data_within(file, section, MAX_DEBUG).unwrap_or_default();
            let header = elf.section_headers.0.checked_add(section.header)?;
            copy.write_all_at(&data, end).ok()?;
            // No flags, among which the one that says "compressed"; the new place and size.
            for (field, value) in [(8, 0), (24, end), (32, data.len() as u64)] {
                copy.write_all_at(&value.to_le_bytes(), header.checked_add(field)?).ok()?;
            }
            end += data.len().next_multiple_of(8) as u64;
            data.len() as u64
        } else {
            copy_range(file, &copy, section.offset, section.size)?
        };
    }
    copy.set_len(end).ok()?;
    Some((copy, total, with_debug))
}

/// Whether no unit's line program is longer than what compilers write.
fn has_usual_lines(elf: &Elf, file: &File) -> bool {
    let Some(section) =
        elf.sections.iter().find(|s| is_debug(&s.name) && s.name.ends_with("_line"))
    else {
        return true;
    };
    let Ok(data) = elf.data(file, section) else { return false };
    let mut at = 0usize;
    while let Some(length) = u32_at(&data, at) {
        // Lengths beyond 32 bits are told by an escape, which is a large number itself.
        if u64::from(length) > MAX_LINES {
            return false;
        }
        at = at.saturating_add(4).saturating_add(length as usize);
    }
    true
}

/// Copies a range to the same place, and says how many bytes that took: what is only zeroes stays a hole.
fn copy_range(from: &File, to: &File, offset: u64, size: u64) -> Option<u64> {
    let end = offset.checked_add(size)?;
    let (mut at, mut taken) = (offset, 0);
    while at < end {
        let length = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
        let data = read_exact(from, at, length).ok()?;
        if data.iter().any(|byte| *byte != 0) {
            to.write_all_at(&data, at).ok()?;
            taken += length as u64;
        }
        at += length as u64;
    }
    Some(taken)
}

pub(super) fn memory_file() -> Option<File> {
    // SAFETY: the name is a zero-terminated literal.
    let fd = unsafe { libc::memfd_create(c"symbols".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) })
}
