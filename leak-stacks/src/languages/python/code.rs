//! Reads code objects: which function a Python call is of, and on which line it is.

use crate::bytes::{u32_at, u64_at};
use crate::languages::call::Call;
use crate::languages::python::find::Interpreter;
use crate::languages::python::layout::{Instruction, Layout, ObjectLayout};
use crate::languages::python::lines::{UNIT, line_at};
use crate::process::memory::Memory;

/// Longest name and path, in characters, that are believed.
const MAX_NAME: u64 = 512;
const MAX_PATH: u64 = 1024;
/// Longest table of lines that is believed.
const MAX_LINES: u64 = 256 << 10;
/// Longest bytecode that is believed.
const MAX_BYTECODE: u64 = 16 << 20;
/// Most copies of a function's bytecode that are looked at.
const MAX_COPIES: u64 = 4096;

/// The part of a code object that tells it from all others of its process: compared before what was
/// read earlier is used again, because a function's code may be freed and its memory reused.
pub(crate) type Fingerprint = [u64; 5];

/// A code object's own bytes.
#[derive(Debug)]
pub(crate) struct Header {
    raw: Vec<u8>,
    address: u64,
}

impl Header {
    /// Reads the code object at `address`; `None` when there is none.
    pub(crate) fn read(address: u64, python: &Interpreter, memory: &Memory) -> Option<Self> {
        let raw = memory.bytes(address, python.layout.code.size as usize)?;
        let header = Self { raw, address };
        (header.word(python.layout.object.type_of)? == python.code_type).then_some(header)
    }

    pub(crate) fn fingerprint(&self, python: &Interpreter) -> Option<Fingerprint> {
        let code = &python.layout.code;
        let first_line = u64::from(self.first_line(python)?);
        let field = |offset| self.word(offset);
        // Before 3.11 the size is that of the bytecode's address's place: no size at all.
        let size = field(python.layout.object.size)?;
        Some([field(code.file)?, field(code.name)?, field(code.lines)?, first_line, size])
    }

    fn word(&self, offset: u32) -> Option<u64> {
        u64_at(&self.raw, offset as usize)
    }

    fn first_line(&self, python: &Interpreter) -> Option<u32> {
        u32_at(&self.raw, python.layout.code.first_line as usize)
    }

    /// Names the call of this code that stands at `instruction`; `None` when that is not in it.
    pub(crate) fn call(
        &self,
        instruction: u64,
        python: &Interpreter,
        memory: &Memory,
    ) -> Option<Call> {
        let layout = &python.layout;
        let offset = self.offset(instruction, python, memory)?;
        let text = |at: u32, most| string(self.word(at)?, most, &layout.object, memory);
        let name = layout.code.qualified_name.unwrap_or(layout.code.name);
        let line = || {
            let first = self.first_line(python)?;
            match offset {
                Some(offset) => {
                    let table = self.word(layout.code.lines)?;
                    let table = bytes_object(table, MAX_LINES, &layout.object, memory)?;
                    line_at(layout.line_format, &table, first, offset)
                }
                None => Some(first),
            }
        };
        let function = text(name, MAX_NAME)?;
        let file = text(layout.code.file, MAX_PATH)?;
        Some(Call {
            function: Some(function),
            module: Some(file.clone()),
            file: Some(file),
            line: line(),
            offset: offset.unwrap_or(0),
        })
    }

    /// Place of `instruction` in the bytecode, in bytes; `Some(None)` before the first.
    fn offset(
        &self,
        instruction: u64,
        python: &Interpreter,
        memory: &Memory,
    ) -> Option<Option<u64>> {
        let Layout { code, object, .. } = &python.layout;
        // To 3.10 an `int`, -1 at first; above it lies another field.
        let index = i64::from((instruction as u32).cast_signed());
        let (offset, length) = match python.layout.instruction {
            Instruction::Address => {
                let length = self.word(object.size)?.checked_mul(UNIT)?;
                let start = self.address.checked_add(code.bytecode.into())?;
                let copied = || self.copy_with(instruction, length, code.copies?, memory);
                let is_own = instruction.wrapping_sub(start) < length;
                let start = if is_own { start } else { copied().unwrap_or(start) };
                (instruction.wrapping_sub(start).cast_signed(), length)
            }
            kind => {
                let length = memory.field(self.word(code.bytecode)?, object.size)?;
                (if kind == Instruction::Units { index * 2 } else { index }, length)
            }
        };
        match u64::try_from(offset) {
            Ok(offset) => (offset < length && length <= MAX_BYTECODE).then_some(Some(offset)),
            // One instruction before the first.
            Err(_) => (offset >= -2).then_some(None),
        }
    }

