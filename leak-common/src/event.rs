//! What is streamed: the rare things, one ring-buffer record each.

use crate::connection::{Caller, Connection, FirstBytes, Tuple};
use crate::plain;
use crate::stack::{MAX_PYTHON_FRAMES, MAX_STACK, PRESERVED, StackHeader};

/// For so long after it was woken the collector looks for records by itself, in nanoseconds.
pub const LINGER_NS: u64 = 2_000_000;

/// Kinds of [`EventHeader::kind`].
pub mod kind {
    /// `connect()` was called: an [`super::Opened`], then `stack.len` bytes of stack.
    pub const OPENED: u32 = 1;
    /// The handshake is done: an [`super::Established`].
    pub const ESTABLISHED: u32 = 2;
    /// The handshake failed: a [`super::Failed`].
    pub const FAILED: u32 = 3;
    /// The socket was destroyed: a [`super::Closed`].
    pub const CLOSED: u32 = 4;
    /// How many kinds there are, counting an unused 0.
    pub const COUNT: usize = 5;
}

/// Begins every record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EventHeader {
    /// One of [`kind`].
    pub kind: u32,
    /// Fills up the structure; always 0.
    pub reserved: u32,
    /// When it happened, nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Socket cookie.
    pub cookie: u64,
}
plain!(EventHeader, 24);

/// A process called `connect()`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Opened {
    /// `kind` is [`kind::OPENED`].
    pub header: EventHeader,
    /// Who called.
    pub caller: Caller,
    /// The server's end; the local port is not chosen yet.
    pub tuple: Tuple,
    /// Registers; `len` is 0 when the budget for stacks was used up.
    pub stack: StackHeader,
}
plain!(Opened, 264 + PRESERVED * 8 + 16 * MAX_PYTHON_FRAMES);

/// [`Opened`] with room for its stack: only the copied part is sent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OpenedWithStack {
    /// The fixed part.
    pub opened: Opened,
    /// Stack bytes.
    pub bytes: [u8; MAX_STACK],
}
plain!(OpenedWithStack, 264 + PRESERVED * 8 + 16 * MAX_PYTHON_FRAMES + MAX_STACK);
// The kernel allows no more in a value of a per-CPU array.
const _: () = assert!(size_of::<OpenedWithStack>() <= 32 * 1024);

/// A connection was established.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Established {
    /// `kind` is [`kind::ESTABLISHED`].
    pub header: EventHeader,
    /// Both ends.
    pub tuple: Tuple,
}
plain!(Established, 64);

/// A connection could not be established.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Failed {
    /// `kind` is [`kind::FAILED`].
    pub header: EventHeader,
    /// The socket's error (`ECONNREFUSED` …); 0 when the process gave up by itself.
    pub errno: u32,
    /// Fills up the structure; always 0.
    pub reserved: u32,
}
plain!(Failed, 32);

/// A connection is gone.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Closed {
    /// `kind` is [`kind::CLOSED`].
    pub header: EventHeader,
    /// Its final counters.
    pub connection: Connection,
    /// How its dialogue began.
    pub first_bytes: FirstBytes,
}
plain!(Closed, 24 + 224 + 320);

/// What the kernel programs count besides connections, one set a processor.
pub mod counter {
    use super::kind;

    /// Events sent, by kind: `SENT + kind`.
    pub const SENT: u32 = 0;
    /// Events that found the ring buffer full, by kind: `LOST + kind`.
    pub const LOST: u32 = SENT + kind::COUNT as u32;
    /// Connections not traced because the table was full.
    pub const TABLE_FULL: u32 = LOST + kind::COUNT as u32;
    /// Stacks copied.
    pub const STACKS: u32 = TABLE_FULL + 1;
    /// Stacks not copied because the budget was used up.
    pub const STACKS_OVER_BUDGET: u32 = STACKS + 1;
    /// Stacks not copied because the flight recorder was full, or there was no memory for more of it.
    pub const STACKS_NO_SLOT: u32 = STACKS_OVER_BUDGET + 1;
    /// Stacks of which nothing could be read.
    pub const STACKS_UNREADABLE: u32 = STACKS_NO_SLOT + 1;
    /// Calls that sent or received something on a traced connection and could not be followed.
    pub const UNSEEN_CALLS: u32 = STACKS_UNREADABLE + 1;
    /// Not a count: one more than the highest slot that was ever used, as far as this processor has
    /// seen. Two programs may race for it, so a reader adds some slack.
    pub const SLOTS_USED: u32 = UNSEEN_CALLS + 1;
    /// How many counters there are.
    pub const COUNT: u32 = SLOTS_USED + 1;
}
