//! User stacks: registers and bytes, into an event or into a connection's slot of the flight
//! recorder.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_probe_read_user as read_user;
use leak_common::connection::{Caller, Connection};
use leak_common::event::counter;
use leak_common::stack::{
    ANY_PROCESS, GOROUTINE_WINDOW, GOROUTINE_WINDOW_START, MAX_STACK, STACK_CHUNK, StackHeader,
};

use crate::kernel::{Task, now};
use crate::maps::{BUDGET, PROFILES, RECORDS, constant, count};
use crate::python;

/// The size of the smallest page.
const PAGE: u64 = 4096;
/// The budget is kept for spans of this length.
const SECOND_NS: u64 = 1_000_000_000;
/// Go keeps the address of the running goroutine's descriptor this far below the thread register.
const GOROUTINE_SLOT: u64 = 8;

/// Records the stack of the request that begins now; the connection has the slot `index`.
#[inline(always)]
pub(crate) fn record(
    index: u32,
    record: u32,
    connection: &Connection,
    caller: &Caller,
    began: u64,
) {
    if index >= constant!(CONFIG.max_records) {
        return count(counter::STACKS_NO_SLOT);
    }
    let Some(record) = RECORDS.get_ptr_mut(record) else { return };
    // SAFETY: the value lives as long as the map.
    let record = unsafe { &mut *record };
    if record.header.sequence % 2 == 1 {
        // Another thread is recording its request on the same connection right now.
        return count(counter::STACKS_UNREADABLE);
    }
    let sequence = record.header.sequence + 1;
    mark(&mut record.header, sequence);
    record.header.cookie = connection.cookie;
    record.header.request = connection.requests;
    copy(&mut record.header, &mut record.bytes, caller, began);
    mark(&mut record.header, sequence.wrapping_add(1));
}

/// Stores the sequence number, after everything stored before and before everything stored after.
#[inline(always)]
fn mark(header: &mut StackHeader, sequence: u64) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the reference is valid.
    unsafe { core::ptr::write_volatile(&raw mut header.sequence, sequence) };
    compiler_fence(Ordering::SeqCst);
}

/// Copies the caller's registers, Python calls and stack, if the budget allows; otherwise leaves `len` at 0.
#[inline(always)]
pub(crate) fn copy(
    header: &mut StackHeader,
    bytes: &mut [u8; MAX_STACK],
    caller: &Caller,
    began: u64,
) {
    let is_deep = was_whole(header);
    header.len = 0;
    header.wanted = 0;
    header.python_len = 0;
    header.python_whole = 0;
    header.time_ns = began;
    header.tgid = caller.tgid;
    header.tid = caller.tid;
    header.process_start_ns = caller.process_start_ns;
    let Some(budget) = BUDGET.get_ptr_mut(0) else { return };
    // SAFETY: the value lives as long as the map. Processors race for it; what is lost is a few
    // microseconds of accounting.
    let budget = unsafe { &mut *budget };
    if began.wrapping_sub(budget.began_ns) >= SECOND_NS {
        budget.began_ns = began;
        budget.spent_ns = 0;
    }
    if budget.spent_ns >= constant!(CONFIG.stack_budget_ns) {
        return count(counter::STACKS_OVER_BUDGET);
    }

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
    let (mut wanted, mut goroutines) = (0, header.request == 0);
    let mut profile = PROFILES.get_ptr(caller.tgid);
    if profile.is_none() && header.request == 0 {
        // A process often connects before the collector has seen it. It is likely to run the same
        // Python as another one; whether it does is found out later.
        profile = PROFILES.get_ptr(ANY_PROCESS);
    }
    if let Some(profile) = profile {
        // SAFETY: the value lives as long as the map; the collector may replace it at any moment, and
        // whatever is read is checked where it is used.
        let profile = unsafe { &*profile };
        wanted = profile.stack_bytes;
        goroutines |= profile.goroutines != 0;
        if profile.python.present != 0 {
            python::walk(&profile.python, task.thread_register(), header);
        }
    }
    header.wanted = if wanted == 0 { constant!(CONFIG.stack_bytes) } else { wanted };
    // The first thread's stack ends where its process's began; to read on would be for nothing.
    let left = header.image.wrapping_sub(header.sp);
    let wanted = left.min(u64::from(header.wanted)) as u32;
    header.len = copy_stack(header.sp, wanted, bytes, is_deep);
    if goroutines {
        copy_goroutine(task.thread_register(), &mut header.goroutine);
    }
    count(if header.len == 0 { counter::STACKS_UNREADABLE } else { counter::STACKS });
    budget.spent_ns += now().wrapping_sub(began);
}

/// Whether everything that was wanted was there the last time that a stack was copied here.
#[inline(always)]
fn was_whole(header: &StackHeader) -> bool {
    let left = header.image.wrapping_sub(header.sp);
    header.len > 0 && u64::from(header.len) >= left.min(u64::from(header.wanted))
}

/// Copies up to `wanted` bytes: in one go if all are likely to be there, instead of a call for each
/// KiB.
#[inline(always)]
fn copy_stack(sp: u64, wanted: u32, bytes: &mut [u8; MAX_STACK], is_deep: bool) -> u32 {
    if is_deep {
        let len = wanted.min(MAX_STACK as u32);
        // SAFETY: the length is at most that of `bytes`; the helper checks the user's side.
        if unsafe { read_user(bytes.as_mut_ptr().cast(), len, sp as *const _) } == 0 {
            return len;
        }
    }
    copy_chunks(sp, wanted, bytes)
}

/// Copies chunk by chunk until one fails: one large read would fail whole near the stack's end. A stack
/// may end with its page, in the middle of the last chunk: then what lies in the page is copied.
#[inline(always)]
fn copy_chunks(sp: u64, wanted: u32, bytes: &mut [u8; MAX_STACK]) -> u32 {
    let mut offset = 0;
    while offset < MAX_STACK {
        if offset as u32 >= wanted {
            break;
        }
        // SAFETY: the loop's bound keeps the chunk within `bytes`; the helper checks the user's side.
        unsafe {
            let to = bytes.as_mut_ptr().add(offset).cast();
            let from = (sp as *const core::ffi::c_void).wrapping_byte_add(offset);
            if read_user(to, STACK_CHUNK as u32, from) != 0 {
                let in_page = (PAGE - (from as u64 & (PAGE - 1))) as u32;
                if in_page < STACK_CHUNK as u32 && read_user(to, in_page, from) == 0 {
                    return offset as u32 + in_page;
                }
                break;
            }
        }
        offset += STACK_CHUNK;
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
