//! The end of a connection: its socket was destroyed or begins another connection.

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use leak_common::connection::flag;

use crate::connections::slots;
use crate::emit;
use crate::kernel::clock::now;
use crate::kernel::sock::BtfSock;

/// Reports the end of the socket's connection, if it has one, and frees its slot.
#[inline(always)]
pub(super) fn ended(ctx: &BtfTracePointContext, sock: BtfSock) {
    let Some(slot) = slots::find_anywhere(sock) else { return };
    debug!(ctx, "{} ended", slot.connection.cookie);
    if slot.connection.flags & flag::FAILED == 0 {
        // A reset connection went to CLOSE long before its process closed it.
        slot.connection.state_changed_ns = now();
        emit::closed(&slot);
    }
    slots::release(sock, slot);
}
