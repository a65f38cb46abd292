//! From addresses to functions, files and lines, for everything that has ELF symbols or DWARF.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use blazesym::symbolize::source::{Elf as ElfSource, Source};
use blazesym::symbolize::{CodeInfo, Input, Symbolizer};

use super::elf::{Elf, SECTION_HEADER_SIZE, read_exact};

/// Most bytes of symbols and of compressed debug information that are copied of one file.
const MAX_COPY: u64 = 256 << 20;
/// Most bytes that a file's debug information may decompress to.
const MAX_DEBUG: u64 = 512 << 20;
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
    /// Its debug file and itself, as far as they can be read.
    sources: Vec<Copied>,
    remembered: HashMap<u64, Rc<[Symbol]>>,
    /// Whether the file has line numbers.
    pub(super) has_debug: bool,
    bytes: u64,
}

/// The copy of one file.
struct Copied {
    symbolizer: Symbolizer,
    source: Source<'static>,
    /// The same without debug information.
    plain: Source<'static>,
    /// Keeps the copy in memory.
    _file: File,
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Symbols {
    /// Copies what symbolizing needs of a binary and of its debug file. What cannot be read has no
    /// symbols.
    pub(super) fn read(elf: &Elf, file: &File, debug: Option<(&Elf, &File)>) -> Self {
        let mut symbols =
            Self { sources: Vec::new(), remembered: HashMap::new(), has_debug: false, bytes: 0 };
        for (elf, file) in debug.into_iter().chain([(elf, file)]) {
            let Some((copy, bytes, has_debug)) = hollow_copy(elf, file) else { continue };
            let source = |debug_syms| {
                let mut source = ElfSource::new(format!("/proc/self/fd/{}", copy.as_raw_fd()));
                source.debug_syms = debug_syms;
                Source::from(source)
            };
            let symbolizer = Symbolizer::builder().enable_auto_reload(false).build();
            let (source, plain) = (source(has_debug), source(false));
            symbols.sources.push(Copied { symbolizer, source, plain, _file: copy });
            symbols.has_debug |= has_debug;
            symbols.bytes += bytes;
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

    /// The name in the symbol table, when debug information gave only the last part of it, as
    /// compilers write for C++ functions that are not seen outside of their file.
    fn whole_name(
        symbolizer: &Symbolizer,
        plain: &Source<'_>,
        address: u64,
        name: &str,
    ) -> Option<String> {
        let base = |name: &str| name.split(['<', '(']).next().map(str::to_owned);
        let last = base(name).filter(|base| !base.contains("::"))?;
        let found = symbolizer.symbolize_single(plain, Input::VirtOffset(address)).ok()?;
        let whole = found.into_sym()?.name;
        let is_longer = whole.len() > name.len() && whole.contains(&format!("::{last}"));
        is_longer.then(|| shortened(&whole))
    }

    fn look_up(&self, address: u64) -> Option<Vec<Symbol>> {
        self.sources.iter().find_map(|Copied { symbolizer, source, plain, .. }| {
            let found = symbolizer.symbolize_single(source, Input::VirtOffset(address)).ok()?;
            let found = found.into_sym()?;
            let mut outer = symbol(&found.name, found.code_info.as_deref());
            if let Some(name) = Self::whole_name(symbolizer, plain, address, &found.name) {
                outer.function = Some(name);
            }
            let inlined = found.inlined.iter().rev().map(|i| symbol(&i.name, i.code_info.as_ref()));
            Some(inlined.chain([outer]).collect())
        })
    }
}

fn symbol(name: &str, code: Option<&CodeInfo<'_>>) -> Symbol {
    Symbol {
        function: Some(shortened(name)),
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

/// Copies headers, symbols and, when they are not too large, debug sections to the same places of
/// an otherwise empty file in memory; gives its size in memory and whether it has debug sections.
fn hollow_copy(elf: &Elf, file: &File) -> Option<(File, u64, bool)> {
    const SYMBOLS: [&str; 7] = [
        ".symtab",
        ".symtab_shndx",
        ".strtab",
        ".dynsym",
        ".dynstr",
        ".shstrtab",
        ".note.gnu.build-id",
    ];
    /// They lead to other files, which nobody but us shall open.
    const LINKS: [&str; 3] = [".gnu_debuglink", ".gnu_debugaltlink", ".debug_sup"];
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
    let with_debug = debug_claimed > 0 && debug_stored <= MAX_COPY && debug_claimed <= MAX_DEBUG;

    let copy = memory_file()?;
    copy.set_len(length).ok()?;
    let mut total = copy_range(file, &copy, 0, 64)?;
    for (offset, size) in [elf.program_headers, elf.section_headers] {
        total += copy_range(file, &copy, offset, size as u64)?;
    }
    for section in elf.sections.iter().filter(|s| kept(s) || (with_debug && debug(s))) {
        total += copy_range(file, &copy, section.offset, section.size)?;
    }
    for section in elf.sections.iter().filter(|s| LINKS.contains(&s.name.as_str())) {
        // Without its name a section is not looked at.
        let header = elf.section_headers.0 + (section.number * SECTION_HEADER_SIZE) as u64;
        copy.write_all_at(&[0; 4], header).ok()?;
    }
    Some((copy, total, with_debug))
}

fn copy_range(from: &File, to: &File, offset: u64, size: u64) -> Option<u64> {
    let end = offset.checked_add(size)?;
    let mut at = offset;
    while at < end {
        let length = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
        to.write_all_at(&read_exact(from, at, length).ok()?, at).ok()?;
        at += length as u64;
    }
    Some(size)
}

/// An empty file that only this process has.
pub(super) fn memory_file() -> Option<File> {
    // SAFETY: the name is a zero-terminated literal.
    let fd = unsafe { libc::memfd_create(c"symbols".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    (fd >= 0).then(|| unsafe { File::from_raw_fd(fd) })
}
