//! Real binaries, damaged where it matters.

use crate::bytes::{text_at, u16_at, u32_at, u64_at};

/// A binary's bytes.
#[derive(Clone)]
pub(crate) struct Image(pub(super) Vec<u8>);

const SECTION: usize = 64;
const PROGRAM: usize = 56;
/// Fields of a section's header: place in the header, and length.
const FIELDS: [(usize, usize); 6] = [(0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8)];
/// Values that no field should have.
const ABSURD: [u64; 5] = [0, 1, u64::MAX, 1 << 63, 0xffff_ffff];
/// The sections that are looked into.
const READ: [&str; 9] = [
    ".eh_frame",
    ".eh_frame_hdr",
    ".gopclntab",
    ".go.buildinfo",
    ".noptrdata",
    ".symtab",
    ".debug_info",
    ".debug_line",
    ".debug_abbrev",
];

impl Image {
    fn place(&self, at: usize) -> usize {
        usize::try_from(u64_at(&self.0, at).unwrap()).unwrap()
    }

    /// Places of all sections' headers.
    fn headers(&self) -> Vec<usize> {
        let count = usize::from(u16_at(&self.0, 60).unwrap());
        (0..count).map(|index| self.place(40) + index * SECTION).collect()
    }

    fn name(&self, header: usize) -> String {
        let names = self.headers()[usize::from(u16_at(&self.0, 62).unwrap())];
        let at = self.place(names + 24) + u32_at(&self.0, header).unwrap() as usize;
        text_at(&self.0, at, 64).unwrap()
    }

    fn with(&self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut image = self.clone();
        change(&mut image.0);
        image
    }

    fn set(&self, at: usize, length: usize, value: u64) -> Self {
        self.with(|bytes| bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]))
    }

    /// All the ways in which it is broken here.
    pub(crate) fn broken(&self) -> Vec<Self> {
        let mut broken = Vec::new();
        let length = self.0.len();
        for eighth in 0..8 {
            broken.push(self.with(|bytes| bytes.truncate(length * eighth / 8 + eighth)));
        }
        // Counts, sizes and places of the tables of headers.
        for (at, field) in [(32, 8), (40, 8), (54, 2), (56, 2), (58, 2), (60, 2), (62, 2)] {
            broken.extend(ABSURD.map(|value| self.set(at, field, value)));
        }
        let programs = usize::from(u16_at(&self.0, 56).unwrap());
        for value in ABSURD {
            // Every segment lies at that place, or is of that size: all overlap, or none is there.
            for field in [8, 16, 32] {
                broken.push(self.with(|bytes| {
                    for index in 0..programs {
                        let at = 64 + index * PROGRAM + field;
                        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                    }
                }));
            }
            for (at, field) in FIELDS {
                broken.push(self.with(|bytes| {
                    for header in self.headers() {
                        let at = header + at;
                        bytes[at..at + field].copy_from_slice(&value.to_le_bytes()[..field]);
                    }
                }));
            }
        }
        // All sections are the whole file.
        broken.push(self.with(|bytes| {
            for header in self.headers() {
                bytes[header + 24..header + 32].fill(0);
                bytes[header + 32..header + 40].copy_from_slice(&(length as u64).to_le_bytes());
            }
        }));
        for header in self.headers() {
            if READ.contains(&self.name(header).as_str()) {
                broken.extend(self.with_broken_section(header));
            }
        }
        broken
    }

    fn with_broken_section(&self, header: usize) -> Vec<Self> {
        let (at, size) = (self.place(header + 24), self.place(header + 32));
        let mut broken = Vec::new();
        for value in [0, 0x80, 0xff] {
            broken.push(self.with(|bytes| bytes[at..at + size].fill(value)));
            // The beginning, where counts and sizes are.
            for word in (0..size.min(64)).step_by(16) {
                let end = at + size.min(word + 8);
                broken.push(self.with(|bytes| bytes[at + word..end].fill(value)));
            }
            // Here and there.
            broken.push(self.with(|bytes| {
                bytes[at..at + size].iter_mut().step_by(61).for_each(|byte| *byte = value);
            }));
        }
        broken
    }
}
