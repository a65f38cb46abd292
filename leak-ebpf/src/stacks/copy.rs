//! Copies the stack of the calling thread.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
use leak_common::connection::{Caller, Connection};
use leak_common::event::{OpenedWithStack, counter};
use leak_common::stack::{
    ANY_PROCESS, GOROUTINE_WINDOW, GOROUTINE_WINDOW_START, MAX_STACK, RecordNumber, STACK_CHUNK,
    StackHeader, StackProfile,
};

use super::{budget, interpreter};
use crate::connections::records::{self, Place};
use crate::kernel::clock::now;
use crate::kernel::task::Task;
use crate::maps::{PROFILES, SCRATCH, constant, count};

/// The size of the smallest page.
const PAGE: u64 = 4096;
/// Go keeps the address of the running goroutine's descriptor this far below the thread register.
const GOROUTINE_SLOT: u64 = 8;

/// Copies the stack of the request that begins now into the record of this number, if the budget
/// allows.
#[inline(always)]
pub(crate) fn record(number: RecordNumber, connection: &Connection, caller: &Caller) {
    // The clock is read only if there is a budget: reading it is expensive.
    let Some(budget) = budget::left(connection.request_ns) else {
        return count(counter::STACKS_OVER_BUDGET);
    };
    let began = now();
    let profile = profile(caller.tgid, Occasion::Request);
    let Some(place) = records::place(number, wanted(profile)) else {
        return count(counter::STACKS_NO_SLOT);
    };
    let Place { header, bytes, capacity } = place;
    if header.sequence % 2 == 1 {
        // Another thread is recording its request on the same connection right now.
        return count(counter::STACKS_UNREADABLE);
    }
    let sequence = header.sequence + 1;
    mark(header, sequence);
    header.cookie = connection.cookie;
    header.request = connection.requests;
    copy(Place { header: &mut *header, bytes, capacity }, profile, caller, began);
    mark(header, sequence.wrapping_add(1));
    budget::charge(budget, began);
}

/// Copies the stack of the caller of `connect()` into the event that is going to tell of it, if the
/// budget allows; otherwise leaves the stack's length at 0. Only one program may use that event.
#[inline(always)]
pub(crate) fn at_connect(connection: &Connection) -> Option<&'static mut OpenedWithStack> {
    // SAFETY: the map's value is this processor's own, and only one program uses it.
    let event = unsafe { &mut *SCRATCH.get_ptr_mut(0)? };
    let header = &mut event.opened.stack;
    header.request = 0;
    header.cookie = connection.cookie;
    let (caller, began) = (&connection.opener, connection.opened_ns);
    match budget::left(began) {
        Some(budget) => {
            let profile = profile(caller.tgid, Occasion::Connect);
            let bytes = event.bytes.as_mut_ptr();
            copy(Place { header, bytes, capacity: MAX_STACK as u32 }, profile, caller, began);
            budget::charge(budget, began);
        }
        None => {
            clear(header, caller, began);
            count(counter::STACKS_OVER_BUDGET);
        }
    }
    Some(event)
}

/// The call whose stack is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// `connect()`.
    Connect,
    /// The first send of a request.
    Request,
}

/// The profile of a process.
///
/// A process often connects before the collector has seen it. It is likely to run the same
/// interpreter as another one; the collector finds out whether it does.
#[inline(always)]
fn profile(tgid: u32, occasion: Occasion) -> Option<&'static StackProfile> {
    let mut profile = PROFILES.get_ptr(tgid);
    if profile.is_none() && occasion == Occasion::Connect {
        profile = PROFILES.get_ptr(ANY_PROCESS);
    }
    // SAFETY: the value lives as long as the map; the collector may replace it at any moment, and
    // whatever is read is checked where it is used.
    profile.map(|profile| unsafe { &*profile })
}

/// How many bytes of its stack are wanted.
#[inline(always)]
fn wanted(profile: Option<&StackProfile>) -> u32 {
    match profile.map_or(0, |profile| profile.stack_bytes) {
        0 => constant!(CONFIG.stack_bytes),
        learnt => learnt,
    }
}

/// Stores the sequence number, after everything stored before and before everything stored after.
#[inline(always)]
fn mark(header: &mut StackHeader, sequence: u64) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the reference is valid.
    unsafe { core::ptr::write_volatile(&raw mut header.sequence, sequence) };
    compiler_fence(Ordering::SeqCst);
}

/// Fills in whose stack it is, and that nothing of it was copied.
#[inline(always)]
fn clear(header: &mut StackHeader, caller: &Caller, began: u64) {
    header.len = 0;
    header.wanted = 0;
    header.interpreter_len = 0;
    header.interpreter_whole = 0;
    header.time_ns = began;
    header.tgid = caller.tgid;
    header.tid = caller.tid;
    header.process_start_ns = caller.process_start_ns;
}

