//! From a socket to its slot in the table of connections, and back to the pool of free slots.

use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::bindings::{BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use leak_common::connection::{Caller, Connection, FirstBytes, LOST};
use leak_common::event::counter;

use crate::kernel::{Sock, now, ticks};
use crate::maps::{CONNECTIONS, FIRST_BYTES, FREE_SLOTS, HANDLES, Handle, SLOTS, count, raise};
use crate::records;
use crate::zero::clear;

/// A connection's slot.
pub(crate) struct Slot {
    /// Its index in `CONNECTIONS`.
    pub(crate) index: u32,
    /// What is kept of the connection.
    pub(crate) connection: &'static mut Connection,
}

/// Where the first bytes of the connection with this slot are kept.
#[inline(always)]
pub(crate) fn first_bytes(index: u32) -> Option<&'static mut FirstBytes> {
    let bytes = FIRST_BYTES.get_ptr_mut(index)?;
    // SAFETY: the value lives as long as the map, and only who sends or receives first writes it.
    Some(unsafe { &mut *bytes })
}

/// The slot of a socket that has one.
#[inline(always)]
pub(crate) fn find(sock: Sock) -> Option<Slot> {
    let index = match sock.for_helpers() {
        Some(pointer) => {
            // SAFETY: the verifier checks the socket pointer and the map.
            let handle = unsafe {
                bpf_sk_storage_get(handles(), pointer, ptr::null_mut(), 0).cast::<Handle>()
            };
            if handle.is_null() {
                return None;
            }
            // SAFETY: not null, so it is the value in the socket's storage.
            unsafe { (*handle).slot_plus_one }.checked_sub(1)?
        }
        // SAFETY: the value is copied at once.
        None => unsafe { *SLOTS.get_ptr(sock.cookie())? },
    };
    at(index)
}

/// The slot of a socket that has one, also when a kprobe gave it: kprobes cannot leave a mark in the
/// socket. Dearer, for the rare changes of state.
#[inline(always)]
pub(crate) fn find_anywhere(sock: Sock) -> Option<Slot> {
    if let Some(slot) = find(sock) {
        return Some(slot);
    }
    // SAFETY: the value is copied at once.
    at(unsafe { *SLOTS.get_ptr(sock.cookie())? })
}

/// How a connection begins, as far as it is seen.
pub(crate) struct Birth<'a> {
    /// Who called `connect()`, or used it first.
    pub(crate) opener: &'a Caller,
    /// When.
    pub(crate) now: u64,
    /// Bits of [`leak_common::connection::flag`].
    pub(crate) flags: u32,
    /// Its TCP state.
    pub(crate) tcp_state: u32,
    /// One of [`leak_common::connection::phase`].
    pub(crate) phase: u32,
}

/// Gives a socket a slot, or empties the one it has: `connect()` was called on it, or it was first
/// seen in use. `None`, counted, when the table is full or the socket has no cookie yet.
#[inline(always)]
pub(crate) fn create(sock: Sock, birth: &Birth<'_>) -> Option<Slot> {
    let cookie = sock.cookie();
    if cookie == 0 {
        count(counter::UNSEEN_CALLS);
        return None;
    }
    let slot = match find(sock) {
        Some(slot) => slot,
        None => at(assign(sock, cookie)?)?,
    };
    let connection = &mut *slot.connection;
    // A slot with a cookie is read by the collector: it has none while it is filled.
    publish(connection, 0);
    clear(connection);
    connection.opened_ns = birth.now;
    connection.opener = *birth.opener;
    connection.tuple = sock.tuple();
    connection.state_changed_ns = birth.now;
    connection.tcp_state = birth.tcp_state;
    connection.flags = birth.flags;
    connection.phase = birth.phase;
    connection.receiving = LOST;
    publish(connection, cookie);
    Some(slot)
}

