//! Sends events: reserves an entry of the ring buffer, fills and submits it, or counts the loss.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use leak_common::connection::Connection;
use leak_common::event::{
    Closed, Established, EventHeader, Failed, LINGER_NS, Opened, OpenedWithStack, counter, kind,
};
use leak_common::stack::MAX_STACK;

use crate::connections::slots::Slot;
use crate::maps::{COUNTERS, EVENTS, WOKEN, constant, count};
use crate::postgres::first_bytes;

/// Flags for reserving an entry.
const NONE: u64 = 0;

/// Flags for submitting an event at the time `now`. Waking the collector costs more than all else
/// here, so only the first event after a pause does it; the collector polls for those that follow.
#[inline(always)]
fn wakeup(now: u64) -> u64 {
    let Some(woken) = WOKEN.get_ptr_mut(0) else { return u64::from(BPF_RB_FORCE_WAKEUP) };
    // SAFETY: the value lives as long as the map. Processors that race for it wake twice.
    let woken = unsafe { &mut *woken };
    if now.wrapping_sub(*woken) < LINGER_NS {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    *woken = now;
    u64::from(BPF_RB_FORCE_WAKEUP)
}

#[inline(always)]
fn header(kind: u32, connection: &Connection) -> EventHeader {
    let (time_ns, cookie) = (connection.state_changed_ns, connection.cookie);
    EventHeader { kind, reserved: 0, time_ns, cookie }
}

/// Whether this event is one that the tests want to lose.
#[inline(always)]
fn is_dropped(kind: u32) -> bool {
    let one_in = u64::from(constant!(CONFIG.drop_one_in));
    if one_in == 0 {
        return false;
    }
    let read = |index| match COUNTERS.get_ptr(index) {
        // SAFETY: the map's value is this processor's own.
        Some(value) => unsafe { *value },
        None => 0,
    };
    (read(counter::SENT + kind) + read(counter::LOST + kind)) % one_in == 0
}

#[inline(always)]
fn send<T: Copy + 'static>(kind: u32, connection: &Connection, event: &T) {
    if is_dropped(kind) {
        return count(counter::LOST + kind);
    }
    match EVENTS.reserve::<T>(NONE) {
        Some(mut entry) => {
            entry.write(*event);
            entry.submit(wakeup(connection.state_changed_ns));
            count(counter::SENT + kind);
        }
        None => count(counter::LOST + kind),
    }
}

/// `connect()` was called: completes the event, which has the stack already, and sends it.
#[inline(always)]
pub(crate) fn opened(connection: &Connection, event: &mut OpenedWithStack) {
    if is_dropped(kind::OPENED) {
        return count(counter::LOST + kind::OPENED);
    }
    event.opened.header = header(kind::OPENED, connection);
    event.opened.caller = connection.opener;
    event.opened.tuple = connection.tuple;
    let copied = (event.opened.stack.len as usize).min(MAX_STACK);
    let length = size_of::<Opened>() + copied;
    // SAFETY: the length is within the value, and the helper copies it.
    let result = unsafe {
        let events = (&raw const EVENTS).cast_mut().cast();
        let event = (&raw mut *event).cast();
        bpf_ringbuf_output(events, event, length as u64, wakeup(connection.opened_ns))
    };
    count(if result == 0 { counter::SENT } else { counter::LOST } + kind::OPENED);
}

/// The handshake is done.
#[inline(always)]
pub(crate) fn established(connection: &Connection) {
    let event =
        Established { header: header(kind::ESTABLISHED, connection), tuple: connection.tuple };
    send(kind::ESTABLISHED, connection, &event);
}

/// The handshake failed.
#[inline(always)]
pub(crate) fn failed(connection: &Connection, errno: u32) {
    let event = Failed { header: header(kind::FAILED, connection), errno, reserved: 0 };
    send(kind::FAILED, connection, &event);
}

/// The socket was destroyed.
#[inline(always)]
pub(crate) fn closed(slot: &Slot) {
    let connection = &*slot.connection;
    if is_dropped(kind::CLOSED) {
        return count(counter::LOST + kind::CLOSED);
    }
    let Some(first_bytes) = first_bytes(slot.index) else {
        return count(counter::LOST + kind::CLOSED);
    };
    match EVENTS.reserve::<Closed>(NONE) {
        Some(mut entry) => {
            let event = entry.as_mut_ptr();
            // SAFETY: the entry is as large as the event. The connection is copied from map to ring
            // without passing through the small BPF stack.
            unsafe {
                (*event).header = header(kind::CLOSED, connection);
                core::ptr::copy_nonoverlapping(connection, &raw mut (*event).connection, 1);
                core::ptr::copy_nonoverlapping(first_bytes, &raw mut (*event).first_bytes, 1);
            }
            entry.submit(wakeup(connection.state_changed_ns));
            count(counter::SENT + kind::CLOSED);
        }
        None => count(counter::LOST + kind::CLOSED),
    }
}
