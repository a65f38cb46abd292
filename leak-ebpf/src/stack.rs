//! User stacks: registers and bytes, into an event or into a connection's slot of the flight
//! recorder.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
use leak_common::connection::{Caller, Connection};
use leak_common::event::counter;
use leak_common::stack::{
    ANY_PROCESS, GOROUTINE_WINDOW, GOROUTINE_WINDOW_START, MAX_STACK, STACK_CHUNK, StackHeader,
    StackProfile,
};

use crate::kernel::{Task, now};
use crate::maps::{BUDGET, Budget, PROFILES, constant, count};
use crate::python;
use crate::records::{self, Place};

/// The size of the smallest page.
const PAGE: u64 = 4096;
/// The budget is kept for spans of this length.
const SECOND_NS: u64 = 1_000_000_000;
/// Go keeps the address of the running goroutine's descriptor this far below the thread register.
const GOROUTINE_SLOT: u64 = 8;

/// Records the stack of the request that begins now, in the record of this number, if the budget allows.
#[inline(always)]
pub(crate) fn record(number: u32, connection: &Connection, caller: &Caller) {
    // To look at the clock costs too much where there is nothing to be spent.
    let Some(budget) = budget(connection.request_ns) else {
        return count(counter::STACKS_OVER_BUDGET);
    };
    let began = now();
    let profile = profile(caller.tgid, false);
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
    budget.spent_ns += now().wrapping_sub(began);
}

/// Copies the stack of a caller of `connect()`, if the budget allows; otherwise leaves its length at 0.
#[inline(always)]
pub(crate) fn take(place: Place<'_>, caller: &Caller, began: u64) {
    let Some(budget) = budget(began) else {
        clear(place.header, caller, began);
        return count(counter::STACKS_OVER_BUDGET);
    };
    copy(place, profile(caller.tgid, true), caller, began);
    budget.spent_ns += now().wrapping_sub(began);
}

/// The budget for copying stacks; `None` when that of the current second is spent.
#[inline(always)]
fn budget(now: u64) -> Option<&'static mut Budget> {
    let budget = BUDGET.get_ptr_mut(0)?;
    // SAFETY: the value lives as long as the map. Processors race for it; what is lost is a few
    // microseconds of accounting.
    let budget = unsafe { &mut *budget };
    // A moment that is exact to a tick only may lie before.
    if now.saturating_sub(budget.began_ns) >= SECOND_NS {
        budget.began_ns = now;
        budget.spent_ns = 0;
    }
    (budget.spent_ns < constant!(CONFIG.stack_budget_ns)).then_some(budget)
}

/// What is known of a process's stacks.
///
/// A process often connects before the collector has seen it. It is likely to run the same Python as another
/// one; whether it does is found out later.
#[inline(always)]
fn profile(tgid: u32, connects: bool) -> Option<&'static StackProfile> {
    let mut profile = PROFILES.get_ptr(tgid);
    if profile.is_none() && connects {
        profile = PROFILES.get_ptr(ANY_PROCESS);
    }
    // SAFETY: the value lives as long as the map; the collector may replace it at any moment, and whatever is
    // read is checked where it is used.
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

/// Says whose stack it is, and that nothing of it was copied.
#[inline(always)]
fn clear(header: &mut StackHeader, caller: &Caller, began: u64) {
    header.len = 0;
    header.wanted = 0;
    header.python_len = 0;
    header.python_whole = 0;
    header.time_ns = began;
    header.tgid = caller.tgid;
    header.tid = caller.tid;
    header.process_start_ns = caller.process_start_ns;
}

/// Copies the caller's registers, Python calls and stack.
#[inline(always)]
fn copy(place: Place<'_>, profile: Option<&StackProfile>, caller: &Caller, began: u64) {
    let Place { header, bytes, capacity } = place;
    let is_deep = was_whole(header);
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
        if profile.python.present != 0 {
            python::walk_python(&raw const profile.python, task.thread_register(), header);
        }
    }
    header.wanted = wanted(profile).min(capacity);
    // The first thread's stack ends where its process's began; to read on would be for nothing.
    let left = header.image.wrapping_sub(header.sp);
    let wanted = left.min(u64::from(header.wanted));
    header.len = copy_stack(header.sp, wanted, bytes, u64::from(capacity), is_deep);
    if goroutines {
        copy_goroutine(task.thread_register(), &mut header.goroutine);
    }
    count(if header.len == 0 { counter::STACKS_UNREADABLE } else { counter::STACKS });
}

/// Whether everything that was wanted was there the last time that a stack was copied here.
#[inline(always)]
fn was_whole(header: &StackHeader) -> bool {
    let left = header.image.wrapping_sub(header.sp);
    header.len > 0 && u64::from(header.len) >= left.min(u64::from(header.wanted))
}

/// Copies up to `wanted` bytes, and no more than `capacity`: in one go if all are likely to be there, instead
/// of a call for each chunk.
#[inline(always)]
fn copy_stack(sp: u64, wanted: u64, bytes: *mut u8, capacity: u64, is_deep: bool) -> u32 {
    if is_deep {
        let copied = copy_whole(sp, wanted, bytes, capacity);
        if copied != 0 {
            return copied;
        }
    }
    copy_chunks(sp, wanted, bytes, capacity)
}

/// Copies all or nothing, in one go.
///
/// A function of its own, as is the next, for the reason of [`crate::payload::copy`].
#[inline(never)]
fn copy_whole(sp: u64, wanted: u64, bytes: *mut u8, capacity: u64) -> u32 {
    let len = wanted.min(capacity) as u32;
    // SAFETY: the length is at most that of what `bytes` points to; the helper checks the user's side.
    if unsafe { read_user(bytes.cast(), len, sp as *const _) } == 0 { len } else { 0 }
}

/// Copies chunk by chunk until one fails: one large read would fail whole near the stack's end. A stack
/// may end with its page, in the middle of the last chunk: then what lies in the page is copied.
#[inline(never)]
fn copy_chunks(sp: u64, wanted: u64, bytes: *mut u8, capacity: u64) -> u32 {
    let mut offset = 0;
    while offset < MAX_STACK as u64 {
        if offset >= wanted || offset >= capacity {
            break;
        }
        let chunk = (capacity - offset).min(STACK_CHUNK as u64);
        // SAFETY: the chunk ends within the capacity; the helper checks the user's side.
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
/// something else or nothing; the collector knows which programs are Go's.
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
