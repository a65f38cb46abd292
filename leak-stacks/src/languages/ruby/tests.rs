//! Real interpreters, whose calls are compared with what they say themselves.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::languages::ruby::layout::ABSENT;
use crate::raw::{InterpreterFrame, InterpreterProfile, walker};
use crate::tests::{NOW, Running, copied, key};
use crate::{Language, Quality, RawStack, Resolver, Stack, Timestamp};

/// How many calls the kernel program notes.
const MAX_FRAMES: usize = 48;

/// Prints the calls of the calling thread, innermost first, then waits for a byte.
const PROGRAM: &str = include_str!("tests/shop.rb");

/// The interpreters found on the search path.
fn interpreters() -> Vec<String> {
    let names = ["ruby", "ruby2.7", "ruby3.0", "ruby3.2", "ruby3.3", "ruby3.4", "ruby4.0"];
    let runs = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let found: Vec<_> = names.into_iter().filter(runs).map(str::to_owned).collect();
    assert!(!found.is_empty(), "this needs ruby; `cargo xtask setup` installs it");
    found
}

/// What the kernel program does, through procfs.
fn walk(profile: &InterpreterProfile, register: u64, pid: u32) -> (Vec<InterpreterFrame>, bool) {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    let [slot, in_thread, size, ..] = profile.parameters;
    let mut context = word(register.wrapping_add_signed(slot.cast_signed().into()));
    if in_thread != ABSENT {
        context = word(context + u64::from(in_thread));
    }
    // The outermost one is no call.
    let end = word(context) + word(context + 8) * 8 - u64::from(size);
    let mut frame = word(context + 16);
    let mut frames = Vec::new();
    let method = |mut environment: u64| {
        for _ in 0..8 {
            let [entry, around, flags] = [16, 8, 0].map(|below| word(environment - below));
            if entry != 0 {
                let kind = word(entry);
                match (kind & 0x1f, kind >> 12 & 0xf) {
                    (0x1a, 6) => return entry,
                    (0x1a, 2) if flags & 2 != 0 => return word(entry + 8),
                    _ => {}
                }
            }
            if flags & 2 != 0 {
                break;
            }
            environment = around & !3;
        }
        0
    };
    while frame < end && frames.len() < MAX_FRAMES {
        let [instruction, sequence, environment] = [0, 16, 32].map(|at| word(frame + at));
        if instruction != 0 && sequence != 0 {
            let low = method(environment) >> 3;
            let position = instruction | (low >> 32) << 48;
            let cookie = low as u32;
            frames.push(InterpreterFrame { pointer: sequence, position, cookie, kind: 3 });
        }
        frame += u64::from(size);
    }
    (frames, frame >= end)
}

struct Waiting {
    running: Running,
    tid: i32,
    /// Name, file and line of its calls, as the interpreter tells.
    expected: Vec<Call>,
    lines: Box<dyn Iterator<Item = String>>,
}

fn start(
    ruby: &str,
    options: &[&str],
    depth: u32,
    in_thread: bool,
) -> (Waiting, tempfile::TempDir) {
    let program =
        PROGRAM.replace("DEPTH", &depth.to_string()).replace("IN_THREAD", &in_thread.to_string());
    run(ruby, options, &program)
}

fn run(ruby: &str, options: &[&str], program: &str) -> (Waiting, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("shop.rb");
    fs::write(&script, program).unwrap();
    let mut command = Command::new(ruby);
    command.env("LANG", "C.UTF-8").args(options).arg(&script);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (tid, expected) = wait(&running, &mut lines);
    (Waiting { running, tid, expected, lines: Box::new(lines) }, directory)
}

/// What the program tells of its calls, and once it waits, its thread.
fn wait(running: &Running, lines: &mut dyn Iterator<Item = String>) -> (i32, Vec<Call>) {
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
    let waits = [libc::SYS_read, libc::SYS_recvfrom, libc::SYS_poll, libc::SYS_ppoll];
    let waiting = |call: String| {
        let number = call.split(' ').next().and_then(|number| number.parse().ok());
        number.is_some_and(|number| waits.contains(&number))
    };
    while !fs::read_to_string(&call).is_ok_and(waiting) {
        assert!(Instant::now() < until, "it does not wait");
        std::thread::sleep(Duration::from_millis(5));
    }
    (tid, expected)
}

impl Waiting {
    /// The stack, named by a resolver that remembers nothing.
    fn named(&self, raw: &RawStack) -> Stack {
        let mut resolver = Resolver::new(std::sync::Arc::default());
        resolver.first_sight(key(self.running.pid()), NOW).unwrap();
        let stack = resolver.resolve(raw, NOW).stack.unwrap();
        stack.as_ref().clone()
    }

    /// Lets it run on until it waits again.
    fn go_on(&mut self) {
        self.running.0.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        (self.tid, self.expected) = wait(&self.running, &mut self.lines);
    }

