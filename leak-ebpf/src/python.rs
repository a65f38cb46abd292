//! The calls of a CPython thread, followed through the interpreter's own structures: its native
//! stack only shows the interpreter.
//!
//! The thread is in a system call, so its calls stand still, though it has let go of the
//! interpreter's lock. What the addresses mean is found out later by the collector.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
use leak_common::stack::{ABSENT, MAX_PYTHON_FRAMES, PYTHON_WINDOW, PythonProfile, StackHeader};

use crate::zero::zeroed;

/// Words of [`PYTHON_WINDOW`], rounded up so that a mask keeps an index within them.
const WORDS: usize = 16;
const _: () = assert!(WORDS.is_power_of_two() && WORDS * 8 > PYTHON_WINDOW);
/// Keeps a length within them.
const LEN_MASK: u32 = WORDS as u32 * 8 - 1;

/// Most frames that are looked at: those noted, and some that are no function calls.
const MAX_HOPS: usize = MAX_PYTHON_FRAMES + 16;

/// Notes the thread's calls in `header`, innermost first, until there are no more, one cannot be
/// read, or there is no room. The header has none yet. The result says nothing: there has to be one.
///
/// A global function, which the verifier proves on its own and once, not for each way that leads here: that was
/// more than a third of all that it had to follow.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn walk_python(
    profile: *const PythonProfile,
    thread_register: u64,
    header: *mut StackHeader,
) -> u32 {
    // SAFETY: callers pass references; the verifier has them checked for null all the same.
    if let Some((profile, header)) = unsafe { profile.as_ref().zip(header.as_mut()) } {
        walk(profile, thread_register, header);
    }
    0
}

#[inline(always)]
fn walk(profile: &PythonProfile, thread_register: u64, header: &mut StackHeader) {
    header.python_tag = profile.tag;
    let window = u64::from(profile.window);
    // Read once: the collector may replace the profile between a check and its use.
    // Masked, not compared: the verifier of Linux 6.1 forgets what a comparison says of a length that
    // was put by on the stack before it.
    // SAFETY: the reference is valid.
    let window_len = unsafe { core::ptr::read_volatile(&raw const profile.window_len) } & LEN_MASK;
    let Some(mut frame) = innermost(profile, thread_register) else { return };
    let mut words = MaybeUninit::uninit();
    let words: &mut [u64; WORDS] = zeroed(&mut words);
    let mut hops = 0;
    while hops < MAX_HOPS {
        hops += 1;
        if frame == 0 {
            header.python_whole = 1;
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
        // otherwise it would prove everything that follows anew for each way to come to it.
        // SAFETY: the reference is valid.
        let noted = unsafe { core::ptr::read_volatile(&raw const header.python_len) };
        let Some(note) = header.python.get_mut(noted as usize) else { return };
        note.code = word(words, profile.code);
        note.instruction = word(words, profile.instruction);
        // A frame that is no function call is overwritten by the next.
        header.python_len = noted + is_call(profile, words);
        frame = word(words, profile.previous);
    }
}

/// Address of the innermost frame; 0 when the thread runs no Python.
#[inline(always)]
fn innermost(profile: &PythonProfile, thread_register: u64) -> Option<u64> {
    let slots = match profile.slots {
        ABSENT => thread_register,
        offset => pointer(thread_register, offset)?,
    };
    let state = pointer(slots, profile.slot)?;
    if state == 0 {
        return None;
    }
    let frame = pointer(state, profile.frame)?;
    match profile.control_frame {
        ABSENT => Some(frame),
        offset => pointer(frame, offset),
    }
}

#[inline(always)]
fn pointer(base: u64, offset: u32) -> Option<u64> {
    // SAFETY: the helper checks the user's address.
    unsafe { bpf_probe_read_user(base.wrapping_add(u64::from(offset)) as *const u64).ok() }
}

/// 0 when the frame only marks where C code has called the interpreter, otherwise 1.
#[inline(always)]
fn is_call(profile: &PythonProfile, words: &[u64; WORDS]) -> u32 {
    let owner = (word(words, profile.owner) >> (profile.owner % 8 * 8)) & 0xff;
    let difference = owner ^ u64::from(profile.foreign_owner);
    // At most 32 bits long, so that only a difference of 0 makes the highest bit.
    1 - (difference.wrapping_sub(1) >> 63) as u32
}

/// The word that holds the byte at `offset`.
#[inline(always)]
fn word(words: &[u64; WORDS], offset: u32) -> u64 {
    words[(offset / 8) as usize % WORDS]
}
