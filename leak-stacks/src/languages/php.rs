//! PHP. Its native frames only show the engine, so the kernel programs note the chain of calls that
//! it keeps in memory, and the calls are named here.
//!
//! Functions do not last: a closure's is freed after the call, and an included file's once it has
//! run. So what is noted is what names them: strings, which last as long as the request or, with
//! opcache, as the process, and the line. A hash of the strings is noted as well, and what is found
//! later must have the same: memory is soon used again. A name that was found once is remembered.
//!
//! What a process's memory claims is checked besides: strings must be marked and end as such, and
//! every length has a limit. What fails the checks gets no name, which is better than a wrong one.

mod binary;
mod call;
mod engine;
mod layout;
#[cfg(any(test, feature = "fuzzing"))]
mod made_up;
mod string;
#[cfg(test)]
mod tests;
mod thread;

use std::collections::HashMap;
use std::rc::Rc;

use self::binary::{EngineFile, may_be_php};
use self::call::Noted;
use self::engine::Engine;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::made_up::fuzz;
use crate::binary::symbols::Symbol;
use crate::languages::call::{Call, Named};
use crate::languages::language::{Code, Language, Process, Runtime};
use crate::raw::{InterpreterFrame, StackProfile};
use crate::stack;

/// Most calls of one process that are remembered.
const MAX_REMEMBERED: usize = 4096;
/// The engine's function that runs PHP code.
const EVALUATOR: &str = "execute_ex";
/// What is in place of it in code that the engine has compiled at run time.
const COMPILED: &str = "JIT code";

/// The language.
#[derive(Debug)]
pub(crate) struct Php;

impl Language for Php {
    fn find(&mut self, process: &Process<'_>) -> Option<Box<dyn Runtime>> {
        let mut files = process
            .modules
            .iter()
            .filter(|mapping| mapping.path.as_deref().is_some_and(may_be_php));
        let (path, file, bias) = files.find_map(|mapping| {
            let file = mapping.binary.as_deref()?.facts::<EngineFile>()?;
            let bias = mapping.start.wrapping_sub(mapping.address_in_file(mapping.start)?);
            let has_engine =
                file.version.is_some() || file.globals.is_some() || file.of_threads.is_some();
            has_engine.then(|| (mapping.path.clone(), file, bias))
        })?;
        let engine = process.memory().and_then(|memory| Engine::find(&file, bias, memory));
        let path = path.unwrap_or_default();
        Some(Box::new(Zend { path, file, bias, engine, remembered: HashMap::new() }))
    }

    fn value(&self) -> Option<stack::Language> {
        Some(stack::Language::Php)
    }

    fn advice(&self) -> Option<&'static str> {
        Some("calls are named in PHP 7.4 to 8.5")
    }
}

/// The engine of one process.
#[derive(Debug)]
struct Zend {
    /// The binary's path, as the process sees it.
    path: Rc<str>,
    file: Rc<EngineFile>,
    bias: u64,
    /// `None` while it is not known where its calls are.
    engine: Option<Engine>,
    remembered: HashMap<InterpreterFrame, Call>,
}

impl Runtime for Zend {
    fn look_again(&mut self, process: &Process<'_>) {
        if self.engine.is_none() {
            self.engine =
                process.memory().and_then(|memory| Engine::find(&self.file, self.bias, memory));
        }
    }

    fn profile(&self) -> StackProfile {
        let interpreter = self.engine.map(|engine| layout::profile(engine.current, engine.file));
        StackProfile { interpreter, ..StackProfile::default() }
    }

    fn name_frame(
        &mut self,
        frame: InterpreterFrame,
        process: &Process<'_>,
    ) -> Option<Named<Call>> {
        if let Some(call) = self.remembered.get(&frame) {
            return Some(Named { calls: vec![call.clone()], is_lasting: true });
        }
        let call = Noted::from(frame).call(&self.path, process.memory()?)?;
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(frame, call.clone());
        Some(Named { calls: vec![call], is_lasting: true })
    }

    fn name_code(&mut self, code: &Code<'_>, process: &Process<'_>) -> Option<Named<Symbol>> {
        self.engine?;
        process.modules.find(code.address)?;
        if code.in_file.is_some() {
            return None;
        }
        let symbol = Symbol { function: Some(COMPILED.to_owned()), ..Symbol::default() };
        Some(Named { calls: vec![symbol], is_lasting: true })
    }

    fn is_evaluator(&self, function: &str) -> bool {
        function == COMPILED || function.starts_with(EVALUATOR)
    }
}