    fn stack(&self, resolver: &mut Resolver) -> RawStack {
        let pid = self.running.pid();
        resolver.first_sight(key(pid), NOW).unwrap();
        let profile = resolver.profile(key(pid)).and_then(|profile| profile.interpreter);
        let profile = profile.expect("Ruby is recognised");
        assert_eq!(profile.kind, walker::RUBY);
        self.running.while_stopped(self.tid, |registers| {
            let mut raw = copied(pid, registers.rip, registers.rsp, registers.rbp);
            raw.interpreter_tag = profile.tag;
            (raw.interpreter_frames, raw.interpreter_whole) =
                walk(&profile, registers.fs_base, pid);
            raw
        })
    }
}

/// Function, file and line.
type Call = (String, String, u32);

fn calls(stack: &Stack) -> Vec<Call> {
    let ruby = stack.frames.iter().filter(|f| f.file.is_some() && f.file == f.module);
    ruby.map(|f| (f.function.clone().unwrap(), f.file.clone().unwrap(), f.line.unwrap_or(0)))
        .collect()
}

/// The calls of the program's main thread, as the release that tells the most tells them, but for
/// those of functions in C.
const NAMES: [&str; 15] = [
    "block in Shop::Till#leaks",
    "block in Shop::Till#leaks",
    "Shop::Till#leaks",
    "block in Shop::Till#checkout",
    "Shop::Till.pay",
    "Shop::Till#checkout",
    "Shop::Till#checkout",
    "block in <class:Till>",
    "block (3 levels) in grüße",
    "block in Object#grüße",
    "Counter.long",
    "Object#grüße",
    "block in <main>",
    "block in <main>",
    "<main>",
];

/// What the release at hand tells of a call by its full name.
fn told(name: &str) -> String {
    let (block, method) = name.rsplit_once(' ').unwrap_or(("", name));
    let method = method.rsplit(['#', '.']).next().unwrap();
    format!("{block} {method}").trim().to_owned()
}

#[track_caller]
fn assert_as_told(stack: &Stack, waiting: &Waiting, ruby: &str) {
    let calls = calls(stack);
    let mut rest = calls.iter().peekable();
    let mut before = None;
    for (name, file, line) in &waiting.expected {
        let short = told(name);
        let name = short.trim_start_matches("rescue in ");
        if ["each", "eval"].contains(&name) {
            // Functions in C, which are told with the place of their caller.
            continue;
        }
        let is_told =
            |call: &&Call| (told(&call.0).as_str(), &call.1, call.2) == (name, file, *line);
        // Newer releases leave out what a `rescue` is in.
        let mut call = rest.next();
        if call.is_some_and(|call| !is_told(&call) && Some(&call.0) == before) {
            call = rest.next();
        }
        assert!(call.is_some_and(|call| is_told(&call)), "{ruby}: {name} {line}: {calls:#?}");
        before = call.map(|call| &call.0);
    }
    assert_eq!(rest.next(), None, "{ruby}: {calls:#?}");
    assert_eq!((stack.quality, stack.language), (Quality::Complete, Language::Ruby), "{ruby}");
    let culprit = &stack.frames[stack.culprit.unwrap()];
    assert_eq!(culprit.function.as_deref(), Some(NAMES[0]), "{ruby}");
    let names: Vec<_> = stack.frames.iter().filter_map(|f| f.function.as_deref()).collect();
    assert!(!names.contains(&"rb_vm_exec"), "{ruby}: {names:?}");
}

#[test]
fn calls_are_those_that_the_interpreter_tells() {
    for ruby in interpreters() {
        for in_thread in [false, true] {
            let (waiting, _directory) = start(&ruby, &[], 1, in_thread);
            let mut resolver = Resolver::new(std::sync::Arc::default());
            let raw = waiting.stack(&mut resolver);
            assert!(raw.interpreter_whole);
            let stack = resolver.resolve(&raw, NOW).stack.unwrap();
            assert_as_told(&stack, &waiting, &ruby);
            if !in_thread {
                let calls = calls(&stack);
                let names: Vec<_> = calls.iter().map(|call| call.0.as_str()).collect();
                assert_eq!(names, NAMES, "{ruby}");
            }
            eprintln!("{ruby}: {} calls", raw.interpreter_frames.len());
        }
    }
}

