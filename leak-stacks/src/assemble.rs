//! Puts a stack's frames together: native ones by their symbols, and in a CPython process its Python
//! calls in place of the interpreter's own frames.

use crate::Frame;
use crate::binary::symbols::Symbol;
use crate::culprit::{base_name, is_interpreter};
use crate::languages::python::PythonCall;

/// The interpreter's function that runs Python code; compilers add suffixes for parts of it.
const EVALUATOR: &str = "_PyEval_EvalFrameDefault";

/// A stack in the making.
///
/// All Python calls are put where the innermost frame of the evaluator is. Native frames further in
/// are the extension modules that Python called last, and stay. Those between the innermost and the
/// outermost evaluator go: which Python calls they lie between cannot be said since 3.11, and they
/// are the interpreter's, or an extension's that calls back into Python. Those further out stay:
/// they are the interpreter's start, or the program that it is embedded in.
#[derive(Debug)]
pub(crate) struct Assembly {
    frames: Vec<Frame>,
    calls: Vec<Option<PythonCall>>,
    /// Native frames further out than the evaluator that was met last.
    outer: Vec<Frame>,
    identity: Fnv,
    evaluator_met: bool,
    /// Whether everything in it means the same for as long as the process runs its program.
    pub(crate) is_lasting: bool,
}

/// A stack put together.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) frames: Vec<Frame>,
    /// A hash that is the same for the same stack in every process and run.
    pub(crate) identity: u64,
}

impl Assembly {
    /// An empty stack, whose Python calls are `calls`.
    pub(crate) fn new(calls: Vec<Option<PythonCall>>) -> Self {
        Self {
            frames: Vec::with_capacity(32),
            calls,
            outer: Vec::new(),
            identity: Fnv::new(),
            evaluator_met: false,
            is_lasting: true,
        }
    }

    /// Adds the next native address outward; inlined functions come first in `symbols`.
    pub(crate) fn add_native(
        &mut self,
        module: Option<&str>,
        in_file: Option<u64>,
        symbols: &[Symbol],
        address: u64,
    ) {
        self.is_lasting &= module.is_some();
        let is_evaluator =
            |s: &Symbol| s.function.as_ref().is_some_and(|f| f.starts_with(EVALUATOR));
        if !self.calls.is_empty() && symbols.iter().any(is_evaluator) {
            if !self.evaluator_met {
                self.add_python();
            }
            self.evaluator_met = true;
            self.outer.clear();
            return;
        }
        let nameless = [Symbol::default()];
        let known = if symbols.is_empty() { &nameless } else { symbols };
        let frames = known.iter().filter(|symbol| !symbol.is_generated()).map(|symbol| Frame {
            function: symbol.function.clone(),
            module: module.map(str::to_owned),
            file: symbol.file.clone(),
            line: symbol.line,
            address: in_file.unwrap_or(address),
        });
        if self.evaluator_met {
            // How far the copy of the native stack reaches must not tell two uses of the same Python
            // code apart, so these do not count for the identity.
            self.outer.extend(frames);
        } else {
            self.frames.extend(frames);
            self.identity.add_native(module, in_file, symbols.first(), address);
        }
    }

    fn add_python(&mut self) {
        for call in &self.calls {
            let text = |text: &String| Some(text.clone());
            self.identity.add_python(call.as_ref());
            self.frames.push(Frame {
                function: call.as_ref().and_then(|c| text(&c.function)),
                module: call.as_ref().and_then(|c| text(&c.file)),
                file: call.as_ref().and_then(|c| text(&c.file)),
                line: call.as_ref().and_then(|c| c.line),
                address: call.as_ref().map_or(0, |c| c.offset),
            });
        }
    }

    /// Whether Python calls have taken the place of the evaluator, so that of the native frames
    /// further out nothing is needed.
    pub(crate) fn has_placed_python(&self) -> bool {
        self.evaluator_met
    }

    /// Whether it has Python calls.
    pub(crate) fn has_python(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The stack. Python calls whose place was not met come last: the copied part of the native
    /// stack ended before it, or the interpreter has no symbols.
    pub(crate) fn finish(mut self) -> Assembled {
        if !self.evaluator_met {
            self.add_python();
        }
        self.frames.append(&mut self.outer);
        Assembled { frames: self.frames, identity: self.identity.0 }
    }
}

/// A hash of Python calls, to tell resolved stacks apart.
pub(crate) fn hash_of(calls: &[Option<PythonCall>]) -> u64 {
    let mut hash = Fnv::new();
    for call in calls {
        hash.add_python(call.as_ref());
    }
    hash.0
}

/// FNV-1a with 64 bits (Fowler, Noll, Vo): the same in every run and release.
#[derive(Debug)]
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds what is the same for the same code in every process: its place in the file, or the name
    /// of code compiled at run time. What has no name there says nothing, and lies elsewhere as soon
    /// as it is compiled again; nor do interpreters, which come and go with what they run, say more.
    /// One leak must not be told as many.
    fn add_native(
        &mut self,
        module: Option<&str>,
        in_file: Option<u64>,
        symbol: Option<&Symbol>,
        address: u64,
    ) {
        let function = symbol.and_then(|s| s.function.as_deref());
        if function.is_some_and(is_interpreter) {
            return;
        }
        match (module, in_file, function) {
            (Some(module), Some(in_file), _) => {
                self.add(base_name(module).as_bytes());
                self.add(&in_file.to_le_bytes());
            }
            (_, _, Some(name)) => {
                self.add(name.as_bytes());
                self.add(symbol.and_then(|s| s.file.as_deref()).unwrap_or_default().as_bytes());
            }
            (Some(_), None, None) => self.add(&address.to_le_bytes()),
            (None, _, None) => {}
        }
    }

