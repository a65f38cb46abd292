//! Arrays that the kernel programs write and the collector reads in place, without a system call.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use bytemuck::Pod;
use leak_common::connection::{Connection, Uses};
use memmap2::{MmapOptions, MmapRaw};

/// Elements that are mapped at first.
const FIRST: usize = 1024;

/// A BPF array map, mapped for reading as far as it is used: all that is mapped counts as this
/// process's memory.
#[derive(Debug)]
pub(crate) struct MappedArray<T> {
    map: OwnedFd,
    memory: MmapRaw,
    /// Elements that are mapped.
    mapped: usize,
    /// Elements of the whole array.
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Pod> MappedArray<T> {
    /// Maps the first of the `len` elements of the map behind `fd`.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        let (map, len) = (fd.try_clone_to_owned()?, len as usize);
        let mapped = FIRST.min(len);
        let memory = map_elements::<T>(&map, mapped)?;
        Ok(Self { map, memory, mapped, len, element: std::marker::PhantomData })
    }

    /// Maps at least the first `elements`, or all if there are fewer.
    pub(crate) fn reach(&mut self, elements: usize) -> io::Result<()> {
        let elements = elements.min(self.len);
        if elements > self.mapped {
            let mapped = elements.next_power_of_two().min(self.len);
            self.memory = map_elements::<T>(&self.map, mapped)?;
            self.mapped = mapped;
        }
        Ok(())
    }

    /// How many elements are mapped.
    pub(crate) fn mapped(&self) -> usize {
        self.mapped
    }

    fn element(&self, index: u32) -> Option<*const T> {
        let index = usize::try_from(index).ok()?;
        // SAFETY: the index is within the mapping.
        (index < self.mapped).then(|| unsafe { self.memory.as_ptr().cast::<T>().add(index) })
    }
}

fn map_elements<T: Pod>(map: &OwnedFd, elements: usize) -> io::Result<MmapRaw> {
    // The kernel rounds each element's size up to eight bytes.
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    MmapOptions::new().len(elements * size_of::<T>()).map_raw_read_only(map.as_raw_fd())
}

impl MappedArray<Uses> {
    /// Copies a slot's uses; `None` when a use began meanwhile.
    pub(crate) fn uses(&self, index: u32) -> Option<Uses> {
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
    pub(crate) fn connection(&self, index: u32) -> Option<Connection> {
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
