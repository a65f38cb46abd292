//! Helpers that keep the verifier's work small.

use core::mem::MaybeUninit;

use bytemuck::Pod;

/// Returns `value`, of which the verifier then knows as little as of `unknown`. Otherwise it would
/// prove all that follows again for each value that it can tell apart.
#[inline(always)]
pub(crate) fn hide(value: u64, unknown: u64) -> u64 {
    core::hint::black_box(value ^ unknown) ^ unknown
}

/// Fills `place` with zeroes.
#[inline(always)]
pub(crate) fn zeroed<T: Pod>(place: &mut MaybeUninit<T>) -> &mut T {
    // SAFETY: the place can be written to; once every byte is written it holds a valid value.
    unsafe {
        zero(place.as_mut_ptr());
        place.assume_init_mut()
    }
}

/// Overwrites a value with zeroes.
#[inline(always)]
pub(crate) fn clear<T: Pod>(value: &mut T) {
    // SAFETY: the reference is valid, and zeroes are a valid value.
    unsafe { zero(value) }
}

/// Writes zeroes eight bytes at a time. The function that the compiler would call instead writes
/// single bytes, and the verifier follows each of them.
///
/// # Safety
///
/// The pointer is valid for writes.
#[inline(always)]
unsafe fn zero<T>(value: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>().is_multiple_of(8)) };
    let words = value.cast::<u64>();
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // Volatile, or the compiler would make the loop into a call of that function.
        // SAFETY: the word lies within the value.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}
