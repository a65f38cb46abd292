//! The kernel programs of pgsocktrace.
//!
//! An event's way: a thin entry in [`probes`] finds the socket, [`kernel`] filters it, [`connection`]
//! finds or makes its slot, [`payload`] and [`wire`] read the dialogue's state from the bytes moved,
//! [`stack`] copies the caller's stack into one of the [`records`] and [`python`] notes its Python calls, and [`emit`] sends what is rare enough to be sent.

#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "contexts come by value from aya's macros, and a released slot must not be used again"
)]

mod calls;
mod connection;
mod emit;
mod kernel;
mod maps;
mod messages;
mod payload;
mod probes;
mod python;
mod records;
mod stack;
mod statement;
mod uses;
mod wire;
mod zero;

/// The kernel lets only GPL-compatible programs call its tracing helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the verifier refuses programs in which it could be.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
