//! Reads code objects: which function a Python call is of, and on which line it is.

use crate::bytes::{u32_at, u64_at};
use crate::languages::call::Call;
use crate::languages::python::find::Interpreter;
use crate::languages::python::layout::{BYTES, Instruction, LENGTH, SIZE, STATE, TYPE};
use crate::languages::python::lines::{UNIT, line_at};
use crate::process::memory::Memory;

/// Longest name and path, in characters, that are believed.
const MAX_NAME: u64 = 512;
const MAX_PATH: u64 = 1024;
/// Longest table of lines that is believed.
const MAX_LINES: u64 = 256 << 10;
/// Longest bytecode that is believed.
const MAX_BYTECODE: u64 = 16 << 20;

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
        (header.word(TYPE)? == python.code_type).then_some(header)
    }

    pub(crate) fn fingerprint(&self, python: &Interpreter) -> Option<Fingerprint> {
        let code = &python.layout.code;
        let first_line = u64::from(self.first_line(python)?);
        let field = |offset| self.word(offset);
        // Before 3.11 the size is that of the bytecode's address's place: no size at all.
        Some([field(code.file)?, field(code.name)?, field(code.lines)?, first_line, field(SIZE)?])
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
        let text = |at: u32, most| string(self.word(at)?, most, python, memory);
        let name = layout.code.qualified_name.unwrap_or(layout.code.name);
        let line = || {
            let first = self.first_line(python)?;
            match offset {
                Some(offset) => {
                    let table = bytes_object(self.word(layout.code.lines)?, MAX_LINES, memory)?;
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
        let code = &python.layout.code;
        // To 3.10 an `int`, -1 at first; above it lies another field.
        let index = i64::from((instruction as u32).cast_signed());
        let (offset, length) = match python.layout.instruction {
            Instruction::Address => {
                let start = self.address.checked_add(code.bytecode.into())?;
                let units = self.word(SIZE)?;
                (instruction.wrapping_sub(start).cast_signed(), units.checked_mul(UNIT)?)
            }
            kind => {
                let length = memory.field(self.word(code.bytecode)?, SIZE)?;
                (if kind == Instruction::Units { index * 2 } else { index }, length)
            }
        };
        match u64::try_from(offset) {
            Ok(offset) => (offset < length && length <= MAX_BYTECODE).then_some(Some(offset)),
            // One instruction before the first.
            Err(_) => (offset >= -2).then_some(None),
        }
    }
}

/// The contents of a `bytes` object.
fn bytes_object(address: u64, most: u64, memory: &Memory) -> Option<Vec<u8>> {
    let length = memory.field(address, SIZE)?;
    if length > most {
        return None;
    }
    memory.bytes(address.checked_add(BYTES.into())?, usize::try_from(length).ok()?)
}

/// The text of a `str` object.
fn string(address: u64, most: u64, python: &Interpreter, memory: &Memory) -> Option<String> {
    let length = memory.field(address, LENGTH)?;
    if length > most {
        return None;
    }
    // Bits of `state`: 2 for interning, 3 for the characters' width, compact, ASCII.
    let state = memory.field(address, STATE)?;
    let (width, is_compact, is_ascii) = (state >> 2 & 7, state >> 5 & 1 != 0, state >> 6 & 1 != 0);
    if !is_compact || ![1, 2, 4].contains(&width) {
        return None;
    }
    let header = if is_ascii { python.layout.ascii_size } else { python.layout.unicode_size };
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
