//! Objects of V8's heap, read from a process that runs on. None is believed to be what a pointer to
//! it was of: the collector moves objects, and others take their place.

use std::ops::Range;

use crate::languages::target::Target;
use crate::languages::v8::layout::{ARRAY_DATA, ARRAY_LENGTH, LIST_DATA, LIST_USED, Layout};

/// How deep strings that consist of others are followed.
const MAX_STRING_DEPTH: u32 = 32;
/// Most parts of one string, and of its characters read at once.
const MAX_PARTS: u32 = 64;
const AT_ONCE: u64 = 16 << 10;
/// Longest array of bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Forms of strings, in their instance types' lowest bits.
const FORM: u16 = 7;
const SEQUENTIAL: u16 = 0;
const OF_TWO: u16 = 1;
const EXTERNAL: u16 = 2;
const PART: u16 = 3;
const FORWARDED: u16 = 5;
const ONE_BYTE: u16 = 8;

/// The heap of a process.
#[derive(Clone, Copy)]
pub(crate) struct Heap<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) target: &'a dyn Target,
}

/// The address that a word points to; `None` when it is no pointer to an object.
pub(crate) fn pointer(word: u64) -> Option<u64> {
    (word & 3 == 1).then(|| word - 1).filter(|address| *address != 0 && address.is_multiple_of(8))
}

/// The same for a word that may keep its object alive or not.
pub(crate) fn weak_pointer(word: u64) -> Option<u64> {
    pointer(word & !2)
}

/// The small number that a word is.
pub(crate) fn small(word: u64) -> Option<i32> {
    (word & 0xffff_ffff == 0).then_some((word >> 32) as u32).map(u32::cast_signed)
}

impl<'a> Heap<'a> {
    /// A word of an object.
    pub(crate) fn word(self, object: u64, offset: u64) -> Option<u64> {
        self.target.u64(object.checked_add(offset)?)
    }

    /// The object that a word of an object points to.
    pub(crate) fn object(self, object: u64, offset: u64) -> Option<u64> {
        pointer(self.word(object, offset)?)
    }

    /// The small number in a word of an object.
    pub(crate) fn small(self, object: u64, offset: u64) -> Option<i32> {
        small(self.word(object, offset)?)
    }

    /// The instance type of what lies at an address; `None` when that is no object.
    pub(crate) fn instance_type(self, object: u64) -> Option<u16> {
        let map = self.object(object, 0)?;
        let kind = self.type_in(map)?;
        let is_map = || self.type_in(self.object(map, 0)?);
        (is_map()? == self.layout.types.map).then_some(kind)
    }

    fn type_in(self, map: u64) -> Option<u16> {
        self.target.u16(map.checked_add(self.layout.map_type)?)
    }

    pub(crate) fn is(self, object: u64, instance_type: u16) -> bool {
        self.instance_type(object) == Some(instance_type)
    }

    /// The bytes of an array of bytes.
    pub(crate) fn bytes(self, array: u64) -> Option<Vec<u8>> {
        let kind = self.instance_type(array)?;
        if !self.layout.types.byte_arrays.contains(&Some(kind)) {
            return None;
        }
        let length = u64::try_from(self.small(array, ARRAY_LENGTH)?).ok()?;
        if length > MAX_BYTES {
            return None;
        }
        self.target.bytes(array.checked_add(ARRAY_DATA)?, usize::try_from(length).ok()?)
    }

    /// How many elements an array has.
    pub(crate) fn count(self, array: u64) -> Option<u64> {
        let kind = self.instance_type(array)?;
        if !self.layout.types.arrays.contains(&Some(kind)) {
            return None;
        }
        u64::try_from(self.small(array, ARRAY_LENGTH)?).ok()
    }

    /// The elements of an array.
    pub(crate) fn elements(self, array: u64, most: u64) -> Option<Vec<u64>> {
        let count = self.count(array)?.min(most);
        self.words(array.checked_add(ARRAY_DATA)?, count)
    }

    /// The elements of a list that grows.
    pub(crate) fn listed(self, list: u64, most: u64) -> Option<Vec<u64>> {
        self.is(list, self.layout.types.list).then_some(())?;
        let count = |offset| u64::try_from(self.small(list, offset)?).ok();
        let (capacity, used) = (count(ARRAY_LENGTH)?, count(LIST_USED)?);
        (used <= capacity).then_some(())?;
        self.words(list.checked_add(LIST_DATA)?, used.min(most))
    }

