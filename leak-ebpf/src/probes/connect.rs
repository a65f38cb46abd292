//! Connections opened and established, and those that failed.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use leak_common::connection::{Connection, flag, phase, tcp_state};

use super::ended::ended;
use crate::connections::slots::{self, NewConnection};
use crate::kernel::clock::now;
use crate::kernel::sock::{BtfSock, Sock as _};
use crate::kernel::task::{Task, caller, caller_is_traced};
use crate::{emit, stacks};

/// `void (const struct sock *sk, const int oldstate, const int newstate)`
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn state_change(ctx: BtfTracePointContext) -> i32 {
    let sock = BtfSock(ctx.arg(0));
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    // The port of known sockets does not matter: a failed `connect()` takes it away.
    if new as u32 != tcp_state::SYN_SENT {
        changed(&ctx, sock, old as u32, new as u32);
    } else if sock.is_traced() {
        opened(&ctx, sock);
    } else {
        // `connect()` to another server, on the socket of a connection that is over.
        ended(&ctx, sock);
    }
    0
}

/// `connect()` was called: the only change of state that always runs in the context of the process
/// that caused it.
#[inline(always)]
fn opened(ctx: &BtfTracePointContext, sock: BtfSock) {
    if !caller_is_traced() {
        return;
    }
    let opener = caller();
    let tcp_state = tcp_state::SYN_SENT;
    let new = NewConnection { opener: &opener, now: now(), flags: 0, tcp_state, phase: phase::NEW };
    slots::release_records(sock);
    let Some(slot) = slots::create(sock, &new) else { return };
    if let Some(event) = stacks::at_connect(slot.connection) {
        emit::opened(slot.connection, event);
    }
    debug!(ctx, "opened {} by process {}", slot.connection.cookie, opener.tgid);
}

#[inline(always)]
fn changed(ctx: &BtfTracePointContext, sock: BtfSock, old: u32, new: u32) {
    let Some(slot) = slots::find_anywhere(sock) else { return };
    let connection = slot.connection;
    connection.tcp_state = new;
    connection.state_changed_ns = now();
    if old == tcp_state::SYN_SENT && new == tcp_state::ESTABLISHED {
        connection.tuple = sock.tuple();
        emit::established(connection);
    } else if old == tcp_state::SYN_SENT && new == tcp_state::CLOSE {
        connection.flags |= flag::FAILED;
        emit::failed(connection, sock.error());
    } else if old == tcp_state::ESTABLISHED && is_left_open(connection) {
        connection.flags |= flag::CLOSED_AT_EXIT;
    }
    debug!(ctx, "{} went from TCP state {} to {}", connection.cookie, old, new);
}

/// Whether it is the exit of the process that opened the connection which closes it. A process that
/// closes it does so in its own context, and so does one that exits.
#[inline(always)]
fn is_left_open(connection: &Connection) -> bool {
    let task = Task::current();
    task.is_exiting() && task.process() == connection.opener.tgid
}
