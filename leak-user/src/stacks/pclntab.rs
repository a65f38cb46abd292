//! Go's line table, `.gopclntab`: functions, files, lines and frame sizes by address.
//!
//! It survives stripping and covers every Go function. The layout is that of Go's
//! `src/runtime/symtab.go` and `src/debug/gosym/pclntab.go`, for the formats of Go 1.16, 1.18 and
//! 1.20. Every offset comes from the file and is checked; a wrong one gives `None`.

use super::bytes::{text_at, u32_at, u64_at};

/// Longest name of a function or file.
const MAX_TEXT: usize = 1024;
/// Most steps of one table of values by address; a function has far fewer.
const MAX_STEPS: usize = 1 << 20;
/// Go's stacks are at most 1 GB.
const MAX_FRAME: i64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Go116,
    Go118,
    Go120,
}

/// Why a function has no caller on its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// It is its thread's or goroutine's first.
    First,
    /// It switches stacks.
    Switch,
}

/// A line table.
pub(super) struct LineTable {
    data: Vec<u8>,
    format: Format,
    /// Address of the first Go function.
    text_start: u64,
    functions: usize,
    names: usize,
    units: usize,
    files: usize,
    values: usize,
    entries: usize,
}

impl std::fmt::Debug for LineTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineTable")
            .field("format", &self.format)
            .field("functions", &self.functions)
            .finish_non_exhaustive()
    }
}

/// A function's record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    entry: u64,
    /// Offset of the record's first field after the entry address.
    fields: usize,
}

impl LineTable {
    /// Reads the header. `text_start` gets the address that the header declares as the Go code's
    /// beginning and gives the one to use.
    pub(super) fn new(data: Vec<u8>, text_start: impl FnOnce(u64) -> Option<u64>) -> Option<Self> {
        let format = match u32_at(&data, 0)? {
            0xffff_fffa => Format::Go116,
            0xffff_fff0 => Format::Go118,
            0xffff_fff1 => Format::Go120,
            _ => return None,
        };
        // Two zero bytes, the length of the shortest instruction, the size of a pointer.
        if data.get(4..8)? != [0, 0, 1, 8] {
            return None;
        }
        let word = |index: usize| u64_at(&data, 8 + 8 * index);
        let place = |index| usize::try_from(word(index)?).ok().filter(|o| *o <= data.len());
        let functions = usize::try_from(word(0)?).ok()?;
        let (text_start, first) = match format {
            Format::Go116 => (0, 2),
            Format::Go118 | Format::Go120 => (text_start(word(2)?)?, 3),
        };
        let (names, units, files) = (place(first)?, place(first + 1)?, place(first + 2)?);
        let (values, entries) = (place(first + 3)?, place(first + 4)?);
        let table =
            Self { format, text_start, functions, names, units, files, values, entries, data };
        // One entry for each function, and the last one's end.
        (functions > 0 && table.entry(functions).is_some()).then_some(table)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// Start address of function `index` and the place of its record.
    fn entry(&self, index: usize) -> Option<(u64, usize)> {
        let (address, record) = match self.format {
            Format::Go116 => {
                let at = self.entries.checked_add(index.checked_mul(16)?)?;
                let address = u64_at(&self.data, at)?;
                // The end marker has no record.
                let record = if index < self.functions { u64_at(&self.data, at + 8)? } else { 0 };
                (address, usize::try_from(record).ok()?)
            }
            Format::Go118 | Format::Go120 => {
                let at = self.entries.checked_add(index.checked_mul(8)?)?;
                let address = self.text_start.checked_add(u32_at(&self.data, at)?.into())?;
                let record = if index < self.functions { u32_at(&self.data, at + 4)? } else { 0 };
                (address, usize::try_from(record).ok()?)
            }
        };
        Some((address, self.entries.checked_add(record)?))
    }

    /// The function that holds `address`.
    pub(super) fn function(&self, address: u64) -> Option<Function> {
        let (mut low, mut high) = (0, self.functions);
        if address < self.entry(0)?.0 || address >= self.entry(self.functions)?.0 {
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
        let entry_size = if self.format == Format::Go116 { 8 } else { 4 };
        Some(Function { entry, fields: record.checked_add(entry_size)? })
    }

    fn field(&self, function: &Function, index: usize) -> Option<u32> {
        u32_at(&self.data, function.fields.checked_add(4 * index)?)
    }

    /// A function's name, with its package's path.
    pub(super) fn name(&self, function: &Function) -> Option<String> {
        let offset = usize::try_from(self.field(function, 0)?).ok()?;
        text_at(&self.data, self.names.checked_add(offset)?, MAX_TEXT).filter(|n| !n.is_empty())
    }

    /// Bytes between the stack pointer and the return address at `address`.
    pub(super) fn frame_size(&self, function: &Function, address: u64) -> Option<u32> {
        let size = self.value(self.field(function, 3)?, function.entry, address)?;
        (0..=MAX_FRAME).contains(&size).then(|| u32::try_from(size).ok()).flatten()
    }

    /// The source file at `address`.
    pub(super) fn file(&self, function: &Function, address: u64) -> Option<String> {
        let number = self.value(self.field(function, 4)?, function.entry, address)?;
        let unit = u64::from(self.field(function, 7)?);
        // The compilation unit's part of the table lists the places of its files' names.
        let index = usize::try_from(unit.checked_add_signed(number)?).ok()?;
        let place = u32_at(&self.data, self.units.checked_add(index.checked_mul(4)?)?)?;
        let place = usize::try_from(place).ok()?;
        text_at(&self.data, self.files.checked_add(place)?, MAX_TEXT).filter(|n| !n.is_empty())
    }

    /// The source line at `address`.
    pub(super) fn line(&self, function: &Function, address: u64) -> Option<u32> {
        let line = self.value(self.field(function, 5)?, function.entry, address)?;
        u32::try_from(line).ok().filter(|line| *line > 0)
    }

    /// Whether a function is the outermost of its stack.
    pub(super) fn root(&self, function: &Function) -> Option<Root> {
        match self.name(function)?.as_str() {
            "runtime.goexit" | "runtime.mstart" | "runtime.rt0_go" | "runtime.mstart1"
            | "_rt0_amd64_linux" | "_rt0_amd64" => Some(Root::First),
            "runtime.mcall"
            | "runtime.systemstack"
            | "runtime.asmcgocall"
            | "runtime.morestack"
            | "runtime.sigtramp"
            | "runtime.cgocallback" => Some(Root::Switch),
            _ => None,
        }
    }

    /// The value that holds at `target` in the table at `offset`, which lists differences of
    /// values and of addresses, by turns, from `entry` on.
    fn value(&self, offset: u32, entry: u64, target: u64) -> Option<i64> {
        if offset == 0 {
            return None;
        }
        let mut at = self.values.checked_add(usize::try_from(offset).ok()?)?;
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
