//! What kprobes know of the calls that threads make.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use leak_common::event::counter;

use crate::maps::{CALLS, Call, count};

/// A call of this thread begins.
#[inline(always)]
pub(crate) fn begin(call: &Call) {
    // A sending call's entry is removed when it returns. One that is still there is of a call whose
    // return the kernel kept to itself: it follows no more than some calls of a function at once.
    if latest().is_some_and(|former| former.sends != 0) {
        count(counter::UNSEEN_CALLS);
    }
    if CALLS.insert(bpf_get_current_pid_tgid(), call, 0).is_err() {
        count(counter::UNSEEN_CALLS);
    }
}

/// This thread's latest call.
#[inline(always)]
pub(crate) fn latest() -> Option<&'static mut Call> {
    let call = CALLS.get_ptr_mut(bpf_get_current_pid_tgid())?;
    // SAFETY: the value lives as long as the map, and only its own thread uses it.
    Some(unsafe { &mut *call })
}

/// Forgets it.
#[inline(always)]
pub(crate) fn end() {
    let _ = CALLS.remove(bpf_get_current_pid_tgid());
}