/// Copies the caller's registers, the calls of its interpreter and its stack.
#[inline(always)]
fn copy(place: Place<'_>, profile: Option<&StackProfile>, caller: &Caller, began: u64) {
    let Place { header, bytes, capacity } = place;
    let outlook = outlook(header);
    clear(header, caller, began);
    let task = Task::current();
    let registers = task.registers();
    header.ip = registers.at(constant!(LAYOUT.regs_ip));
    header.sp = registers.at(constant!(LAYOUT.regs_sp));
    header.bp = registers.at(constant!(LAYOUT.regs_bp));
    header.preserved = [
        registers.at(constant!(LAYOUT.regs_bx)),
        registers.at(constant!(LAYOUT.regs_r12)),
        registers.at(constant!(LAYOUT.regs_r13)),
        registers.at(constant!(LAYOUT.regs_r14)),
        registers.at(constant!(LAYOUT.regs_r15)),
    ];
    header.image = task.image();
    let mut goroutines = header.request == 0;
    if let Some(profile) = profile {
        goroutines |= profile.goroutines != 0;
        interpreter::walk(&profile.interpreter, task, header);
    }
    header.wanted = wanted(profile).min(capacity);
    // The main thread's stack ends where its process's began; there is nothing beyond.
    let left = header.image.wrapping_sub(header.sp);
    let wanted = left.min(u64::from(header.wanted));
    header.len = copy_stack(header.sp, wanted, bytes, u64::from(capacity), outlook);
    if goroutines {
        copy_goroutine(task.thread_register(), &mut header.goroutine);
    }
    count(if header.len == 0 { counter::STACKS_UNREADABLE } else { counter::STACKS });
}

/// Whether a single read is likely to succeed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// All wanted bytes were there the last time.
    Whole,
    /// Not known, or the stack was shorter.
    Unknown,
}

/// Judges by the stack that was copied here the last time.
#[inline(always)]
fn outlook(header: &StackHeader) -> Outlook {
    let left = header.image.wrapping_sub(header.sp);
    let was_whole = header.len > 0 && u64::from(header.len) >= left.min(u64::from(header.wanted));
    if was_whole { Outlook::Whole } else { Outlook::Unknown }
}

/// Copies up to `wanted` bytes, and no more than `capacity`: by a single read if that is likely to
/// succeed, instead of a read for each chunk.
#[inline(always)]
fn copy_stack(sp: u64, wanted: u64, bytes: *mut u8, capacity: u64, outlook: Outlook) -> u32 {
    if outlook == Outlook::Whole {
        let copied = copy_whole(sp, wanted, bytes, capacity);
        if copied != 0 {
            return copied;
        }
    }
    copy_chunks(sp, wanted, bytes, capacity)
}

/// Copies all or nothing, by a single read.
///
/// Not inlined, nor is the next, for the reason of [`crate::kernel::payload::copy`].
#[inline(never)]
fn copy_whole(sp: u64, wanted: u64, bytes: *mut u8, capacity: u64) -> u32 {
    let len = wanted.min(capacity) as u32;
    // SAFETY: the length is within the capacity; the helper checks the user's address.
    if unsafe { read_user(bytes.cast(), len, sp as *const _) } == 0 { len } else { 0 }
}

/// Copies chunk by chunk until one fails: near the end of the stack a single read would fail as a
/// whole. A stack may end with its page, in the middle of the last chunk: then the rest of the page
/// is copied.
#[inline(never)]
fn copy_chunks(sp: u64, wanted: u64, bytes: *mut u8, capacity: u64) -> u32 {
    let mut offset = 0;
    while offset < MAX_STACK as u64 {
        if offset >= wanted || offset >= capacity {
            break;
        }
        let chunk = (capacity - offset).min(STACK_CHUNK as u64);
        // SAFETY: the chunk ends within the capacity; the helper checks the user's address.
        unsafe {
            let to = bytes.add(offset as usize).cast();
            let from = sp.wrapping_add(offset);
            if read_user(to, chunk as u32, from as *const _) != 0 {
                let in_page = PAGE - (from & (PAGE - 1));
                if in_page < chunk && read_user(to, in_page as u32, from as *const _) == 0 {
                    return (offset + in_page) as u32;
                }
                break;
            }
        }
        offset += chunk;
    }
    offset as u32
}

/// Copies the part of Go's `runtime.g` that holds the goroutine's id. In other programs it copies
/// noise or nothing; the collector knows which programs are Go's.
#[inline(always)]
fn copy_goroutine(thread_register: u64, window: &mut [u8; GOROUTINE_WINDOW]) {
    let slot = thread_register.wrapping_sub(GOROUTINE_SLOT) as *const u64;
    // SAFETY: the helper checks the user's address; on failure the window is zeroed.
    unsafe {
        let descriptor = bpf_probe_read_user(slot).unwrap_or(0);
        let from = descriptor.wrapping_add(GOROUTINE_WINDOW_START as u64) as *const u8;
        read_user(window.as_mut_ptr().cast(), GOROUTINE_WINDOW as u32, from.cast());
    }
}
