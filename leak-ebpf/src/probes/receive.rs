//! Payload received: bytes that the process has read from its socket.

use aya_ebpf::macros::{btf_tracepoint, fexit, kprobe};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext};

use super::send::known_or_adopted;
use crate::connection::{self, Slot};
use crate::kernel::Sock;
use crate::maps::Call;
use crate::payload::Payload;
use crate::{calls, uses, wire};

/// `MSG_PEEK`: the bytes stay in the socket and will be received again.
const MSG_PEEK: u64 = 2;

/// Flavour A: `void (struct sock *sk, int ret, int flags)`
#[btf_tracepoint(function = "sock_recv_length")]
pub(crate) fn receive_tracepoint(ctx: BtfTracePointContext) -> i32 {
    let flags: i32 = ctx.arg(2);
    received(Sock::trusted(ctx.arg(0)), ctx.arg(1), flags as u64);
    0
}

/// Flavour B: `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, …, int flags, …)`,
/// returned. How many parameters there are, and so where the result stands behind them, depends on
/// the kernel, and the verifier accepts no computed place: hence a program for each number.
macro_rules! receive_fexit {
    ($name:ident, flags: $flags:literal, result: $result:literal) => {
        #[doc = concat!("Result in place ", $result, ", flags in place ", $flags, ".")]
        #[fexit(function = "tcp_recvmsg")]
        pub(crate) fn $name(ctx: FExitContext) -> i32 {
            let flags: i32 = ctx.arg($flags);
            received(Sock::trusted(ctx.arg(0)), ctx.arg($result), flags as u64);
            0
        }
    };
}
receive_fexit!(receive_fexit_4, flags: 3, result: 4);
receive_fexit!(receive_fexit_5, flags: 3, result: 5);
receive_fexit!(receive_fexit_6, flags: 4, result: 6);

/// Flavour C: `int tcp_recvmsg(struct sock *sk, …)`, called
///
/// Its return is not hooked. The kernel follows no more than a few calls of a function to their
/// returns at once, ten on a small machine, whoever makes them, and this one lasts for as long as it
/// waits: a few threads that wait for anything on TCP would hide all others' bytes.
#[kprobe]
pub(crate) fn receive_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(address) = ctx.arg::<*const u8>(0) {
        let sock = Sock::untrusted(address);
        if sock.is_traced() {
            let copied_seq = sock.copied_seq();
            calls::begin(&Call { sock: address as u64, copied_seq, counted: 0, sends: 0 });
        }
    }
    0
}

/// Flavour C: `void (struct sock *sk)`, whenever `tcp_recvmsg` has copied the bytes of one buffer of
/// the kernel's. What is peeked at stays unread, and so in front of `copied_seq`.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub(crate) fn receive_copied(ctx: BtfTracePointContext) -> i32 {
    let address: *const u8 = ctx.arg(0);
    let Some(call) = calls::latest() else { return 0 };
    if call.sends != 0 || call.sock != address as u64 {
        return 0;
    }
    // The verifier knows a `struct sock`, and not what lies behind it. As a kprobe's it is also looked for
    // where the other kprobes look.
    let sock = Sock::untrusted(address);
    let copied = sock.copied_seq().wrapping_sub(call.copied_seq);
    let before = call.counted;
    call.counted = copied;
    if copied != before {
        // Asking for the cookie makes it: the kprobe that sees the next request cannot.
        let _ = Sock::trusted(address).cookie();
        count(sock, u64::from(copied.wrapping_sub(before)), u64::from(before));
    }
    0
}

/// A call has received something. An error, the end of the stream or a peek receives nothing.
#[inline(always)]
fn received(sock: Sock, result: i32, flags: u64) {
    if result > 0 && flags & MSG_PEEK == 0 && sock.is_traced() {
        count(sock, result as u64, 0);
    }
}

/// Counts `len` bytes that the call under way has received after `offset` others.
#[inline(always)]
fn count(sock: Sock, len: u64, offset: u64) {
    let Some(Slot { index, connection }) = known_or_adopted(sock) else { return };
    let now = connection::moment(connection);
    connection.bytes_received += len;
    connection.last_receive_ns = now;
    let is_first_answer = connection.answered != connection.requests;
    if wire::is_legible(connection) && !wire::passes_over(connection, || sock.unread()) {
        let payload = Payload::of_current_call(sock, len).after(offset);
        wire::received(index, connection, &payload, is_first_answer);
    }
    connection.answered = connection.requests;
    uses::answered(index, connection);
}
