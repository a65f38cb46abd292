//! Puts a stack's frames together: native ones by their symbols, and noted calls in place of the
//! native frames that they stand for.

use crate::binary::symbols::Symbol;
use crate::languages::call::Call;
use crate::resolver::identity::Identity;
use crate::stack::Frame;

/// A stack in the making.
///
/// All noted calls are put where the innermost evaluator frame is. Native frames further in are
/// what the program called last, and stay. Those between the innermost and the outermost evaluator
/// go: which noted calls they are between cannot be said of every interpreter, and they are the
/// interpreter's, or an extension's that calls back into it. Those further out stay: they are the
/// interpreter's start, or the program that it is embedded in.
#[derive(Debug)]
pub(crate) struct Assembly {
    frames: Vec<Frame>,
    noted: Vec<Option<Call>>,
    /// Native frames further out than the evaluator that was met last.
    outer: Vec<Frame>,
    identity: Identity,
    evaluator_met: bool,
}

/// The code of a native frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NativeCode<'a> {
    /// The file that is mapped there; `None` for code that was compiled at run time.
    pub(crate) module: Option<&'a str>,
    /// The address in the file's own numbering.
    pub(crate) in_file: Option<u64>,
    pub(crate) address: u64,
}

/// A stack put together.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) frames: Vec<Frame>,
    /// The same for the same stack in every process and run.
    pub(crate) identity: u64,
}

impl Assembly {
    /// An empty stack, of which these calls were noted.
    pub(crate) fn new(noted: Vec<Option<Call>>) -> Self {
        Self {
            frames: Vec::with_capacity(32),
            noted,
            outer: Vec::new(),
            identity: Identity::new(),
            evaluator_met: false,
        }
    }

    /// Adds the next native frame outward, one that noted calls stand for.
    pub(crate) fn add_evaluator(&mut self) {
        if !self.evaluator_met {
            self.add_noted();
        }
        self.evaluator_met = true;
        self.outer.clear();
    }

    /// Adds the next native frame outward; inlined functions come first in `symbols`.
    pub(crate) fn add_code(&mut self, code: NativeCode<'_>, symbols: &[Symbol]) {
        let nameless = [Symbol::default()];
        let known = if symbols.is_empty() { &nameless } else { symbols };
        let frames = known.iter().filter(|symbol| !symbol.is_generated()).map(|symbol| Frame {
            function: symbol.function.clone(),
            module: code.module.map(str::to_owned),
            file: symbol.file.clone(),
            line: symbol.line,
            address: code.in_file.unwrap_or(code.address),
        });
        if self.evaluator_met {
            // How far the copy of the native stack reaches must not tell two uses of the same code
            // apart, so these do not count for the identity.
            self.outer.extend(frames);
        } else {
            self.frames.extend(frames);
            self.identity.add_code(code.module, code.in_file, symbols, code.address);
        }
    }

    /// Adds the calls of a frame that a runtime has left and named; without any, nothing.
    pub(crate) fn add_calls(&mut self, calls: Vec<Call>) {
        if !self.evaluator_met {
            calls.iter().for_each(|call| self.identity.add_call(Some(call)));
        }
        let into = if self.evaluator_met { &mut self.outer } else { &mut self.frames };
        into.extend(calls.into_iter().map(Frame::from));
    }

    fn add_noted(&mut self) {
        for call in std::mem::take(&mut self.noted) {
            self.identity.add_call(call.as_ref());
            self.frames.push(call.unwrap_or_default().into());
        }
    }

    /// Whether noted calls have taken an evaluator's place, so that of the native frames further
    /// out nothing is needed.
    pub(crate) fn has_placed_noted(&self) -> bool {
        self.evaluator_met
    }

    /// The stack. Noted calls whose place was not met come last: the copied part of the native
    /// stack ended before it, or the interpreter has no symbols.
    pub(crate) fn finish(mut self) -> Assembled {
        self.add_noted();
        self.frames.append(&mut self.outer);
        Assembled { frames: self.frames, identity: self.identity.value() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: &str, line: u32) -> Option<Call> {
        let file = Some("/app/shop.py".to_owned());
        let function = Some(function.to_owned());
        Some(Call { function, module: file.clone(), file, line: Some(line), offset: 4 })
    }

    fn code(module: &str, in_file: u64) -> NativeCode<'_> {
        NativeCode { module: Some(module), in_file: Some(in_file), address: 1 }
    }

    fn assembled(calls: &[Option<Call>], native: &[&str]) -> (Vec<String>, u64) {
        let mut assembly = Assembly::new(calls.to_vec());
        for name in native {
            if !calls.is_empty() && name.starts_with(EVAL) {
                assembly.add_evaluator();
                continue;
            }
            let symbol = Symbol { function: Some((*name).to_owned()), ..Symbol::default() };
            assembly.add_code(code("/usr/bin/python3", name.len() as u64), &[symbol]);
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
        assembly.add_code(code("/app", 1), &inlined);
        assembly.add_code(code("/app", 2), &[made_up]);
        assembly.add_code(code("/app", 3), &[symbol("main.main", "main.go")]);
        let frames = assembly.finish().frames;
        let names: Vec<_> = frames.iter().filter_map(|f| f.function.as_deref()).collect();
        assert_eq!(names, ["main.(*pool).take", "main.main"]);
    }

    #[test]
    fn other_names_at_the_same_place_are_another_stack() {
        let stack = |names: &[&str]| {
            let symbol =
                |name: &&str| Symbol { function: Some((*name).to_owned()), ..Symbol::default() };
            let symbols: Vec<_> = names.iter().map(symbol).collect();
            let mut assembly = Assembly::new(Vec::new());
            assembly.add_code(code("/app", 1), &symbols);
            assembly.finish().identity
        };
        assert_eq!(stack(&["pay", "serve"]), stack(&["pay", "serve"]));
        for other in [&["refund", "serve"][..], &["pay", "main"], &["pay"], &[]] {
            assert_ne!(stack(&["pay", "serve"]), stack(other), "{other:?}");
        }
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
                let in_file = module.map(|_| address);
                assembly.add_code(NativeCode { module, in_file, address }, &symbols);
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
