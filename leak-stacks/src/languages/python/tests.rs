//! Real interpreters, whose calls are compared with what they say themselves.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::languages::python::layout::{ABSENT, Parameters, WINDOW};
use crate::raw::{InterpreterFrame, walker};
use crate::tests::{NOW, Running, copied, key};
use crate::time::Timestamp;
use crate::{Language, Quality, RawStack, Resolver, Stack, ThreadId, WantedThreads};

/// How many calls the kernel program notes.
const MAX_FRAMES: usize = 48;

/// Prints the calls of the calling thread, innermost first, then waits in `recv`, in a loop that
/// has gone round so often that it was compiled, where the interpreter does so.
const PROGRAM: &str = r#"
import socket, sys, threading
ends = socket.socketpair()

def say(frame, further):
    lines = [str(threading.get_native_id())]
    while frame:
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        lines.append("%s\t%s\t%d" % (name, code.co_filename, frame.f_lineno + further))
        frame, further = frame.f_back, 0
    print("\n".join(lines) + "\n", flush=True)

def leaks():
    say(sys._getframe(), 2)
    for part in [b"x"] * TURNS + [b""]:
        ends[1].send(part), ends[0].recv(1)

class Shop:
    def checkout(self, depth):
        if depth:
            return self.checkout(depth - 1)
        return [leaks() for _ in "x"]

    @classmethod
    def of_class(cls):
        for _ in cls.generator(): pass

    @staticmethod
    def generator():
        for number in range(2):

            yield (lambda: Shop().checkout(DEPTH))()

async def coroutine():
    def gr\u00fc\u00dfe():
        sorted([1], key=lambda _: Shop.of_class())
    gr\u00fc\u00dfe()

def run():
    import asyncio
    asyncio.new_event_loop().run_until_complete(coroutine())

if IN_THREAD:
    threading.Thread(target=run).start()
else:
    run()
"#;

/// An interpreter on this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Python {
    executable: PathBuf,
    /// The root of the system that it was unpacked from, if it is not this one's.
    root: Option<PathBuf>,
    /// Whether it compiles what runs often, from the first call on.
    compiles: bool,
}

impl Python {
    fn command(&self) -> Command {
        let Some(root) = &self.root else { return Command::new(&self.executable) };
        let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(&self.executable).env("PYTHONHOME", root.join("usr"));
        if self.compiles {
            command.env("PYTHON_JIT", "1");
        }
        command
    }

