//! Go's line table, `.gopclntab`: functions, files, lines and frame sizes by address.
//!
//! It survives stripping and covers every Go function. The layout is that of Go's
//! `src/runtime/symtab.go` and `src/debug/gosym/pclntab.go`, for the formats of Go 1.16, 1.18 and
//! 1.20. Every offset comes from the file and is checked; a wrong one gives `None`.

use crate::bytes::{text_at, u32_at, u64_at};
use crate::languages::go::header::{Format, Header};

/// Longest name of a function or file.
const MAX_TEXT: usize = 1024;
/// Most steps of one table of values by address; a function has far fewer.
const MAX_STEPS: usize = 1 << 17;
/// Go's stacks are at most 1 GB.
const MAX_FRAME: i64 = 1 << 30;

/// What a function of the runtime means for unwinding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is its thread's or goroutine's first.
    First,
    /// It switches stacks.
    Switch,
    /// It too, but arranges the stack that it switches to so that it reads as if the code that had
    /// left that stack had called it.
    CalledBack,
}

/// The functions that have a role.
const ROLES: [(&str, Role); 12] = [
    ("runtime.goexit", Role::First),
    ("runtime.mstart", Role::First),
    ("runtime.mstart1", Role::First),
    ("runtime.rt0_go", Role::First),
    ("_rt0_amd64_linux", Role::First),
    ("_rt0_amd64", Role::First),
    ("runtime.mcall", Role::Switch),
    ("runtime.systemstack", Role::Switch),
    ("runtime.asmcgocall", Role::Switch),
    ("runtime.morestack", Role::Switch),
    ("runtime.sigtramp", Role::Switch),
    ("runtime.cgocallback", Role::CalledBack),
];

/// A line table.
pub(crate) struct LineTable {
    data: Vec<u8>,
    header: Header,
    /// Address of the first Go function.
    text_start: u64,
}

impl std::fmt::Debug for LineTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineTable").field("header", &self.header).finish_non_exhaustive()
    }
}

/// A function's record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function {
    entry: u64,
    /// Offset of the record's first field after the entry address.
    fields: usize,
}

impl Function {
    /// Its first address.
    pub(crate) fn entry(&self) -> u64 {
        self.entry
    }
}

impl LineTable {
    /// The table in `data`, whose header has been read. Go's code begins at `text_start`.
    pub(crate) fn new(data: Vec<u8>, header: Header, text_start: u64) -> Option<Self> {
        let table = Self { data, header, text_start };
        // One entry for each function, and the last one's end.
        (header.functions > 0 && table.entry(header.functions).is_some()).then_some(table)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// Start address of function `index` and the place of its record.
    fn entry(&self, index: usize) -> Option<(u64, usize)> {
        let (address, record) = match self.header.format {
            Format::Go116 => {
                let at = self.header.entries.checked_add(index.checked_mul(16)?)?;
                let address = u64_at(&self.data, at)?;
                // The end marker has no record.
                let record =
                    if index < self.header.functions { u64_at(&self.data, at + 8)? } else { 0 };
                (address, usize::try_from(record).ok()?)
            }
            Format::Go118 | Format::Go120 => {
                let at = self.header.entries.checked_add(index.checked_mul(8)?)?;
                let address = self.text_start.checked_add(u32_at(&self.data, at)?.into())?;
                let record =
                    if index < self.header.functions { u32_at(&self.data, at + 4)? } else { 0 };
                (address, usize::try_from(record).ok()?)
            }
        };
        Some((address, self.header.entries.checked_add(record)?))
    }

    /// The function that holds `address`.
    pub(crate) fn function(&self, address: u64) -> Option<Function> {
        let (mut low, mut high) = (0, self.header.functions);
        if address < self.entry(0)?.0 || address >= self.entry(self.header.functions)?.0 {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.entry(middle)?.0 <= address {
                low = middle;
            } else {
                high = middle;
            }
        }
        let (entry, record) = self.entry(low)?;
        Some(Function { entry, fields: record.checked_add(self.entry_size())? })
    }

    /// The function of this name, and its length.
    pub(crate) fn function_named(&self, name: &str) -> Option<(Function, u64)> {
        (0..self.header.functions).find_map(|index| {
            let (entry, record) = self.entry(index)?;
            let function = Function { entry, fields: record.checked_add(self.entry_size())? };
            let length = self.entry(index + 1)?.0.checked_sub(entry)?;
            self.is_named(&function, name).then_some((function, length))
        })
    }

    fn is_named(&self, function: &Function, name: &str) -> bool {
        let place = || self.header.names.checked_add(self.field(function, 0)?.try_into().ok()?);
        let text = place().and_then(|place: usize| self.data.get(place..)).unwrap_or_default();
        text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0)
    }

    /// Length of the entry address at the beginning of a function's record.
    fn entry_size(&self) -> usize {
        if self.header.format == Format::Go116 { 8 } else { 4 }
    }

