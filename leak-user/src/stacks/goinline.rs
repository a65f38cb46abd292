//! Calls that Go's compiler inlined, for binaries without debug information.
//!
//! Which calls were inlined where is told by tables of values by address in `.gopclntab`, whose
//! entries point into a part of the read-only data (`go:func.*`). Only `runtime.firstmoduledata`
//! says where that part begins, so that structure is searched for. The layouts are those of Go's
//! `src/runtime/symtab.go` and `symtabinl.go`.

use std::collections::HashMap;
use std::fs::File;

use super::bytes::{u32_at, u64_at};
use super::elf::{Elf, Section, read_exact};
use super::pclntab::{Function, LineTable};
use super::symbolize::Symbol;

/// Sections that hold `runtime.firstmoduledata`.
const DATA: [&str; 4] = [".go.module", ".noptrdata", ".data", ".data.rel.ro"];
/// Largest of those that is searched.
const MAX_DATA: u64 = 64 << 20;
/// Deepest nesting of inlined calls that is followed.
const MAX_NESTING: usize = 64;
/// Field of `moduledata`, counted in words, that repeats the beginning of the code.
const TEXT_FIELD: u64 = 22;

/// Where the inlined calls of a binary are described.
#[derive(Debug)]
pub(super) struct InlinedCalls {
    /// Place in the file of `go:func.*`.
    offset: u64,
}

/// One inlined call.
struct Call {
    name: u32,
    /// Where in the function it was called from, in bytes from the function's entry.
    parent: u32,
}

impl InlinedCalls {
    /// Finds the descriptions of the binary whose line table lies in `section`.
    pub(super) fn find(
        elf: &Elf,
        file: &File,
        section: &Section,
        table: &LineTable,
    ) -> Option<Self> {
        let field = table.inline_field()?;
        // The structure begins with the addresses of the line table and of the names in it.
        let pattern = (section.address, section.address.checked_add(table.names_offset())?);
        let is_it =
            |read: &dyn Fn(u64) -> Option<u64>| read(TEXT_FIELD) == Some(table.text_start());
        let from_data = || {
            DATA.iter()
                .filter_map(|name| elf.section(name))
                .filter(|s| s.size <= MAX_DATA)
                .find_map(|section| {
                    let data = elf.data(file, section).ok()?;
                    (0..data.len()).step_by(8).find_map(|at| {
                        let read = |index: u64| {
                            u64_at(&data, at.checked_add(usize::try_from(index).ok()? * 8)?)
                        };
                        let found = read(0)? == pattern.0 && read(1)? == pattern.1;
                        (found && is_it(&read)).then(|| read(field)).flatten()
                    })
                })
        };
        // In position-independent executables the words are relocations.
        let from_relocations = || {
            let relocations = relocations(elf, file)?;
            let start = relocations.iter().find(|(place, value)| {
                **value == pattern.0
                    && relocations.get(&(**place).wrapping_add(8)) == Some(&pattern.1)
            })?;
            let read = |index: u64| relocations.get(&start.0.wrapping_add(index * 8)).copied();
            is_it(&read).then(|| read(field)).flatten()
        };
        let address = from_data().or_else(from_relocations)?;
        Some(Self { offset: elf.offset_of_address(address)? })
    }

    /// The functions at `address` of `function`, innermost first; the last is `function` itself.
    pub(super) fn at(
        &self,
        file: &File,
        table: &LineTable,
        function: &Function,
        address: u64,
    ) -> Option<Vec<Symbol>> {
        let (tree, entry) = (table.inline_tree(function), function.entry());
        let mut symbols = Vec::new();
        let mut address = address;
        while let Some(tree) = tree
            && let Some(index) = table.inline_index(function, address)
            && symbols.len() < MAX_NESTING
        {
            let call = self.call(file, table, tree, index)?;
            symbols.push(symbol(table, function, table.text(call.name)?, address));
            address = entry.checked_add(call.parent.into())?;
        }
        symbols.push(symbol(table, function, table.name(function)?, address));
        Some(symbols)
    }

    fn call(&self, file: &File, table: &LineTable, tree: u32, index: u32) -> Option<Call> {
        let (size, name, parent) = table.inline_layout()?;
        let place = u64::from(tree).checked_add(u64::from(index) * size as u64)?;
        let data = read_exact(file, self.offset.checked_add(place)?, size).ok()?;
        Some(Call { name: u32_at(&data, name)?, parent: u32_at(&data, parent)? })
    }
}

fn symbol(table: &LineTable, function: &Function, name: String, address: u64) -> Symbol {
    Symbol {
        function: Some(name),
        file: table.file(function, address),
        line: table.line(function, address),
    }
}

/// What relative relocations put where.
pub(super) fn relocations(elf: &Elf, file: &File) -> Option<HashMap<u64, u64>> {
    const R_X86_64_RELATIVE: u32 = 8;
    let data = elf.data(file, elf.section(".rela.dyn")?).ok()?;
    let read =
        |r: &[u8]| (u32_at(r, 8)? == R_X86_64_RELATIVE).then_some((u64_at(r, 0)?, u64_at(r, 16)?));
    Some(data.chunks_exact(24).filter_map(read).collect())
}
