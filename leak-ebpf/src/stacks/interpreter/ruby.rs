//! Ruby's calls, read from the control frames of the thread's own execution context.
//!
//! The thread has let go of the VM's lock before it entered its system call, so what the VM says of
//! its running thread is another's. The thread's own context stays as it is until it returns.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
pub(super) use leak_common::interpreter::ruby::KIND;
use leak_common::interpreter::ruby::{ABSENT, Parameters, frame};
use leak_common::interpreter::{InterpreterProfile, MAX_FRAMES};
use leak_common::stack::StackHeader;

/// Most frames that are read: those recorded, and those of functions in C.
const MAX_HOPS: usize = 2 * MAX_FRAMES;
/// Most blocks inside one another that are left on the way to their method.
const MAX_LEVELS: usize = 8;

/// In an environment's flags: it is a method's own, not a block's.
const LOCAL: u64 = 2;
/// In an object's flags: the type, that of the VM's own objects, and which of these it is.
const TYPE: u64 = 0x1f;
const INTERNAL: u64 = 0x1a;
const INTERNAL_SHIFT: u32 = 12;
const INTERNAL_MASK: u64 = 0xf;
/// `imemo_svar`: holds the method entry in its first field, as the environment is used for more.
const SPECIAL_VARIABLES: u64 = 2;
/// `imemo_ment`.
const METHOD_ENTRY: u64 = 6;

/// See [`super::walk`]. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn walk_ruby(
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
    let Some(context) = context(parameters, thread_register) else { return };
    // `rb_execution_context_t` begins with the stack's address, its size in words, and the address
    // of the innermost control frame.
    let Some([stack, size, innermost]) = words::<3>(context) else { return };
    let frame_size = u64::from(parameters.frame_size);
    // The outermost frame is no call.
    let end = stack.wrapping_add(size.wrapping_mul(8)).wrapping_sub(frame_size);
    let mut frame = innermost;
    let mut hops = 0;
    while hops < MAX_HOPS {
        hops += 1;
        if frame >= end {
            header.interpreter_whole = 1;
            return;
        }
        if note_ruby_frame(frame, &raw mut *header) == 0 {
            return;
        }
        frame = frame.wrapping_add(frame_size);
    }
}

/// Address of the thread's execution context.
#[inline(always)]
fn context(parameters: &Parameters, thread_register: u64) -> Option<u64> {
    let slot = i64::from(parameters.slot.cast_signed());
    let found = word(thread_register.wrapping_add_signed(slot))?;
    match parameters.context {
        ABSENT => Some(found),
        offset => word(found.wrapping_add(u64::from(offset))),
    }
}

/// Records the call of a control frame, unless it is of a function in C; 0 when it cannot be read,
/// or there is no room. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_ruby_frame(at: u64, header: *mut StackHeader) -> u32 {
    // SAFETY: callers pass a reference.
    let Some(header) = (unsafe { header.as_mut() }) else { return 0 };
    // `rb_control_frame_t` begins with the next instruction, a stack pointer, the instruction
    // sequence, `self`, and the environment.
    let Some([instruction, _, sequence, _, environment]) = words::<5>(at) else { return 0 };
    if instruction == 0 || sequence == 0 {
        return 1;
    }
    let method = method(environment);
    // SAFETY: the reference is valid. Read so that the verifier does not follow the number.
    let recorded = unsafe { core::ptr::read_volatile(&raw const header.interpreter_len) };
    let Some(place) = header.interpreter_frames.get_mut(recorded as usize) else { return 0 };
    *place = frame(sequence, instruction, method);
    header.interpreter_len = recorded + 1;
    1
}

/// Address of the method entry that an environment belongs to; 0 when there is none. Instead of a
/// top-level one it may be that of another object of the VM's own.
#[inline(always)]
fn method(mut environment: u64) -> u64 {
    let mut level = 0;
    while level < MAX_LEVELS {
        level += 1;
        // Before its address lie the method entry, or what stands for one, and the environment
        // around it; at its address, its flags.
        let Some([entry, around, flags]) = words::<3>(environment.wrapping_sub(16)) else {
            return 0;
        };
        let is_local = flags & LOCAL != 0;
        if entry != 0 {
            let Some([flags, first]) = words::<2>(entry) else { return 0 };
            let which = (flags >> INTERNAL_SHIFT) & INTERNAL_MASK;
            if flags & TYPE == INTERNAL && which == METHOD_ENTRY {
                return entry;
            }
            if flags & TYPE == INTERNAL && which == SPECIAL_VARIABLES && is_local {
                return first;
            }
        }
        if is_local {
            return 0;
        }
        environment = around & !3;
    }
    0
}

#[inline(always)]
fn word(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the user's address.
    unsafe { bpf_probe_read_user(address as *const u64).ok() }
}

/// `N` words, read at once.
#[inline(always)]
fn words<const N: usize>(address: u64) -> Option<[u64; N]> {
    let mut words = MaybeUninit::<[u64; N]>::uninit();
    // SAFETY: the length is the array's; the helper checks the user's address, and fills the array
    // with zeroes when it fails.
    unsafe {
        let failed = read_user(words.as_mut_ptr().cast(), N as u32 * 8, address as *const _) != 0;
        (!failed).then(|| words.assume_init())
    }
}