#[test]
fn what_yjit_compiles_is_named_as_well() {
    let compiles = |ruby: &String| {
        let output = Command::new(ruby).args(["--yjit", "--version"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("+YJIT")
    };
    for ruby in interpreters().into_iter().filter(compiles) {
        let (waiting, _directory) = start(&ruby, &["--yjit", "--yjit-call-threshold=1"], 1, false);
        let mut resolver = Resolver::new(std::sync::Arc::default());
        let raw = waiting.stack(&mut resolver);
        assert_as_told(&resolver.resolve(&raw, NOW).stack.unwrap(), &waiting, &ruby);
        eprintln!("{ruby}");
    }
}

#[test]
fn two_runs_and_a_short_copy_have_the_same_identity() {
    let Some(ruby) = interpreters().pop() else { return };
    let mut resolver = Resolver::new(std::sync::Arc::default());
    let (waiting, _directory) = start(&ruby, &[], 1, false);
    let raw = waiting.stack(&mut resolver);
    let whole = resolver.resolve(&raw, NOW).stack.unwrap();
    let mut cut = raw.clone();
    cut.bytes.truncate(4096);
    cut.wanted = 4096;
    let short = resolver.resolve(&cut, NOW);
    assert!(!short.frames_wanted_more, "the missing frames are the interpreter's");
    let short = short.stack.unwrap();
    assert_eq!((&short.id, short.quality), (&whole.id, Quality::Complete));
}

#[test]
fn more_calls_than_there_is_room_for_are_truncated() {
    let Some(ruby) = interpreters().pop() else { return };
    let (waiting, _directory) = start(&ruby, &[], 60, false);
    let mut resolver = Resolver::new(std::sync::Arc::default());
    let raw = waiting.stack(&mut resolver);
    assert_eq!((raw.interpreter_frames.len(), raw.interpreter_whole), (MAX_FRAMES, false));
    let stack = resolver.resolve(&raw, NOW).stack.unwrap();
    assert_eq!(calls(&stack).len(), MAX_FRAMES);
    assert_eq!(stack.quality, Quality::Truncated);
}

#[test]
fn what_was_read_outlives_the_process() {
    let Some(ruby) = interpreters().pop() else { return };
    let (waiting, _directory) = start(&ruby, &[], 1, false);
    let mut resolver = Resolver::new(std::sync::Arc::default());
    let raw = waiting.stack(&mut resolver);
    let before = calls(&resolver.resolve(&raw, NOW).stack.unwrap());
    drop(waiting);
    let stack = resolver.resolve(&raw, Timestamp(60_000_000_000)).stack.unwrap();
    assert_eq!(calls(&stack), before);
}

/// Methods, blocks and pieces of code that are gone by the time their calls are named, with others
/// of the same shape in their place.
const REPLACED: &str = include_str!("tests/replaced.rb");

#[test]
fn code_that_is_gone_is_not_taken_for_what_took_its_place() {
    for ruby in interpreters() {
        let (mut waiting, _directory) = run(&ruby, &[], REPLACED);
        let mut resolver = Resolver::new(std::sync::Arc::default());
        let raw = waiting.stack(&mut resolver);
        let before = calls(&waiting.named(&raw));
        waiting.go_on();
        let after = calls(&resolver.resolve(&raw, NOW).stack.unwrap());
        assert!(after.len() < before.len(), "{ruby}: nothing is gone");
        // What is left is what it was, if not with its class.
        let is_right =
            |call: &Call| before.iter().any(|right| right == call || told(&right.0) == call.0);
        assert!(after.iter().all(is_right), "{ruby}: {after:#?} of {before:#?}");
        eprintln!("{ruby}: {} of {} calls are left", after.len(), before.len());
    }
}

#[test]
fn garbage_has_no_name() {
    let Some(ruby) = interpreters().pop() else { return };
    let (waiting, _directory) = start(&ruby, &[], 1, false);
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
        frames(&|f| InterpreterFrame { pointer: f.position & 0xffff_ffff_ffff, ..f }),
        frames(&|f| InterpreterFrame { pointer: 0, ..f }),
        frames(&|f| InterpreterFrame { pointer: u64::MAX, ..f }),
        frames(&|f| InterpreterFrame { position: f.position + (1 << 24), ..f }),
        frames(&|f| InterpreterFrame { position: f.position.wrapping_sub(1 << 24), ..f }),
        frames(&|f| InterpreterFrame { position: f.position + 4, ..f }),
        frames(&|f| InterpreterFrame { cookie: f.cookie + 1, ..f }),
    ];
    for raw in nowhere {
        let stack = resolver.resolve(&raw, NOW).stack.unwrap();
        assert_eq!(calls(&stack), []);
        assert_eq!(stack.culprit, None);
    }
    // Each with the method of the next: those whose method it is not have no name.
    let mut raw = good.clone();
    let next = good.interpreter_frames.iter().cycle().skip(1);
    for (frame, next) in raw.interpreter_frames.iter_mut().zip(next) {
        frame.cookie = next.cookie;
    }
    let whole = calls(&resolver.resolve(&good, NOW).stack.unwrap());
    let mixed = calls(&resolver.resolve(&raw, NOW).stack.unwrap());
    assert!(mixed.len() < whole.len(), "{mixed:#?}");
    let is_right = |call: &Call| whole.iter().any(|right| (&right.1, right.2) == (&call.1, call.2));
    assert!(mixed.iter().all(is_right), "{mixed:#?}");
    // Through another release's profile, though every address happens to be right.
    let raw = RawStack { interpreter_tag: good.interpreter_tag ^ 1, ..good };
    assert_eq!(calls(&resolver.resolve(&raw, NOW).stack.unwrap()), []);
}

#[test]
fn other_programs_are_not_taken_for_ruby() {
    let running = Running(Command::new("sleep").arg("60").spawn().unwrap());
    let mut resolver = Resolver::new(std::sync::Arc::default());
    std::thread::sleep(Duration::from_millis(100));
    resolver.first_sight(key(running.pid()), NOW).unwrap();
    assert_eq!(resolver.profile(key(running.pid())), None);
}
