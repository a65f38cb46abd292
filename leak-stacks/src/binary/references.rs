//! Which code of a binary refers to which text.
//!
//! Compilers put texts among the constants, and code takes their address relative to its own: by
//! `lea`, or by loading a pointer that lies in the data, as for tables of texts. In programs that
//! are loaded where they were linked to, `mov` may have the address itself. So the code's bytes are
//! searched for such instructions wherever one may begin: what looks like one and is none leads to
//! the very beginning of a text as good as never.
//!
//! The index is made once for a binary. It holds 12 bytes for each reference.

use std::fs::File;

use crate::binary::elf::{Elf, Segment, read_exact};
use crate::binary::facts::{Facts, Source};
use crate::binary::relocations::Relocations;
use crate::binary::window::{Window, segment_of};
use crate::bytes::{u32_at, u64_at};

/// Most instructions that are looked at, and most references that are kept.
const MAX_CANDIDATES: usize = 4 << 20;
const MAX_KEPT: usize = 1 << 20;
/// Most bytes of code that are searched.
const MAX_CODE: u64 = 256 << 20;
const CHUNK: usize = 1 << 20;
/// Longest instruction that is looked for.
const LONGEST: usize = 11;
/// A text begins with this many printable bytes, after at most so much white space.
const FIRST: usize = 5;
const MAX_INDENT: usize = 64;
/// Longest text whose length is believed.
const MAX_LENGTH: u64 = 1 << 20;

/// Code that refers to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// Where the text begins.
    pub(crate) text: u64,
    /// The instruction.
    pub(crate) code: u64,
    /// How long the text is, where the data tell.
    pub(crate) length: Option<u32>,
}

/// Addresses are kept relative to the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packed {
    text: u32,
    code: u32,
    /// 0: nothing tells.
    length: u32,
}

/// The references of a binary's code to texts, by text.
#[derive(Debug, Default)]
pub(crate) struct References {
    base: u64,
    packed: Vec<Packed>,
}

impl Facts for References {
    fn read(&Source { elf, file, .. }: &Source<'_>) -> Self {
        let base = elf.segments.iter().map(|s| s.address).min().unwrap_or(0);
        let mut index = Index { elf, file, base, packed: Vec::new() };
        let mut candidates = index.candidates();
        candidates.sort_unstable();
        candidates.dedup();
        index.keep_texts(&candidates);
        index.keep_pointed_to(&candidates);
        drop(candidates);
        let mut packed = index.packed;
        packed.sort_unstable();
        packed.dedup();
        packed.shrink_to_fit();
        Self { base, packed }
    }

    fn bytes(&self) -> u64 {
        (self.packed.len() * size_of::<Packed>()) as u64
    }
}

impl References {
    /// All of them, by text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Reference> {
        self.packed.iter().map(|packed| Reference {
            text: self.base.wrapping_add(packed.text.into()),
            code: self.base.wrapping_add(packed.code.into()),
            length: Some(packed.length).filter(|&length| length != 0),
        })
    }
}

/// An index that is being made.
struct Index<'a> {
    elf: &'a Elf,
    file: &'a File,
    base: u64,
    packed: Vec<Packed>,
}

impl Index<'_> {
    /// What instructions refer to, each with the instruction's place.
    fn candidates(&self) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        let mut left = MAX_CODE;
        // Where nothing is loaded elsewhere, an instruction can hold an address itself.
        let may_be_absolute = self.base != 0;
        for segment in self.elf.segments.iter().filter(|segment| segment.executable) {
            let mut at = 0;
            while at < segment.file_size && left > 0 {
                let length = (segment.file_size - at).min((CHUNK + LONGEST) as u64);
                let (Some(offset), Ok(size)) =
                    (segment.offset.checked_add(at), usize::try_from(length))
                else {
                    break;
                };
                let Ok(bytes) = read_exact(self.file, offset, size) else { break };
                let start = segment.address.wrapping_add(at);
                search(&bytes, start, may_be_absolute, |code, target| {
                    if found.len() < MAX_CANDIDATES && self.may_be_data(target) {
                        found.extend(self.relative(target).zip(self.relative(code)));
                    }
                });
                at += CHUNK as u64;
                left = left.saturating_sub(CHUNK as u64);
            }
        }
        found
    }

    fn relative(&self, address: u64) -> Option<u32> {
        address.checked_sub(self.base)?.try_into().ok()
    }

    fn absolute(&self, relative: u32) -> u64 {
        self.base.wrapping_add(relative.into())
    }

    fn may_be_data(&self, address: u64) -> bool {
        let is_constant = |s: &Segment| !s.executable && !s.writable && s.file_size > 0x1000;
        match segment_of(self.elf, address) {
            // Old linkers put constants and code into the same segment.
            Some(s) if s.executable => !self.elf.segments.iter().any(is_constant),
            Some(_) => true,
            None => false,
        }
    }

    /// Keeps the candidates that are texts.
    fn keep_texts(&mut self, candidates: &[(u32, u32)]) {
        let mut window = Window::new(self.elf, self.file);
        for &(text, code) in candidates {
            let bytes = window.at(self.absolute(text), MAX_INDENT + FIRST);
            if bytes.is_some_and(begins_a_text) && self.packed.len() < MAX_KEPT {
                self.packed.push(Packed { text, code, length: 0 });
            }
        }
    }

    /// Keeps the texts that candidates point to: by a pointer alone, or with the length after it.
    fn keep_pointed_to(&mut self, candidates: &[(u32, u32)]) {
        let mut relocations: Vec<_> = Relocations::read(self.elf, self.file).iter().collect();
        relocations.sort_unstable();
        let mut window = Window::new(self.elf, self.file);
        let mut pointed_to = Vec::new();
        for &(place, code) in candidates.iter().filter(|(place, _)| place % 8 == 0) {
            let address = self.absolute(place);
            let Some(bytes) = window.at(address, 16) else { continue };
            let relocated = relocations.binary_search_by_key(&address, |(at, _)| *at);
            let relocated = relocated.ok().and_then(|at| relocations.get(at));
            let pointer = relocated.map(|(_, value)| *value).or_else(|| u64_at(bytes, 0));
            let length = u64_at(bytes, 8).filter(|length| (1..=MAX_LENGTH).contains(length));
            if let Some(pointer) = pointer.filter(|&pointer| self.may_be_data(pointer))
                && let Some(text) = self.relative(pointer)
                && pointed_to.len() < MAX_KEPT
            {
                let length = length.and_then(|length| length.try_into().ok()).unwrap_or(0);
                pointed_to.push(Packed { text, code, length });
            }
        }
        pointed_to.sort_unstable();
        let mut window = Window::new(self.elf, self.file);
        for packed in pointed_to {
            let bytes = window.at(self.absolute(packed.text), MAX_INDENT + FIRST);
            if bytes.is_some_and(begins_a_text) && self.packed.len() < MAX_KEPT {
                self.packed.push(packed);
            }
        }
    }
}