    /// Where the copy of the bytecode begins that `instruction` is in. Without the global lock,
    /// each thread runs a copy of its own.
    fn copy_with(
        &self,
        instruction: u64,
        length: u64,
        copies: u32,
        memory: &Memory,
    ) -> Option<u64> {
        let table = self.word(copies)?;
        let count = memory.field(table, 0)?.min(MAX_COPIES);
        let entries = memory.bytes(table.checked_add(8)?, usize::try_from(count).ok()? * 8)?;
        let mut starts = (0..entries.len() / 8).filter_map(|index| u64_at(&entries, index * 8));
        starts.find(|&start| start != 0 && instruction.wrapping_sub(start) < length)
    }
}

/// The contents of a `bytes` object.
fn bytes_object(
    address: u64,
    most: u64,
    object: &ObjectLayout,
    memory: &Memory,
) -> Option<Vec<u8>> {
    let length = memory.field(address, object.size)?;
    if length > most {
        return None;
    }
    memory.bytes(address.checked_add(object.after_hash.into())?, usize::try_from(length).ok()?)
}

/// The text of a `str` object.
fn string(address: u64, most: u64, object: &ObjectLayout, memory: &Memory) -> Option<String> {
    let length = memory.field(address, object.size)?;
    if length > most {
        return None;
    }
    // Bits of `state`: 2 for interning, 3 for the characters' width, compact, ASCII. Since 3.14
    // without the global lock, interning has a whole byte; otherwise these cannot all be 0.
    let state = memory.field(address, object.after_hash)?;
    let state = if state & 0xfc == 0 { state >> 8 } else { state >> 2 };
    let (width, is_compact, is_ascii) = (state & 7, state >> 3 & 1 != 0, state >> 4 & 1 != 0);
    if !is_compact || ![1, 2, 4].contains(&width) {
        return None;
    }
    let header = if is_ascii { object.ascii_size } else { object.unicode_size };
    let size = usize::try_from(length * width).ok()?;
    let raw = memory.bytes(address.checked_add(header.into())?, size)?;
    let text = raw
        .chunks_exact(usize::try_from(width).ok()?)
        .map(|character| {
            let code = character.iter().rev().fold(0, |code, &byte| code << 8 | u32::from(byte));
            char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
        })
        .collect();
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::languages::python::layout::{CodeLayout, V3_12};
    use crate::process::ProcessKey;
    use crate::process::stat::start_ticks;

    #[test]
    fn each_thread_may_run_a_copy() {
        let pid = std::process::id();
        let process = ProcessKey { pid, start_ticks: start_ticks(pid).unwrap() };
        let memory = Memory::open(process).unwrap();
        let code = CodeLayout { bytecode: 200, copies: Some(192), size: 200, ..V3_12.code };
        let layout = Layout { code, ..V3_12 };
        let python = Interpreter { layout, bias: 0, runtime: 0, code_type: 7, compiles: false };
        let bytecode = vec![0u64; 5];
        let copy = std::hint::black_box(&bytecode).as_ptr() as u64;
        let table = [3, 0x1000, 0, copy];
        let mut object = vec![0u64; 30];
        (object[1], object[2], object[24]) = (7, 20, std::hint::black_box(&table).as_ptr() as u64);
        let address = std::hint::black_box(&object).as_ptr() as u64;
        let header = Header::read(address, &python, &memory).unwrap();
        let offset = |instruction| header.offset(instruction, &python, &memory);
        assert_eq!(offset(address + 200 + 6), Some(Some(6)));
        assert_eq!(offset(copy + 38), Some(Some(38)));
        assert_eq!([copy + 40, copy - 2, 0x1000 - 2, 0].map(offset), [None; 4]);
    }
}
