//! Values of the ABI in maps.

use bytemuck::Pod;

/// A value of the ABI as aya reads it from a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct MapValue<T>(pub(super) T);

// SAFETY: aya asks for the same as bytemuck: no padding, and any bytes are a valid value.
unsafe impl<T: Pod> aya::Pod for MapValue<T> {}
