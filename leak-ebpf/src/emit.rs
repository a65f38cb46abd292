//! Reserve, fill, submit, or count the loss.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::bpf_ringbuf_output;
use leak_common::connection::Connection;
use leak_common::event::{
    Closed, Established, EventHeader, Failed, LINGER_NS, Opened, counter, kind,
};
use leak_common::stack::MAX_STACK;

use crate::connection::{self, Slot};
use crate::kernel::Sock;
use crate::maps::{COUNTERS, EVENTS, SCRATCH, WOKEN, constant, count};
use crate::records::Place;
use crate::stack;

/// To reserve room takes no flags.
const NONE: u64 = 0;

/// Flags for an event of this moment. To wake the collector costs more than everything else here, so it
/// is done for the first event after a pause; the collector looks for those that follow by itself.
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

/// Whether the tests asked for this event to be thrown away.
#[inline(always)]
fn is_sacrificed(kind: u32) -> bool {
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
    if is_sacrificed(kind) {
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

/// `connect()` was called: sends who, where to, and the stack.
#[inline(always)]
pub(crate) fn opened(connection: &Connection) {
    if is_sacrificed(kind::OPENED) {
        return count(counter::LOST + kind::OPENED);
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: the map's value is this processor's own, and only this program uses it.
    let event = unsafe { &mut *scratch };
    event.opened.header = header(kind::OPENED, connection);
    event.opened.caller = connection.opener;
    event.opened.tuple = connection.tuple;
    event.opened.stack.request = 0;
    event.opened.stack.cookie = connection.cookie;
    let place = Place {
        header: &mut event.opened.stack,
        bytes: event.bytes.as_mut_ptr(),
        capacity: MAX_STACK as u32,
    };
    stack::take(place, &connection.opener, connection.opened_ns);
    let copied = (event.opened.stack.len as usize).min(MAX_STACK);
    let length = size_of::<Opened>() + copied;
    // SAFETY: the length is within the value, and the helper copies it.
    let result = unsafe {
        let events = (&raw const EVENTS).cast_mut().cast();
        bpf_ringbuf_output(events, scratch.cast(), length as u64, wakeup(connection.opened_ns))
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
pub(crate) fn failed(connection: &Connection, sock: Sock) {
    let event =
        Failed { header: header(kind::FAILED, connection), errno: sock.error(), reserved: 0 };
    send(kind::FAILED, connection, &event);
}

/// The socket is gone.
#[inline(always)]
pub(crate) fn closed(slot: &Slot) {
    let connection = &*slot.connection;
    if is_sacrificed(kind::CLOSED) {
        return count(counter::LOST + kind::CLOSED);
    }
    let Some(first_bytes) = connection::first_bytes(slot.index) else {
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
