//! Java programs, unwound and named without any help of theirs, against what the VM says of their
//! stacks.
//!
//! `LEAK_STACKS_JAVA` is the command of another Java than the machine's, with whatever it takes to
//! start it.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::tests::{NOW, Running, key};
use crate::{Language, Quality, Resolver, Stack, ThreadId, WantedThreads};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/apps/stacks/java/Witness.java");
/// Has the program's own word show what else it leaves out.
const SHOW_ALL: [&str; 2] = ["-XX:+UnlockDiagnosticVMOptions", "-XX:+ShowHiddenFrames"];
/// What is left out here, too: made up by the VM to get from one method to another.
const MADE_UP: [&str; 4] =
    ["$$Lambda", "LambdaForm$", "DirectMethodHandle$Holder", "Invokers$Holder"];
/// Threads of the program that wait.
const THREADS: usize = 8;

/// The calls of a thread as `class.method:line`, innermost first; line 0: there is none.
type Calls = Vec<String>;

/// Compiles the program; says whether there is a Java to do so.
fn compile(directory: &Path) -> bool {
    let mut javac = Command::new("javac");
    javac.args(["-nowarn", "-d"]).arg(directory).args(["--release", "8", SOURCE]);
    let Ok(status) = javac.stderr(Stdio::null()).status() else { return false };
    assert!(status.success());
    true
}

/// Starts the program, and waits until it has told its threads' calls.
fn start(directory: &Path, flags: &[&str], rounds: u32) -> (Running, HashMap<String, Calls>) {
    let command = env::var("LEAK_STACKS_JAVA").unwrap_or_else(|_| "java".into());
    let mut words = command.split_whitespace();
    let mut java = Command::new(words.next().unwrap());
    java.args(words).args(SHOW_ALL).args(flags).arg("-cp").arg(directory);
    java.args(["Witness", &rounds.to_string()]).stdout(Stdio::piped());
    let mut child = Running(java.spawn().unwrap());
    let told = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let threads = told.take_while(|line| line != "ready").filter_map(|line| {
        let (name, calls) = line.strip_prefix("thread ")?.split_once(' ')?;
        let calls = calls.split_terminator('|').filter(|call| !is_made_up(call));
        Some((name.to_owned(), calls.map(str::to_owned).collect()))
    });
    let threads = threads.collect();
    (child, threads)
}

fn is_made_up(call: &str) -> bool {
    MADE_UP.iter().any(|part| call.contains(part))
}

/// Threads by their names.
fn threads_of(process: &Running) -> HashMap<String, i32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap().flatten();
    let named = tasks.map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap();
        (name.trim().to_owned(), task.file_name().to_string_lossy().parse().unwrap())
    });
    named.collect()
}

fn calls_of(stack: &Stack) -> Calls {
    let java = stack.frames.iter().filter(|frame| frame.module.is_none());
    let call = |function: &str, line: Option<u32>| format!("{function}:{}", line.unwrap_or(0));
    java.map(|frame| call(frame.function.as_deref().unwrap_or("?"), frame.line)).collect()
}

fn every_call_is_as_the_vm_tells_it(flags: &[&str], rounds: u32) {
    let directory = tempfile::tempdir().unwrap();
    if !compile(directory.path()) {
        eprintln!("there is no Java here");
        return;
    }
    let (process, told) = start(directory.path(), flags, rounds);
    assert_eq!(told.len(), THREADS, "the program ended early");
    std::thread::sleep(Duration::from_millis(100));
    let threads = threads_of(&process);
    let mut resolver = Resolver::new(Arc::default());
    let seen = resolver.threads(
        key(process.pid()),
        &WantedThreads { these: Vec::new(), all: true },
        NOW,
        || true,
    );
    for (name, calls) in &told {
        let thread = {
            let id = ThreadId::System(threads[name].cast_unsigned());
            seen.blocked.iter().find(|seen| seen.id == id)
        };
        let stack = thread.map(|thread| &thread.stack);
        assert_eq!(stack.map(|stack| calls_of(stack)).as_ref(), Some(calls), "{name}: {stack:#?}");
    }
    for (name, calls) in told {
        let raw = process.stack_of(threads[&name]);
        let stack = resolver.resolve(&raw, NOW).stack.unwrap();
        assert_eq!(calls_of(&stack), calls, "{name}: {stack:#?}");
        assert_eq!((stack.quality, stack.language), (Quality::Complete, Language::Java), "{name}");
        let culprit = stack.culprit.and_then(|culprit| stack.frames[culprit].function.as_deref());
        assert!(culprit.unwrap().starts_with("Witness"), "{culprit:?}");
    }
    resolver.forget(key(process.pid()));
}

#[test]
fn interpreted_java() {
    every_call_is_as_the_vm_tells_it(&["-Xint"], 20);
}

#[test]
fn java_by_the_fast_compiler() {
    every_call_is_as_the_vm_tells_it(&["-XX:TieredStopAtLevel=1"], 3000);
}

/// One thread's method is compiled for the only subclass there is, until another one is loaded.
#[test]
fn java_by_the_optimizing_compiler() {
    let flags = ["-XX:-TieredCompilation", "-Xbatch", "-XX:CompileThreshold=500"];
    every_call_is_as_the_vm_tells_it(&flags, 6000);
}

#[test]
fn java_with_another_collector() {
    every_call_is_as_the_vm_tells_it(&["-XX:+UseZGC"], 3000);
}
