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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u64 = 0x1000;

    /// A table of two functions, `a.one` at 0..32 and `b.two` at 32..64 from [`TEXT`], with frames
    /// of 0 and then 24 bytes, in file `x.go` from line 7 on.
    fn table(format: Format) -> Vec<u8> {
        let old = format == Format::Go116;
        let names = b"\0a.one\0b.two\0".to_vec();
        let files = b"x.go\0".to_vec();
        let units = 0u32.to_le_bytes().to_vec();
        // At 1: value 0 for 8 bytes, then 24 for 24. At 6: value 0 for 32. At 9: 7 for 8, 9 for 24.
        let values = vec![0, 2, 8, 48, 24, 0, 2, 32, 0, 16, 8, 4, 24, 0];
        let (entry_size, pointer_size) = if old { (16, 8) } else { (8, 4) };
        let records_at = 2 * entry_size + pointer_size;
        let record = |entry: u64, name: u32| {
            let mut record = entry.to_le_bytes()[..pointer_size].to_vec();
            for field in [name, 0, 0, 1, 6, 9, 0, 0, 0, 0] {
                record.extend(u32::to_le_bytes(field));
            }
            record
        };
        let base = if old { TEXT } else { 0 };
        let (one, two) = (record(base, 1), record(base + 32, 7));
        let mut entries = Vec::new();
        for (address, place) in
            [(base, records_at), (base + 32, records_at + one.len()), (base + 64, 0)]
        {
            entries.extend(&address.to_le_bytes()[..pointer_size]);
            if entries.len() < records_at {
                entries.extend(&place.to_le_bytes()[..pointer_size]);
            }
        }
        entries.extend(one);
        entries.extend(two);

        let magic: u32 = match format {
            Format::Go116 => 0xffff_fffa,
            Format::Go118 => 0xffff_fff0,
            Format::Go120 => 0xffff_fff1,
        };
        let mut data = magic.to_le_bytes().to_vec();
        data.extend([0, 0, 1, 8]);
        let mut words = vec![2u64, 1];
        if !old {
            words.push(TEXT);
        }
        let mut place = 8 + 8 * (words.len() + 5);
        for part in [&names, &units, &files, &values, &entries] {
            words.push(place as u64);
            place += part.len();
        }
        data.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        for part in [names, units, files, values, entries] {
            data.extend(part);
        }
        data
    }

    fn described(table: &LineTable, address: u64) -> Option<(String, String, u32, u32)> {
        let function = table.function(address)?;
        Some((
            table.name(&function)?,
            table.file(&function, address)?,
            table.line(&function, address)?,
            table.frame_size(&function, address)?,
        ))
    }

    #[test]
    fn reads_all_formats() {
        for format in [Format::Go116, Format::Go118, Format::Go120] {
            let table = LineTable::new(table(format), Some).unwrap();
            let at = |offset| described(&table, TEXT + offset);
            let expected =
                |name: &str, line, frame| Some((name.into(), "x.go".into(), line, frame));
            assert_eq!(at(0), expected("a.one", 7, 0), "{format:?}");
            assert_eq!(at(7), expected("a.one", 7, 0));
            assert_eq!(at(8), expected("a.one", 9, 24));
            assert_eq!(at(32), expected("b.two", 7, 0));
            assert_eq!(at(63), expected("b.two", 9, 24));
            assert_eq!((at(64), described(&table, TEXT - 1)), (None, None));
        }
    }

    #[test]
    fn a_cut_or_damaged_table_is_incomplete_but_never_a_panic() {
        for format in [Format::Go116, Format::Go118, Format::Go120] {
            let whole = table(format);
            let look = |data: Vec<u8>| {
                let table = LineTable::new(data, Some)?;
                (0..70).find_map(|offset| described(&table, TEXT + offset))
            };
            for length in 0..whole.len() - 120 {
                assert_eq!(look(whole[..length].to_vec()), None, "cut at {length}");
            }
            for position in 0..whole.len() {
                for value in [0, 0x7f, 0x80, 0xff] {
                    let mut damaged = whole.clone();
                    damaged[position] = value;
                    let _ = look(damaged);
                }
            }
        }
        assert!(LineTable::new(vec![0xff; 4096], Some).is_none());
    }

    #[test]
    fn a_table_whose_values_never_end_is_given_up() {
        let mut data = table(Format::Go120);
        let values = data.windows(6).position(|w| w == [0, 2, 8, 48, 24, 0]).unwrap();
        // Differences of addresses of zero: the target is never reached.
        data.splice(values + 1.., std::iter::repeat_n([2, 0], 4096).flatten());
        if let Some(table) = LineTable::new(data, Some) {
            assert_eq!(described(&table, TEXT), None);
        }
    }
}
