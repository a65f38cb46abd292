//! Programs on Node.js, unwound and named without any help of theirs, against what V8 says of their
//! stacks.
//!
//! `LEAK_STACKS_NODE` is the command of another Node.js than the machine's.

use std::env;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::tests::{NOW, Running};
use crate::{Language, Quality, RawStack, Resolver, Stack};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/apps/stacks/node/witness.js");

/// A call as `function:line:file`.
type Calls = Vec<String>;

/// The program, waiting.
struct Witness {
    process: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The calls of its stack, innermost first, as V8 tells them.
    told: Calls,
}

impl Witness {
    /// `None`: there is no Node.js here.
    fn start(flags: &[&str], arguments: &[&str]) -> Option<Self> {
        let command = env::var("LEAK_STACKS_NODE").unwrap_or_else(|_| "node".into());
        let mut node = Command::new(command);
        node.args(flags).arg(SOURCE).args(arguments);
        let Ok(mut child) = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            eprintln!("there is no Node.js here");
            return None;
        };
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let process = Running(child);
        let mut witness = Self { process, input, output: BufReader::new(output), told: Vec::new() };
        let line = witness.line();
        let calls = line.strip_prefix("calls ").unwrap();
        witness.told = calls.split('|').map(str::to_owned).collect();
        std::thread::sleep(Duration::from_millis(100));
        Some(witness)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn stack(&self) -> RawStack {
        self.process.stack_of(self.process.pid().cast_signed())
    }

    /// Has it go on, and wait for the end of its collections.
    fn collect(&mut self) {
        self.input.write_all(b"x").unwrap();
        assert_eq!(self.line(), "collected");
    }
}

/// The calls of the program's own code that a stack tells, from the one that told its own.
fn calls_of(stack: &Stack) -> Calls {
    let own = stack.frames.iter().filter(|frame| {
        let file = frame.file.as_deref();
        frame.module.is_none() && file.is_none_or(|file| !file.starts_with("node:"))
    });
    let calls = own.map(|frame| {
        // V8 tells the name without those of the functions around it.
        let function = frame.function.as_deref().unwrap_or("?");
        let function = match function.rsplit_once('.') {
            Some((outer, inner)) if outer != "exports" => inner,
            _ => function,
        };
        let file = frame.file.as_deref().unwrap_or("undefined");
        format!("{function}:{}:{file}", frame.line.unwrap_or(0))
    });
    calls.skip_while(|call| call.starts_with("pause:")).collect()
}

fn resolved(raw: &RawStack) -> Arc<Stack> {
    Resolver::new(Arc::default()).resolve(raw, NOW).stack.unwrap()
}

#[track_caller]
fn every_call_is_as_v8_tells_it(flags: &[&str], rounds: &str) {
    let Some(witness) = Witness::start(flags, &[rounds, "early"]) else { return };
    let stack = resolved(&witness.stack());
    let calls = calls_of(&stack);
    assert_eq!(calls, witness.told, "{calls:#?} against {:#?}", witness.told);
    let kind = (stack.quality, stack.language);
    assert_eq!(kind, (Quality::Complete, Language::Node), "{:?}", stack.frames.last());
    let culprit = stack.culprit.and_then(|culprit| stack.frames[culprit].function.as_deref());
    assert_eq!(culprit, Some("pause"));
}

#[test]
fn interpreted_javascript() {
    every_call_is_as_v8_tells_it(&[], "0");
}

#[test]
fn javascript_by_the_baseline_compiler() {
    every_call_is_as_v8_tells_it(&["--always-sparkplug"], "0");
}

#[test]
fn warm_javascript() {
    every_call_is_as_v8_tells_it(&[], "20000");
}

/// The calls that are told of a stack after the collector has moved and freed what it led to, and
/// those that should be.
fn told_after_collections(flags: &[&str], rounds: &str) -> Option<(Calls, Calls)> {
    let mut witness = Witness::start(flags, &[rounds, "early"])?;
    let raw = witness.stack();
    witness.collect();
    Some((calls_of(&resolved(&raw)), witness.told))
}

#[test]
fn javascript_read_after_collections() {
    let Some((calls, told)) = told_after_collections(&[], "0") else { return };
    assert_eq!(calls, told, "{calls:#?} against {told:#?}");
}

/// Closures may have moved, code may be gone: no call is told as another one.
#[test]
fn no_call_is_told_as_another() {
    for (flags, rounds) in [(&[][..], "20000"), (&["--stress-compaction"], "0")] {
        let Some((calls, told)) = told_after_collections(flags, rounds) else { return };
        let mut told_of = told.iter();
        let named = calls.iter().filter(|call| !call.starts_with('?'));
        for call in named {
            assert!(told_of.any(|known| known == call), "{call}: {calls:#?} against {told:#?}");
        }
    }
}

/// Until something asks for a trace V8 has worked out no lines but those where functions begin.
#[test]
fn functions_without_lines_are_told_by_where_they_begin() {
    let Some(witness) = Witness::start(&[], &["20000"]) else { return };
    let calls = calls_of(&resolved(&witness.stack()));
    let function = |call: &String| call.split(':').next().unwrap().to_owned();
    let functions: Vec<_> = calls.iter().map(function).collect();
    assert_eq!(functions, witness.told.iter().map(function).collect::<Vec<_>>());
}