    fn words(self, first: u64, count: u64) -> Option<Vec<u64>> {
        let length = usize::try_from(count.checked_mul(8)?).ok()?;
        let bytes = self.target.bytes(first, length)?;
        let words = bytes.chunks_exact(8);
        Some(words.filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?))).collect())
    }

    /// An element of an array.
    pub(crate) fn element(self, array: u64, index: u64) -> Option<u64> {
        let at = ARRAY_DATA.checked_add(index.checked_mul(8)?)?;
        (index < self.count(array)?).then_some(())?;
        self.word(array, at)
    }

    /// How many characters a string has; `None` when it is none.
    pub(crate) fn string_length(self, string: u64) -> Option<u32> {
        (self.instance_type(string)? < self.layout.types.first_non_string).then_some(())?;
        self.target.u32(string.checked_add(self.layout.strings.length)?)
    }

    /// A string of at most `most` characters.
    pub(crate) fn string(self, string: u64, most: u32) -> Option<String> {
        let length = self.string_length(string).filter(|length| *length <= most)?;
        let mut units = Vec::new();
        self.characters(string, 0..length, &mut |unit| units.push(unit))?;
        Some(String::from_utf16_lossy(&units))
    }

    /// Goes through these of a string's characters, as UTF-16.
    pub(crate) fn characters(
        self,
        string: u64,
        wanted: Range<u32>,
        take: &mut dyn FnMut(u16),
    ) -> Option<()> {
        let mut parts = MAX_PARTS;
        self.part(string, wanted, take, (MAX_STRING_DEPTH, &mut parts))
    }

    fn part(
        self,
        string: u64,
        wanted: Range<u32>,
        take: &mut dyn FnMut(u16),
        (depth, parts): (u32, &mut u32),
    ) -> Option<()> {
        let strings = &self.layout.strings;
        let length = self.string_length(string)?;
        let kind = self.instance_type(string)?;
        if wanted.is_empty() {
            return Some(());
        }
        *parts = parts.checked_sub(1)?;
        let left = depth.checked_sub(1)?;
        (wanted.end <= length).then_some(())?;
        match kind & FORM {
            SEQUENTIAL => {
                let first = string.checked_add(strings.characters)?;
                self.units(first, kind & ONE_BYTE != 0, wanted, take)
            }
            EXTERNAL => {
                // Behind the resource V8 keeps where its characters are.
                let first = self.word(string, strings.resource.checked_add(8)?)?;
                self.units(first, kind & ONE_BYTE != 0, wanted, take)
            }
            OF_TWO => {
                let (first, second) =
                    (self.object(string, strings.first)?, self.object(string, strings.second)?);
                let border = self.string_length(first)?;
                let in_first = wanted.start.min(border)..wanted.end.min(border);
                let in_second = wanted.start.max(border) - border..wanted.end.max(border) - border;
                self.part(first, in_first, take, (left, &mut *parts))?;
                self.part(second, in_second, take, (left, parts))
            }
            PART => {
                let begin = u32::try_from(self.small(string, strings.offset)?).ok()?;
                let range = wanted.start.checked_add(begin)?..wanted.end.checked_add(begin)?;
                self.part(self.object(string, strings.parent)?, range, take, (left, parts))
            }
            FORWARDED => {
                self.part(self.object(string, strings.actual)?, wanted, take, (left, parts))
            }
            _ => None,
        }
    }

    fn units(
        self,
        first: u64,
        of_one_byte: bool,
        wanted: Range<u32>,
        take: &mut dyn FnMut(u16),
    ) -> Option<()> {
        let size = if of_one_byte { 1 } else { 2 };
        let mut at = first.checked_add(u64::from(wanted.start).checked_mul(size)?)?;
        let end = first.checked_add(u64::from(wanted.end).checked_mul(size)?)?;
        while at < end {
            let length = usize::try_from((end - at).min(AT_ONCE)).ok()?;
            let bytes = self.target.bytes(at, length)?;
            match of_one_byte {
                true => bytes.iter().for_each(|&byte| take(byte.into())),
                false => bytes.chunks_exact(2).for_each(|pair| {
                    if let &[low, high] = pair {
                        take(u16::from_le_bytes([low, high]));
                    }
                }),
            }
            at = at.checked_add(length as u64)?;
        }
        Some(())
    }
}
