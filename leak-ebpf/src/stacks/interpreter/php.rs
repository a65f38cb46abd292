//! PHP's calls, followed through the structures of its engine.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
pub(super) use leak_common::interpreter::php::KIND;
use leak_common::interpreter::php::{
    ABSENT, Call, FUNCTION, FileText, HASH, INTERNAL, LENGTH, LINE, NameText, OPCODE, PREVIOUS,
    Parameters, TRAMPOLINE,
};
use leak_common::interpreter::{InterpreterFrame, InterpreterProfile, MAX_FRAMES};
use leak_common::stack::StackHeader;

use crate::verifier::zeroed;

/// Words of a frame that are read.
const WORDS: usize = PREVIOUS / 8 + 1;
/// Most frames that are read: those recorded, and some that are not function calls.
const MAX_HOPS: usize = MAX_FRAMES + 16;

/// See [`super::walk`]. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn walk_php(
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
    let file = u64::from(parameters.file);
    let Some(mut frame) = innermost(parameters, thread_register) else { return };
    let mut words = MaybeUninit::uninit();
    let words: &mut [u64; WORDS] = zeroed(&mut words);
    let mut noted = MaybeUninit::uninit();
    let noted: &mut InterpreterFrame = zeroed(&mut noted);
    let mut hops = 0;
    while hops < MAX_HOPS {
        hops += 1;
        if frame == 0 {
            header.interpreter_whole = 1;
            return;
        }
        // SAFETY: the length is that of the words; the helper checks the user's side.
        let failed = unsafe {
            read_user(words.as_mut_ptr().cast(), size_of_val(words) as u32, frame as *const _) != 0
        };
        if failed {
            return;
        }
        let is_call = note_php(words[FUNCTION / 8], words[OPCODE / 8], file, noted);
        // Counted as in the walk of CPython's frames, and for the reasons given there.
        // SAFETY: the reference is valid.
        let recorded = unsafe { core::ptr::read_volatile(&raw const header.interpreter_len) };
        let Some(place) = header.interpreter_frames.get_mut(recorded as usize) else { return };
        *place = *noted;
        // Frames without a function stand for the engine's own doings; the next overwrites them.
        header.interpreter_len = recorded + (is_call & 1);
        frame = words[PREVIOUS / 8];
    }
}

/// Address of the innermost frame; 0 when the thread runs no PHP.
#[inline(always)]
fn innermost(parameters: &Parameters, thread_register: u64) -> Option<u64> {
    let current = u64::from(parameters.current_high) << 32 | u64::from(parameters.current_low);
    match parameters.slot {
        ABSENT => word(current),
        slot => {
            let slot = i64::from(slot.cast_signed()).cast_unsigned();
            let globals = word(thread_register.wrapping_add(slot))?;
            if globals == 0 { Some(0) } else { word(globals.wrapping_add(current)) }
        }
    }
}

#[inline(always)]
fn word(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the user's address.
    unsafe { bpf_probe_read_user(address as *const u64).ok() }
}

/// Notes the call of a function in `into`; zeroes if it cannot be read. Returns 1 if there is a
/// function. `file` is where a script's function has its file's name.
///
/// A global function, so that its branches do not multiply those of the walk.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn note_php(
    function: u64,
    opcode: u64,
    file: u64,
    into: *mut InterpreterFrame,
) -> u32 {
    // SAFETY: callers pass a reference.
    let Some(into) = (unsafe { into.as_mut() }) else { return 0 };
    if function == 0 {
        return 0;
    }
    *into = noted(function, opcode, file).unwrap_or(InterpreterFrame {
        pointer: 0,
        position: 0,
        cookie: 0,
        kind: KIND,
    });
    1
}

#[inline(always)]
fn noted(function: u64, opcode: u64, file: u64) -> Option<InterpreterFrame> {
    // SAFETY: the helper checks the user's address.
    let [kind, name, class] = unsafe { bpf_probe_read_user(function as *const [u64; 3]).ok()? };
    let mut call = Call { name, class, ..Call::default() };
    let mut name_text: NameText = [0; 4];
    let mut file_text: FileText = [0; 2];
    let is_script = kind & 0xff != INTERNAL;
    if name != 0 && (is_script || kind & TRAMPOLINE != 0) {
        let from = name.wrapping_add(LENGTH) as *const NameText;
        // SAFETY: the helper checks the user's address.
        name_text = unsafe { bpf_probe_read_user(from).ok()? };
    }
    if is_script {
        call.file = word(function.wrapping_add(file))?;
        let from = call.file.wrapping_add(HASH) as *const FileText;
        // SAFETY: the helper checks the user's address.
        file_text = unsafe { bpf_probe_read_user(from).ok()? };
        let line = opcode.wrapping_add(LINE) as *const u32;
        // SAFETY: the helper checks the user's address.
        call.line = unsafe { bpf_probe_read_user(line).unwrap_or(0) };
    }
    Some(call.frame(name_text, file_text))
}
