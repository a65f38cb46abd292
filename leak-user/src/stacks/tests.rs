//! Real stacks of real programs, resolved.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::identity::start_ticks;
use super::{Language, Quality, RawStack, Resolver, Stack};
use crate::event::{ProcessKey, Timestamp};

const WANTED: usize = 30 * 1024;
pub(super) const NOW: Timestamp = Timestamp(0);

pub(super) fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_ticks: start_ticks(pid).unwrap() }
}

fn names(stack: &Stack) -> Vec<&str> {
    stack.frames.iter().map(|f| f.function.as_deref().unwrap_or("?")).collect()
}

/// Whether `expected` occur in `names` in this order, other names between them allowed.
#[track_caller]
fn assert_in_order(stack: &Stack, expected: &[&str]) {
    let names = names(stack);
    let mut rest = names.iter();
    for wanted in expected {
        assert!(rest.any(|n| n.contains(wanted)), "{wanted} is missing or misplaced in {names:#?}");
    }
}

/// The calling thread's stack, as the kernel programs would copy it.
#[inline(always)]
fn own_stack() -> RawStack {
    let (ip, sp, bp): (u64, u64, u64);
    // SAFETY: the instructions only read registers into registers.
    unsafe {
        std::arch::asm!(
            "lea {ip}, [rip]", "mov {sp}, rsp", "mov {bp}, rbp",
            ip = out(reg) ip, sp = out(reg) sp, bp = out(reg) bp, options(nomem, nostack),
        );
    }
    copied(std::process::id(), ip, sp, bp)
}

