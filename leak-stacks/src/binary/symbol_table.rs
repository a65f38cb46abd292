//! Addresses of symbols by their names.

use std::collections::HashMap;

use crate::binary::facts::Source;
use crate::bytes::{text_at, u16_at, u32_at, u64_at};

/// Size of an ELF symbol, and where its value, its size and its section are.
const SYMBOL_SIZE: usize = 24;
const SYMBOL_VALUE: usize = 8;
const SYMBOL_LENGTH: usize = 16;
const SYMBOL_SECTION: usize = 6;

/// The addresses of these symbols in the file's own numbering, from the dynamic symbols and, for
/// what these lack, from the full symbol table.
pub(crate) fn addresses_of<const N: usize>(
    source: &Source<'_>,
    names: [&str; N],
) -> [Option<u64>; N] {
    extents_of(source, names).map(|found| Some(found?.0))
}

/// The same, with how many bytes each symbol's object takes.
pub(crate) fn extents_of<const N: usize>(
    source: &Source<'_>,
    names: [&str; N],
) -> [Option<(u64, u64)>; N] {
    let mut found = [None; N];
    for (table, strings) in [(".dynsym", ".dynstr"), (".symtab", ".strtab")] {
        look_up(source, (table, strings), &names, &mut found);
    }
    found
}

/// The addresses of at most `most` dynamic symbols whose names begin so, by the rest of their
/// names, which is at most `longest` bytes long.
pub(crate) fn addresses_by_beginning(
    source: &Source<'_>,
    beginning: &str,
    longest: usize,
    most: usize,
) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    each(source, (".dynsym", ".dynstr"), |symbol, strings, name_at| {
        let name = strings.get(name_at..).filter(|name| name.starts_with(beginning.as_bytes()));
        if name.is_some()
            && let Some(rest) = text_at(strings, name_at + beginning.len(), longest)
            && let Some(address) = u64_at(symbol, SYMBOL_VALUE)
        {
            found.insert(rest, address);
        }
        found.len() < most
    });
    found
}

fn look_up(
    source: &Source<'_>,
    tables: (&str, &str),
    names: &[&str],
    found: &mut [Option<(u64, u64)>],
) {
    let longest = names.iter().map(|n| n.len()).max().unwrap_or(0) + 1;
    each(source, tables, |symbol, strings, name_at| {
        if let Some(name) = text_at(strings, name_at, longest)
            && let Some(index) = names.iter().position(|wanted| *wanted == name)
            && let Some(place) = found.get_mut(index)
            && place.is_none()
        {
            *place = u64_at(symbol, SYMBOL_VALUE).zip(u64_at(symbol, SYMBOL_LENGTH));
        }
        found.iter().any(Option::is_none)
    });
}

/// Goes through a table's symbols that the file itself defines, until `take` wants no more: gives
/// it the symbol, the strings, and where its name is among them.
fn each(
    source: &Source<'_>,
    tables: (&str, &str),
    mut take: impl FnMut(&[u8], &[u8], usize) -> bool,
) {
    let data = |name| source.elf.data(source.file, source.elf.section(name)?).ok();
    let (Some(table), Some(strings)) = (data(tables.0), data(tables.1)) else { return };
    for symbol in table.chunks_exact(SYMBOL_SIZE) {
        // Section 0: the symbol is another file's.
        let is_defined = u16_at(symbol, SYMBOL_SECTION).is_some_and(|section| section != 0);
        if let Some(name_at) = u32_at(symbol, 0).filter(|_| is_defined)
            && !take(symbol, &strings, name_at as usize)
        {
            break;
        }
    }
}
