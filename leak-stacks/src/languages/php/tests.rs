//! A made-up engine, and real ones whose calls are compared with what they say themselves.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::languages::php::call::{Noted, noted};
use crate::languages::php::engine::Engine;
use crate::languages::php::layout::Current;
use crate::languages::php::made_up::{BASE, Image, calls, file};
use crate::raw::{InterpreterFrame, walker};
use crate::tests::{NOW, Running, copied, key};
use crate::{Language, Quality, RawStack, Resolver, Stack};

const PAGE: u64 = 0x1000;
const INNER_FRAME: u64 = PAGE + 0x100;
const OUTER_FRAME: u64 = PAGE + 0x40;
const INTERNAL: u64 = 0x800;
const SCRIPT: u64 = 0x900;
const CLASS: u64 = 0xa00;
const OPCODES: u64 = 0x2000;

/// The memory of an engine that runs `Shop::ask` of `/shop.php`, which has called `pg_query`.
fn memory() -> Vec<u8> {
    let mut memory = vec![0; 0x3000];
    let mut words = |at: u64, words: &[u64]| {
        for (index, word) in words.iter().enumerate() {
            let at = at as usize + index * 8;
            memory[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    };
    words(456, &[BASE + PAGE + 0x180, BASE + 0x2000, BASE + PAGE, 0x1000, BASE + INNER_FRAME]);
    words(PAGE, &[BASE + PAGE + 0x20, BASE + 0x2000, 0]);
    words(INNER_FRAME, &[7, 0, 0, BASE + INTERNAL, 0, 0, BASE + OUTER_FRAME]);
    words(OUTER_FRAME, &[BASE + OPCODES + 32, 0, 0, BASE + SCRIPT, 0, 0, 0]);
    words(INTERNAL, &[1, BASE + 0x600, 0]);
    words(SCRIPT, &[2, BASE + 0x640, BASE + CLASS]);
    words(SCRIPT + 152, &[BASE + 0x680, 9 << 32 | 3]);
    words(CLASS, &[2, BASE + 0x6c0]);
    words(OPCODES + 32, &[BASE, 0, 0, 5]);
    for (at, text) in [(0x600, "pg_query"), (0x640, "ask"), (0x680, "/shop.php"), (0x6c0, "Shop")] {
        words(at, &[0x16 << 32 | 1, 0xabcd, text.len() as u64]);
    }
    for (at, text) in [(0x618, "pg_query"), (0x658, "ask"), (0x698, "/shop.php"), (0x6d8, "Shop")] {
        memory[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    memory
}

fn found(memory: &[u8]) -> Option<Engine> {
    Engine::find(&file(), 0, &Image(memory))
}

#[test]
fn an_engine_of_an_unknown_release_is_understood_by_what_it_runs() {
    let memory = memory();
    let engine = found(&memory).unwrap();
    assert_eq!(engine.current, Current::OfProcess(BASE + 488));
    assert_eq!(engine.file, 152);
    let calls = calls(&engine, &Image(&memory)).unwrap();
    assert_eq!(calls, ["pg_query :0", "Shop::ask /shop.php:5"]);
}

#[test]
fn what_does_not_fit_is_not_believed() {
    let good = memory();
    let engine = found(&good).unwrap();
    let damaged = |at: u64, value: u64| {
        let mut memory = good.clone();
        memory[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        memory
    };
    // A page whose end is elsewhere, of an odd size, without the frame.
    for (at, value) in [(PAGE + 8, 0), (480, 0x1001), (480, 0), (488, BASE + 0x2008), (464, 0)] {
        assert_eq!(found(&damaged(at, value)), None, "{at:x}");
    }
    let call = |memory: &[u8], index: usize| calls(&engine, &Image(memory)).unwrap().remove(index);
    // Lengths, types and addresses of strings and of the class.
    let broken = [
        (0x650, u64::MAX),
        (0x650, 2),
        (0x650, 0),
        (0x640, 0x17 << 32),
        (SCRIPT + 8, u64::MAX),
        (SCRIPT + 8, BASE + 0x2ff8),
        (SCRIPT + 16, 8),
        (CLASS + 8, 0),
        (SCRIPT + 152, BASE),
        (OUTER_FRAME, u64::MAX),
    ];
    for (at, value) in broken {
        assert_eq!(call(&damaged(at, value), 1), "", "{at:x}");
        assert_eq!(call(&damaged(at, value), 0), "pg_query :0", "{at:x}");
    }
    for length in 0..good.len() / 16 {
        if let Some(engine) = found(&good[..length * 16]) {
            calls(&engine, &Image(&good[..length * 16]));
        }
    }
}

#[test]
fn another_function_in_the_same_place_has_no_name() {
    let good = memory();
    let noted = noted(BASE + SCRIPT, BASE + OPCODES + 32, 152, &Image(&good)).unwrap();
    let named = |memory: &[u8]| Noted::from(noted).call("php", &Image(memory));
    assert_eq!(named(&good).unwrap().function.as_deref(), Some("Shop::ask"));
    // The function, its opcodes and its frame may be freed and used again.
    let mut memory = good.clone();
    memory[PAGE as usize..].fill(0xff);
    memory[SCRIPT as usize..CLASS as usize].fill(0xff);
    assert_eq!(named(&memory), named(&good));
    // Another name, of another length; another file.
    for at in [0x658, 0x650, 0x688, 0x690] {
        let mut memory = good.clone();
        memory[at] ^= 1;
        assert_eq!(named(&memory), None, "{at:x}");
    }
}

/// Prints its calls, innermost first, then waits in `recv`.
const PROGRAM: &str = r#"<?php
namespace App;

function leaks($socket) {
    $line = __LINE__ + 2;
    say($line, debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS));
    socket_recv($socket, $text, 1, 0);
}

function say($line, $trace) {
    array_push($trace, ['function' => '{main}']);
    foreach ($trace as $call) {
        $class = isset($call['class']) ? strtok($call['class'], "\0") . '::' : '';
        $name = $class . $call['function'];
        printf("%s\t%d\n", $name === 'require' ? '{main}' : $name, $line);
        $line = $call['line'] ?? 0;
    }
    echo "\n";
}

trait Refunds {
    protected function refund($socket) {
        $x = array_map(static fn ($socket) => leaks($socket), [$socket]);
    }
}

final class Shop {
    use Refunds;

    public function __call($name, $arguments) {
        $this->refund(...$arguments);
    }

    public static function open($socket) {
        eval('(new self())->anything($socket);');
    }

    public function __destruct() {
        if ($GLOBALS['argv'][1] === 'destroyed') {
            foreach (self::each($GLOBALS['ends'][0]) as $_);
        }
    }

    public static function each($socket) {
        yield 1;
        yield (function () use ($socket) {
            usort($GLOBALS['ends'], function ($a, $b) use ($socket) {
                Shop::open($socket);
                return 0;
            });
        })->call(new class { });
    }
}

socket_create_pair(AF_UNIX, SOCK_STREAM, 0, $ends);
if ($argv[1] === 'destroyed') {
    $shop = new Shop();
    unset($shop);
} else {
    require $argv[1];
}
"#;

const REQUIRED: &str = "<?php\nforeach (\\App\\Shop::each($ends[0]) as $_);\n";

/// What the kernel program does, through procfs, by the layout of its profile.
fn walk(parameters: &[u32], pid: u32) -> Vec<InterpreterFrame> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    let &[low, high, u32::MAX, file, ..] = parameters else { panic!("{parameters:?}") };
    let process = crate::process::memory::Memory::open(key(pid)).unwrap();
    let mut frame = word(u64::from(high) << 32 | u64::from(low));
    let mut frames = Vec::new();
    while frame != 0 && frames.len() < 48 {
        let (opcode, pointer) = (word(frame), word(frame + 24));
        if pointer != 0 {
            frames.push(noted(pointer, opcode, file.into(), &process).unwrap());
        }
        frame = word(frame + 48);
    }
    frames
}

struct Waiting {
    running: Running,
    expected: Vec<(String, u32)>,
    _directory: tempfile::TempDir,
}

fn start(options: &[&str], destroyed: bool) -> Waiting {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("shop.php");
    fs::write(&script, PROGRAM).unwrap();
    fs::write(directory.path().join("more.php"), REQUIRED).unwrap();
    let argument = if destroyed { "destroyed".into() } else { directory.path().join("more.php") };
    let mut command = Command::new("/usr/bin/php");
    command.args(options).arg(&script).arg(argument);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut running = Running(child.expect("this needs PHP"));
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let expected = lines
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let (name, line) = line.split_once('\t').unwrap();
            (name.to_owned(), line.parse().unwrap())
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(20);
    let call = format!("/proc/{}/syscall", running.pid());
    while !fs::read_to_string(&call).unwrap().starts_with(&format!("{} ", libc::SYS_recvfrom)) {
        assert!(Instant::now() < until, "PHP does not wait");
        std::thread::sleep(Duration::from_millis(5));
    }
    Waiting { running, expected, _directory: directory }
}

impl Waiting {
    fn stack(&self, resolver: &mut Resolver) -> RawStack {
        let pid = self.running.pid();
        resolver.first_sight(key(pid), NOW).unwrap();
        let profile = resolver.profile(key(pid)).and_then(|profile| profile.interpreter);
        let profile = profile.expect("PHP is recognised");
        assert_eq!(profile.kind, walker::PHP);
        self.running.while_stopped(pid.cast_signed(), |registers| {
            let mut raw = copied(pid, registers.rip, registers.rsp, registers.rbp);
            raw.interpreter_tag = profile.tag;
            raw.interpreter_whole = true;
            raw.interpreter_frames = walk(&profile.parameters, pid);
            raw
        })
    }
}

/// The calls from PHP's own function outward, as many as `PROGRAM` tells at most.
fn php_calls(stack: &Stack) -> Vec<(String, u32)> {
    let frames = stack.frames.iter().map(|f| (f.function.as_deref(), f.line.unwrap_or(0)));
    let from_php = frames.skip_while(|(function, _)| *function != Some("socket_recv")).take(15);
    from_php.map_while(|(function, line)| Some((function?.to_owned(), line))).collect()
}

#[test]
fn calls_are_those_that_php_tells() {
    let compiled = ["-d", "opcache.enable_cli=1", "-d", "opcache.jit_buffer_size=8M", "-d"];
    let by_functions = [&compiled[..], &["opcache.jit=1205"]].concat();
    let by_traces = [&compiled[..], &["opcache.jit=tracing", "-d", "opcache.jit_hot_func=1"]];
    for options in [&[][..], &compiled[..4], &by_functions, &by_traces.concat()] {
        for destroyed in [false, true] {
            let waiting = start(options, destroyed);
            let mut resolver = Resolver::new(std::sync::Arc::default());
            let raw = waiting.stack(&mut resolver);
            let stack = resolver.resolve(&raw, NOW).stack.unwrap();
            let calls = php_calls(&stack);
            let (innermost, calls) = calls.split_first().unwrap();
            assert_eq!(*innermost, ("socket_recv".to_owned(), 0));
            assert_eq!(calls[..waiting.expected.len()], waiting.expected, "{options:?}");
            assert_eq!((stack.quality, stack.language), (Quality::Complete, Language::Php));
            let culprit = &stack.frames[stack.culprit.unwrap()];
            assert_eq!(culprit.function.as_deref(), Some("App\\leaks"));
        }
    }
}

#[test]
fn what_was_read_outlives_the_process_and_what_was_not_has_no_name() {
    let waiting = start(&[], false);
    let mut resolver = Resolver::new(std::sync::Arc::default());
    let raw = waiting.stack(&mut resolver);
    let whole = php_calls(&resolver.resolve(&raw, NOW).stack.unwrap());
    let changed = |change: &dyn Fn(InterpreterFrame) -> InterpreterFrame| {
        let frames = raw.interpreter_frames.iter().map(|frame| change(*frame)).collect();
        RawStack { interpreter_frames: frames, ..raw.clone() }
    };
    let others = [
        changed(&|f| InterpreterFrame { cookie: f.cookie ^ 2, ..f }),
        changed(&|f| InterpreterFrame { cookie: 0, ..f }),
        changed(&|f| InterpreterFrame { pointer: f.pointer + 8, position: f.position + 8, ..f }),
        changed(&|f| InterpreterFrame { pointer: u64::MAX, position: u64::MAX, ..f }),
    ];
    for other in others {
        assert_eq!(php_calls(&resolver.resolve(&other, NOW).stack.unwrap()), []);
    }
    drop(waiting);
    assert_eq!(php_calls(&resolver.resolve(&raw, NOW).stack.unwrap()), whole);
}
