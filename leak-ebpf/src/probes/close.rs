//! Connections destroyed.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::ended::ended;
use crate::kernel::sock::BtfSock;

/// `void (struct sock *sk)`
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy(ctx: BtfTracePointContext) -> i32 {
    ended(&ctx, BtfSock(ctx.arg(0)));
    0
}
