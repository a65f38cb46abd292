//! The ABI between the kernel programs and the collector, and nothing else.
//!
//! Every type here is `#[repr(C)]`, made of fixed-width integers and byte arrays, without padding,
//! and its size is asserted at compile time: both sides are built by different compilers for
//! different targets. [`bytemuck::Pod`] says, and its derive checks, that any bytes are a valid
//! value.

#![no_std]

pub mod config;
pub mod connection;
pub mod event;
pub mod interpreter;
pub mod layout;
pub mod stack;

/// Asserts a type's size at compile time.
macro_rules! size {
    ($type:ty, $size:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
    };
}
pub(crate) use size;
