//! A small engine in a few pages of memory, laid out as PHP 8.2's, for tests and fuzzing.

use crate::languages::php::binary::EngineFile;
use crate::languages::php::call::{Noted, noted};
use crate::languages::php::engine::Engine;
use crate::languages::php::layout::{Current, FUNCTION, OPCODE, PREVIOUS};
use crate::languages::php::thread::returned_slot;
use crate::languages::target::Target;

/// Where the memory begins, with the engine's globals.
pub(crate) const BASE: u64 = 0x10_0000;
/// Most frames that are named.
const MAX_FRAMES: usize = 16;

/// Memory from [`BASE`] on.
pub(crate) struct Image<'a>(pub(crate) &'a [u8]);

impl Target for Image<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        into.copy_from_slice(self.0.get(start..start.checked_add(into.len())?)?);
        Some(())
    }
}

/// The file of such an engine.
pub(crate) fn file() -> EngineFile {
    EngineFile { version: None, globals: Some(BASE), of_threads: None, variables: Vec::new() }
}

/// The calls of the engine in this memory: name, file and line.
pub(crate) fn calls(engine: &Engine, target: &dyn Target) -> Option<Vec<String>> {
    let Current::OfProcess(current) = engine.current else { return None };
    let mut frame = target.u64(current)?;
    let mut calls = Vec::new();
    while frame != 0 && calls.len() < MAX_FRAMES {
        let field = |offset| target.u64(frame.checked_add(offset)?);
        let (function, opcode) = (field(FUNCTION)?, field(OPCODE)?);
        let noted = noted(function, opcode, engine.file, target);
        let call = noted.and_then(|frame| Noted::from(frame).call("php", target));
        calls.push(call.map_or_else(String::new, |call| {
            let file = call.file.unwrap_or_default();
            format!("{} {file}:{}", call.function.unwrap_or_default(), call.line.unwrap_or(0))
        }));
        frame = field(PREVIOUS)?;
    }
    Some(calls)
}

/// Reads any bytes as an engine's memory, and as code that returns a thread's slot.
pub(crate) fn fuzz(data: &[u8]) {
    returned_slot(data, BASE);
    let image = Image(data);
    let without_symbol = EngineFile {
        version: Some((8, 2)),
        globals: None,
        variables: vec![(BASE, data.len() as u64)],
        ..file()
    };
    for file in [file(), without_symbol] {
        if let Some(engine) = Engine::find(&file, 0, &image) {
            calls(&engine, &image);
        }
    }
}
