//! Go's description of a program, `runtime.moduledata`, which says where its parts are.
//!
//! No symbol is needed to find it: it begins with the addresses of the line table and of the names
//! in that. The layouts are those of `src/runtime/symtab.go`. In a position-independent executable
//! its words may lie in relocations rather than in place.

use std::fs::File;

use crate::binary::elf::{Elf, read_exact};
use crate::binary::relocations::Relocations;
use crate::bytes::u64_at;
use crate::languages::go::header::{Format, Header};
use crate::languages::go::scan::{is_data, scan};

/// As many words of the structure as are of use in any release.
const WORDS: usize = 44;
/// Most places that are looked at.
const MAX_CANDIDATES: usize = 4;
/// Where the line table's last part lies: address and length.
const LAST_PART: (usize, usize) = (13, 14);
/// First address of Go's code, and the one behind its last.
const TEXT: (usize, usize) = (22, 23);

/// A description.
#[derive(Debug)]
pub(crate) struct Module {
    words: [u64; WORDS],
}

impl Module {
    /// Finds the description of the program whose line table lies at `table`.
    pub(crate) fn find(elf: &Elf, file: &File, table: u64, header: &Header) -> Option<Self> {
        let names = table.checked_add(header.names as u64)?;
        let relocations = Relocations::read(elf, file);
        let is_it = |words: &[u64; WORDS]| {
            let (text, end) = (words[TEXT.0], words[TEXT.1]);
            words[0] == table
                && words[1] == names
                && text < end
                && elf.offset_of_address(text).is_some()
        };
        let at = |place: u64| {
            let mut words = in_place(elf, file, place)?;
            relocations.apply(place, &mut words);
            is_it(&words).then_some(Self { words })
        };
        let mut tries = 0..MAX_CANDIDATES;
        let written = scan(elf, file, is_data, 8, |place, data| {
            let starts = u64_at(data, 0) == Some(table);
            // Whether the next word is in place as well, the whole will tell.
            if starts && tries.next().is_some() { at(place) } else { None }
        });
        written.or_else(|| relocations.places_of(table).take(MAX_CANDIDATES).find_map(at))
    }

    /// Address of Go's code.
    pub(crate) fn text(&self) -> u64 {
        self.words[TEXT.0]
    }

    /// The address behind the line table.
    pub(crate) fn table_end(&self) -> Option<u64> {
        self.words[LAST_PART.0].checked_add(self.words[LAST_PART.1])
    }

    /// Address of what functions' tables point into (`go:func.*`). It follows that of the read-only
    /// data, before which words were added in Go 1.20 and in Go 1.27.
    pub(crate) fn function_data(&self, elf: &Elf, format: Format) -> Option<u64> {
        let fields: &[usize] = match format {
            // Pointers took the place of offsets into it.
            Format::Go116 => &[],
            Format::Go118 => &[38],
            Format::Go120 => &[40, 43],
        };
        fields.iter().find_map(|&field| {
            let (data, functions) = (*self.words.get(field - 1)?, *self.words.get(field)?);
            let is_it = data != 0
                && data <= functions
                && elf.offset_of_address(data).is_some()
                && elf.offset_of_address(functions).is_some();
            is_it.then_some(functions)
        })
    }
}

/// The words at `place`, as the file has them.
fn in_place(elf: &Elf, file: &File, place: u64) -> Option<[u64; WORDS]> {
    let data = read_exact(file, elf.offset_of_address(place)?, 8 * WORDS).ok()?;
    let mut words = [0; WORDS];
    for (index, word) in words.iter_mut().enumerate() {
        *word = u64_at(&data, 8 * index)?;
    }
    Some(words)
}
