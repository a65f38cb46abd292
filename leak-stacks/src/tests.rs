//! Real stacks of real programs, resolved.

mod broken;
mod damaged;
mod golang;
mod goroutines;
mod java;
mod native;
mod node;
mod own;
mod python;
mod runtime;

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::golang::compiled_go;
pub(crate) use self::native::C_PROGRAM;
pub(crate) use self::own::outermost;
use crate::process::stat::start_ticks;
use crate::{ProcessKey, Timestamp};
use crate::{RawStack, Resolver, Stack};

const WANTED: usize = 30 * 1024;
pub(crate) const NOW: Timestamp = Timestamp(0);

pub(crate) fn key(pid: u32) -> ProcessKey {
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
pub(crate) fn copied(pid: u32, ip: u64, sp: u64, bp: u64) -> RawStack {
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
        preserved: [0; 5],
        wanted: WANTED as u32,
        wanted_most: false,
        goroutine_window: vec![0; 64],
        interpreter_frames: Vec::new(),
        interpreter_whole: false,
        interpreter_tag: 0,
        bytes,
    }
}

/// A stack that holds these words.
pub(crate) fn copied_words(words: &[u64]) -> RawStack {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    RawStack { bytes, ..copied(std::process::id(), 0, 0x7000, 0) }
}

/// A child that is killed when the test ends, however it ends.
pub(crate) struct Running(pub(super) Child);

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

    pub(crate) fn pid(&self) -> u32 {
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
    pub(crate) fn while_stopped<T>(
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

fn resolve(raw: &RawStack) -> (Resolver, crate::Resolved) {
    let mut resolver = Resolver::new(Arc::default());
    let resolved = resolver.resolve(raw, NOW);
    (resolver, resolved)
}
