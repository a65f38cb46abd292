//! Go. Its programs are recognised by their sections or by what these hold, unwound and symbolized
//! by their own line table, and their goroutines have numbers.

mod allgs;
mod binary;
mod descriptor;
mod goroutine;
mod header;
mod inline;
mod locate;
mod module;
mod pclntab;
mod program;
mod scan;

use std::rc::Rc;

use self::binary::GoBinary;
pub use self::program::{GoProgram, Goroutine, GoroutineState, Goroutines};
use crate::binary::facts::{Facts, Source};
use crate::binary::store::Binary;
use crate::binary::symbols::{Symbol, Symbols};
use crate::languages::call::Named;
use crate::languages::language::{Code, Language, Process, Runtime, Unwound};
use crate::raw::{RawStack, StackProfile};
use crate::stack;
use crate::unwind::registers::Registers;
use crate::unwind::step::{Position, StackCopy};

/// The language.
#[derive(Debug)]
pub(crate) struct Go;

impl Language for Go {
    /// Any binary may have parts in Go. Which ones have is found out when a stack goes through
    /// them.
    fn find(&mut self, _process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        Some(Box::new(GoCode { is_executable: false }))
    }

    fn value(&self) -> Option<stack::Language> {
        Some(stack::Language::Go)
    }
}

/// Go code in a process.
#[derive(Debug)]
struct GoCode {
    /// The executable was seen to be written in Go.
    is_executable: bool,
}

/// What the Go toolchain put into a binary, if it built it.
#[derive(Debug)]
struct BuiltByGo(Option<Rc<GoBinary>>);

impl Facts for BuiltByGo {
    fn read(source: &Source<'_>) -> Self {
        Self(GoBinary::read(source.elf, source.file).map(Rc::new))
    }

    fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |go| go.bytes())
    }
}

impl Runtime for GoCode {
    fn profile(&self) -> StackProfile {
        StackProfile { goroutines: self.is_executable, ..StackProfile::default() }
    }

    fn step(
        &mut self,
        frame: Position,
        registers: &mut Registers,
        stack: &StackCopy<'_>,
        process: &Process<'_>,
    ) -> Option<Unwound> {
        let mapping = process.modules.find(frame.address)?;
        let built = mapping.binary.as_ref()?.facts::<BuiltByGo>()?;
        let address = mapping.address_in_file(frame.address)?;
        let step = built.0.as_ref()?.step(address, registers, stack)?;
        Some(Unwound { step, frame: None })
    }

    fn name_code(&mut self, code: &Code<'_>, _process: &Process<'_>) -> Option<Named<Symbol>> {
        let (binary, address) = code.in_file?;
        let built = binary.facts::<BuiltByGo>()?;
        let calls = calls_at(built.0.as_ref()?, binary, address)?;
        Some(Named { calls, is_lasting: true })
    }

    fn light_thread(&mut self, raw: &RawStack, process: &Process<'_>) -> Option<u64> {
        let built = process.modules.executable().and_then(|binary| binary.facts::<BuiltByGo>());
        let go = built.as_deref().and_then(|built| built.0.as_ref());
        self.is_executable = go.is_some();
        go?.goroutine(&raw.goroutine_window)
    }

    fn is_whole_program(&self) -> bool {
        self.is_executable
    }
}

/// The program that a process runs, to be looked into; `None` when it is not written in Go, or
/// cannot be read.
pub(crate) fn program(process: &Process<'_>) -> Option<GoProgram> {
    let mapping = process.modules.executable_mapping()?;
    let built = mapping.binary.as_ref()?.facts::<BuiltByGo>()?;
    let shift = mapping.start.wrapping_sub(mapping.address_in_file(mapping.start)?);
    GoProgram::open(process.key, process.modules.image, Rc::clone(built.0.as_ref()?), shift)
}

/// The functions at an address, innermost first; `None` when Go's table tells nothing that the
/// debug information does not.
fn calls_at(go: &GoBinary, binary: &Binary, address: u64) -> Option<Vec<Symbol>> {
    let from_table = || go.symbols(&binary.file, address);
    // The table knows all that the debug information does, and is much smaller.
    if go.tells_inlined()
        && let Some(found) = from_table()
    {
        return Some(found);
    }
    let symbols: Rc<Symbols> = binary.facts()?;
    if !symbols.has_debug
        && let Some(found) = from_table()
    {
        return Some(found);
    }
    if symbols.at(address).is_empty() { from_table() } else { None }
}

/// Reads any bytes as a line table.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::binary::fuzz;