/// Copies a stack in chunks until one fails, as the kernel programs do.
pub(super) fn copied(pid: u32, ip: u64, sp: u64, bp: u64) -> RawStack {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < WANTED {
        let mut chunk = [0; 1024];
        if memory.read_exact_at(&mut chunk, sp + bytes.len() as u64).is_err() {
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    RawStack {
        process: key(pid),
        tid: pid,
        image: 0,
        ip,
        sp,
        bp,
        preserved: [0; leak_common::stack::PRESERVED],
        wanted: WANTED as u32,
        goroutine_window: [0; 64],
        python: Vec::new(),
        python_whole: false,
        python_tag: 0,
        bytes,
    }
}

/// A stack that holds these words.
pub(super) fn copied_words(words: &[u64]) -> RawStack {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    RawStack { bytes, ..copied(std::process::id(), 0, 0x7000, 0) }
}

/// A child that is killed when the test ends, however it ends.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until a thread blocks in one of these system calls, and copies its stack.
    fn blocked_in(&self, calls: &[libc::c_long]) -> RawStack {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            for task in fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten() {
                let tid: i32 = task.file_name().to_string_lossy().parse().unwrap();
                let call = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
                let number = call.split(' ').next().and_then(|n| n.parse().ok());
                if number.is_some_and(|n| calls.contains(&n)) {
                    return self.stack_of(tid);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no thread blocked in {calls:?}");
    }

    fn stack_of(&self, tid: i32) -> RawStack {
        self.while_stopped(tid, |registers| self.stack_at(registers))
    }

    /// Stops a thread while `look` looks at it.
    pub(super) fn while_stopped<T>(
        &self,
        tid: i32,
        look: impl FnOnce(&libc::user_regs_struct) -> T,
    ) -> T {
        // SAFETY: ptrace acts on our own child, and `registers` is large enough for its answer.
        let registers = unsafe {
            let none = std::ptr::null_mut::<libc::c_void>();
            assert_eq!(libc::ptrace(libc::PTRACE_SEIZE, tid, none, none), 0);
            assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none), 0);
            let mut status = 0;
            assert_eq!(libc::waitpid(tid, &raw mut status, libc::__WALL), tid);
            let mut registers: libc::user_regs_struct = std::mem::zeroed();
            assert_eq!(libc::ptrace(libc::PTRACE_GETREGS, tid, none, &raw mut registers), 0);
            registers
        };
        let seen = look(&registers);
        // SAFETY: as above.
        unsafe {
            let none = std::ptr::null_mut::<libc::c_void>();
            libc::ptrace(libc::PTRACE_DETACH, tid, none, none);
        }
        seen
    }

    fn stack_at(&self, registers: &libc::user_regs_struct) -> RawStack {
        let mut raw = copied(self.pid(), registers.rip, registers.rsp, registers.rbp);
        let r = registers;
        raw.preserved = [r.rbx, r.r12, r.r13, r.r14, r.r15];
        // The goroutine's descriptor, as the kernel programs find it: Go keeps it below fs.
        let memory = fs::File::open(format!("/proc/{}/mem", self.pid())).unwrap();
        let mut pointer = [0; 8];
        if memory.read_exact_at(&mut pointer, registers.fs_base.wrapping_sub(8)).is_ok() {
            let window = u64::from_le_bytes(pointer).wrapping_add(128);
            let _ = memory.read_exact_at(&mut raw.goroutine_window, window);
        }
        raw
    }
}

fn resolve(raw: &RawStack) -> (Resolver, super::Resolved) {
    let mut resolver = Resolver::new(Arc::default());
    let resolved = resolver.resolve(raw, NOW);
    (resolver, resolved)
}

// --- This process

#[inline(never)]
fn innermost() -> RawStack {
    std::hint::black_box(own_stack())
}

#[inline(never)]
fn middle() -> RawStack {
    let raw = innermost();
    std::hint::black_box(raw)
}

#[inline(never)]
pub(super) fn outermost() -> RawStack {
    let raw = middle();
    std::hint::black_box(raw)
}

#[test]
fn own_functions_in_order_with_lines_down_to_the_thread() {
    let raw = std::thread::spawn(outermost).join().unwrap();
    let (_, resolved) = resolve(&raw);
    let stack = resolved.stack.unwrap();
    assert_in_order(&stack, &["tests::innermost", "tests::middle", "tests::outermost", "clone"]);
    assert_eq!(stack.quality, Quality::Complete, "{:#?}", names(&stack));
    assert!(!resolved.frames_wanted_more);
    assert_eq!(stack.language, Language::Native);
    let middle = stack.frames.iter().find(|f| f.function.as_deref().unwrap().contains("middle"));
    let middle = middle.unwrap();
    assert!(middle.file.as_deref().unwrap().ends_with("stacks/tests.rs"), "{middle:?}");
    assert!(middle.line.unwrap() < line!());
    let culprit = &stack.frames[stack.culprit.unwrap()];
    assert!(culprit.function.as_deref().unwrap().contains("tests::"), "{culprit:?}");
}

#[test]
fn a_short_copy_is_truncated_and_says_that_more_would_help() {
    let whole = std::thread::spawn(outermost).join().unwrap();
    let mut cut = whole.clone();
    cut.bytes.truncate(512);
    cut.wanted = 512;
    let mut resolver = Resolver::new(Arc::default());
    let short = resolver.resolve(&cut, NOW);
    assert_eq!(short.stack.unwrap().quality, Quality::Truncated);
    assert!(short.frames_wanted_more);
    // The same bytes when more were asked for: more cannot be had.
    cut.wanted = 1024;
    assert!(!resolver.resolve(&cut, NOW).frames_wanted_more);
    // What failed for the short copy must not spoil the whole one.
    assert_eq!(resolver.resolve(&whole, NOW).stack.unwrap().quality, Quality::Complete);
}

#[test]
fn the_same_stack_is_shared_and_keeps_its_identity_across_resolvers() {
    let raw = std::thread::spawn(outermost).join().unwrap();
    let mut resolver = Resolver::new(Arc::default());
    let first = resolver.resolve(&raw, NOW).stack.unwrap();
    let second = resolver.resolve(&raw, NOW).stack.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.id.0.len(), 16);
    assert_eq!(resolve(&raw).1.stack.unwrap().id, first.id);
    assert_eq!(resolver.held().0, 1);
    resolver.forget(raw.process);
    assert_eq!(resolver.held(), (0, 0));
}

#[test]
fn garbage_gives_no_stack_or_a_poor_one_but_never_a_panic() {
    let good = std::thread::spawn(outermost).join().unwrap();
    let mut resolver = Resolver::new(Arc::default());
    for (ip, sp, bp) in [(0, 0, 0), (u64::MAX, u64::MAX, u64::MAX), (good.ip, u64::MAX - 7, 1)] {
        let raw = RawStack { ip, sp, bp, ..good.clone() };
        let stack = resolver.resolve(&raw, NOW).stack.unwrap();
        assert_ne!(stack.quality, Quality::Complete);
    }
    let mut noise = good.clone();
    for (index, byte) in noise.bytes.iter_mut().enumerate() {
        *byte = (index as u8).wrapping_mul(31);
    }
    assert_ne!(resolver.resolve(&noise, NOW).stack.unwrap().quality, Quality::Complete);
    let stranger = ProcessKey { start_ticks: good.process.start_ticks + 1, ..good.process };
    assert!(resolver.resolve(&RawStack { process: stranger, ..good }, NOW).stack.is_none());
}

