//! Relative relocations, as the dynamic section lists them.

use std::fs::File;

use crate::binary::elf::{Elf, MAX_SECTION, read_exact};
use crate::bytes::{u32_at, u64_at};
use crate::processor::RELATIVE_RELOCATION;

/// The table of a file's relocations.
pub(crate) struct Relocations(Vec<u8>);

impl Relocations {
    const SIZE: usize = 24;

    pub(crate) fn read(elf: &Elf, file: &File) -> Self {
        Self(Self::list(elf, file).unwrap_or_default())
    }

    fn list(elf: &Elf, file: &File) -> Option<Vec<u8>> {
        const DT_RELA: u64 = 7;
        const DT_RELASZ: u64 = 8;
        const MAX_DYNAMIC: usize = 64 << 10;
        let (offset, size) = elf.dynamic?;
        let dynamic = read_exact(file, offset, size.min(MAX_DYNAMIC)).ok()?;
        let entry = |wanted: u64| {
            let found = dynamic.chunks_exact(16).find(|e| u64_at(e, 0) == Some(wanted))?;
            u64_at(found, 8)
        };
        let size = entry(DT_RELASZ).filter(|size| *size <= MAX_SECTION)?;
        let offset = elf.offset_of_address(entry(DT_RELA)?)?;
        read_exact(file, offset, usize::try_from(size).ok()?).ok()
    }

    /// Place and value of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.chunks_exact(Self::SIZE).filter_map(|entry| {
            let is_relative = u32_at(entry, 8)? == RELATIVE_RELOCATION;
            is_relative.then_some((u64_at(entry, 0)?, u64_at(entry, 16)?))
        })
    }

    /// Where `value` is put.
    pub(crate) fn places_of(&self, value: u64) -> impl Iterator<Item = u64> {
        self.iter().filter(move |(_, put)| *put == value).map(|(place, _)| place)
    }

    /// Puts values into the words that lie at `place`.
    pub(crate) fn apply<const WORDS: usize>(&self, place: u64, words: &mut [u64; WORDS]) {
        for (at, value) in self.iter() {
            let index = at.checked_sub(place).filter(|o| o % 8 == 0).map(|o| o / 8);
            let word = index.and_then(|i| words.get_mut(usize::try_from(i).ok()?));
            if let Some(word) = word {
                *word = value;
            }
        }
    }
}
