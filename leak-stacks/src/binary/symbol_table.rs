//! Addresses of symbols by their names.

use crate::binary::facts::Source;
use crate::bytes::{text_at, u16_at, u32_at, u64_at};

/// Size of an ELF symbol, and where its value and its section are.
const SYMBOL_SIZE: usize = 24;
const SYMBOL_VALUE: usize = 8;
const SYMBOL_SECTION: usize = 6;

/// The addresses of these symbols in the file's own numbering, from the dynamic symbols and, for
/// what these lack, from the full symbol table.
pub(crate) fn addresses_of<const N: usize>(
    source: &Source<'_>,
    names: [&str; N],
) -> [Option<u64>; N] {
    let mut found = [None; N];
    for (table, strings) in [(".dynsym", ".dynstr"), (".symtab", ".strtab")] {
        look_up(source, (table, strings), &names, &mut found);
    }
    found
}

fn look_up(source: &Source<'_>, tables: (&str, &str), names: &[&str], found: &mut [Option<u64>]) {
    let data = |name| source.elf.data(source.file, source.elf.section(name)?).ok();
    let (Some(table), Some(strings)) = (data(tables.0), data(tables.1)) else { return };
    let longest = names.iter().map(|n| n.len()).max().unwrap_or(0) + 1;
    for symbol in table.chunks_exact(SYMBOL_SIZE) {
        if found.iter().all(Option::is_some) {
            break;
        }
        // Section 0: the symbol is another file's.
        let is_defined = u16_at(symbol, SYMBOL_SECTION).is_some_and(|section| section != 0);
        let name = u32_at(symbol, 0).and_then(|at| text_at(&strings, at as usize, longest));
        let (Some(name), true) = (name, is_defined) else { continue };
        if let Some(index) = names.iter().position(|wanted| *wanted == name)
            && let Some(place) = found.get_mut(index)
            && place.is_none()
        {
            *place = u64_at(symbol, SYMBOL_VALUE);
        }
    }
}
