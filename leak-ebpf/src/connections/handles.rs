//! How a socket remembers its slot.
//!
//! Every traced socket is in `SLOTS` by its cookie. Programs to which the verifier grants the
//! socket also keep the slot in the socket's own storage, which is much faster to find.

use core::ptr;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;

use crate::kernel::sock::{BtfSock, KprobeSock, Sock};
use crate::maps::{HANDLES, Handle, SLOTS};

/// A socket that can be asked for its slot.
pub(crate) trait Tracked: Sock {
    /// The index of its slot, if it has one.
    fn slot(self) -> Option<u32>;

    /// Remembers the index of its slot; `None` when there is no memory for it.
    fn remember(self, index: u32) -> Option<()>;
}

impl Tracked for BtfSock {
    #[inline(always)]
    fn slot(self) -> Option<u32> {
        handle(self, 0)?.slot_plus_one.checked_sub(1)
    }

    #[inline(always)]
    fn remember(self, index: u32) -> Option<()> {
        handle(self, u64::from(BPF_SK_STORAGE_GET_F_CREATE))?.slot_plus_one = index + 1;
        Some(())
    }
}

impl Tracked for KprobeSock {
    #[inline(always)]
    fn slot(self) -> Option<u32> {
        by_cookie(self)
    }

    #[inline(always)]
    fn remember(self, _: u32) -> Option<()> {
        Some(())
    }
}

/// The index of a socket's slot, by its cookie.
#[inline(always)]
pub(super) fn by_cookie(sock: impl Sock) -> Option<u32> {
    // SAFETY: the value is copied at once.
    Some(unsafe { *SLOTS.get_ptr(sock.cookie())? })
}

/// Forgets the slot of a socket. The handle is emptied, not deleted: the kernel frees it with the
/// socket, and at less cost.
#[inline(always)]
pub(super) fn forget(sock: BtfSock) {
    if let Some(handle) = handle(sock, 0) {
        handle.slot_plus_one = 0;
    }
}

#[inline(always)]
fn handle(sock: BtfSock, flags: u64) -> Option<&'static mut Handle> {
    let handles = (&raw const HANDLES).cast_mut().cast();
    // SAFETY: the verifier checks the socket pointer and the map.
    let handle = unsafe {
        bpf_sk_storage_get(handles, sock.for_helpers(), ptr::null_mut(), flags).cast::<Handle>()
    };
    // SAFETY: if not null, it is the value in the socket's storage, a plain number.
    unsafe { handle.as_mut() }
}