/// When the bytes were moved that have just been moved. Exact for the first of a tick, as to look at the clock
/// takes a fifth of what counting bytes does; then only later than what was before, for which way bytes went
/// last tells whether a request is unanswered.
#[inline(always)]
pub(crate) fn moment(connection: &mut Connection) -> u64 {
    let after = 1 + connection
        .last_send_ns
        .max(connection.last_receive_ns)
        .max(connection.state_changed_ns);
    let tick = ticks();
    if connection.tick == tick {
        return after;
    }
    connection.tick = tick;
    now().max(after)
}

/// Stores the cookie, after everything stored before and before everything stored after.
#[inline(always)]
fn publish(connection: &mut Connection, cookie: u64) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the reference is valid.
    unsafe { ptr::write_volatile(&raw mut connection.cookie, cookie) };
    compiler_fence(Ordering::SeqCst);
}

/// A slot for a socket that has none. Two threads may meet here over one socket: who first enters its
/// slot under the cookie wins, and the other takes that one.
#[inline(always)]
fn assign(sock: Sock, cookie: u64) -> Option<u32> {
    let Some(mut index) = allocate() else {
        count(counter::TABLE_FULL);
        return None;
    };
    if SLOTS.insert(cookie, index, u64::from(BPF_NOEXIST)).is_err() {
        let _ = FREE_SLOTS.push(index, 0);
        let Some(theirs) = SLOTS.get_ptr(cookie) else {
            count(counter::TABLE_FULL);
            return None;
        };
        // SAFETY: the value is copied at once.
        index = unsafe { *theirs };
    }
    if let Some(pointer) = sock.for_helpers() {
        // SAFETY: the verifier checks the socket pointer and the map.
        let handle = unsafe {
            let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
            bpf_sk_storage_get(handles(), pointer, ptr::null_mut(), create).cast::<Handle>()
        };
        if handle.is_null() {
            let _ = SLOTS.remove(cookie);
            let _ = FREE_SLOTS.push(index, 0);
            count(counter::TABLE_FULL);
            return None;
        }
        // SAFETY: not null, so it is the value in the socket's storage.
        unsafe { (*handle).slot_plus_one = index + 1 };
    }
    Some(index)
}

/// Gives back what is kept of the requests of a socket that is about to begin another connection.
#[inline(always)]
pub(crate) fn forget_requests(sock: Sock) {
    if let Some(slot) = find_anywhere(sock) {
        forget_requests_of(&slot);
    }
}

/// The same, of a connection.
#[inline(always)]
fn forget_requests_of(slot: &Slot) {
    if slot.connection.requests != 0 {
        records::release(slot.index);
    }
}

/// Takes a destroyed socket's slot back.
#[inline(always)]
pub(crate) fn release(sock: Sock, slot: Slot) {
    forget_requests_of(&slot);
    let _ = SLOTS.remove(slot.connection.cookie);
    publish(slot.connection, 0);
    if let Some(pointer) = sock.for_helpers() {
        // The mark is wiped, not deleted: the kernel does that with the socket, and cheaper.
        // SAFETY: the verifier checks the socket pointer and the map.
        let handle =
            unsafe { bpf_sk_storage_get(handles(), pointer, ptr::null_mut(), 0).cast::<Handle>() };
        if !handle.is_null() {
            // SAFETY: not null, so it is the value in the socket's storage.
            unsafe { (*handle).slot_plus_one = 0 };
        }
    }
    let _ = FREE_SLOTS.push(slot.index, 0);
}

#[inline(always)]
fn handles() -> *mut core::ffi::c_void {
    (&raw const HANDLES).cast_mut().cast()
}

#[inline(always)]
fn at(index: u32) -> Option<Slot> {
    let connection = CONNECTIONS.get_ptr_mut(index)?;
    // SAFETY: the value lives as long as the map. Programs on other processors may write other
    // fields of it at the same time; every field is a plain number.
    Some(Slot { index, connection: unsafe { &mut *connection } })
}

/// A free slot. The pool is a stack that the collector filled with the lowest number on top, so that
/// low numbers are used again and the collector reads little.
#[inline(always)]
fn allocate() -> Option<u32> {
    let index = FREE_SLOTS.pop().ok()??;
    raise(counter::SLOTS_USED, u64::from(index) + 1);
    Some(index)
}
