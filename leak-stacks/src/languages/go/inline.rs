//! Calls that Go's compiler inlined, for binaries without debug information too.
//!
//! Tables of values by address in `.gopclntab` tell which calls were inlined where. Their entries
//! point into a part of the read-only data (`go:func.*`). The layouts are those of Go's
//! `src/runtime/symtab.go` and `symtabinl.go`.

use std::fs::File;

use crate::binary::elf::read_exact;
use crate::binary::symbols::Symbol;
use crate::bytes::u32_at;
use crate::languages::go::pclntab::{Function, LineTable};

/// Deepest nesting of inlined calls that is followed.
const MAX_NESTING: usize = 64;

/// Where the inlined calls of a binary are described.
#[derive(Debug)]
pub(crate) struct InlinedCalls {
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
    /// Those that are described from this place of the file on.
    pub(crate) fn at_offset(offset: u64) -> Self {
        Self { offset }
    }

    /// The functions at `address` of `function`, innermost first; the last is `function` itself.
    pub(crate) fn at(
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
