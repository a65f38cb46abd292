//! The kernel programs of pgsocktrace.
//!
//! The rooms; each imports only from those below it (the tests of the crate `structure` check
//! that):
//!
//! - [`probes`]: thin entries, one file a purpose. They find the socket and call the rest in order.
//! - [`emit`]: sends the events that are rare enough to be sent. An event's last stop.
//! - [`stacks`]: copies the caller's stack and walks the frames of interpreters.
//! - [`connections`]: the table of connections, their uses, and the records of their stacks.
//! - [`postgres`]: reads the state of the dialogue from the bytes that were transferred.
//! - [`kernel`]: reads sockets, tasks and the buffers of system calls; nothing else touches them.
//! - [`maps`] and [`verifier`]: what all of them share.
//!
//! Two rules hold everywhere and are not explained again:
//!
//! - Functions are `#[inline(always)]`. A BPF function takes five arguments and returns one number,
//!   so most of them could not be called. A function that is not inlined says why.
//! - A *global* function (`#[unsafe(no_mangle)]`, `#[inline(never)]`, `extern "C"`) is one that the
//!   verifier proves once and alone, not again for each path that leads to it. Loops are global
//!   functions, because they are the greater part of what it has to prove, and so of the time that
//!   loading takes. Its pointers are checked for null, because the verifier knows nothing of its
//!   callers, and it returns a number, because it has to.

#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "contexts come by value from aya's macros, and a released slot must not be used again"
)]

mod connections;
mod emit;
mod kernel;
mod maps;
mod postgres;
mod probes;
mod stacks;
mod verifier;

/// The kernel lets only GPL-compatible programs call its tracing helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the verifier refuses programs in which it could be.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
