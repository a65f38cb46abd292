//! Payload sent, whatever call sends it.

use aya_ebpf::macros::{btf_tracepoint, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext};
use leak_common::connection::{flag, phase};

use crate::connection::{self, Birth, Slot};
use crate::kernel::{Sock, caller, caller_is_traced, nameless_caller, now as exact_time};
use crate::maps::Call;
use crate::payload::Payload;
use crate::{calls, stack, statement, uses, wire};

/// What a connection in use most likely is; the collector's inventory knows better.
const TCP_ESTABLISHED: u32 = 1;

/// Flavour A: `void (struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_send_length")]
pub(crate) fn send_tracepoint(ctx: BtfTracePointContext) -> i32 {
    sent(Sock::trusted(ctx.arg(0)), ctx.arg(1));
    0
}

/// Flavour B: `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`, returned
#[fexit(function = "tcp_sendmsg")]
pub(crate) fn send_fexit(ctx: FExitContext) -> i32 {
    sent(Sock::trusted(ctx.arg(0)), ctx.arg(3));
    0
}

/// Flavour C: `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`, called
#[kprobe]
pub(crate) fn send_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg::<*const u8>(0)
        && Sock::untrusted(sock).is_traced()
    {
        calls::begin(&Call { sock: sock as u64, copied_seq: 0, counted: 0, sends: 1 });
    }
    0
}

/// Flavour C: `tcp_sendmsg`, returned
#[kretprobe]
pub(crate) fn send_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(&mut Call { sock, sends: 1, .. }) = calls::latest() {
        calls::end();
        sent(Sock::untrusted(sock as *const u8), ctx.ret());
    }
    0
}

/// Counts a send, and records the stack of the request that it begins, if it begins one.
#[inline(always)]
fn sent(sock: Sock, result: i32) {
    if result <= 0 || !sock.is_traced() {
        return;
    }
    let Some(Slot { index, connection }) = known_or_adopted(sock) else { return };
    let now = connection::moment(connection);
    connection.bytes_sent += result as u64;
    connection.last_send_ns = now;
    if wire::is_legible(connection) && !wire::goes_on(connection, result as u64) {
        wire::sent(index, connection, &Payload::of_current_call(sock, result as u64));
    }
    if statement::is_to_be_noticed(connection) {
        statement::notice(connection, &Payload::of_current_call(sock, result as u64));
    }
    if connection.answered == connection.requests {
        let caller = nameless_caller();
        let former =
            if connection.requests == 0 { connection.opener.tid } else { connection.request_tid };
        if former != caller.tid {
            connection.flags |= flag::MOVED;
        }
        connection.requests += 1;
        connection.request_ns = now;
        connection.request_tgid = caller.tgid;
        connection.request_tid = caller.tid;
        let record = uses::request_begins(index, connection, &caller);
        stack::record(record, connection, &caller);
    }
}

/// The slot of a connection in use. One that was opened before tracing began is taken in.
#[inline(always)]
pub(super) fn known_or_adopted(sock: Sock) -> Option<Slot> {
    if let Some(slot) = connection::find(sock) {
        return Some(slot);
    }
    if !caller_is_traced() {
        return None;
    }
    let opener = caller();
    let (flags, phase) = (flag::ADOPTED, phase::UNKNOWN);
    let now = exact_time();
    let birth = Birth { opener: &opener, now, flags, tcp_state: TCP_ESTABLISHED, phase };
    connection::create(sock, &birth)
}
