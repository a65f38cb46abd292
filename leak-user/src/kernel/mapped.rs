//! Arrays that the kernel programs write and the collector reads in place, without a system call.

use std::os::fd::AsRawFd;
use std::sync::atomic::{Ordering, fence};

use leak_common::Plain;
use leak_common::connection::{Connection, Uses};
use memmap2::{MmapOptions, MmapRaw};

/// A BPF array map, mapped for reading.
#[derive(Debug)]
pub(crate) struct MappedArray<T> {
    memory: MmapRaw,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Plain> MappedArray<T> {
    /// Maps the `len` elements of the map behind `fd`.
    pub(crate) fn new(fd: &impl AsRawFd, len: u32) -> std::io::Result<Self> {
        let len = len as usize;
        // The kernel rounds each element's size up to eight bytes.
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let memory = MmapOptions::new().len(len * size_of::<T>()).map_raw_read_only(fd)?;
        Ok(Self { memory, len, element: std::marker::PhantomData })
    }

    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn element(&self, index: usize) -> Option<*const T> {
        // SAFETY: the index is within the mapping.
        (index < self.len).then(|| unsafe { self.memory.as_ptr().cast::<T>().add(index) })
    }
}

impl MappedArray<Uses> {
    /// Copies a slot's uses; `None` when a use began meanwhile.
    pub(crate) fn uses(&self, index: usize) -> Option<Uses> {
        let slot = self.element(index)?;
        // SAFETY: as below; every byte pattern is a valid Uses.
        unsafe {
            let begun = (&raw const (*slot).begun).read_volatile();
            fence(Ordering::Acquire);
            let uses = slot.read_volatile();
            fence(Ordering::Acquire);
            let after = (&raw const (*slot).begun).read_volatile();
            (uses.begun == begun && after == begun).then_some(uses)
        }
    }
}

impl MappedArray<Connection> {
    /// Copies a slot's connection; `None` when the slot is free or changed hands meanwhile.
    pub(crate) fn connection(&self, index: usize) -> Option<Connection> {
        let slot = self.element(index)?;
        // SAFETY: the pointer is valid for reads; the kernel writes concurrently, so the reads are
        // volatile. Every byte pattern is a valid Connection.
        unsafe {
            let cookie = (&raw const (*slot).cookie).read_volatile();
            if cookie == 0 {
                return None;
            }
            fence(Ordering::Acquire);
            let connection = slot.read_volatile();
            fence(Ordering::Acquire);
            let after = (&raw const (*slot).cookie).read_volatile();
            (connection.cookie == cookie && after == cookie).then_some(connection)
        }
    }
}
