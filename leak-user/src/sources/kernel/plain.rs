//! Values of the ABI as bytes.

use leak_common::Plain;

/// A value of the ABI as aya reads it from a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct MapValue<T>(pub(super) T);

// SAFETY: a Plain value has no padding, and any bytes are a valid one.
unsafe impl<T: Plain> aya::Pod for MapValue<T> {}

/// The bytes of a plain value.
pub(super) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: a Plain value has no padding, so all its bytes are initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}