/// Tells each place in `bytes`, which lie at `start`, that may be an instruction which takes an
/// address or loads from one.
fn search(bytes: &[u8], start: u64, may_be_absolute: bool, mut found: impl FnMut(u64, u64)) {
    // The first byte says enough of most places.
    for (at, window) in bytes.windows(LONGEST).enumerate() {
        let (length, displacement) = match *window {
            // lea, mov: REX with a 64-bit operand, opcode, a register and a displacement.
            [0x48 | 0x4c, 0x8d | 0x8b, operands, ..] if operands & 0xc7 == 5 => (7, 3),
            // movups, movaps, movq: a pointer and the length behind it at once.
            [0x0f, 0x10 | 0x28 | 0x6f, operands, ..] if operands & 0xc7 == 5 => (7, 3),
            // mov to a 32-bit register; to memory by the instruction's, the stack's or the frame's
            // address.
            [0xb8..=0xbf, ..] if may_be_absolute => (0, 1),
            [0x48, 0xc7, 0x05, ..] if may_be_absolute => (0, 7),
            [0x48, 0xc7, 0x44, 0x24, ..] if may_be_absolute => (0, 5),
            [0x48, 0xc7, 0x45, ..] if may_be_absolute => (0, 4),
            _ => continue,
        };
        let Some(value) = u32_at(window, displacement) else { continue };
        let code = start.wrapping_add(at as u64);
        let target = match length {
            0 => u64::from(value),
            length => code.wrapping_add(length).wrapping_add_signed(i64::from(value.cast_signed())),
        };
        found(code, target);
    }
}

fn begins_a_text(bytes: &[u8]) -> bool {
    let is_space = |byte: &&u8| byte.is_ascii_whitespace();
    let indent = bytes.iter().take_while(is_space).count().min(MAX_INDENT);
    let first = bytes.get(indent..indent + FIRST);
    first.is_some_and(|first| {
        first.first().is_some_and(u8::is_ascii_graphic)
            && first.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_found_wherever_they_begin() {
        let code = [
            0x90, 0x48, 0x8d, 0x05, 0x10, 0, 0, 0, // lea 0x10(%rip),%rax
            0x4c, 0x8b, 0x3d, 0xf0, 0xff, 0xff, 0xff, // mov -0x10(%rip),%r15
            0xbf, 0x00, 0x20, 0x40, 0x00, // mov $0x402000,%edi
            0x48, 0x8d, 0x45, 0x10, 0, 0, 0, 0, 0, 0, 0, // lea 0x10(%rbp),%rax
        ];
        let found = |absolute| {
            let mut all = Vec::new();
            search(&code, 0x1000, absolute, |code, target| all.push((code, target)));
            all
        };
        assert_eq!(found(false), [(0x1001, 0x1018), (0x1008, 0xfff)]);
        assert_eq!(found(true).last(), Some(&(0x100f, 0x40_2000)));
    }

    #[test]
    fn what_begins_a_text() {
        assert!(begins_a_text(b"SELECT 1"));
        assert!(begins_a_text(b"\n\t\tSELECT"));
        assert!(!begins_a_text(b"SEL\0CT"));
        assert!(!begins_a_text(b"abc"));
        assert!(!begins_a_text(&[b' '; 100]));
    }

    #[test]
    fn a_damaged_binary_has_few_references_and_no_panic() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        for cut in [64, 4096, 100_000] {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, &whole[..cut]).unwrap();
            let Ok(elf) = Elf::read(&file) else { continue };
            References::read(&Source { elf: &elf, file: &file, debug: None });
        }
    }
}
