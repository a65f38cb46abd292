//! A connection's life: opened, established, failed, destroyed. The same hooks in every flavour.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use leak_common::connection::{flag, phase};

use crate::connection::{self, Birth};
use crate::emit;
use crate::kernel::{Sock, caller, caller_is_traced, now};

/// The kernel's TCP states, include/net/tcp_states.h.
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_CLOSE: i32 = 7;

/// `void (const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state_change(ctx: BtfTracePointContext) -> i32 {
    let sock = Sock::trusted(ctx.arg(0));
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    // Known sockets are not looked at by port: a failed `connect()` takes it away.
    if new != TCP_SYN_SENT {
        changed(&ctx, sock, old, new);
    } else if sock.is_traced() {
        opened(&ctx, sock);
    } else {
        // `connect()` to another server, on the socket of a connection that is over.
        ended(&ctx, sock);
    }
    0
}

/// The only state change that always runs in the context of the process that caused it.
#[inline(always)]
fn opened(ctx: &BtfTracePointContext, sock: Sock) {
    if !caller_is_traced() {
        return;
    }
    let opener = caller();
    let tcp_state = TCP_SYN_SENT as u32;
    let birth = Birth { opener: &opener, now: now(), flags: 0, tcp_state, phase: phase::NEW };
    connection::forget_requests(sock);
    let Some(slot) = connection::create(sock, &birth) else { return };
    emit::opened(slot.connection);
    debug!(ctx, "opened {} by process {}", slot.connection.cookie, opener.tgid);
}

#[inline(always)]
fn changed(ctx: &BtfTracePointContext, sock: Sock, old: i32, new: i32) {
    let Some(slot) = connection::find_anywhere(sock) else { return };
    let connection = slot.connection;
    connection.tcp_state = new as u32;
    connection.state_changed_ns = now();
    if old == TCP_SYN_SENT && new == TCP_ESTABLISHED {
        connection.tuple = sock.tuple();
        emit::established(connection);
    } else if old == TCP_SYN_SENT && new == TCP_CLOSE {
        connection.flags |= flag::FAILED;
        emit::failed(connection, sock);
    }
    debug!(ctx, "{} went from TCP state {} to {}", connection.cookie, old, new);
}

/// `void (struct sock *sk)`
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy(ctx: BtfTracePointContext) -> i32 {
    ended(&ctx, Sock::trusted(ctx.arg(0)));
    0
}

#[inline(always)]
fn ended(ctx: &BtfTracePointContext, sock: Sock) {
    let Some(slot) = connection::find_anywhere(sock) else { return };
    debug!(ctx, "{} ended", slot.connection.cookie);
    if slot.connection.flags & flag::FAILED == 0 {
        // A reset connection went to CLOSE long before its process let go of it.
        slot.connection.state_changed_ns = now();
        emit::closed(&slot);
    }
    connection::release(sock, slot);
}
