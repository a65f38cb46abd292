//! Reads a file here and there, in order of the addresses and in large pieces.

use std::fs::File;

use crate::binary::elf::{Elf, Segment, read_exact};

/// How much is read at once.
const PIECE: u64 = 1 << 20;

/// The piece of a file that was read last.
pub(crate) struct Window<'a> {
    elf: &'a Elf,
    file: &'a File,
    address: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(elf: &'a Elf, file: &'a File) -> Self {
        Self { elf, file, address: 0, bytes: Vec::new() }
    }

    /// Up to `most` bytes at `address`: fewer before the end of a segment. `most` is far less than
    /// a piece.
    pub(crate) fn at(&mut self, address: u64, most: usize) -> Option<&[u8]> {
        let segment = segment_of(self.elf, address)?;
        let left = segment.file_size - (address - segment.address);
        let length = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        let within = |window: &Self| {
            let from = usize::try_from(address.checked_sub(window.address)?).ok()?;
            let to = from.checked_add(length)?;
            (to <= window.bytes.len()).then_some(from..to)
        };
        if within(self).is_none() {
            let size = usize::try_from(left.min(PIECE)).ok()?;
            let offset = segment.offset.checked_add(address - segment.address)?;
            self.bytes = read_exact(self.file, offset, size).ok()?;
            self.address = address;
        }
        self.bytes.get(within(self)?)
    }
}

/// The segment of which the file has the byte at `address`.
pub(crate) fn segment_of(elf: &Elf, address: u64) -> Option<&Segment> {
    elf.segments.iter().find(|s| address >= s.address && address - s.address < s.file_size)
}
