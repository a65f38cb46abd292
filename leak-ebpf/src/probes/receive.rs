//! Payload received: bytes that the process has read from its socket.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{btf_tracepoint, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext, ProbeContext, RetProbeContext};

use super::send::known_or_adopted;
use crate::kernel::{Sock, now};
use crate::maps::{CALLS, Call};
use crate::payload::Payload;
use crate::{uses, wire};

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

/// Flavour C: `tcp_recvmsg`, called. `flags` stands in the fourth place or, where there are six
/// parameters, in the fifth.
macro_rules! receive_kprobe {
    ($name:ident, flags: $flags:literal) => {
        #[doc = concat!("Flags in place ", $flags, ".")]
        #[kprobe]
        pub(crate) fn $name(ctx: ProbeContext) -> u32 {
            if let (Some(sock), Some(flags)) = (ctx.arg::<*const u8>(0), ctx.arg::<u64>($flags))
                && Sock::untrusted(sock).is_traced()
            {
                let call = Call { sock: sock as u64, flags };
                let _ = CALLS.insert(bpf_get_current_pid_tgid(), call, 0);
            }
            0
        }
    };
}
receive_kprobe!(receive_kprobe_5, flags: 3);
receive_kprobe!(receive_kprobe_6, flags: 4);

/// Flavour C: `tcp_recvmsg`, returned
#[kretprobe]
pub(crate) fn receive_kretprobe(ctx: RetProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    if let Some(call) = CALLS.get_ptr(thread) {
        // SAFETY: the value is copied before it is removed.
        let Call { sock, flags } = unsafe { *call };
        let _ = CALLS.remove(thread);
        received(Sock::untrusted(sock as *const u8), ctx.ret(), flags);
    }
    0
}

/// Counts what was received. An error, the end of the stream or a peek receives nothing.
#[inline(always)]
fn received(sock: Sock, result: i32, flags: u64) {
    if result <= 0 || flags & MSG_PEEK != 0 || !sock.is_traced() {
        return;
    }
    let now = now();
    let Some(slot) = known_or_adopted(sock, now) else { return };
    let connection = slot.connection;
    connection.bytes_received += result as u64;
    connection.last_receive_ns = now;
    let is_first_answer = connection.answered != connection.requests;
    wire::received(connection, &Payload::of_current_call(sock, result as u64), is_first_answer);
    connection.answered = connection.requests;
    uses::answered(slot.index, connection, now);
}
