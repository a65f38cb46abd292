//! The calls of a CPython thread, followed through the interpreter's own structures: its native
//! stack only shows the interpreter.
//!
//! The thread is in a system call, so its calls stand still, though it has let go of the
//! interpreter's lock. What the addresses mean is found out later by the collector.

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
use leak_common::stack::{ABSENT, MAX_PYTHON_FRAMES, PYTHON_WINDOW, PythonProfile, StackHeader};

/// Words of [`PYTHON_WINDOW`], rounded up so that a mask keeps an index within them.
const WORDS: usize = 16;
const _: () = assert!(WORDS.is_power_of_two() && WORDS * 8 >= PYTHON_WINDOW);

/// Notes the thread's calls in `header`, innermost first, until there are no more, one cannot be
/// read, or there is no room.
#[inline(always)]
pub(crate) fn walk(profile: &PythonProfile, thread_register: u64, header: &mut StackHeader) {
    let window = u64::from(profile.window);
    // Read once: the collector may replace the profile between a check and its use.
    // SAFETY: the reference is valid.
    let window_len = unsafe { core::ptr::read_volatile(&raw const profile.window_len) };
    if window_len > PYTHON_WINDOW as u32 {
        return;
    }
    let Some(mut frame) = innermost(profile, thread_register) else { return };
    let mut noted = 0;
    let mut hops = 0;
    // Frames that are no function calls are passed over; there is at most one for each that is.
    while hops < 2 * MAX_PYTHON_FRAMES {
        hops += 1;
        if frame == 0 {
            header.python_whole = 1;
            break;
        }
        let mut words = [0u64; WORDS];
        // SAFETY: the length was checked; the helper checks the user's side.
        let failed = unsafe {
            let from = frame.wrapping_add(window) as *const u8;
            read_user(words.as_mut_ptr().cast(), window_len, from.cast()) != 0
        };
        if failed {
            break;
        }
        if !is_foreign(profile, &words) {
            if noted >= MAX_PYTHON_FRAMES {
                break;
            }
            let note = &mut header.python[noted];
            note.code = word(&words, profile.code);
            note.instruction = word(&words, profile.instruction);
            noted += 1;
        }
        frame = word(&words, profile.previous);
    }
    header.python_len = noted as u32;
}

/// Address of the innermost frame; 0 when the thread runs no Python.
#[inline(always)]
fn innermost(profile: &PythonProfile, thread_register: u64) -> Option<u64> {
    let state = pointer(thread_register, profile.slot)?;
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

/// Whether the frame only marks where C code has called the interpreter.
#[inline(always)]
fn is_foreign(profile: &PythonProfile, words: &[u64; WORDS]) -> bool {
    let owner = profile.owner;
    owner != ABSENT
        && (word(words, owner) >> (owner % 8 * 8)) & 0xff == u64::from(profile.foreign_owner)
}

/// The word that holds the byte at `offset`.
#[inline(always)]
fn word(words: &[u64; WORDS], offset: u32) -> u64 {
    words[(offset / 8) as usize % WORDS]
}
