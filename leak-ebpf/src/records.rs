//! The flight recorder's memory: a record for each connection with a request, as long as the stacks of its
//! process need.
//!
//! There is a map for short and one for long ones. An entry is made when it is first needed and removed with its
//! connection, so that what all of it takes follows what is traced.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::HashMap;
use leak_common::stack::{SHORT_STACK, StackHeader, StackRecord};

use crate::maps::{EMPTY_RECORD, LONG_RECORDS, SHORT_RECORDS, constant};

/// A record to write to.
pub(crate) struct Place<'a> {
    pub(crate) header: &'a mut StackHeader,
    /// Where the stack's bytes go.
    pub(crate) bytes: *mut u8,
    /// How many may go there.
    pub(crate) capacity: u32,
}

/// The record of this number, with room for `wanted` bytes if there is memory for so many, or for fewer.
#[inline(always)]
pub(crate) fn place(number: u32, wanted: u32) -> Option<Place<'static>> {
    if wanted > SHORT_STACK as u32
        && let Some(place) = in_map(&LONG_RECORDS, number, &SHORT_RECORDS)
    {
        return Some(place);
    }
    in_map(&SHORT_RECORDS, number, &LONG_RECORDS)
}

/// The record of this number in one of the maps. It is made if need be, and takes the place of the one in the
/// other map.
#[inline(always)]
fn in_map<const N: usize, const M: usize>(
    map: &HashMap<u32, StackRecord<N>>,
    number: u32,
    other: &HashMap<u32, StackRecord<M>>,
) -> Option<Place<'static>> {
    let record = match map.get_ptr_mut(number) {
        Some(record) => record,
        None => {
            let empty = EMPTY_RECORD.get_ptr(0)?.cast::<StackRecord<N>>();
            // SAFETY: a short record is the beginning of a long one, and nobody writes to the empty one.
            let empty = unsafe { &*empty };
            if map.insert(number, empty, u64::from(BPF_NOEXIST)).is_ok() {
                let _ = other.remove(number);
            }
            // Another thread's request may have been first.
            map.get_ptr_mut(number)?
        }
    };
    // SAFETY: the memory is that of an entry of this map for as long as the program runs: of this one, or when
    // its connection ends meanwhile perhaps of another one. Readers ask whose stack it is.
    let record = unsafe { &mut *record };
    Some(Place { header: &mut record.header, bytes: record.bytes.as_mut_ptr(), capacity: N as u32 })
}

/// Gives the memory of all records of a slot back.
#[inline(always)]
pub(crate) fn release(slot: u32) {
    let each = constant!(CONFIG.uses) + 1;
    let mut place = 0;
    while place < each {
        let number = slot * each + place;
        // Which of them has it is not known; absent is as good as removed.
        let _ = SHORT_RECORDS.remove(number);
        let _ = LONG_RECORDS.remove(number);
        place += 1;
    }
}
