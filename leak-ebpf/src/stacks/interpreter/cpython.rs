//! CPython's calls, followed through the structures of the interpreter.
//!
//! The thread has let go of the interpreter's lock before it entered its system call, but its own
//! frames stay as they are until it returns.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
pub(super) use leak_common::interpreter::cpython::KIND;
use leak_common::interpreter::cpython::{ABSENT, Parameters, WINDOW};
use leak_common::interpreter::{InterpreterFrame, InterpreterProfile, MAX_FRAMES};
use leak_common::stack::StackHeader;

use crate::verifier::zeroed;

/// Words of [`WINDOW`], rounded up so that a mask keeps an index within them.
const WORDS: usize = 16;
const _: () = assert!(WORDS.is_power_of_two() && WORDS * 8 > WINDOW);
/// Keeps a length within them.
const LEN_MASK: u32 = WORDS as u32 * 8 - 1;

/// Most frames that are read: those recorded, and some that are not function calls.
const MAX_HOPS: usize = MAX_FRAMES + 16;

/// See [`super::walk`]. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn walk_cpython(
    profile: *const InterpreterProfile,
    thread_register: u64,
    header: *mut StackHeader,
) -> u32 {
    // SAFETY: callers pass references.
    if let Some((profile, header)) = unsafe { profile.as_ref().zip(header.as_mut()) } {
        walk(Parameters::view(&profile.parameters), thread_register, header);
    }
    0
}

#[inline(always)]
fn walk(parameters: &Parameters, thread_register: u64, header: &mut StackHeader) {
    let window = u64::from(parameters.window);
    // Read once: the collector may replace the profile between a check and its use.
    // Masked, not compared: the verifier of Linux 6.1 forgets the bounds that a comparison gives a
    // value if that was spilled to the stack before.
    // SAFETY: the reference is valid.
    let window_len =
        unsafe { core::ptr::read_volatile(&raw const parameters.window_len) } & LEN_MASK;
    let Some(mut frame) = innermost(parameters, thread_register) else { return };
    let mut words = MaybeUninit::uninit();
    let words: &mut [u64; WORDS] = zeroed(&mut words);
    let mut hops = 0;
    while hops < MAX_HOPS {
        hops += 1;
        if frame == 0 {
            header.interpreter_whole = 1;
            return;
        }
        // SAFETY: the mask keeps the length within the words; the helper checks the user's side.
        let failed = unsafe {
            let from = frame.wrapping_add(window) as *const u8;
            read_user(words.as_mut_ptr().cast(), window_len, from.cast()) != 0
        };
        if failed {
            return;
        }
        // Counted in memory, whose contents the verifier does not follow, and without a branch:
        // otherwise it would prove all that follows again for each path that leads to it.
        // SAFETY: the reference is valid.
        let recorded = unsafe { core::ptr::read_volatile(&raw const header.interpreter_len) };
        let Some(place) = header.interpreter_frames.get_mut(recorded as usize) else { return };
        *place = InterpreterFrame {
            pointer: word(words, parameters.code),
            position: word(words, parameters.instruction),
            cookie: 0,
            kind: KIND,
        };
        // A frame that is not a function call is overwritten by the next.
        header.interpreter_len = recorded + is_call(parameters, words);
        frame = word(words, parameters.previous);
    }
}

/// Address of the innermost frame; 0 when the thread runs no Python.
#[inline(always)]
fn innermost(parameters: &Parameters, thread_register: u64) -> Option<u64> {
    let slots = match parameters.slots {
        ABSENT => thread_register,
        offset => pointer(thread_register, offset)?,
    };
    let state = pointer(slots, parameters.slot)?;
    if state == 0 {
        return None;
    }
    let frame = pointer(state, parameters.frame)?;
    match parameters.control_frame {
        ABSENT => Some(frame),
        offset => pointer(frame, offset),
    }
}

#[inline(always)]
fn pointer(base: u64, offset: u32) -> Option<u64> {
    let offset = i64::from(offset.cast_signed()).cast_unsigned();
    // SAFETY: the helper checks the user's address.
    unsafe { bpf_probe_read_user(base.wrapping_add(offset) as *const u64).ok() }
}

/// 0 when the frame only marks that C code has called the interpreter, otherwise 1.
#[inline(always)]
fn is_call(parameters: &Parameters, words: &[u64; WORDS]) -> u32 {
    let owner = (word(words, parameters.owner) >> (parameters.owner % 8 * 8)) & 0xff;
    // Both have at most 32 bits, so only a difference below 0 has the highest bit here.
    (owner.wrapping_sub(u64::from(parameters.foreign_owners)) >> 63) as u32
}

/// The word that holds the byte at `offset`.
#[inline(always)]
fn word(words: &[u64; WORDS], offset: u32) -> u64 {
    words[(offset / 8) as usize % WORDS]
}
