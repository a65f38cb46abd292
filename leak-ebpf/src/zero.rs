//! Zeroing memory eight bytes at a time: what the compiler would call does it byte by byte, and the
//! verifier follows every one.

use core::mem::MaybeUninit;

use leak_common::Plain;

/// A value made of zeroes, in `place`.
#[inline(always)]
pub(crate) fn zeroed<T: Plain>(place: &mut MaybeUninit<T>) -> &mut T {
    // SAFETY: the place is there to be written to; then every byte was written, and any are a valid value.
    unsafe {
        zero(place.as_mut_ptr());
        place.assume_init_mut()
    }
}

/// Makes a value one of zeroes.
#[inline(always)]
pub(crate) fn clear<T: Plain>(value: &mut T) {
    // SAFETY: the reference is valid, and any bytes are a valid value.
    unsafe { zero(value) }
}

/// # Safety
///
/// The pointer is valid for writes.
#[inline(always)]
unsafe fn zero<T>(value: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>().is_multiple_of(8)) };
    let words = value.cast::<u64>();
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // Volatile, or they would be made into the call that this is instead of.
        // SAFETY: the word lies within the value.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}
