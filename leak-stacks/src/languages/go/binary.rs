//! What the Go toolchain puts into a binary.

use std::fs::File;

use crate::binary::elf::{Elf, MAX_SECTION, read_exact};
use crate::binary::symbols::Symbol;
use crate::bytes::u64_at;
#[cfg(any(test, feature = "fuzzing"))]
use crate::languages::go::header::Header;
use crate::languages::go::inline::InlinedCalls;
use crate::languages::go::locate::Place;
use crate::languages::go::pclntab::{LineTable, Role};
use crate::languages::go::{allgs, goroutine, locate};
use crate::raw::GOROUTINE_WINDOW_START;
use crate::unwind::registers::Registers;
use crate::unwind::step::{End, StackCopy, Step};

/// Goroutine numbers are counted up; one beyond this is not a number but noise.
pub(crate) const MAX_GOROUTINE: u64 = 1 << 48;

/// What is known of a binary that the Go toolchain built.
#[derive(Debug)]
pub(crate) struct GoBinary {
    lines: Option<LineTable>,
    inlined: Option<InlinedCalls>,
    goroutine_offset: Option<usize>,
    goroutine_list: Option<u64>,
}

impl GoBinary {
    /// Reads what the Go toolchain put into a binary; `None` when it did not build it.
    pub(crate) fn read(elf: &Elf, file: &File) -> Option<Self> {
        if !locate::may_be_go(elf) {
            return None;
        }
        let (lines, inlined) = read_lines(elf, file);
        // Without sections only the table shows that it is a Go binary.
        if elf.sections.is_empty() && lines.is_none() {
            return None;
        }
        let goroutine_list = lines.as_ref().and_then(|lines| goroutine_list(lines, elf, file));
        let goroutine_offset = goroutine::offset(elf, file);
        Some(Self { lines, inlined, goroutine_offset, goroutine_list })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.lines.as_ref().map_or(0, LineTable::bytes)
    }

    /// One step outward from the frame at `address` by the line table's frame sizes; `None` when
    /// the table does not cover the address, as in the C parts of a cgo program.
    ///
    /// This is exact where frame pointers are not: the functions that enter the kernel have no
    /// frame, so that a walk by frame pointer misses their caller.
    pub(crate) fn step(
        &self,
        address: u64,
        registers: &mut Registers,
        stack: &StackCopy<'_>,
    ) -> Option<Step> {
        let lines = self.lines.as_ref()?;
        let function = lines.function(address)?;
        let role = lines.role(&function);
        match role {
            Some(Role::First) => return Some(Step::End(End::Root)),
            // The caller's frames are on another stack, of which there is no copy.
            Some(Role::Switch) => return Some(Step::End(End::Lost)),
            Some(Role::CalledBack) | None => {}
        }
        let depth = u64::from(lines.frame_size(&function, address)?);
        let return_at = registers.sp().checked_add(depth)?;
        let Some(caller) = stack.word(return_at) else { return Some(Step::End(stack.end())) };
        // A function with a frame keeps its caller's frame pointer at the top of it.
        if depth >= 8
            && let Some(bp) = stack.word(return_at - 8)
        {
            registers.set_bp(bp);
        }
        registers.set_sp(return_at.checked_add(8)?);
        registers.set_ip(caller);
        Some(match (caller, role) {
            (0, _) => Step::End(End::Root),
            // Where the goroutine was when it left for C is no return address.
            (_, Some(Role::CalledBack)) => Step::Suspended(caller),
            _ => Step::Caller(caller),
        })
    }

