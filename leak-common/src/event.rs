//! Events that are streamed, because they are rare: one record of the ring buffer each.

use bytemuck::{Pod, Zeroable};

use crate::connection::{Caller, Connection, FirstBytes, Tuple};
use crate::size;
use crate::stack::{MAX_STACK, StackHeader};

/// How long the collector polls for records after it was woken, nanoseconds: until then the kernel
/// programs need not wake it again.
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
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
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
size!(EventHeader, 24);

/// A process called `connect()`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
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
size!(Opened, 24 + 32 + 40 + size_of::<StackHeader>());

/// [`Opened`] with room for its stack: only the copied part is sent.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct OpenedWithStack {
    /// The fixed part.
    pub opened: Opened,
    /// Stack bytes.
    pub bytes: [u8; MAX_STACK],
}
size!(OpenedWithStack, size_of::<Opened>() + MAX_STACK);
// The kernel allows no more in a value of a per-CPU array.
const _: () = assert!(size_of::<OpenedWithStack>() <= 32 * 1024);

/// A connection was established.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Established {
    /// `kind` is [`kind::ESTABLISHED`].
    pub header: EventHeader,
    /// Both ends.
    pub tuple: Tuple,
}
size!(Established, 64);

/// A connection could not be established.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Failed {
    /// `kind` is [`kind::FAILED`].
    pub header: EventHeader,
    /// The socket's error (`ECONNREFUSED` …); 0 when the process gave up by itself.
    pub errno: u32,
    /// Fills up the structure; always 0.
    pub reserved: u32,
}
size!(Failed, 32);

/// A connection is gone.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Closed {
    /// `kind` is [`kind::CLOSED`].
    pub header: EventHeader,
    /// Its final counters.
    pub connection: Connection,
    /// How its dialogue began.
    pub first_bytes: FirstBytes,
}
size!(Closed, 24 + 232 + 384);

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
    /// Stacks not copied because the flight recorder was full or the kernel had no memory for it.
    pub const STACKS_NO_SLOT: u32 = STACKS_OVER_BUDGET + 1;
    /// Stacks of which nothing could be read.
    pub const STACKS_UNREADABLE: u32 = STACKS_NO_SLOT + 1;
    /// Calls that sent or received something on a traced connection and could not be followed.
    pub const UNSEEN_CALLS: u32 = STACKS_UNREADABLE + 1;
    /// Not a count: one more than the highest slot that this processor has seen in use. Programs
    /// may race for it, so readers add some slack.
    pub const SLOTS_USED: u32 = UNSEEN_CALLS + 1;
    /// How many counters there are.
    pub const COUNT: u32 = SLOTS_USED + 1;
}