    fn field(&self, function: &Function, index: usize) -> Option<u32> {
        u32_at(&self.data, function.fields.checked_add(index.checked_mul(4)?)?)
    }

    /// A function's name, with its package's path.
    pub(crate) fn name(&self, function: &Function) -> Option<String> {
        self.text(self.field(function, 0)?)
    }

    /// The function name at `offset` of the names.
    pub(crate) fn text(&self, offset: u32) -> Option<String> {
        let offset = usize::try_from(offset).ok()?;
        text_at(&self.data, self.header.names.checked_add(offset)?, MAX_TEXT)
            .filter(|n| !n.is_empty())
    }

    /// Bytes between the stack pointer and the return address at `address`.
    pub(crate) fn frame_size(&self, function: &Function, address: u64) -> Option<u32> {
        let size = self.value(self.field(function, 3)?, function.entry, address)?;
        (0..=MAX_FRAME).contains(&size).then(|| u32::try_from(size).ok()).flatten()
    }

    /// The source file at `address`.
    pub(crate) fn file(&self, function: &Function, address: u64) -> Option<String> {
        let number = self.value(self.field(function, 4)?, function.entry, address)?;
        let unit = u64::from(self.field(function, 7)?);
        // The compilation unit's part of the table lists the places of its files' names.
        let index = usize::try_from(unit.checked_add_signed(number)?).ok()?;
        let place = u32_at(&self.data, self.header.units.checked_add(index.checked_mul(4)?)?)?;
        let place = usize::try_from(place).ok()?;
        text_at(&self.data, self.header.files.checked_add(place)?, MAX_TEXT)
            .filter(|n| !n.is_empty())
    }

    /// The source line at `address`.
    pub(crate) fn line(&self, function: &Function, address: u64) -> Option<u32> {
        let line = self.value(self.field(function, 5)?, function.entry, address)?;
        u32::try_from(line).ok().filter(|line| *line > 0)
    }

    /// A function's role, if it has one.
    pub(crate) fn role(&self, function: &Function) -> Option<Role> {
        ROLES.iter().find(|(name, _)| self.is_named(function, name)).map(|(_, role)| *role)
    }

    /// Size of `runtime.inlinedCall`, and where in it the name and the caller's place are.
    pub(crate) fn inline_layout(&self) -> Option<(usize, usize, usize)> {
        match self.header.format {
            Format::Go116 => None,
            Format::Go118 => Some((20, 12, 16)),
            Format::Go120 => Some((16, 4, 8)),
        }
    }

    /// Index, among the record's fields, of the one with the function's kind in its first byte; the
    /// per-function tables follow it. 1.20 added the first line before it.
    fn kind_field(&self) -> usize {
        if self.header.format == Format::Go120 { 9 } else { 8 }
    }

    /// Where in `go:func.*` the function's inlined calls are described (`FUNCDATA_InlTree`).
    pub(crate) fn inline_tree(&self, function: &Function) -> Option<u32> {
        const INLINE_TREE: usize = 3;
        let kind = self.kind_field();
        let [.., count] = self.field(function, kind)?.to_le_bytes();
        let tables = usize::try_from(self.field(function, 6)?).ok()?;
        if usize::from(count) <= INLINE_TREE {
            return None;
        }
        let index = kind.checked_add(1 + INLINE_TREE)?.checked_add(tables)?;
        self.field(function, index).filter(|offset| *offset != u32::MAX)
    }

    /// Which inlined call `address` belongs to (`PCDATA_InlTreeIndex`); `None` for none.
    pub(crate) fn inline_index(&self, function: &Function, address: u64) -> Option<u32> {
        const INLINE_INDEX: u32 = 2;
        if self.field(function, 6)? <= INLINE_INDEX {
            return None;
        }
        let offset = self.field(function, self.kind_field() + 1 + INLINE_INDEX as usize)?;
        u32::try_from(self.value(offset, function.entry, address)?).ok()
    }

    /// The value that holds at `target` in the table at `offset`, which lists differences of
    /// values and of addresses, by turns, from `entry` on.
    fn value(&self, offset: u32, entry: u64, target: u64) -> Option<i64> {
        if offset == 0 {
            return None;
        }
        let mut at = self.header.values.checked_add(usize::try_from(offset).ok()?)?;
        let (mut value, mut address) = (-1i64, entry);
        for step in 0..MAX_STEPS {
            let difference = self.varint(&mut at)?;
            if difference == 0 && step > 0 {
                return None;
            }
            let half = i64::from(difference >> 1);
            value = value.checked_add(if difference & 1 == 0 { half } else { !half })?;
            address = address.checked_add(self.varint(&mut at)?.into())?;
            if target < address {
                return Some(value);
            }
        }
        None
    }

    fn varint(&self, at: &mut usize) -> Option<u32> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = *self.data.get(*at)?;
            *at += 1;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