    /// The functions at `address` by the line table, innermost first. Where inlined calls cannot be
    /// told apart, the name is that of the outermost function and the line that of the innermost.
    pub(crate) fn symbols(&self, file: &File, address: u64) -> Option<Vec<Symbol>> {
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
    pub(crate) fn goroutine(&self, window: &[u8]) -> Option<u64> {
        let offset = self.goroutine_offset?.checked_sub(GOROUTINE_WINDOW_START)?;
        // The scheduler's own goroutines have number 0.
        u64_at(window, offset).filter(|id| (1..MAX_GOROUTINE).contains(id))
    }

    /// Where a goroutine's descriptor has its number.
    pub(crate) fn goroutine_offset(&self) -> Option<usize> {
        self.goroutine_offset
    }

    /// Address of the runtime's list of goroutines: a slice of descriptors' addresses.
    pub(crate) fn goroutine_list(&self) -> Option<u64> {
        self.goroutine_list
    }

    /// Name and first address of the function that holds `address`.
    pub(crate) fn function(&self, address: u64) -> Option<(String, u64)> {
        let lines = self.lines.as_ref()?;
        let function = lines.function(address)?;
        Some((lines.name(&function)?, function.entry()))
    }

    /// Whether a function holds `address`.
    pub(crate) fn has_code_at(&self, address: u64) -> bool {
        self.lines.as_ref().is_some_and(|lines| lines.function(address).is_some())
    }

    /// Whether a function begins at `address`.
    pub(crate) fn is_function(&self, address: u64) -> bool {
        let function = self.lines.as_ref().and_then(|lines| lines.function(address));
        function.is_some_and(|function| function.entry() == address)
    }

    /// Whether inlined calls can be told apart.
    pub(crate) fn tells_inlined(&self) -> bool {
        self.inlined.is_some()
    }
}

/// The line table, and the inlined calls that it speaks of.
fn read_lines(elf: &Elf, file: &File) -> (Option<LineTable>, Option<InlinedCalls>) {
    let Some((place, header, module)) = locate::line_table(elf, file) else { return (None, None) };
    // What the header declares is 0 in newer releases and where a relocation holds it.
    let text = match (&module, header.text) {
        (Some(module), _) => Some(module.text()),
        (None, 0) => elf.section(".text").map(|text| text.address),
        (None, declared) => Some(declared),
    };
    let lines = text.and_then(|text| LineTable::new(read(file, place)?, header, text));
    let data = module.and_then(|module| module.function_data(elf, header.format));
    let inlined =
        data.and_then(|address| elf.offset_of_address(address)).map(InlinedCalls::at_offset);
    (lines, inlined)
}

/// Where the runtime's list of goroutines is, by the code that appends to it.
fn goroutine_list(lines: &LineTable, elf: &Elf, file: &File) -> Option<u64> {
    let (function, length) = lines.function_named(allgs::APPENDS)?;
    let (offset, left) = elf.code_at(function.entry())?;
    let length = usize::try_from(length.min(left).min(allgs::MAX_CODE)).ok()?;
    allgs::list(&read_exact(file, offset, length).ok()?, function.entry())
}

fn read(file: &File, place: Place) -> Option<Vec<u8>> {
    let size = usize::try_from(place.size.min(MAX_SECTION)).ok()?;
    read_exact(file, place.offset, size).ok()
}

/// Reads any bytes as a line table.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let Some(header) = Header::read(data) else { return };
    let start = header.text;
    let Some(table) = LineTable::new(data.to_vec(), header, start) else { return };
    for offset in (0..256).chain([1 << 12, 1 << 16, 1 << 20]) {
        let address = start.wrapping_add(offset);
        let Some(function) = table.function(address) else { continue };
        table.name(&function);
        table.file(&function, address);
        table.line(&function, address);
        table.frame_size(&function, address);
        table.role(&function);
        table.inline_tree(&function);
        table.inline_index(&function, address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::GOROUTINE_WINDOW;

    #[test]
    fn goroutine_numbers_only_where_they_are_known_to_lie() {
        let mut window = [0; GOROUTINE_WINDOW];
        window[24..32].copy_from_slice(&7u64.to_le_bytes());
        let of = |goroutine_offset, window: &[u8]| {
            let (lines, inlined, goroutine_list) = (None, None, None);
            GoBinary { lines, inlined, goroutine_offset, goroutine_list }.goroutine(window)
        };
        assert_eq!(of(Some(152), &window), Some(7));
        assert_eq!(of(None, &window), None);
        assert_eq!(of(Some(GOROUTINE_WINDOW_START - 8), &window), None, "before the window");
        assert_eq!(of(Some(usize::MAX - 3), &window), None, "behind it");
        assert_eq!(of(Some(152), &[0xff; GOROUTINE_WINDOW]), None, "noise");
        assert_eq!(of(Some(152), &[0; GOROUTINE_WINDOW]), None, "the scheduler's own");
    }
}
