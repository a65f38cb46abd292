//! Payload received: bytes that the process has read from its socket.

use aya_ebpf::macros::{btf_tracepoint, fexit, kprobe};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext};

use crate::connections::handles::Tracked;
use crate::connections::slots::{Slot, find_or_adopt};
use crate::connections::transfers::transfer_time;
use crate::connections::uses;
use crate::kernel::calls;
use crate::kernel::payload::Payload;
use crate::kernel::sock::{BtfSock, KprobeSock, Sock as _};
use crate::maps::{Call, Direction};
use crate::postgres;

/// `MSG_PEEK`: the bytes stay in the socket and will be received again.
const MSG_PEEK: u64 = 2;

/// BTF tracepoint: `void (struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_recv_length")]
pub(crate) fn receive_tracepoint(ctx: BtfTracePointContext) -> i32 {
    let flags: i32 = ctx.arg(2);
    received(BtfSock(ctx.arg(0)), ctx.arg(1), flags as u64);
    0
}

/// fexit: `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, …, int flags, …)`
///
/// The result follows the parameters, whose number depends on the kernel, and the verifier accepts
/// no computed index: hence a program for each number.
macro_rules! receive_fexit {
    ($name:ident, flags: $flags:literal, result: $result:literal) => {
        #[doc = concat!("The result is argument ", $result, ", the flags ", $flags, ".")]
        #[fexit(function = "tcp_recvmsg")]
        pub(crate) fn $name(ctx: FExitContext) -> i32 {
            let flags: i32 = ctx.arg($flags);
            received(BtfSock(ctx.arg(0)), ctx.arg($result), flags as u64);
            0
        }
    };
}
receive_fexit!(receive_fexit_4, flags: 3, result: 4);
receive_fexit!(receive_fexit_5, flags: 3, result: 5);
receive_fexit!(receive_fexit_6, flags: 4, result: 6);

/// kprobe: `int tcp_recvmsg(struct sock *sk, …)`
///
/// Its return is not hooked. The kernel follows only a few calls of a function to their returns at
/// once, ten on a small machine, whoever makes them, and this one lasts for as long as it waits: a
/// few threads that wait for anything on TCP would hide the bytes of all others.
#[kprobe]
pub(crate) fn receive_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(address) = ctx.arg::<*const u8>(0) {
        let sock = KprobeSock(address);
        if sock.is_traced() {
            let (copied_seq, direction) = (sock.copied_seq(), Direction::Receive);
            calls::begin(&Call { sock: address as u64, copied_seq, counted: 0, direction });
        }
    }
    0
}

/// kprobe's complement: `void (struct sock *sk)`, whenever `tcp_recvmsg` has copied the bytes of
/// one of the kernel's buffers. Bytes that are only peeked at stay unread, and so after
/// `copied_seq`.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub(crate) fn receive_copied(ctx: BtfTracePointContext) -> i32 {
    let address: *const u8 = ctx.arg(0);
    let Some(call) = calls::latest() else { return 0 };
    if call.direction != Direction::Receive || call.sock != address as u64 {
        return 0;
    }
    // To the verifier it is a `struct sock`, not a `struct tcp_sock`. As a kprobe's, its slot is
    // also found where the other kprobes look for it.
    let sock = KprobeSock(address);
    let copied = sock.copied_seq().wrapping_sub(call.copied_seq);
    let before = call.counted;
    call.counted = copied;
    if copied != before {
        // This creates the cookie if there is none: the kprobe that sees the next request cannot.
        let _ = BtfSock(address).cookie();
        count(sock, u64::from(copied.wrapping_sub(before)), u64::from(before));
    }
    0
}

/// A call has received something. An error, the end of the stream or a peek receives nothing.
#[inline(always)]
fn received(sock: impl Tracked, result: i32, flags: u64) {
    if result > 0 && flags & MSG_PEEK == 0 && sock.is_traced() {
        count(sock, result as u64, 0);
    }
}

/// Counts `len` bytes that the call under way has received after `offset` others, and reads them.
#[inline(always)]
fn count(sock: impl Tracked, len: u64, offset: u64) {
    let Some(Slot { index, connection }) = find_or_adopt(sock) else { return };
    let now = transfer_time(connection);
    connection.bytes_received += len;
    connection.last_receive_ns = now;
    let answer = postgres::begin_answer(connection);
    if postgres::is_readable(connection)
        && !postgres::skip_received(connection, answer, || sock.unread())
    {
        let payload = Payload::of_current_call(sock, len).after(offset);
        postgres::received(index, connection, &payload, answer);
    }
    uses::end_if_idle(index, connection);
}