// --- C

pub(super) const C_PROGRAM: &str = r#"
#include <unistd.h>
#include <stdlib.h>
static volatile int sink;
__attribute__((noinline)) int leaks(int fd) { char b[200]; int r = read(fd, b, 200); sink = b[0]; return r + 1; }
__attribute__((noinline)) int handler(int fd) { char *p = alloca(fd + 99); sink = *p; int r = leaks(fd); return r + sink; }
__attribute__((noinline)) int serve(int fd) { int r = handler(fd) * 3; sink = r; return r; }
int main(void) { int r = serve(0); return r + sink; }
"#;

fn compiled_c(directory: &Path) -> std::path::PathBuf {
    let (source, program) = (directory.join("shop.c"), directory.join("shop"));
    fs::write(&source, C_PROGRAM).unwrap();
    let status = Command::new("gcc")
        .args(["-O2", "-g", "-fomit-frame-pointer", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(status.success());
    program
}

const C_CHAIN: [&str; 5] = ["read", "leaks", "handler", "serve", "main"];

#[track_caller]
fn assert_is_c_chain(stack: &Stack) {
    assert_in_order(stack, &C_CHAIN);
    assert_in_order(stack, &["main", "_start"]);
    assert_eq!(stack.quality, Quality::Complete);
    let culprit = &stack.frames[stack.culprit.unwrap()];
    assert_eq!(culprit.function.as_deref(), Some("leaks"));
    assert!(culprit.file.as_deref().unwrap().ends_with("shop.c"));
    assert_eq!(culprit.line, Some(5));
}

#[test]
fn c_without_frame_pointers() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(&mut Command::new(compiled_c(directory.path())));
    let raw = running.blocked_in(&[libc::SYS_read]);
    let (_, resolved) = resolve(&raw);
    assert_is_c_chain(&resolved.stack.unwrap());
    assert_eq!(resolved.goroutine, None);
}

#[test]
fn the_binary_was_deleted_before_first_sight() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let running = Running::start(&mut Command::new(&program));
    let raw = running.blocked_in(&[libc::SYS_read]);
    fs::remove_file(&program).unwrap();
    // What lies in its place now must not be taken for it.
    fs::copy("/bin/true", &program).unwrap();
    assert_is_c_chain(&resolve(&raw).1.stack.unwrap());
}

#[test]
fn the_process_exited_after_first_sight() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(&mut Command::new(compiled_c(directory.path())));
    let raw = running.blocked_in(&[libc::SYS_read]);
    let mut resolver = Resolver::new(Arc::default());
    resolver.first_sight(raw.process, NOW).unwrap();
    drop(running);
    drop(directory);
    assert_is_c_chain(&resolver.resolve(&raw, Timestamp(60_000_000_000)).stack.unwrap());
}

#[test]
fn two_runs_of_a_program_have_the_same_stack() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let mut resolver = Resolver::new(Arc::default());
    let mut stacks = (0..2).map(|_| {
        let running = Running::start(&mut Command::new(&program));
        let raw = running.blocked_in(&[libc::SYS_read]);
        resolver.resolve(&raw, NOW).stack.unwrap()
    });
    let (first, second) = (stacks.next().unwrap(), stacks.next().unwrap());
    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn code_of_a_program_executed_later_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let script = format!("read line; exec {}", program.display());
    let mut running = Running::start(Command::new("sh").args(["-c", &script]));
    let shell = running.blocked_in(&[libc::SYS_read]);
    let mut resolver = Resolver::new(Arc::default());
    resolver.first_sight(shell.process, NOW).unwrap();
    let mut input = running.0.stdin.take().unwrap();
    input.write_all(b"go\n").unwrap();
    let executable = format!("/proc/{}/exe", running.pid());
    while fs::read_link(&executable).unwrap() != program {
        std::thread::sleep(Duration::from_millis(5));
    }
    let raw = running.blocked_in(&[libc::SYS_read]);
    assert_eq!(raw.process, shell.process, "executing a program keeps the process's identity");
    let later = Timestamp(2_000_000_000);
    assert_is_c_chain(&resolver.resolve(&raw, later).stack.unwrap());
}

