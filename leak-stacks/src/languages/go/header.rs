//! The head of Go's line table.

use crate::bytes::{u32_at, u64_at};

/// Layouts of the table, by the release that brought them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Go116,
    Go118,
    Go120,
}

/// Where the table's parts are, in bytes from its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) format: Format,
    /// Address of the first Go function, where the header declares it: not in Go 1.16, and 0 from
    /// Go 1.26 on and where it is a relocation.
    pub(crate) text: u64,
    pub(crate) functions: usize,
    pub(crate) names: usize,
    pub(crate) units: usize,
    pub(crate) files: usize,
    pub(crate) values: usize,
    pub(crate) entries: usize,
}

impl Header {
    /// Its length in any format.
    pub(crate) const SIZE: usize = 72;

    /// Whether `data` begins like one.
    pub(crate) fn is_here(data: &[u8]) -> bool {
        format(data).is_some()
    }

    /// Reads it from the first [`Self::SIZE`] bytes of the table.
    pub(crate) fn read(data: &[u8]) -> Option<Self> {
        let format = format(data)?;
        let word = |index: usize| u64_at(data, 8 + 8 * index);
        let place = |index| usize::try_from(word(index)?).ok();
        // Numbers of functions and files come before.
        let (text, first) = match format {
            Format::Go116 => (0, 2),
            Format::Go118 | Format::Go120 => (word(2)?, 3),
        };
        Some(Self {
            format,
            text,
            functions: place(0)?,
            names: place(first)?,
            units: place(first + 1)?,
            files: place(first + 2)?,
            values: place(first + 3)?,
            entries: place(first + 4)?,
        })
    }
}

/// By the number that it begins with, two zero bytes, the length of the shortest instruction and
/// the size of a pointer.
fn format(data: &[u8]) -> Option<Format> {
    let format = match u32_at(data, 0)? {
        0xffff_fffa => Format::Go116,
        0xffff_fff0 => Format::Go118,
        0xffff_fff1 => Format::Go120,
        _ => return None,
    };
    (data.get(4..8)? == [0, 0, 1, 8]).then_some(format)
}
