//! Payload sent.

use aya_ebpf::macros::{btf_tracepoint, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext};
use leak_common::connection::flag;

use crate::connections::handles::Tracked;
use crate::connections::slots::{Slot, find_or_adopt};
use crate::connections::transfers::transfer_time;
use crate::connections::uses;
use crate::kernel::calls;
use crate::kernel::payload::Payload;
use crate::kernel::sock::{BtfSock, KprobeSock, Sock as _};
use crate::kernel::task::nameless_caller;
use crate::maps::{Call, Direction};
use crate::{postgres, stacks};

/// BTF tracepoint: `void (struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_send_length")]
pub(crate) fn send_tracepoint(ctx: BtfTracePointContext) -> i32 {
    sent(BtfSock(ctx.arg(0)), ctx.arg(1));
    0
}

/// fexit: `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`
#[fexit(function = "tcp_sendmsg")]
pub(crate) fn send_fexit(ctx: FExitContext) -> i32 {
    sent(BtfSock(ctx.arg(0)), ctx.arg(3));
    0
}

/// kprobe: `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`
#[kprobe]
pub(crate) fn send_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(sock) = ctx.arg::<*const u8>(0)
        && KprobeSock(sock).is_traced()
    {
        let (sock, direction) = (sock as u64, Direction::Send);
        calls::begin(&Call { sock, copied_seq: 0, counted: 0, direction });
    }
    0
}

/// kretprobe: `tcp_sendmsg`
#[kretprobe]
pub(crate) fn send_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(&mut Call { sock, direction: Direction::Send, .. }) = calls::latest() {
        calls::end();
        sent(KprobeSock(sock as *const u8), ctx.ret());
    }
    0
}

/// Counts a send, reads it, and records the stack of the request that it begins, if it begins one.
#[inline(always)]
fn sent(sock: impl Tracked, result: i32) {
    if result <= 0 || !sock.is_traced() {
        return;
    }
    let len = result as u64;
    let Some(Slot { index, connection }) = find_or_adopt(sock) else { return };
    let now = transfer_time(connection);
    connection.bytes_sent += len;
    connection.last_send_ns = now;
    if postgres::is_readable(connection) && !postgres::skip_sent(connection, len) {
        postgres::sent(index, connection, &Payload::of_current_call(sock, len));
    }
    if postgres::has_statement(connection) {
        postgres::read_statement(connection, &Payload::of_current_call(sock, len));
    }
    if postgres::is_answered(connection) {
        let caller = nameless_caller();
        let former =
            if connection.requests == 0 { connection.opener.tid } else { connection.request_tid };
        if former != caller.tid {
            connection.flags |= flag::MOVED;
            if connection.transaction_ns != 0 {
                connection.flags |= flag::TRANSACTION_MOVED;
            }
        }
        connection.requests += 1;
        connection.request_ns = now;
        connection.request_tgid = caller.tgid;
        connection.request_tid = caller.tid;
        let record = uses::add_request(index, connection, &caller);
        stacks::record(record, connection, &caller);
    }
}
