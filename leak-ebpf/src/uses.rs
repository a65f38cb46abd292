//! The latest uses of each connection, when they are asked for: who took it, and for how long.

use leak_common::connection::{Caller, Connection, MAX_USES, Use, Uses, phase, state};

use crate::kernel::now;
use crate::maps::{USES, constant};

/// Takes note of the request that begins now, and says the number of the record that its stack belongs into.
///
/// A use goes on until the server is idle. Where that cannot be seen, because the dialogue is
/// encrypted or its beginning was missed, every request is a use of its own. What is sent before the
/// server is ready for the first time is none.
#[inline(always)]
pub(crate) fn request_begins(index: u32, connection: &Connection, caller: &Caller) -> u32 {
    let kept = constant!(CONFIG.uses);
    if kept == 0 {
        return index;
    }
    let latest = index * (kept + 1);
    if !matches!(connection.phase, phase::READY | phase::UNKNOWN | phase::ENCRYPTED) {
        return latest;
    }
    let Some(uses) = USES.get_ptr_mut(index) else { return latest };
    // SAFETY: the value lives as long as the map. Threads that use one connection at once may race for
    // it; they spoil what is said of that use.
    let uses = unsafe { &mut *uses };
    if !belong_to(uses, connection) {
        uses.begun = 0;
        uses.cookie = connection.cookie;
        uses.opened_ns = connection.opened_ns;
    }
    let goes_on = connection.phase == phase::READY;
    if uses.begun != 0 && goes_on && uses.uses[place(uses.begun - 1, kept)].released_ns == 0 {
        return latest;
    }
    let place = place(uses.begun, kept);
    let Caller { tgid, tid, .. } = *caller;
    uses.uses[place] =
        Use { request: connection.requests, acquired_ns: now(), released_ns: 0, tgid, tid };
    uses.begun += 1;
    latest + 1 + place as u32
}

/// Ends the present use if the server is idle.
#[inline(always)]
pub(crate) fn answered(index: u32, connection: &Connection) {
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

/// Where the use of this number is, counted from 0.
#[inline(always)]
fn place(number: u64, kept: u32) -> usize {
    (number % u64::from(kept)) as usize & (MAX_USES - 1)
}
