//! The latest uses of each connection, when they are kept: who used it, and for how long.

use leak_common::connection::{Caller, Connection, MAX_USES, Use, Uses, phase, state};
use leak_common::stack::RecordNumber;

use crate::kernel::clock::now;
use crate::maps::{USES, constant};

/// Adds the request that begins now, and returns the number of the record for its stack.
///
/// A use lasts until the server is idle. Where that cannot be seen, because the dialogue is
/// encrypted or its beginning was missed, every request is a use. Messages that are sent before the
/// server is ready for the first time are none.
#[inline(always)]
pub(crate) fn add_request(index: u32, connection: &Connection, caller: &Caller) -> RecordNumber {
    let kept = constant!(CONFIG.uses);
    let latest = RecordNumber::latest(index, kept);
    if kept == 0 || !matches!(connection.phase, phase::READY | phase::UNKNOWN | phase::ENCRYPTED) {
        return latest;
    }
    let Some(uses) = USES.get_ptr_mut(index) else { return latest };
    // SAFETY: the value lives as long as the map. Threads that use one connection at once may race
    // for it; then only what it says of that use is wrong.
    let uses = unsafe { &mut *uses };
    if !belong_to(uses, connection) {
        uses.begun = 0;
        uses.cookie = connection.cookie;
        uses.opened_ns = connection.opened_ns;
    }
    let can_last = connection.phase == phase::READY;
    if uses.begun != 0 && can_last && uses.uses[place(uses.begun - 1, kept)].released_ns == 0 {
        return latest;
    }
    let place = place(uses.begun, kept);
    let Caller { tgid, tid, .. } = *caller;
    uses.uses[place] =
        Use { request: connection.requests, acquired_ns: now(), released_ns: 0, tgid, tid };
    uses.begun += 1;
    latest.of_use(place as u32)
}

/// Ends the present use if the server is idle.
#[inline(always)]
pub(crate) fn end_if_idle(index: u32, connection: &Connection) {
    let kept = constant!(CONFIG.uses);
    if kept == 0 || connection.phase != phase::READY || connection.wire != state::IDLE {
        return;
    }
    let Some(uses) = USES.get_ptr_mut(index) else { return };
    // SAFETY: as above.
    let uses = unsafe { &mut *uses };
    if uses.begun != 0 && belong_to(uses, connection) {
        let present = &mut uses.uses[place(uses.begun - 1, kept)];
        if present.released_ns == 0 {
            present.released_ns = now();
        }
    }
}

#[inline(always)]
fn belong_to(uses: &Uses, connection: &Connection) -> bool {
    uses.cookie == connection.cookie && uses.opened_ns == connection.opened_ns
}

/// The index of the use of this number, counted from 0.
#[inline(always)]
fn place(number: u64, kept: u32) -> usize {
    (number % u64::from(kept)) as usize & (MAX_USES - 1)
}