const C_HOST: &str = r#"
#include <dlfcn.h>
#include <unistd.h>
int main(int n, char **a) {
    char b; if (read(0, &b, 1) != 1) return 1;
    int (*leaks)(void) = (int (*)(void))dlsym(dlopen(a[1], RTLD_NOW), "leaks");
    return leaks() + 1;
}
"#;

const C_LIBRARY: &str = r#"
#include <sys/socket.h>
static volatile int sink;
int leaks(void) { int s[2]; char b[9]; socketpair(AF_UNIX, SOCK_STREAM, 0, s); int r = recv(s[0], b, 9, 0); sink = r; return r; }
"#;

#[test]
fn a_library_loaded_after_first_sight_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let (host, library) = (directory.path().join("host"), directory.path().join("plugin.so"));
    for (source, target, options) in
        [(C_HOST, &host, &["-O2"][..]), (C_LIBRARY, &library, &["-O2", "-shared", "-fPIC"])]
    {
        let file = target.with_extension("c");
        fs::write(&file, source).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(options).arg("-fomit-frame-pointer").arg("-o").args([target, &file]);
        assert!(gcc.status().unwrap().success());
    }
    let mut running = Running::start(Command::new(host).arg(&library));
    let before = running.blocked_in(&[libc::SYS_read]);
    let mut resolver = Resolver::new(Arc::default());
    resolver.first_sight(before.process, NOW).unwrap();
    running.0.stdin.take().unwrap().write_all(b"x").unwrap();
    let raw = running.blocked_in(&[libc::SYS_recvfrom]);
    // Too soon to read the mappings again: what can be had is had, and not taken for whole.
    let early = resolver.resolve(&raw, NOW).stack.unwrap();
    assert_eq!(early.quality, Quality::Truncated);
    let late = resolver.resolve(&raw, Timestamp(2_000_000_000)).stack.unwrap();
    assert_in_order(&late, &["recv", "leaks", "main", "_start"]);
    assert_eq!(late.quality, Quality::Complete);
}

// --- Go

const GO_PROGRAM: &str = r#"
package main

import (
	"fmt"
	"net"
)

type Shop struct{ conn net.Conn }

// Were it collected, the socket would be closed.
var kept net.Conn

//go:noinline
func handler(s *Shop) int { var b [70000]byte; return s.Leaks(b[:]) * 2 }

// Small enough to be inlined into its caller.
func (s *Shop) Leaks(b []byte) int { n, _ := s.conn.Write(b); return n + 1 }

func main() {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	go func() { kept, _ = l.Accept() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil { panic(err) }
	// A blocking descriptor, so that a full socket blocks in the system call itself.
	f, _ := c.(*net.TCPConn).File()
	fd := int(f.Fd())
	done := make(chan int)
	go func() { done <- serve(fd, &Shop{c}) }()
	fmt.Println(<-done)
}
"#;

const GO_SERVE: &str = r#"
package main

import "syscall"

//go:noinline
func serve(fd int, s *Shop) int {
	syscall.SetNonblock(fd, false)
	for { handler(s) }
}
"#;

/// Builds the program.
pub(super) fn compiled_go(directory: &Path, arguments: &[&str]) -> std::path::PathBuf {
    fs::write(directory.join("main.go"), GO_PROGRAM).unwrap();
    fs::write(directory.join("serve.go"), GO_SERVE).unwrap();
    let status = Command::new("go")
        .current_dir(directory)
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "-mod=mod")
        .arg("build")
        .args(arguments)
        .args(["-o", "shop", "main.go", "serve.go"])
        .status()
        .expect("this needs the Go toolchain; `cargo xtask setup` installs it");
    assert!(status.success());
    directory.join("shop")
}

