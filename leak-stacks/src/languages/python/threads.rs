//! The Python calls of threads that are blocked, read from outside as the kernel programs' walker
//! reads them of the thread that runs.

use crate::bytes::u64_at;
use crate::languages::language::ThreadCalls;
use crate::languages::python::find::{Interpreter, THREAD_STATE};
use crate::languages::python::layout::{Layout, NEXT_THREAD, Parameters};
use crate::languages::thread_index::MAX_THREADS;
use crate::process::blocked::has_thread;
use crate::process::memory::Memory;
use crate::raw::{InterpreterFrame, walker};

/// Most calls of one thread that are read.
const MAX_CALLS: usize = 512;
/// Where glibc's `struct pthread` (nptl/descr.h: behind the header's 704 bytes and a list's two
/// words) and musl's (src/internal/pthread_impl.h) have the kernel's number of the thread.
const NUMBERS: [u32; 2] = [704 + 16, 48];

/// The `PyThreadState`s of the interpreter, each with its thread's number for the kernel.
pub(crate) fn list<'a>(
    interpreter: &'a Interpreter,
    pid: u32,
    memory: &'a Memory,
) -> impl Iterator<Item = (u32, u64)> + 'a {
    let Layout { interpreters, threads, .. } = interpreter.layout;
    let first = memory.field(interpreter.runtime, interpreters);
    let first = first.and_then(|one| memory.field(one, threads)).filter(|&state| state != 0);
    let next = |&state: &u64| memory.field(state, NEXT_THREAD).filter(|&next| next != 0);
    let states = std::iter::successors(first, next).take(MAX_THREADS);
    states.filter_map(move |state| Some((number_of(state, pid, memory)?, state)))
}

/// The number of the thread that a state is of.
///
/// The state notes the `pthread_t`, the address of a structure that begins with its own address.
fn number_of(state: u64, pid: u32, memory: &Memory) -> Option<u32> {
    let words = memory.bytes(state, THREAD_STATE)?;
    let words = (0..THREAD_STATE / 8).filter_map(|index| u64_at(&words, index * 8));
    let mut threads = words.filter(|&word| {
        word != 0 && word % 16 == 0 && word != state && memory.word(word) == Some(word)
    });
    threads.find_map(|thread| {
        let number = |offset| memory.field(thread, offset).map(|word| word as u32);
        NUMBERS.into_iter().filter_map(number).find(|&tid| tid != 0 && has_thread(pid, tid))
    })
}

/// The calls of the thread with this state, which is blocked.
pub(crate) fn calls_of(
    state: u64,
    layout: &Layout,
    parameters: &Parameters,
    memory: &Memory,
) -> Option<ThreadCalls> {
    let mut frame = memory.field(state, layout.frame)?;
    if let Some(control) = layout.control_frame() {
        frame = memory.field(frame, control)?;
    }
    let mut calls = ThreadCalls::default();
    // Some frames are no calls.
    for _ in 0..2 * MAX_CALLS {
        if frame == 0 {
            calls.are_whole = true;
            break;
        }
        let window = frame.checked_add(parameters.window.into())?;
        let bytes = memory.bytes(window, parameters.window_len as usize)?;
        let word = |at: u32| u64_at(&bytes, at as usize / 8 * 8);
        let owner = word(parameters.owner)? >> (parameters.owner % 8 * 8) & 0xff;
        if owner < parameters.foreign_owners.into() {
            if calls.frames.len() >= MAX_CALLS {
                break;
            }
            let (pointer, position) = (word(parameters.code)?, word(parameters.instruction)?);
            let kind = walker::CPYTHON;
            calls.frames.push(InterpreterFrame { pointer, position, cookie: 0, kind });
        }
        frame = word(parameters.previous)?;
    }
    (!calls.frames.is_empty()).then_some(calls)
}
