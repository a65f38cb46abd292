//! What the kernel programs and the collector exchange, and nothing else.
//!
//! Every type here is `#[repr(C)]`, made of fixed-width integers and byte arrays, without padding,
//! and its size is asserted at compile time: both sides are built by different compilers for
//! different targets, and any byte pattern must be a valid value.

#![no_std]

pub mod config;
pub mod connection;
pub mod event;
pub mod layout;
pub mod stack;

/// Marks types that can be read from untrusted bytes.
///
/// # Safety
///
/// The implementor is `#[repr(C)]`, has no padding, and every byte pattern is a valid value.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: an array of integers has no padding, and every byte pattern is valid.
unsafe impl<const N: usize> Plain for [u64; N] {}

/// Asserts a type's size at compile time and declares it [`Plain`].
macro_rules! plain {
    ($type:ty, $size:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        // SAFETY: the type is repr(C), holds only integers and byte arrays, and its asserted size
        // is the sum of its fields, so it has no padding.
        unsafe impl crate::Plain for $type {}
    };
}
pub(crate) use plain;
