//! BPF arrays that are read in place, without a system call, while the kernel programs write them.

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use bytemuck::Pod;
use leak_common::connection::{Connection, Uses};
use memmap2::{MmapOptions, MmapRaw};

/// Slots that are mapped at first.
const FIRST: usize = 1024;

/// An element of such an array. Its version tells a reader whether it changed during a copy.
pub(crate) trait Slot: Pod {
    /// Byte offset of the version, a `u64` that the kernel programs change with the slot.
    const VERSION: usize;

    /// Whether a slot of this version is empty.
    fn is_free(version: u64) -> bool;
}

impl Slot for Connection {
    const VERSION: usize = offset_of!(Self, cookie);

    fn is_free(version: u64) -> bool {
        version == 0
    }
}

impl Slot for Uses {
    const VERSION: usize = offset_of!(Self, begun);

    fn is_free(_: u64) -> bool {
        false
    }
}

/// A BPF array map of slots, mapped read-only up to the highest slot in use: all of a mapping
/// counts as this process's memory.
#[derive(Debug)]
pub(crate) struct MappedSlots<T> {
    map: OwnedFd,
    memory: MmapRaw,
    /// Slots that are mapped.
    mapped: usize,
    /// Slots of the whole array.
    len: usize,
    slot: std::marker::PhantomData<T>,
}

impl<T: Slot> MappedSlots<T> {
    /// Maps the first of the `len` slots of the map behind `fd`.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        let (map, len) = (fd.try_clone_to_owned()?, len as usize);
        let mapped = FIRST.min(len);
        let memory = map_slots::<T>(&map, mapped)?;
        Ok(Self { map, memory, mapped, len, slot: std::marker::PhantomData })
    }

    /// Maps at least the first `slots`, or all if there are fewer.
    pub(crate) fn reach(&mut self, slots: usize) -> io::Result<()> {
        let slots = slots.min(self.len);
        if slots > self.mapped {
            let mapped = slots.next_power_of_two().min(self.len);
            self.memory = map_slots::<T>(&self.map, mapped)?;
            self.mapped = mapped;
        }
        Ok(())
    }

    /// How many slots are mapped.
    pub(crate) fn mapped(&self) -> usize {
        self.mapped
    }

    /// Copies a slot; `None` when it is free or its version changed during the copy.
    pub(crate) fn snapshot(&self, index: u32) -> Option<T> {
        let index = usize::try_from(index).ok().filter(|&index| index < self.mapped)?;
        // SAFETY: the slot is within the mapping and the version within the slot, aligned as a
        // field of it. The kernel writes concurrently, so the reads are volatile, and every byte
        // pattern is a valid T.
        unsafe {
            let slot = self.memory.as_ptr().cast::<T>().add(index);
            let version = slot.byte_add(T::VERSION).cast::<u64>();
            let before = version.read_volatile();
            if T::is_free(before) {
                return None;
            }
            fence(Ordering::Acquire);
            let copy = slot.read_volatile();
            fence(Ordering::Acquire);
            let copied = (&raw const copy).byte_add(T::VERSION).cast::<u64>().read();
            (copied == before && version.read_volatile() == before).then_some(copy)
        }
    }
}

fn map_slots<T: Pod>(map: &OwnedFd, slots: usize) -> io::Result<MmapRaw> {
    // The kernel rounds each element's size up to eight bytes.
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    MmapOptions::new().len(slots * size_of::<T>()).map_raw_read_only(map.as_raw_fd())
}