    /// What it prints when it runs this.
    fn says(&self, code: &str) -> Option<String> {
        let output = self.command().args(["-c", code]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }
}

/// The interpreters found on the search path, by their own executables, and those that `cargo xtask
/// setup` has unpacked.
fn interpreters() -> Vec<Python> {
    let names: Vec<String> = ["python3".to_owned()]
        .into_iter()
        .chain((8..=20).map(|n| format!("python3.{n}")))
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = BTreeSet::new();
    for executable in
        std::env::split_paths(&path).flat_map(|at| names.iter().map(move |n| at.join(n)))
    {
        // The executable itself, not a wrapper or a link that a version manager put in its place.
        let python = Python { executable, root: None, compiles: false };
        let code = "import sys, os; print(os.path.realpath(sys.executable))";
        let Some(executable) = python.says(code) else { continue };
        found.insert(Python { executable: executable.into(), ..python });
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian/sid/root");
    for name in &names {
        let executable = root.join("usr/bin").join(name);
        let python = Python { executable, root: Some(root.clone()), compiles: false };
        let code = "import sys; print(hasattr(sys, '_jit') and sys._jit.is_available())";
        let Some(can_compile) = python.says(code) else { continue };
        found.insert(python.clone());
        found.extend((can_compile == "True").then_some(Python { compiles: true, ..python }));
    }
    assert!(!found.is_empty(), "this needs python3; `cargo xtask setup` installs it");
    found.into_iter().collect()
}

/// What the kernel program does, through procfs.
fn walk(profile: &Parameters, thread_register: u64, pid: u32) -> (Vec<InterpreterFrame>, bool) {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        memory.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    let word = |bytes: &[u8], at: u32| {
        u64::from_le_bytes(bytes[at as usize / 8 * 8..][..8].try_into().unwrap())
    };
    let pointer_at =
        |base: u64, at: u32| word(&read(base.wrapping_add_signed(at.cast_signed().into()), 8), 0);
    assert!(profile.window_len as usize <= WINDOW);
    let slots = match profile.slots {
        ABSENT => thread_register,
        offset => pointer_at(thread_register, offset),
    };
    let state = pointer_at(slots, profile.slot);
    let mut frame = pointer_at(state, profile.frame);
    if profile.control_frame != ABSENT {
        frame = pointer_at(frame, profile.control_frame);
    }
    let mut frames = Vec::new();
    while frame != 0 && frames.len() < MAX_FRAMES {
        let bytes = read(frame + u64::from(profile.window), profile.window_len as usize);
        let is_foreign = u32::from(bytes[profile.owner as usize]) >= profile.foreign_owners;
        if !is_foreign {
            let pointer = word(&bytes, profile.code);
            let position = word(&bytes, profile.instruction);
            frames.push(InterpreterFrame { pointer, position, cookie: 0, kind: 1 });
        }
        frame = word(&bytes, profile.previous);
    }
    (frames, frame == 0)
}

struct Waiting {
    running: Running,
    tid: i32,
    /// Name, file and line of its calls, as the interpreter tells.
    expected: Vec<(String, String, u32)>,
}

fn start(python: &Python, depth: u32, in_thread: bool) -> (Waiting, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("shop.py");
    let program = PROGRAM
        .replace("\\u00fc\\u00df", "üß")
        .replace("DEPTH", &depth.to_string())
        .replace("TURNS", if python.compiles { "20000" } else { "0" })
        .replace("IN_THREAD", if in_thread { "True" } else { "False" });
    fs::write(&script, program).unwrap();
    let mut command = python.command();
    command.env("PYTHONIOENCODING", "utf-8").arg(&script);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let tid = lines.next().unwrap().parse().unwrap();
    let expected = lines
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let mut parts = line.split('\t').map(str::to_owned);
            let mut part = || parts.next().unwrap();
            (part(), part(), part().parse().unwrap())
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(20);
    let call = format!("/proc/{}/task/{tid}/syscall", running.pid());
    let wanted = format!("{} ", libc::SYS_recvfrom);
    while !fs::read_to_string(&call).unwrap().starts_with(&wanted) {
        assert!(Instant::now() < until, "{python:?} does not wait");
        std::thread::sleep(Duration::from_millis(5));
    }
    (Waiting { running, tid, expected }, directory)
}

impl Waiting {
    fn stack(&self, resolver: &mut Resolver) -> RawStack {
        let pid = self.running.pid();
        resolver.first_sight(key(pid), NOW).unwrap();
        let profile = resolver.profile(key(pid)).and_then(|profile| profile.interpreter);
        let profile = profile.expect("Python is recognised");
        assert_eq!(profile.kind, walker::CPYTHON);
        let parameters = Parameters::of(&profile.parameters);
        self.running.while_stopped(self.tid, |registers| {
            let mut raw = copied(pid, registers.rip, registers.rsp, registers.rbp);
            raw.interpreter_tag = profile.tag;
            (raw.interpreter_frames, raw.interpreter_whole) =
                walk(&parameters, registers.fs_base, pid);
            raw
        })
    }
}

fn calls(stack: &Stack) -> Vec<(String, String, u32)> {
    let python = stack.frames.iter().filter(|f| f.file.is_some() && f.file == f.module);
    python
        .map(|f| (f.function.clone().unwrap(), f.file.clone().unwrap(), f.line.unwrap_or(0)))
        .collect()
}

#[track_caller]
fn assert_checkout(stack: &Stack, waiting: &Waiting, python: &Python) {
    assert_eq!(calls(stack), waiting.expected, "{python:?}");
    assert_eq!(
        (stack.quality, stack.language),
        (Quality::Complete, Language::Python),
        "{python:?}"
    );
    let culprit = &stack.frames[stack.culprit.unwrap()];
    assert_eq!(culprit.function.as_deref(), Some("leaks"), "{python:?}");
    assert!(culprit.file.as_deref().unwrap().ends_with("/shop.py"));
    let names: Vec<_> = stack.frames.iter().filter_map(|f| f.function.as_deref()).collect();
    assert!(names[0].contains("recv"), "{python:?}: {names:?}");
    assert!(
        !names.iter().any(|n| n.starts_with("_PyEval_EvalFrameDefault")),
        "{python:?}: {names:?}"
    );
}

#[test]
fn calls_are_those_that_the_interpreter_tells() {
    for python in interpreters() {
        for in_thread in [false, true] {
            let (waiting, _directory) = start(&python, 2, in_thread);
            assert!(waiting.expected.len() > 12, "{python:?}: {:?}", waiting.expected);
            let mut resolver = Resolver::new(std::sync::Arc::default());
            let raw = waiting.stack(&mut resolver);
            assert!(raw.interpreter_whole);
            let resolved = resolver.resolve(&raw, NOW);
            assert_checkout(&resolved.stack.unwrap(), &waiting, &python);
            let process = key(waiting.running.pid());
            let seen = resolver
                .threads(process, &WantedThreads { these: Vec::new(), all: true }, NOW, || true)
                .blocked;
            let thread = {
                let id = ThreadId::System(waiting.tid.cast_unsigned());
                seen.iter().find(|seen| seen.id == id)
            };
            let stack = &thread.unwrap().stack;
            assert_eq!(calls(stack), waiting.expected, "{python:?}");
            assert_eq!(stack.language, Language::Python);
            // Without its registers, interpreters with frame pointers cannot be left.
            assert_ne!(stack.quality, Quality::None);
            eprintln!("{python:?}: {} calls", raw.interpreter_frames.len());
        }
    }
}

#[test]
fn two_runs_and_a_short_copy_have_the_same_identity() {
    let Some(python) = interpreters().pop() else { return };
    let mut resolver = Resolver::new(std::sync::Arc::default());
    let (first, directory) = start(&python, 1, false);
    let raw = first.stack(&mut resolver);
    let whole = resolver.resolve(&raw, NOW).stack.unwrap();
    let mut cut = raw.clone();
    cut.bytes.truncate(4096);
    cut.wanted = 4096;
    let short = resolver.resolve(&cut, NOW);
    assert!(!short.frames_wanted_more, "the missing frames are the interpreter's");
    let short = short.stack.unwrap();
    assert_eq!((&short.id, short.quality), (&whole.id, Quality::Complete));
    // The next run has the same file at the same place.
    let script = directory.path().join("shop.py");
    let child = python.command().arg(&script).stdout(Stdio::null()).spawn().unwrap();
    let running = Running(child);
    let until = Instant::now() + Duration::from_secs(20);
    let call = format!("/proc/{}/syscall", running.pid());
    while !fs::read_to_string(&call).unwrap().starts_with(&format!("{} ", libc::SYS_recvfrom)) {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    }
    let tid = i32::try_from(running.pid()).unwrap();
    let second = Waiting { running, tid, expected: Vec::new() };
    let raw = second.stack(&mut resolver);
    assert_eq!(resolver.resolve(&raw, NOW).stack.unwrap().id, whole.id);
}

#[test]
fn more_calls_than_there_is_room_for_are_truncated() {
    let Some(python) = interpreters().pop() else { return };
    let (waiting, _directory) = start(&python, 60, false);
    let mut resolver = Resolver::new(std::sync::Arc::default());
    let raw = waiting.stack(&mut resolver);
    assert_eq!((raw.interpreter_frames.len(), raw.interpreter_whole), (MAX_FRAMES, false));
    let stack = resolver.resolve(&raw, NOW).stack.unwrap();
    assert_eq!(calls(&stack), waiting.expected[..MAX_FRAMES]);
    assert_eq!(stack.quality, Quality::Truncated);
}

#[test]
fn what_was_read_outlives_the_process() {
    let Some(python) = interpreters().pop() else { return };
    let (waiting, _directory) = start(&python, 2, false);
    let mut resolver = Resolver::new(std::sync::Arc::default());
    let raw = waiting.stack(&mut resolver);
    resolver.resolve(&raw, NOW);
    let Waiting { running, expected, .. } = waiting;
    drop(running);
    let stack = resolver.resolve(&raw, Timestamp(60_000_000_000)).stack.unwrap();
    assert_eq!(calls(&stack), expected);
}

#[test]
fn garbage_has_no_name() {
    let Some(python) = interpreters().pop() else { return };
    let (waiting, _directory) = start(&python, 2, false);
    let mut resolver = Resolver::new(std::sync::Arc::default());
    let good = waiting.stack(&mut resolver);
    let frames = |change: &dyn Fn(InterpreterFrame) -> InterpreterFrame| {
        let mut raw = good.clone();
        raw.interpreter_frames =
            good.interpreter_frames.iter().map(|frame| change(*frame)).collect();
        raw
    };
    let nowhere = [
        frames(&|f| InterpreterFrame { pointer: f.pointer + 8, ..f }),
        frames(&|f| InterpreterFrame { pointer: f.position, ..f }),
        frames(&|f| InterpreterFrame { pointer: 0, ..f }),
        frames(&|f| InterpreterFrame { pointer: u64::MAX, ..f }),
        frames(&|f| InterpreterFrame { position: f.position + (1 << 24), ..f }),
        frames(&|f| InterpreterFrame { position: f.position.wrapping_sub(1 << 24), ..f }),
    ];
    for raw in nowhere {
        let stack = resolver.resolve(&raw, NOW).stack.unwrap();
        assert_eq!(calls(&stack), []);
        assert_eq!(stack.culprit, None);
    }
    // Through another release's profile, though every address happens to be right.
    let raw = RawStack { interpreter_tag: good.interpreter_tag ^ 1, ..good.clone() };
    assert_eq!(calls(&resolver.resolve(&raw, NOW).stack.unwrap()), []);
    // One call that has lost its code leaves the others in their places.
    let mut raw = good.clone();
    raw.interpreter_frames[1].pointer += 8;
    let stack = resolver.resolve(&raw, NOW).stack.unwrap();
    assert_eq!(calls(&stack).len(), waiting.expected.len() - 1);
    assert_eq!(calls(&stack)[1], waiting.expected[2]);
}

#[test]
fn other_programs_are_not_taken_for_python() {
    let running = Running(Command::new("sleep").arg("60").spawn().unwrap());
    let mut resolver = Resolver::new(std::sync::Arc::default());
    std::thread::sleep(Duration::from_millis(100));
    resolver.first_sight(key(running.pid()), NOW).unwrap();
    assert_eq!(resolver.profile(key(running.pid())), None);
}