    fn add_python(&mut self, call: Option<&PythonCall>) {
        match call {
            Some(call) => {
                self.add(call.file.as_bytes());
                self.add(call.function.as_bytes());
                self.add(&call.line.unwrap_or(0).to_le_bytes());
            }
            None => self.add(&[]),
        }
    }

    /// Adds `bytes` and an end mark, so that neighbours cannot run together.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain([&0xff]) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: &str, line: u32) -> Option<PythonCall> {
        let (function, file) = (function.to_owned(), "/app/shop.py".to_owned());
        Some(PythonCall { function, file, line: Some(line), offset: 4 })
    }

    fn assembled(calls: &[Option<PythonCall>], native: &[&str]) -> (Vec<String>, u64) {
        let mut assembly = Assembly::new(calls.to_vec());
        for name in native {
            let symbol = Symbol { function: Some((*name).to_owned()), ..Symbol::default() };
            assembly.add_native(Some("/usr/bin/python3"), Some(name.len() as u64), &[symbol], 1);
        }
        let Assembled { frames, identity } = assembly.finish();
        (frames.into_iter().map(|f| f.function.unwrap_or("?".into())).collect(), identity)
    }

    const EVAL: &str = "_PyEval_EvalFrameDefault";
    const COLD: &str = "_PyEval_EvalFrameDefault.cold";

    #[test]
    fn python_takes_the_place_of_the_interpreter() {
        let calls = [call("checkout", 41), None, call("<module>", 9)];
        let native = ["send", "sock_send", COLD, "callback", EVAL, "Py_RunMain", "_start"];
        let (names, whole) = assembled(&calls, &native);
        let expected = ["send", "sock_send", "checkout", "?", "<module>", "Py_RunMain", "_start"];
        assert_eq!(names, expected);
        // A shorter copy of the native stack is the same use of the same code.
        assert_eq!(assembled(&calls, &native[..4]).1, whole);
        let elsewhere = [call("checkout", 42), None, call("<module>", 9)];
        assert_ne!(assembled(&elsewhere, &native).1, whole);
        assert_ne!(assembled(&calls, &native[1..]).1, whole);
    }

    #[test]
    fn what_the_compiler_made_up_is_left_out() {
        let symbol = |function: &str, file: &str| Symbol {
            function: Some(function.to_owned()),
            file: Some(file.to_owned()),
            line: Some(1),
        };
        let made_up = symbol("main.(*pool).get", "<autogenerated>");
        let inlined = [symbol("main.(*pool).take", "pool.go"), made_up.clone()];
        let mut assembly = Assembly::new(Vec::new());
        assembly.add_native(Some("/app"), Some(1), &inlined, 1);
        assembly.add_native(Some("/app"), Some(2), &[made_up], 2);
        assembly.add_native(Some("/app"), Some(3), &[symbol("main.main", "main.go")], 3);
        let frames = assembly.finish().frames;
        let names: Vec<_> = frames.iter().filter_map(|f| f.function.as_deref()).collect();
        assert_eq!(names, ["main.(*pool).take", "main.main"]);
    }

    #[test]
    fn without_the_interpreter_python_comes_last_and_without_python_nothing_changes() {
        let calls = [call("checkout", 41)];
        assert_eq!(assembled(&calls, &["send", "PQexec"]).0, ["send", "PQexec", "checkout"]);
        assert_eq!(assembled(&[], &["send", EVAL, "main"]).0, ["send", EVAL, "main"]);
    }

    #[test]
    fn code_compiled_at_run_time_counts_by_its_name_alone() {
        let stack = |frames: &[(&str, u64)]| {
            let mut assembly = Assembly::new(Vec::new());
            for &(name, address) in frames {
                let symbols: Vec<Symbol> = match name {
                    "" => Vec::new(),
                    name => vec![Symbol { function: Some(name.into()), ..Symbol::default() }],
                };
                let module = name.starts_with("Builtins").then_some("/usr/bin/node");
                assembly.add_native(module, module.map(|_| address), &symbols, address);
            }
            assembly.finish().identity
        };
        let leak = stack(&[("checkout", 1), ("", 2), ("handle", 3)]);
        assert_eq!(stack(&[("checkout", 9), ("", 8), ("", 7), ("handle", 6)]), leak);
        let trampoline = "Builtins_InterpreterEntryTrampoline";
        assert_eq!(stack(&[("checkout", 1), (trampoline, 2), ("handle", 3)]), leak);
        assert_ne!(stack(&[("refund", 1), ("", 2), ("handle", 3)]), leak);
    }
}
