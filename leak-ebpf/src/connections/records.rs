//! Memory of the flight recorder: a record for each connection with a request, as long as the
//! stacks of its process need.
//!
//! There is a map of short records and one of long ones. An entry is made when it is first needed
//! and removed with its connection, so that the memory in use follows the connections that are
//! traced.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::HashMap;
use leak_common::stack::{RecordNumber, SHORT_STACK, StackHeader, StackRecord};

use crate::maps::{EMPTY_RECORD, LONG_RECORDS, SHORT_RECORDS, constant};

/// Memory for a stack.
pub(crate) struct Place<'a> {
    /// The header.
    pub(crate) header: &'a mut StackHeader,
    /// The stack's bytes.
    pub(crate) bytes: *mut u8,
    /// How many bytes there is room for.
    pub(crate) capacity: u32,
}

/// The record of this number, with room for `wanted` bytes if there is memory for so many, or for
/// fewer.
#[inline(always)]
pub(crate) fn place(number: RecordNumber, wanted: u32) -> Option<Place<'static>> {
    if wanted > SHORT_STACK as u32
        && let Some(place) = in_map(&LONG_RECORDS, number, &SHORT_RECORDS)
    {
        return Some(place);
    }
    in_map(&SHORT_RECORDS, number, &LONG_RECORDS)
}

/// The record of this number in one of the maps. It is made if need be, and replaces the one in the
/// other map.
#[inline(always)]
fn in_map<const N: usize, const M: usize>(
    map: &HashMap<u32, StackRecord<N>>,
    number: RecordNumber,
    other: &HashMap<u32, StackRecord<M>>,
) -> Option<Place<'static>> {
    let key = number.key();
    let record = match map.get_ptr_mut(key) {
        Some(record) => record,
        None => {
            let empty = EMPTY_RECORD.get_ptr(0)?.cast::<StackRecord<N>>();
            // SAFETY: a short record is the beginning of a long one, and nobody writes to the empty
            // one.
            let empty = unsafe { &*empty };
            if map.insert(key, empty, u64::from(BPF_NOEXIST)).is_ok() {
                let _ = other.remove(key);
            }
            // Another thread's request may have been first.
            map.get_ptr_mut(key)?
        }
    };
    // SAFETY: the memory stays that of an entry of this map for as long as the program runs: of
    // this entry or, if its connection ends meanwhile, perhaps of another. Readers check whose it
    // is.
    let record = unsafe { &mut *record };
    Some(Place { header: &mut record.header, bytes: record.bytes.as_mut_ptr(), capacity: N as u32 })
}

/// Frees all records of a slot.
#[inline(always)]
pub(crate) fn release(slot: u32) {
    for number in RecordNumber::all(slot, constant!(CONFIG.uses)) {
        // Which of them has it is not known; absent is as good as removed.
        let _ = SHORT_RECORDS.remove(number.key());
        let _ = LONG_RECORDS.remove(number.key());
    }
}
