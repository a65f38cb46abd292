//! From a socket to its slot in the table of connections, and back to the pool of free slots.

use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::bindings::BPF_NOEXIST;
use leak_common::connection::{Caller, Connection, flag, phase, tcp_state};
use leak_common::event::counter;

use super::handles::{self, Tracked};
use super::records;
use crate::kernel::clock::now;
use crate::kernel::sock::BtfSock;
use crate::kernel::task::{caller, caller_is_traced};
use crate::maps::{CONNECTIONS, FREE_SLOTS, SLOTS, count, raise};
use crate::postgres;
use crate::verifier::clear;

/// A connection's slot.
pub(crate) struct Slot {
    /// Its index in `CONNECTIONS`.
    pub(crate) index: u32,
    /// The connection.
    pub(crate) connection: &'static mut Connection,
}

/// The slot of a socket that has one.
#[inline(always)]
pub(crate) fn find(sock: impl Tracked) -> Option<Slot> {
    at(sock.slot()?)
}

/// The slot of a socket that has one, even when a kprobe gave it: kprobes cannot leave it in the
/// socket. Slower, for the rare changes of state.
#[inline(always)]
pub(crate) fn find_anywhere(sock: BtfSock) -> Option<Slot> {
    if let Some(slot) = find(sock) {
        return Some(slot);
    }
    at(handles::by_cookie(sock)?)
}

/// The slot of a connection in use. A connection that was opened before tracing began is adopted.
#[inline(always)]
pub(crate) fn find_or_adopt(sock: impl Tracked) -> Option<Slot> {
    if let Some(slot) = find(sock) {
        return Some(slot);
    }
    if !caller_is_traced() {
        return None;
    }
    let adopted = NewConnection {
        opener: &caller(),
        now: now(),
        flags: flag::ADOPTED,
        // The most likely state of a connection in use; the collector's inventory corrects it.
        tcp_state: tcp_state::ESTABLISHED,
        phase: phase::UNKNOWN,
    };
    create(sock, &adopted)
}

/// A connection when it is first seen.
pub(crate) struct NewConnection<'a> {
    /// The caller of `connect()`, or the first user seen.
    pub(crate) opener: &'a Caller,
    /// The time.
    pub(crate) now: u64,
    /// Bits of [`flag`].
    pub(crate) flags: u32,
    /// One of [`tcp_state`].
    pub(crate) tcp_state: u32,
    /// One of [`phase`].
    pub(crate) phase: u32,
}

/// Gives a socket a slot, or empties the one it has, because `connect()` was called on it or it was
/// first seen in use. `None`, counted, when the table is full or the socket has no cookie yet.
#[inline(always)]
pub(crate) fn create(sock: impl Tracked, new: &NewConnection<'_>) -> Option<Slot> {
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
    // The collector reads slots that have a cookie: this one has none while it is filled.
    publish(connection, 0);
    clear(connection);
    connection.opened_ns = new.now;
    connection.opener = *new.opener;
    connection.tuple = sock.tuple();
    connection.state_changed_ns = new.now;
    connection.tcp_state = new.tcp_state;
    connection.flags = new.flags;
    postgres::begin(connection, new.phase);
    publish(connection, cookie);
    Some(slot)
}

/// Stores the cookie, after everything stored before and before everything stored after.
#[inline(always)]
fn publish(connection: &mut Connection, cookie: u64) {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the reference is valid.
    unsafe { ptr::write_volatile(&raw mut connection.cookie, cookie) };
    compiler_fence(Ordering::SeqCst);
}

/// A slot for a socket that has none. Two threads may race here for one socket: the first to enter
/// its slot under the cookie wins, and the other takes that one.
#[inline(always)]
fn assign(sock: impl Tracked, cookie: u64) -> Option<u32> {
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
    if sock.remember(index).is_none() {
        let _ = SLOTS.remove(cookie);
        let _ = FREE_SLOTS.push(index, 0);
        count(counter::TABLE_FULL);
        return None;
    }
    Some(index)
}

/// Frees the records of a socket that is about to begin another connection.
#[inline(always)]
pub(crate) fn release_records(sock: BtfSock) {
    if let Some(slot) = find_anywhere(sock) {
        release_records_of(&slot);
    }
}

#[inline(always)]
fn release_records_of(slot: &Slot) {
    if slot.connection.requests != 0 {
        records::release(slot.index);
    }
}

/// Frees the slot of a destroyed socket.
#[inline(always)]
pub(crate) fn release(sock: BtfSock, slot: Slot) {
    release_records_of(&slot);
    let _ = SLOTS.remove(slot.connection.cookie);
    publish(slot.connection, 0);
    handles::forget(sock);
    let _ = FREE_SLOTS.push(slot.index, 0);
}

#[inline(always)]
fn at(index: u32) -> Option<Slot> {
    let connection = CONNECTIONS.get_ptr_mut(index)?;
    // SAFETY: the value lives as long as the map. Programs on other processors may write other
    // fields of it at the same time; every field is a plain number.
    Some(Slot { index, connection: unsafe { &mut *connection } })
}

/// A free slot. The pool is a stack that the collector filled with the lowest number on top, so
/// that low numbers are reused and the collector has little to read.
#[inline(always)]
fn allocate() -> Option<u32> {
    let index = FREE_SLOTS.pop().ok()??;
    raise(counter::SLOTS_USED, u64::from(index) + 1);
    Some(index)
}