#[track_caller]
fn assert_go(arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_go(directory.path(), arguments);
    let running = Running::start(&mut Command::new(program));
    let raw = running.blocked_in(&[libc::SYS_write]);
    let (_, resolved) = resolve(&raw);
    let stack = resolved.stack.unwrap();
    let chain = [
        "Syscall6",
        "syscall.write",
        "internal/poll.ignoringEINTRIO",
        "internal/poll.(*FD).Write",
        "net.(*conn).Write",
        "main.(*Shop).Leaks",
        "main.handler",
        "main.serve",
        "main.main.func2",
        "runtime.goexit",
    ];
    assert_in_order(&stack, &chain);
    assert_eq!(stack.quality, Quality::Complete);
    assert_eq!(stack.language, Language::Go);
    let culprit = &stack.frames[stack.culprit.unwrap()];
    assert_eq!(culprit.function.as_deref(), Some("main.(*Shop).Leaks"));
    assert!(culprit.file.as_deref().unwrap().ends_with("main.go"), "{culprit:?}");
    assert_eq!(culprit.line, Some(18));
    // The runtime's own goroutines have the first numbers.
    assert!(
        resolved.goroutine.is_some_and(|id| (2..1000).contains(&id)),
        "{:?}",
        resolved.goroutine
    );
}

#[test]
fn go() {
    assert_go(&[]);
}

#[test]
fn go_stripped() {
    assert_go(&["-ldflags", "-s -w"]);
}

#[test]
fn go_position_independent_and_stripped() {
    assert_go(&["-buildmode=pie", "-ldflags", "-s -w"]);
}

// --- Python

/// Python's own executable, not a wrapper script.
fn python_program() -> String {
    let mut command = Command::new("python3");
    let output = command
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .expect("this needs python3; `cargo xtask setup` installs it");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn python() {
    let python = python_program();
    let code =
        "import socket\ndef leaks(s): return s.recv(9)\na, b = socket.socketpair()\nleaks(a)";
    let running = Running::start(Command::new(python).args(["-c", code]));
    let raw = running.blocked_in(&[libc::SYS_recvfrom]);
    let (_, resolved) = resolve(&raw);
    let stack = resolved.stack.unwrap();
    assert_in_order(&stack, &["recv", "_PyEval_EvalFrameDefault", "_start"]);
    assert_eq!(stack.quality, Quality::Complete);
    assert_eq!(stack.language, Language::Python);
    assert_eq!(stack.culprit, None, "native frames of an interpreter are nobody's fault");
}

// --- Files of strangers

/// Reads everything that is read of a binary, and looks up a few addresses.
fn read_whole(file: fs::File) -> usize {
    let mut store = super::binary::BinaryStore::default();
    let id = super::binary::FileId::of(&file.metadata().unwrap());
    let binary = store.pin(id, || Some(file)).unwrap();
    let address = |a: &u64| super::guarded(|| binary.symbols_at(*a).len()).unwrap_or(0);
    let bias = binary.loaded().and_then(|l| l.elf.section(".text").map(|t| t.address));
    (0..64).map(|i| bias.unwrap_or(0x1000) + i * 16).map(|a| address(&a)).sum()
}

#[test]
fn damaged_binaries_cost_their_own_symbols_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let whole = fs::read(&program).unwrap();
    assert!(read_whole(fs::File::open(&program).unwrap()) > 0);
    let mut state = 1u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let damaged = directory.path().join("damaged");
    for round in 0..200 {
        let mut bytes = whole.clone();
        for _ in 0..1 + round {
            let position = random(bytes.len());
            bytes[position] = [0, 0x7f, 0x80, 0xff, random(256) as u8][random(5)];
        }
        fs::write(&damaged, &bytes).unwrap();
        read_whole(fs::File::open(&damaged).unwrap());
        bytes.truncate(random(bytes.len()));
        fs::write(&damaged, &bytes).unwrap();
        read_whole(fs::File::open(&damaged).unwrap());
    }
}

#[test]
fn a_file_that_is_truncated_after_it_was_pinned_does_not_end_us() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_c(directory.path());
    let file = fs::File::open(&program).unwrap();
    let mut store = super::binary::BinaryStore::default();
    let id = super::binary::FileId::of(&file.metadata().unwrap());
    let binary = store.pin(id, || Some(file)).unwrap();
    let main = {
        let loaded = binary.loaded().unwrap();
        loaded.elf.section(".text").unwrap().address
    };
    let known = binary.symbols_at(main);
    assert!(!known.is_empty());
    fs::OpenOptions::new().write(true).open(&program).unwrap().set_len(0).unwrap();
    // From the copy; through a mapping of the file this would be SIGBUS.
    for offset in 1..64 {
        binary.symbols_at(main + offset);
    }
}
